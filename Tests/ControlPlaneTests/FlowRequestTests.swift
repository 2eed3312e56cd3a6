// Operators' requests about flows as stories: what is asked, what is refused and why, what follows, how it ends.
import ControlMessages
import ControlPlane
import LogAnalysis
import Testing

@Suite struct FlowRequestTests {
  @Test func `a move becomes a command of its request, its progress is counted, and it ends with the answer`() throws {
    var cluster = MigratingCluster(runtimes: 2)
    let commands = cluster.ask(move: 300, from: 2, to: 3)
    let command = try #require(commands.first)
    #expect(commands.count == 1)
    #expect(command.line.hasSuffix("move 300 flows from 2 to 3"))
    #expect(command.reason == "an operator's request: 300 of 300 flows")
    #expect(command.correlation == "migrate-1")
    #expect(command.target == .node(NodeID(2)!, Incarnation(1)))
    cluster.answer(command, .progress(done: 120, of: 300))
    #expect(cluster.request.moved == 120 && cluster.request.outcome == .open)
    cluster.answer(command, .progress(done: 300, of: 300))
    cluster.answer(command, .progress(done: 300, of: 300))
    cluster.answer(command, .completed)
    #expect(cluster.request.moved == 300 && cluster.request.outcome == .completed)
    #expect(cluster.state.scaling.moves.isEmpty)
  }

  @Test func `a source that has fewer flows than were asked for is asked once`() {
    var cluster = MigratingCluster(runtimes: 2)
    let command = cluster.ask(move: 1_000_000, from: 2, to: 3)[0]
    cluster.answer(command, .progress(done: 70, of: 100_000))
    #expect(cluster.lines(cluster.answer(command, .completed)).isEmpty)
    #expect(cluster.request.moved == 70 && cluster.request.outcome == .completed)
  }

  @Test func `many flows go in several commands, and a source is at one of them at a time`() {
    var cluster = MigratingCluster(runtimes: 3)
    var commands = cluster.ask(move: 150_000, from: 2, to: 3)
    commands += cluster.ask(move: 10, from: 2, to: 4)
    #expect(cluster.lines(commands) == ["move 100000 flows from 2 to 3"])
    cluster.answer(commands[0], .progress(done: 100_000, of: 100_000))
    commands = cluster.answer(commands[0], .completed)
    #expect(cluster.lines(commands) == ["move 50000 flows from 2 to 3"])
    cluster.answer(commands[0], .progress(done: 900, of: 50_000))
    commands = cluster.answer(commands[0], .completed)
    #expect(cluster.lines(commands) == ["move 10 flows from 2 to 4"])
    #expect(cluster.state.requests.map(\.moved) == [100_900, 0])
    #expect(cluster.state.requests.map(\.outcome) == [.completed, .open])
  }

  @Test(
    arguments: [
      (2, 2, 5, "source and target are the same"), (2, 3, 0, "no flows were asked for"), (2, 9, 5, "there is no node 9"),
      (9, 2, 5, "there is no node 9"), (1, 2, 5, "node 1 is a switch"), (2, 4, 5, "node 4 cannot migrate flows"),
    ] as [(UInt32, UInt32, UInt64, String)])
  func `a move that cannot be is refused with the reason`(source: UInt32, target: UInt32, flows: UInt64, reason: String) {
    var cluster = MigratingCluster(runtimes: 3, migrating: [2, 3])
    #expect(cluster.ask(move: flows, from: source, to: target).isEmpty)
    #expect(cluster.request.outcome == .failed(reason))
    #expect(cluster.state.scaling.moves.isEmpty)
  }

  @Test func `the source's refusal, silence and the end of the target end a request`() {
    var cluster = MigratingCluster(runtimes: 2)
    var command = cluster.ask(move: 5, from: 2, to: 3)[0]
    cluster.answer(command, .rejected(reason: "another migration is going on"))
    #expect(cluster.request.outcome == .failed("another migration is going on"))

    command = cluster.ask(move: 5, from: 2, to: 3)[0]
    let commands = cluster.inner.beat(milliseconds: 31_000)
    #expect(commands.filter { $0.body == .cancelMigration(command.slot) }.count == 1)
    #expect(cluster.request.outcome == .failed("no answer within 30000 ms"))

    _ = cluster.ask(move: 5, from: 2, to: 3)
    cluster.inner.story.exit(cluster.inner.launches.first { $0.node == NodeID(3) }!)
    #expect(cluster.request.outcome == .failed("node 3 has ended"))
  }

