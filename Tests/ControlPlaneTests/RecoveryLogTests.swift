// What the tools make of a log with recoveries and with a switch's takeover: told, explained, decided again, and found harmed.
import ControlMessages
import ControlPlane
import LogAnalysis
import Testing

@testable import nfvctl

@Suite struct RecoveryLogTests {
  /// Two replicas of each flow on four runtimes, nodes 2 to 5. Nodes 2 and 3 die in one instant; node 4 recovers the flows
  /// of both, and new lives take their places.
  static let cluster: ReplicatedCluster = {
    var cluster = ReplicatedCluster(runtimes: 4, replicas: 2)
    var commands = cluster.story.exit(cluster.launch(2))
    commands += cluster.story.exit(cluster.launch(3), after: 1)
    let last = commands.last { $0.body.name == "recover" }!
    cluster.story.time += 30
    cluster.finishRecovery(last, by: 4, recovered: 1_500)
    for command in commands where command.launch != nil { cluster.begin(command) }
    cluster.beat(milliseconds: 500)
    cluster.protectAll()
    return cluster
  }()
  static let log = StoryLog(cluster.story)
  static var recoveries: [CommandRecord] { log.commands.filter { $0.command.body.name == "recover" } }

  /// Two switches; the one with the uplinks dies, and the other one has asked the runtimes for the routes.
  static let takeover: (log: StoryLog, slot: Slot) = {
    var story = ClusterStory()
    story.say(.rulesActivated(DecisionRules.newest), by: .tool(9), isCritical: true)
    var spec = Samples.spec
    (spec.runtimes, spec.switches) = (2, 2)
    story.agent("a")
    story.agent("b")
    let launches = story.apply(spec).filter { $0.launch != nil }
    for command in launches { story.start(command, after: 100) }
    story.wait(seconds: 1)
    let table = story.exit(launches[0].launch!).first!
    var end = RecoveryFinished(slot: table.slot, node: NodeID(2)!, lost: NodeLife(NodeID(1)!, Incarnation(1)))
    end.recovered = 12
    story.say(.recoveryFinished(end), by: .node(.virtualSwitch, Samples.cluster, NodeID(2)!), after: 4)
    story.wait(seconds: 1)
    return (StoryLog(story), table.slot)
  }()

  /// Where the operator's wish stands, which a replay exchanges.
  private static func applied(_ log: StoryLog) -> UInt64 {
    log.events.first { $0.event.body.name == "cluster-applied" }?.offset.value ?? 0
  }

  private func kinds(_ verifier: ClusterVerifier) -> [Finding.Kind] { verifier.findings.kept.map(\.kind) }

  // MARK: verify

  @Test func `a log with recoveries, or with a takeover, is whole`() {
    for log in [Self.log, Self.takeover.log] {
      let verifier = log.verify()
      #expect(verifier.findings.kept == [])
      #expect(verifier.agreedCount == UInt64(log.commands.count))
      #expect(log.replay() == [])
    }
    #expect(Self.recoveries.count == 2)
  }

  @Test func `a recovery that was changed is named by its slot, whoever was put in`() throws {
    let changes: [(inout Recovery) -> Void] = [
      { $0.by = NodeLife(NodeID(5)!, Incarnation(1)) }, { $0.by = nil }, { $0.standby = nil },
      { $0.standby = NodeLife(NodeID(2)!, Incarnation(1)) }, { $0.lost.incarnation = Incarnation(2) },
    ]
    for change in changes {
      for record in Self.recoveries {
        var log = Self.log
        let index = try #require(log.commands.firstIndex(of: record))
        guard case .recover(var recovery) = record.command.body else { throw WrongCommand() }
        change(&recovery)
        log.commands[index].command.body = .recover(recovery)
        let found = log.verify()
        #expect(kinds(found) == [.differentDecision])
        #expect(found.findings.kept.first?.slot == record.command.slot)
        #expect(found.findings.kept.first?.sentence.contains("they differ in body") == true, "\(found.findings.kept)")
      }
    }
  }

  @Test func `a recovery that was taken out is named, also when the later slots were moved up`() throws {
    for record in Self.recoveries {
      var log = Self.log
      let index = try #require(log.commands.firstIndex(of: record))
      log.commands.remove(at: index)
      #expect(log.verify().findings.kept.first { $0.kind == .missingSlot }?.slot == record.command.slot)
      for later in index..<log.commands.count { log.commands[later].command.slot = Slot(log.commands[later].command.slot.number - 1) }
      let found = log.verify().findings
      #expect(found.kept.first { $0.kind == .differentDecision }?.slot == record.command.slot)
    }
  }

