// What the tools make of a log, told of a cluster's story: what is whole is found whole, and every harm is found.
import ControlMessages
import ControlPlane
import LogAnalysis
import Testing

/// A story's records and commands as a log, to be read as the tools do.
struct StoryLog {
  var events: [EventRecord]
  var commands: [CommandRecord]

  init(_ story: ClusterStory) {
    events = story.records
    commands = story.commands.enumerated().map { index, command in
      CommandRecord(
        offset: Offset(UInt64(index)),
        timestamp: story.records.first { $0.offset == command.decision.offset }?.timestamp ?? .zero, command: command)
    }
  }

  func verify(snapshots: [RecordedSnapshot] = [], startsAtNewest: Bool = false) -> ClusterVerifier {
    var verifier = ClusterVerifier(
      cluster: Samples.cluster, partition: 1, snapshots: snapshots, startsAtNewest: startsAtNewest)
    var next = commands.makeIterator()
    for event in events { verifier.take(event) { next.next() } }
    verifier.finish { next.next() }
    return verifier
  }

  /// The state after each of these offsets, as a replica would have taken it.
  func snapshots(after offsets: [UInt64]) -> [RecordedSnapshot] {
    var core = ClusterCore(cluster: Samples.cluster)
    var taken: [RecordedSnapshot] = []
    for event in events {
      _ = core.apply(event)
      guard offsets.contains(event.offset.value) else { continue }
      let records = SnapshotAssembly.records(of: core, bytes: [1], writer: 1, commandsOffset: Offset(0))
      guard case .manifest(let manifest) = records.last else { continue }
      taken.append(RecordedSnapshot(manifest: manifest, core: core))
    }
    return taken
  }

  func replay(from: UInt64 = 0, to: UInt64 = .max, instead: [Event.Body] = []) -> [Replay.Difference] {
    var replay = Replay(cluster: Samples.cluster, partition: 1, range: Offset(from)...Offset(to), instead: instead)
    var next = commands.makeIterator()
    return events.compactMap { event in replay.take(event) { next.next() } }
  }

  func lives() -> [RecordedLife] {
    var lives = NodeLives()
    for command in commands { lives.take(command) }
    for event in events { lives.take(event) }
    return lives.all
  }

  func why(_ slot: UInt64) -> CauseChain? {
    CauseChain.trace(
      Slot(slot), command: { slot in commands.first { $0.command.slot == slot } },
      event: { at in events.first { $0.offset == at } },
      intent: { at in
        events.last { event in
          guard event.offset <= at else { return false }
          switch event.event.body {
          case .clusterApplied, .clusterDeleted: return true
          default: return false
          }
        }
      })
  }
}

@Suite struct LogAnalysisTests {
  /// Two runtimes and a switch serve; one runtime is killed, comes again, and the cluster shrinks to one runtime.
  static let story: ClusterStory = {
    var (story, launches) = ClusterStory.running()
    let again = story.exit(launches[1], .signal(9), after: 50)
    story.start(again.first { $0.launch != nil }!, after: 250)
    story.wait(seconds: 2)
    var small = Samples.spec
    small.runtimes = 1
    let stops = story.apply(small, after: 100).filter { $0.stopped != nil }
    let stopped = stops[0].stopped!
    let launch = story.commands.compactMap(\.launch).last { $0.node == stopped.node && $0.incarnation == stopped.incarnation }!
    story.exit(launch, .code(0), after: 40)
    story.wait(seconds: 2)
    return story
  }()
  static let log = StoryLog(story)

  private func kinds(_ verifier: ClusterVerifier) -> [Finding.Kind] { verifier.findings.kept.map(\.kind) }

  // MARK: verify

  @Test func `a log that is whole has no findings, and every command is decided again`() {
    let verifier = Self.log.verify()
    #expect(verifier.findings.kept == [])
    #expect(verifier.agreedCount == UInt64(Self.log.commands.count) && verifier.agreedCount > 5)
  }

  @Test func `a command that was changed is found, in whatever field`() {
    let changes: [(String, (inout Command) -> Void)] = [
      ("target", { $0.target = .cluster }), ("reason", { $0.reason += "!" }), ("hash", { $0.stateHash ^= 1 }),
      ("expiry", { $0.expiry = .zero }), ("decision", { $0.decision.index += 1 }),
      ("body", { $0.body = .stopNode(NodeID(9)!, Incarnation(9)) }),
      ("correlation", { $0.correlation = "x" }),
    ]
    for (name, change) in changes {
      var log = Self.log
      change(&log.commands[2].command)
      let found = log.verify()
      #expect(kinds(found) == [name == "hash" ? .differentState : .differentDecision], "\(name)")
      #expect(found.findings.kept.first?.slot == Slot(3), "\(name)")
    }
  }

  @Test func `a slot that is missing stops every reader, and is named`() {
    var log = Self.log
    log.commands.remove(at: 1)
    let found = log.verify().findings
    #expect(found.kept.last { $0.kind == .missingSlot }?.slot == Slot(2))
    #expect(found.faultCount > 0)
  }

