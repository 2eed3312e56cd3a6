// Coordinators on a real bus: an embedded one in this process, spoken to as any Kafka.
import ControlCodec
import ControlMessages
import ControlNodes
import ControlPlane
import EmbeddedBus
import Foundation
import KafkaLog
import Logging
import Synchronization
import Testing

@Suite(.serialized) struct CoordinatorTests {
  @Test func `what is applied is launched, and a restarted coordinator issues nothing again`() throws {
    let bus = try TestBus()
    defer { bus.stop() }
    let operatorLog = try bus.writer(.tool(1), partition: 0)
    let intents = try bus.writer(.tool(1), partition: 1)
    let agent = try bus.writer(.agent(Samples.host), partition: 1)

    let first = TestCoordinator(bus, name: "one")
    try bus.waitForTopics()
    try operatorLog.say(.clusterRegistered(Samples.cluster))
    try intents.say(.clusterApplied(Samples.spec))
    try agent.say(.agentStarted(AgentStarted(host: Samples.host, cores: 4, runtimePorts: 4, switchPorts: 1)))
    let launches = try bus.commands(atLeast: 3)
    #expect(launches.map(\.line) == [
      "1 launch switch 1/1 on lab-1", "2 launch runtime 2/1 on lab-1, share 0/4", "3 launch runtime 3/1 on lab-1, share 1/4",
    ])
    first.stop()

    // While nobody decides, a runtime starts and another dies.
    let life = launches[1].launch!
    let runtime = try bus.writer(.node(.runtime, Samples.cluster, life.node), partition: 1, life: life.incarnation)
    try runtime.say(
      .nodeStarted(
        NodeStarted(node: life.node, kind: .runtime, host: Samples.host, processID: 1, ports: Samples.ports, startup: 1)))
    let dead = launches[2].launch!
    try agent.say(
      .processExited(ProcessExited(host: dead.host, node: dead.node, incarnation: dead.incarnation, ending: .signal(9))))

    let second = TestCoordinator(bus, name: "two")
    let all = try bus.commands(atLeast: 5)
    #expect(all.dropFirst(3).map(\.line) == [
      "4 table 1: 1/1 starting, 2/1 serving, 3/1 starting", "5 launch runtime 3/2 on lab-1, share 1/4",
    ])
    second.stop()

    // A third that has nothing to do does nothing.
    let third = TestCoordinator(bus, name: "three")
    try bus.waitForBeacon(by: "three")
    third.stop()
    #expect(try bus.commands(atLeast: 5) == all)
  }

  @Test func `two coordinators at once agree on every slot`() throws {
    let bus = try TestBus()
    defer { bus.stop() }
    let coordinators = [TestCoordinator(bus, name: "one"), TestCoordinator(bus, name: "two")]
    try bus.waitForTopics()
    try bus.writer(.tool(1), partition: 0).say(.clusterRegistered(Samples.cluster))
    let agent = try bus.writer(.agent(Samples.host), partition: 1)
    try agent.say(.agentStarted(AgentStarted(host: Samples.host, cores: 4, runtimePorts: 4, switchPorts: 1)))
    try bus.writer(.tool(1), partition: 1).say(.clusterApplied(Samples.spec))
    // A runtime dies as often as it is launched. The agent has to be heard, or nothing is launched on its host.
    var taken = 0
    for _ in 0..<4 {
      try agent.say(.agentHeartbeat(Samples.host))
      let launches = try bus.taken(atLeast: taken + 1).dropFirst(taken)
      taken += launches.count
      for life in launches.compactMap(\.launch) where life.kind == .runtime {
        try agent.say(.processExited(ProcessExited(host: life.host, node: life.node, incarnation: life.incarnation, ending: .code(1))))
      }
    }
    for coordinator in coordinators { coordinator.stop() }
    let copies = try bus.commands(atLeast: taken)
    var bySlot: [Slot: Command] = [:]
    for command in copies { #expect(bySlot[command.slot, default: command] == command); bySlot[command.slot] = command }
    #expect(bySlot.keys.map(\.number).sorted() == Array(1...UInt64(bySlot.count)))

    let follower = try ClusterFollower(bus.settings, only: Samples.cluster)
    try follower.catchUp(timeoutMilliseconds: 10_000)
    let cluster = try #require(follower.cluster(Samples.cluster))
    #expect(cluster.outbox.divergence == nil)
    #expect(cluster.outbox.missingCount == 0)
    #expect(cluster.state.lastSlot.number == UInt64(bySlot.count))
  }

  @Test func `a record that cannot be read stops nobody, and has one letter however often it is found`() throws {
    let bus = try TestBus()
    defer { bus.stop() }
    let first = TestCoordinator(bus, name: "one")
    try bus.waitForTopics()
    try bus.writer(.tool(1), partition: 0).say(.clusterRegistered(Samples.cluster))
    let raw = try KafkaProducer(bus.settings, profile: .facts)
    _ = try raw.sendAndWait(topic: ServiceTopics.events, partition: 1, value: Array("not a record".utf8))
    try bus.writer(.tool(1), partition: 1).say(.clusterApplied(Samples.spec))
    let agent = try bus.writer(.agent(Samples.host), partition: 1)
    try agent.say(.agentStarted(AgentStarted(host: Samples.host, cores: 4, runtimePorts: 4, switchPorts: 1)))
    #expect(try bus.commands(atLeast: 3).count == 3)
    let letters = try bus.letters(atLeast: 1)
    first.stop()
    let second = TestCoordinator(bus, name: "two")
    try bus.waitForBeacon(by: "two")
    _ = try raw.sendAndWait(topic: ServiceTopics.events, partition: 1, value: [])
    let both = try bus.letters(atLeast: 2)
    second.stop()
    #expect(both.count == 2)
    #expect(both.first == letters.first)
    #expect(both.map(\.topic) == [ServiceTopics.events, ServiceTopics.events])
    #expect(both.map(\.reason) == ["not a record in the wire format", "version is missing"])
  }

  @Test func `without a bus a coordinator keeps trying, and ends when asked`() {
    let coordinator = TestCoordinator(bootstrap: "127.0.0.1:1", name: "alone")
    Thread.sleep(forTimeInterval: 0.3)
    #expect(coordinator.isRunning)
    coordinator.stop()
    #expect(!coordinator.isRunning)
  }
}