  @Test func `an assignment of holders that was changed is named`() throws {
    for change in [{ $0.second = nil }, { swap(&$0.holder, &$0.second) }] as [(inout ReplicaAssignment) -> Void] {
      var log = Self.log
      let index = try #require(log.commands.firstIndex { $0.command.body.name == "set-replicas" })
      guard case .setReplicas(var assignment) = log.commands[index].command.body else { throw WrongCommand() }
      change(&assignment)
      log.commands[index].command.body = .setReplicas(assignment)
      let found = log.verify()
      #expect(kinds(found) == [.differentDecision] && found.findings.kept.first?.slot == log.commands[index].command.slot)
    }
  }

  @Test func `the word that a life has ended cannot be taken out unnoticed`() throws {
    for (index, record) in Self.log.events.enumerated() {
      guard case .processExited = record.event.body else { continue }
      var log = Self.log
      log.events.remove(at: index)
      #expect(log.verify().findings.faultCount > 0)
    }
  }

  @Test func `a takeover that was changed or taken out is named`() throws {
    let (log, slot) = Self.takeover
    let index = try #require(log.commands.firstIndex { $0.command.slot == slot })
    guard case .notifyClusterConfig(var table) = log.commands[index].command.body else { throw WrongCommand() }
    #expect(table.uplinks == .only(NodeLife(NodeID(2)!, Incarnation(1))))
    for holder in [NodeLife(NodeID(1)!, Incarnation(1)), nil] {
      var changed = log
      table.uplinks = .only(holder)
      changed.commands[index].command.body = .notifyClusterConfig(table)
      let found = changed.verify()
      #expect(kinds(found) == [.differentDecision] && found.findings.kept.first?.slot == slot)
    }
    var without = log
    without.commands.remove(at: index)
    #expect(without.verify().findings.kept.first { $0.kind == .missingSlot }?.slot == slot)
  }

  // MARK: replay

  @Test func `a replay with one replica recovers without a standby, and the second death is a loss`() throws {
    var spec = Self.cluster.state.spec!
    spec.replicas = 1
    let differences = Self.log.replay(from: Self.applied(Self.log), instead: [.clusterApplied(spec)])
    let added = differences.flatMap(\.added).map(\.line).map(Self.cluster.withoutSlot)
    #expect(added.contains("replicas of 2/1 on 3/1"))
    #expect(added.contains("recover 2/1 by 3/1"))
    #expect(differences.flatMap(\.dropped).contains { $0.line.hasSuffix("recover 2/1 by 3/1, 4/1 stands by") })
  }

  @Test func `a replay with one switch has nobody to take over`() {
    var spec = Samples.spec
    (spec.runtimes, spec.switches) = (2, 1)
    let differences = Self.takeover.log.replay(from: Self.applied(Self.takeover.log), instead: [.clusterApplied(spec)])
    let tables = differences.flatMap(\.added).compactMap(\.table)
    #expect(tables.contains { $0.uplinks == .only(nil) })
    #expect(!tables.contains { $0.uplinks == .only(NodeLife(NodeID(2)!, Incarnation(1))) })
  }

  // MARK: why

  @Test func `a recovery leads back to the end of the life, and to what its agent saw`() throws {
    for (record, node) in zip(Self.recoveries, [2, 3] as [UInt32]) {
      let chain = try #require(Self.log.why(record.command.slot.number))
      guard case .command(let command) = chain.steps[0], case .event(let event) = chain.steps[1],
        case .processExited(let exited) = event.event.body
      else { throw WrongCommand() }
      #expect(command.command == record.command && exited.node.number == node)
      #expect(command.command.reason.hasPrefix("node \(node) life 1 killed by signal 9; node"))
      #expect(chain.intent?.event.body.name == "cluster-applied")
    }
  }

  @Test func `a takeover leads back to the end of the switch`() throws {
    let chain = try #require(Self.takeover.log.why(Self.takeover.slot.number))
    guard case .command(let command) = chain.steps[0], case .event(let event) = chain.steps[1] else { throw WrongCommand() }
    #expect(command.command.reason.contains("node 2 life 1 takes over the uplinks: node 1 life 1 has ended"))
    #expect(event.event.body.name == "process-exited")
  }

  // MARK: audit

  @Test func `an audit tells that the standby went on with what the heir had begun`() throws {
    var history = RecoveryHistory()
    for record in Self.log.commands { history.take(record) }
    for record in Self.log.events { history.take(record) }
    let (first, second) = (Self.recoveries[0], Self.recoveries[1])
    let heir = NodeLife(NodeID(4)!, Incarnation(1))
    let passed = try #require(history[NodeLife(NodeID(2)!, Incarnation(1))])
    #expect(passed.slot == first.command.slot && passed.outcome == .passedOn(heir, second.command.slot))
    #expect(passed.endedAt == second.timestamp)
    let last = try #require(history[NodeLife(NodeID(3)!, Incarnation(1))])
    #expect(last.outcome == .completed && last.recovered == 1_500)
  }