  @Test func `the commands' missing end is told as commands that nobody wrote`() {
    var log = Self.log
    log.commands.removeLast(2)
    let verifier = log.verify()
    #expect(kinds(verifier) == [.unwrittenCommands] && verifier.unwrittenCount == 2)
    #expect(verifier.findings.faultCount == 0)
  }

  @Test func `copies of a slot are harmless when they say the same, and found when they do not`() {
    var log = Self.log
    log.commands.insert(log.commands[1], at: 4)
    #expect(kinds(log.verify()) == [] && log.verify().copyCount == 1)
    log.commands[4].command.reason = "another"
    #expect(kinds(log.verify()) == [.differentCopy])
  }

  @Test func `a command that no event leads to is found`() {
    var log = Self.log
    var last = log.commands.last!
    last.command.slot = last.command.slot.next
    log.commands.append(last)
    #expect(kinds(log.verify()) == [.unexplainedCommand])
  }

  @Test func `each fact that is missing is found, by its number or by its decisions`() {
    for (index, record) in Self.log.events.enumerated().dropLast() where record.event.body.lane == .facts {
      // The last fact of a producer leaves no hole behind it.
      let hasLater = Self.log.events[(index + 1)...].contains {
        $0.event.producer == record.event.producer && $0.event.incarnation == record.event.incarnation
          && $0.event.body.lane == .facts
      }
      var log = Self.log
      log.events.remove(at: index)
      let found = log.verify()
      #expect(found.findings.faultCount > 0, "\(record.event.body.name) at \(record.offset)")
      if hasLater && index > 0 { #expect(kinds(found).contains(.missingEvents), "\(record.event.body.name) at \(record.offset)") }
    }
  }

  @Test func `a log without its beginning is not decided again, and says so`() {
    var check = PartitionCheck(LogPartition(ServiceTopics.events, 1))
    check.take(Offset(5), Timestamp(milliseconds: 1))
    #expect(check.findings.kept.map(\.kind) == [.missingBeginning])
    var log = Self.log
    log.events.removeFirst(3)
    #expect(!kinds(log.verify()).contains(.differentDecision))
  }

  @Test func `every snapshot is recomputed, and one that holds another state is found`() {
    let offsets: [UInt64] = [2, 5, 9]
    var snapshots = Self.log.snapshots(after: offsets)
    let whole = Self.log.verify(snapshots: snapshots)
    #expect(whole.agreedSnapshots == 3 && whole.findings.kept == [])
    _ = snapshots[1].core?.apply(
      EventRecord(offset: Offset(1_000), timestamp: Timestamp(milliseconds: 1), event: Self.log.events[0].event))
    snapshots[2].core = nil
    let harmed = Self.log.verify(snapshots: snapshots.reversed())
    #expect(harmed.agreedSnapshots == 1)
    #expect(kinds(harmed) == [.differentSnapshot, .unreadableSnapshot] && harmed.findings.faultCount == 1)
    // One of another log: nothing of this one stands where it says.
    snapshots[0].manifest.position = Offset(5_000)
    #expect(Self.log.verify(snapshots: [snapshots[0]]).findings.kept == [])
  }

  @Test func `where the beginning is gone, everything since the oldest snapshot that will do is decided again`() {
    let snapshots = Self.log.snapshots(after: [2, 5, 9])
    var log = Self.log
    log.events.removeFirst(4)
    let verifier = log.verify(snapshots: snapshots)
    #expect(verifier.start?.position == Offset(5))
    #expect(kinds(verifier) == [.missingEvents, .beginsAtSnapshot] || kinds(verifier).contains(.beginsAtSnapshot))
    #expect(verifier.agreedSnapshots == 1 && verifier.core == Self.log.verify().core)
    let decidedLater = Self.log.commands.count { $0.command.slot > snapshots[1].manifest.slot }
    #expect(verifier.agreedCount == UInt64(decidedLater) && decidedLater > 0)
    // And what was changed since is found.
    log.commands[log.commands.count - 1].command.reason += "!"
    #expect(kinds(log.verify(snapshots: snapshots)).contains(.differentDecision))
    // Without one that reaches to what is left, nothing can be decided.
    #expect(log.verify(snapshots: [snapshots[0]]).agreedCount == 0)
  }

  @Test func `a verification may begin at the newest snapshot`() {
    let snapshots = Self.log.snapshots(after: [2, 5, 9])
    let verifier = Self.log.verify(snapshots: snapshots, startsAtNewest: true)
    #expect(verifier.start?.position == Offset(9) && verifier.findings.faultCount == 0)
    #expect(verifier.core == Self.log.verify().core && verifier.agreedCount < UInt64(Self.log.commands.count))
  }

  @Test func `records that are missing, repeated or moved are found by their places`() {
    func findings(_ offsets: [UInt64]) -> [Finding.Kind] {
      var check = PartitionCheck(LogPartition(ServiceTopics.events, 1))
      for offset in offsets { check.take(Offset(offset), Timestamp(milliseconds: 100 + offset)) }
      return check.findings.kept.map(\.kind)
    }
    #expect(findings([0, 1, 2, 3]) == [])
    #expect(findings([0, 1, 3]) == [.missingRecords])
    #expect(findings([0, 1, 1, 2]) == [.repeatedRecord])
    // The time of a moved record goes back with it.
    #expect(findings([0, 2, 1, 3]) == [.missingRecords, .repeatedRecord, .timeWentBack])
  }

  @Test func `a critical event of a newer version ends what can be decided`() {
    var story = Self.story
    story.say(.unknown(UnknownBody(tag: 60, record: [])), by: .tool(9), isCritical: true)
    story.wait(seconds: 1)
    #expect(kinds(StoryLog(story).verify()) == [.newerVersion])
  }

  @Test(arguments: 1...20) func `whatever happened, what was decided is decided again`(seed: Int) {
    let log = StoryLog(ClusterWorld.run(seed: UInt64(seed), steps: 150).story)
    let verifier = log.verify()
    #expect(verifier.findings.faultCount == 0, "seed \(seed): \(verifier.findings.kept)")
    #expect(verifier.agreedCount == UInt64(log.commands.count))
    #expect(log.replay() == [], "seed \(seed)")
  }

  // MARK: replay

  @Test func `a replay of what happened differs nowhere`() {
    #expect(Self.log.replay() == [])
    #expect(Self.log.replay(from: 5, to: 9) == [])
  }

  @Test func `a replay with another spec launches what it asks for`() {
    var larger = Samples.spec
    larger.runtimes = 3
    let differences = Self.log.replay(instead: [.clusterApplied(larger)])
    let added = differences.flatMap(\.added).compactMap(\.launch)
    #expect(added.contains { $0.node == NodeID(4) })
    // The operator's later wish for a single runtime is passed over, too, so nothing is stopped.
    #expect(differences.flatMap(\.dropped).contains { $0.stopped != nil })
  }

  @Test func `a replay from the middle keeps what was decided before`() throws {
    var smaller = Samples.spec
    smaller.runtimes = 1
    let from = try #require(Self.log.events.first { if case .processExited = $0.event.body { true } else { false } }).offset
    let differences = Self.log.replay(from: from.value, instead: [.clusterApplied(smaller)])
    #expect(differences.allSatisfy { $0.offset >= from })
    // The runtime with the highest number has to go at once, not two seconds later.
    #expect(differences.first?.offset == from && differences[0].added.contains { $0.stopped?.node == NodeID(3) })
  }

  // MARK: why

  @Test func `a launch leads back to the operator's wish`() throws {
    let chain = try #require(Self.log.why(1))
    guard case .command(let first) = chain.steps[0], case .event(let second) = chain.steps[1] else { throw WrongSteps() }
    #expect(first.command.launch?.kind == .virtualSwitch)
    #expect(second.event.body.name == "agent-started")
    #expect(chain.intent?.offset == Offset(0))
    #expect(Self.log.why(10_000) == nil)
  }

  @Test func `causes are followed through answers and commands, and never in a circle`() throws {
    var log = Self.log
    // The agent's start answered nothing; let it claim that the last command caused it, and then an earlier one.
    let index = try #require(log.events.firstIndex { $0.offset == log.commands[0].command.decision.offset })
    log.events[index].event.causation = .command(log.commands.last!.command.slot)
    #expect(try #require(log.why(1)).steps.last == .lost("the command in slot \(log.commands.last!.command.slot)"))
    let last = log.commands.last!.command
    let at = try #require(log.events.firstIndex { $0.offset == last.decision.offset })
    log.events[at].event.causation = .command(Slot(2))
    #expect(try #require(log.why(last.slot.number)).steps.count == 5)
  }

  struct WrongSteps: Error {}

  // MARK: audit

  @Test func `lives tell who was launched when, how long it took, and how it ended`() throws {
    let lives = Self.log.lives()
    #expect(lives.map { "\($0.node)/\($0.incarnation)" } == ["1/1", "2/1", "3/1", "2/2"])
    let killed = lives[1]
    #expect(killed.ending == "signal 9" && killed.hasFailed && killed.startup == 200)
    let stopped = try #require(lives.first { $0.stopSlot != nil })
    #expect(stopped.ending == "exit code 0" && !stopped.hasFailed && stopped.stopReason == "1 runtime nodes wanted")
  }

  @Test func `a recovery is from the end of one life to the start of the next`() throws {
    let recoveries = NodeRecovery.all(in: Self.log.lives())
    #expect(recoveries.count == 1)
    #expect(recoveries[0].failed.ending == "signal 9" && recoveries[0].successor?.incarnation == Incarnation(2))
    #expect(recoveries[0].downtime == 250)
  }

  @Test func `intents tell from what to what, and how long it took`() {
    var history = IntentHistory(cluster: Samples.cluster)
    for event in Self.log.events { history.take(event) }
    #expect(
      history.entries.map { "\($0.before) -> \($0.after): \($0.outcome)" } == [
        "0 runtimes, 0 switches -> 2 runtimes, 1 switches: complete",
        "2 runtimes, 1 switches -> 1 runtimes, 1 switches: complete",
      ])
    #expect(history.entries[1].duration == 40)
  }
}