  @Test func `a runtime that is drained gets no new flows, gives its flows away in equal parts, and stays`() {
    var cluster = MigratingCluster(runtimes: 4)
    cluster.inner.load(2, flows: 100)
    let commands = cluster.ask(drain: 2, .keep)
    #expect(commands.first?.body == .drainRuntime(NodeID(2)!, Incarnation(1)))
    #expect(commands.compactMap(\.table).last?.members.map(\.state) == [.serving, .stopping, .serving, .serving, .serving])
    #expect(
      cluster.drainMoves(commands) == ["move 34 flows from 2 to 3", "move 34 flows from 2 to 4", "move 32 flows from 2 to 5"])
    #expect(cluster.request.moved == 100 && cluster.request.outcome == .open, "whether any are left, its workload tells")
    // Two came late.
    let count = cluster.inner.story.commands.count
    cluster.inner.load(2, flows: 2)
    let late = Array(cluster.inner.story.commands.dropFirst(count))
    #expect(cluster.drainMoves(late) == ["move 1 flows from 2 to 3", "move 1 flows from 2 to 4"])
    cluster.inner.load(2, flows: 0, forSeconds: 2)
    #expect(cluster.request.moved == 102 && cluster.request.outcome == .completed)
    #expect(cluster.inner.story.commands.compactMap(\.stopped).isEmpty)
    #expect(cluster.inner.story.commands.compactMap(\.launch).count == 5, "and nobody takes its place")
  }

  @Test func `one that is to stop afterwards is replaced, and stops when it is empty`() {
    var cluster = MigratingCluster(runtimes: 2)
    cluster.inner.load(2, flows: 10)
    let commands = cluster.ask(drain: 2, .stop)
    let launched = (commands + cluster.inner.beat(milliseconds: 1_000)).compactMap(\.launch).map(\.node)
    #expect(launched == [NodeID(4)!])
    #expect(cluster.drainMoves(commands) == ["move 10 flows from 2 to 3"])
    let count = cluster.inner.story.commands.count
    cluster.inner.load(2, flows: 0, forSeconds: 2)
    #expect(cluster.inner.story.commands.dropFirst(count).compactMap(\.stopped).map(\.node) == [NodeID(2)!])
    #expect(cluster.request.outcome == .completed)
  }

  @Test func `a kept runtime is taken back, or is the first to go when fewer are wanted`() {
    var cluster = MigratingCluster(runtimes: 2)
    _ = cluster.ask(drain: 2, .keep)
    var commands = cluster.ask(drain: 2, .undo)
    commands += cluster.inner.beat(milliseconds: 200)
    #expect(cluster.state.requests.map(\.outcome) == [.failed("it was taken back"), .completed])
    #expect(commands.compactMap(\.table).last?.members.map(\.state) == [.serving, .serving, .serving])

    _ = cluster.ask(drain: 2, .keep)
    var spec = cluster.state.spec!
    spec.runtimes = 1
    #expect(cluster.inner.story.apply(spec).compactMap(\.stopped).map(\.node) == [NodeID(2)!])
    #expect(cluster.request.outcome == .failed("node 2 no longer serves"))
  }

  @Test func `the last one that serves cannot be drained, and nobody moves flows to one that drains`() {
    var cluster = MigratingCluster(runtimes: 2)
    _ = cluster.ask(drain: 2, .keep)
    #expect(cluster.ask(drain: 3, .keep).isEmpty)
    #expect(cluster.request.outcome == .failed("no other runtime serves"))
    #expect(cluster.ask(move: 4, from: 3, to: 2).isEmpty)
    #expect(cluster.request.outcome == .failed("node 2 drains"))
    #expect(cluster.ask(drain: 3, .undo).isEmpty)
    #expect(cluster.request.outcome == .failed("node 3 does not drain"))
  }

  @Test func `under rules 2 requests are passed over, as by programs that do not know them`() {
    var cluster = MigratingCluster(runtimes: 2, rules: DecisionRules.failureDetection)
    let before = cluster.state.ignored.misdirected
    #expect(cluster.ask(move: 5, from: 2, to: 3).isEmpty && cluster.ask(drain: 2, .keep).isEmpty)
    #expect(cluster.state.requests.isEmpty && cluster.state.scaling.moves.isEmpty)
    #expect(cluster.state.ignored.misdirected == before + 2)
  }

  @Test func `the log tells each migration's end, whichever of its two topics is read first`() {
    var cluster = MigratingCluster(runtimes: 2)
    let done = cluster.ask(move: 40, from: 2, to: 3)[0]
    cluster.answer(done, .progress(done: 39, of: 40))
    cluster.inner.story.say(
      .migrationFinished(Samples.finished(done.slot, moved: 39)), by: .node(.runtime, Samples.cluster, NodeID(2)!))
    cluster.answer(done, .completed)
    let refused = cluster.ask(move: 7, from: 3, to: 2)[0]
    cluster.answer(refused, .rejected(reason: "no"))
    let silent = cluster.ask(move: 8, from: 2, to: 3)[0]
    cluster.inner.beat(milliseconds: 31_000)
    let log = StoryLog(cluster.inner.story)
    var histories = [MigrationHistory(), MigrationHistory()]
    for command in log.commands { histories[0].take(command) }
    for event in log.events { histories.indices.forEach { histories[$0].take(event) } }
    for command in log.commands { histories[1].take(command) }
    for history in histories {
      #expect(history.all.map(\.slot) == [done, refused, silent].map(\.slot))
      #expect(
        history.all.map(\.outcome) == [
          .completed, .rejected("no"), .cancelled("an operator's request: no answer within 30000 ms"),
        ])
      #expect(history.all.map(\.moved) == [39, 0, 0])
      #expect(history.all[0].numbers?.refused == 1)
      #expect(history.all[0].correlation == "migrate-1")
    }
  }

  @Test func `requests are remembered within bounds, and open ones are not forgotten`() {
    var cluster = MigratingCluster(runtimes: 2)
    _ = cluster.ask(move: 7, from: 2, to: 3)
    for _ in 0..<50 { _ = cluster.ask(move: 0, from: 2, to: 3) }
    #expect(cluster.state.requests.count == ClusterState.maximumRequests)
    #expect(cluster.state.requests.first?.outcome == .open)
  }
}

