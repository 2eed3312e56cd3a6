// Three coordinators on a real bus, killed, stopped and started while commands flow.
import ControlMessages
import ControlNodes
import ControlPlane
import Foundation
import KafkaLog
import Testing

@Suite(.serialized) struct CoordinatorReplicaTests {
  private static func spec(runtimes: UInt32) -> ClusterSpec {
    var spec = Samples.spec
    spec.poolShares = 32
    spec.runtimes = runtimes
    // Nobody here gives signs of life.
    spec.heartbeatInterval = 60_000
    return spec
  }

  /// Says of every life that was launched since that it has started.
  private func start(_ commands: ArraySlice<Command>, _ bus: TestBus) throws {
    for launch in commands.compactMap(\.launch) {
      let node = try bus.writer(.node(launch.kind, launch.cluster, launch.node), partition: 1, life: launch.incarnation)
      try node.say(
        .nodeStarted(
          NodeStarted(node: launch.node, kind: launch.kind, host: launch.host, processID: 1, ports: Samples.ports, startup: 1)))
    }
  }

  @Test(.enabled(if: CoordinatorProcess.path != nil, "nfv-coordinator is not beside the tests"))
  func `of three coordinators any may be killed, stopped or started, and each command is there once`() throws {
    let bus = try TestBus()
    defer { bus.stop() }
    let names = ["one", "two", "three"]
    var coordinators: [CoordinatorProcess] = []
    defer { for coordinator in coordinators { coordinator.send(SIGCONT); coordinator.send(SIGKILL) } }
    for name in names { coordinators.append(try CoordinatorProcess(bus, name: name)) }
    try bus.waitForTopics()
    try bus.writer(.tool(1), partition: 0).say(.clusterRegistered(Samples.cluster))
    let agent = try bus.writer(.agent(Samples.host), partition: 1)
    try agent.say(.agentStarted(AgentStarted(host: Samples.host, cores: 64, runtimePorts: 40, switchPorts: 4)))
    let intents = try bus.writer(.tool(1), partition: 1)
    try intents.say(.clusterApplied(Self.spec(runtimes: 1)))
    let reader = try CommandReader(bus)
    try reader.wait(forNodes: 2)
    try start(reader.taken[...], bus)
    for name in names { try bus.waitForBeacon(by: name) }

    // Each round wants one runtime more, and does harm just before.
    var count = 2
    for round in 0..<9 {
      let victim = round % 3
      switch round / 3 {
      case 0:
        coordinators[victim].send(SIGKILL)
      case 1:
        coordinators[victim].send(SIGSTOP)
      default:
        coordinators[victim].send(SIGKILL)
        coordinators[(victim + 1) % 3].send(SIGSTOP)
      }
      try agent.say(.agentHeartbeat(Samples.host))
      let began = ContinuousClock.now
      try intents.say(.clusterApplied(Self.spec(runtimes: UInt32(round + 2))))
      count += 1
      let known = reader.taken.count
      try reader.wait(forNodes: count)
      if ProcessInfo.processInfo.environment["NFV_FIGURES"] != nil {
        print("FIGURE round \(round): \(ContinuousClock.now - began)")
      }
      try start(reader.taken[known...], bus)
      if round / 3 != 1 { coordinators[victim] = try CoordinatorProcess(bus, name: names[victim]) }
      for coordinator in coordinators { coordinator.send(SIGCONT) }
      // A process needs a second to come up; the next round must not hit the only one that is.
      try bus.waitForBeacon(by: names[victim], life: round / 3 == 1 ? 0 : coordinators[victim].startedAt)
    }
    let copies = try bus.commands(atLeast: reader.taken.count)
    var bySlot: [Slot: Command] = [:]
    for command in copies { #expect(bySlot[command.slot, default: command] == command); bySlot[command.slot] = command }
    #expect(bySlot.keys.map(\.number).sorted() == Array(1...UInt64(bySlot.count)))
    #expect(reader.taken.map(\.slot.number) == Array(1...UInt64(reader.taken.count)))
    let lives = bySlot.values.compactMap(\.launch).map { "\($0.node)/\($0.incarnation)" }
    #expect(Set(lives).count == lives.count, "nothing was launched twice")
    try expectAgreement(bus)
  }

  @Test func `a coordinator that starts from a snapshot goes on where the log ends`() throws {
    let bus = try TestBus()
    defer { bus.stop() }
    let first = TestCoordinator(bus, name: "one", snapshotInterval: 20)
    try bus.waitForTopics()
    try bus.writer(.tool(1), partition: 0).say(.clusterRegistered(Samples.cluster))
    let agent = try bus.writer(.agent(Samples.host), partition: 1)
    try agent.say(.agentStarted(AgentStarted(host: Samples.host, cores: 4, runtimePorts: 16, switchPorts: 1)))
    let intents = try bus.writer(.tool(1), partition: 1)
    try intents.say(.clusterApplied(Self.spec(runtimes: 2)))
    #expect(try bus.taken(atLeast: 3).count == 3)
    var found: SnapshotManifest?
    try bus.wait {
      let follower = try ClusterFollower(bus.settings, only: Samples.cluster, startsFromSnapshots: true)
      try follower.catchUp(timeoutMilliseconds: 10_000)
      found = follower.cluster(Samples.cluster)?.snapshot
      return found.map { $0.slot == Slot(3) } ?? false
    }
    first.stop()

    let whole = try ClusterFollower(bus.settings, only: Samples.cluster)
    let fromSnapshot = try ClusterFollower(bus.settings, only: Samples.cluster, startsFromSnapshots: true)
    var told: (whole: Int, tail: Int) = (0, 0)
    try whole.catchUp(timeoutMilliseconds: 10_000) { if case .event = $0 { told.whole += 1 } }
    try fromSnapshot.catchUp(timeoutMilliseconds: 10_000) { if case .event = $0 { told.tail += 1 } }
    #expect(told.tail < told.whole)
    #expect(whole.cluster(Samples.cluster)?.core == fromSnapshot.cluster(Samples.cluster)?.core)

    let second = TestCoordinator(bus, name: "two")
    try bus.waitForBeacon(by: "two")
    try agent.say(.agentHeartbeat(Samples.host))
    try intents.say(.clusterApplied(Self.spec(runtimes: 3)))
    #expect(try bus.taken(atLeast: 4).map(\.slot.number) == [1, 2, 3, 4])
    second.stop()
    #expect(try bus.commands(atLeast: 4).count == 4, "nothing was written again")
    try expectAgreement(bus)
  }

  @Test func `coordinators put the newest rules in force when all of them can follow`() throws {
    let bus = try TestBus()
    defer { bus.stop() }
    let coordinators = ["one", "two"].map { TestCoordinator(bus, name: $0) }
    try bus.waitForTopics()
    try bus.writer(.tool(1), partition: 0).say(.clusterRegistered(Samples.cluster))
    try bus.wait {
      let follower = try ClusterFollower(bus.settings, only: Samples.cluster)
      try follower.catchUp(timeoutMilliseconds: 10_000)
      return follower.cluster(Samples.cluster)?.state.rules == DecisionRules.newest
    }
    for coordinator in coordinators { coordinator.stop() }
    try expectAgreement(bus)
  }

  /// Whoever folds the log comes to the commands in it, and to the hashes in every beacon.
  private func expectAgreement(_ bus: TestBus) throws {
    let judge = try ClusterFollower(bus.settings, only: Samples.cluster, replica: .coordinator(HostID("judge")!))
    try judge.catchUp(timeoutMilliseconds: 10_000)
    let cluster = try #require(judge.cluster(Samples.cluster))
    #expect(cluster.outbox.divergence == nil)
    #expect(cluster.agreement?.disagreements == [])
  }
}