  @Test func `an audit tells of flows whose heir ended with nobody standing by`() throws {
    var cluster = ReplicatedCluster(runtimes: 4)
    cluster.story.exit(cluster.launch(2))
    cluster.story.exit(cluster.launch(3))
    let log = StoryLog(cluster.story)
    var history = RecoveryHistory()
    for record in log.commands { history.take(record) }
    for record in log.events { history.take(record) }
    #expect(history[NodeLife(NodeID(2)!, Incarnation(1))]?.outcome == .abandoned(NodeLife(NodeID(3)!, Incarnation(1))))
  }

  // MARK: get recoveries

  @Test func `recoveries are a table of the state, with what became of each`() {
    let listings = RecoveryStateListing.all(of: Self.cluster.state)
    #expect(listings.map(\.progress) == [.passedOn, .recovered])
    let rows = OutputFormat.text.list(listings).split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
    #expect(rows[0] == ["CLUSTER", "NODE", "LIFE", "ENDED", "STATE", "BY", "STANDBY", "RECOVERED", "REFUSED", "TOOK", "PROBLEM"])
    #expect(rows[1][0..<3] == ["web", "2", "1"] && rows[1][4...] == ["passed-on", "3", "4", "0", "0", "1ms"])
    #expect(rows[2][0..<3] == ["web", "3", "1"] && rows[2][4...] == ["recovered", "4", "5", "1500", "0", "30ms"])
  }

  @Test func `a recovery is an object with who, when and how many`() throws {
    let listing = try #require(RecoveryStateListing.all(of: Self.cluster.state).last)
    for (name, value) in [
      ("node", 3), ("incarnation", 1), ("by", 4), ("byIncarnation", 1), ("standby", 5), ("standbyIncarnation", 1), ("recovered", 1_500),
      ("refused", 0), ("durationMilliseconds", 30),
    ] as [(String, Int)] {
      #expect(listing.json[name] == JSON.number(value), "\(name)")
    }
    #expect(listing.json["state"] == .string("recovered") && listing.json["problem"] == .string(""))
    #expect(listing.json["settledAt"] != nil && listing.json["endedAt"] != nil)
  }

  @Test func `recoveries that run, that failed and that had nobody are told apart`() {
    var cluster = ReplicatedCluster(runtimes: 3)
    cluster.story.exit(cluster.launch(2))
    #expect(RecoveryStateListing.all(of: cluster.state).map(\.progress) == [.running])
    cluster.story.exit(cluster.launch(3))
    cluster.story.exit(cluster.launch(4))
    let listings = RecoveryStateListing.all(of: cluster.state)
    #expect(listings.map(\.progress) == [.failed, .failed, .failed])
    #expect(listings[0].lost.problem == "node 3 life 1 ended before it had recovered all flows")
    #expect(listings[2].cells[5] == "-", "nobody has them")
  }

  // MARK: get runtimes

  @Test func `both places of a runtime's replicas are shown, and which of them is on its way`() {
    var cluster = ReplicatedCluster(runtimes: 4, replicas: 2, isProtected: false)
    func shown(_ node: Int) -> (text: String, json: JSON) {
      let listing = NodeListing(cluster.state.node(NodeID(UInt32(node))!)!, of: cluster.state)
      return (listing.cells[11], listing.json)
    }
    #expect(shown(2).text == "going to 3 and 4")
    cluster.protectAll()
    #expect(shown(2).text == "on 3 and 4")
    #expect(shown(2).json["replicasOn"] == .number(3) && shown(2).json["secondReplicaOn"] == .number(4))
    cluster.story.exit(cluster.launch(3))
    #expect(shown(2).text == "on 4, going to 5")
    #expect(shown(2).json["protected"] == .bool(false))
    #expect(shown(2).json["unprotected"] == .string("only 1 replica of its flows; they are on their way to node 5 life 1"))
    var two = ReplicatedCluster(runtimes: 2, replicas: 2)
    #expect(NodeListing(two.state.node(NodeID(2)!)!, of: two.state).cells[11] == "on 3")
    let load = two.count(2)
    #expect(load.isEmpty)
    let text = NodeDescription(NodeListing(two.state.node(NodeID(2)!)!, of: two.state)).text
    #expect(text.contains("Unprotected:   only 1 replica of its flows; no other runtime could hold the second"), "\(text)")
    cluster.count(2)
    #expect(NodeDescription(NodeListing(cluster.state.node(NodeID(2)!)!, of: cluster.state)).text.contains("on node 4 life 1 and node 5 life 1"))
  }

  @Test func `a description of a cluster says how many replicas the rules in force go for`() {
    let old = ReplicatedCluster(runtimes: 3, replicas: 2, rules: DecisionRules.excusedSilence).state
    #expect(ClusterDescription(ClusterListing(old, partition: 1), old, []).text.contains("2 of each flow (1 under decision rules 7); all runtimes protected"))
    let new = Self.cluster.state
    #expect(ClusterDescription(ClusterListing(new, partition: 1), new, []).text.contains("2 of each flow; all runtimes protected"))
  }

  struct WrongCommand: Error {}
}