extension Samples {
  static func finished(_ slot: Slot, moved: UInt64) -> MigrationFinished {
    var end = MigrationFinished(slot: slot, node: NodeID(2)!)
    (end.wanted, end.moved, end.refused) = (moved + 1, moved, 1)
    return end
  }
}

/// A cluster whose runtimes can migrate, and an operator.
struct MigratingCluster {
  var inner: BeatingCluster
  private var runs: UInt64 = 0
  private var last = Offset(0)

  var state: ClusterState { inner.state }
  var request: ClusterState.FlowRequest { state.request(at: last)! }

  init(runtimes: UInt32, migrating: [UInt32]? = nil, rules: UInt32 = DecisionRules.newest) {
    inner = BeatingCluster(runtimes: runtimes, rules: rules)
    for launch in inner.launches where launch.kind == .runtime {
      let node = launch.node
      inner.story.say(
        .nodeStarted(
          NodeStarted(
            node: node, kind: .runtime, host: launch.host, processID: 1, ports: Samples.ports, startup: 1,
            canMigrate: migrating?.contains(node.number) ?? true)),
        by: .node(.runtime, Samples.cluster, node))
    }
    inner.beat(milliseconds: 200)
  }

  private mutating func ask(_ body: Event.Body, _ verb: String) -> [Command] {
    runs += 1
    last = Offset(UInt64(inner.story.records.count))
    var author = EventAuthor(producer: .tool(1_000 + runs), incarnation: Incarnation(1))
    return inner.story.append(author.write(body, correlation: "\(verb)-\(runs)", isCritical: true))
  }

  mutating func ask(move flows: UInt64, from source: UInt32, to target: UInt32) -> [Command] {
    ask(.moveRequested(MoveRequest(source: NodeID(source)!, target: NodeID(target)!, flows: flows)), "migrate")
  }

  mutating func ask(drain node: UInt32, _ afterwards: DrainRequest.Afterwards) -> [Command] {
    ask(.drainRequested(DrainRequest(node: NodeID(node)!, afterwards: afterwards)), "drain")
  }

  @discardableResult
  mutating func answer(_ command: Command, _ outcome: CommandAcknowledgement.Outcome) -> [Command] {
    guard case .node(let node, _) = command.target else { return [] }
    return inner.story.say(
      .commandAcknowledged(.init(slot: command.slot, by: .node(node), outcome: outcome)),
      by: .node(.runtime, Samples.cluster, node))
  }

  func lines(_ commands: [Command]) -> [String] {
    commands.filter { $0.body.name == "set-migration-target" }.map { String($0.line.drop { $0 != " " }.dropFirst()) }
  }

  /// Carries out the moves among the commands, and those that follow; returns them.
  mutating func drainMoves(_ commands: [Command]) -> [String] {
    var found: [String] = []
    var commands = commands
    while let command = commands.first(where: { $0.body.name == "set-migration-target" }),
      case .setMigrationTarget(let move) = command.body
    {
      found += lines([command])
      answer(command, .progress(done: UInt64(move.flows), of: UInt64(move.flows)))
      commands = answer(command, .completed)
    }
    return found
  }
}
