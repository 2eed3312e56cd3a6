// Policies as stories: what the load is, what is done about it, and what the command says why.
import ControlMessages
import ControlPlane
import Testing

@Suite struct ScalingTests {
  @Test func `a runtime that loses packets gets company, and the command says why`() {
    var cluster = BeatingCluster(runtimes: 1)
    let commands = cluster.scale(by: .drops(maximum: 2)) { $0.load(2, drops: 412, forSeconds: 2) }
    let launch = commands.first { $0.launch != nil }
    #expect(launch?.launch?.node == NodeID(3))
    #expect(launch?.reason.hasPrefix("policy drop-threshold@") == true)
    #expect(
      launch?.reason.contains(": node 2 lost 412 packets in 500 ms, more than 100, for 750 ms; 1 -> 2 runtimes") == true,
      "\(launch?.reason ?? "")")
    #expect(cluster.state.wanted(.runtime) == 2)
    #expect(commands.compactMap(\.launch).count == 1, "one at a time, and never beyond the limit")
  }

  @Test func `drops at the threshold, drops of a firewall and a short burst are no overload`() {
    var cluster = BeatingCluster(runtimes: 1)
    #expect(cluster.scale(by: .drops()) { $0.load(2, drops: 100, forSeconds: 3) }.compactMap(\.launch).isEmpty)
    #expect(cluster.scale(by: .drops()) { $0.load(2, drops: 500, reason: "denied", forSeconds: 3) }.compactMap(\.launch).isEmpty)
    let burst = cluster.scale(by: .drops()) {
      $0.load(2, drops: 500, forSeconds: 0)
      $0.load(2, drops: 0, forSeconds: 3)
    }
    #expect(burst.compactMap(\.launch).isEmpty)
  }

  @Test func `when idle the least loaded drains, and stops when its flows have ended`() {
    var cluster = BeatingCluster(runtimes: 3)
    var drained = cluster.scale(by: .drops(minimum: 2)) { cluster in
      for _ in 0..<14 { for node in [2, 3, 4] as [UInt32] { cluster.load(node, flows: 10, packets: node == 3 ? 100 : 1_000) } }
    }
    #expect(drained.filter { $0.body.name == "drain-runtime" }.map(\.target) == [.node(NodeID(3)!, Incarnation(1))])
    #expect(drained.last { $0.body.name == "drain-runtime" }?.reason.contains("3 runtimes are 1 % busy on average") == true)
    #expect(drained.compactMap(\.table).last?.members.map(\.state) == [.serving, .serving, .stopping, .serving])
    #expect(drained.compactMap(\.stopped).isEmpty, "it still has flows")
    drained = cluster.story.commands
    cluster.load(3, flows: 0)
    #expect(cluster.story.commands.dropFirst(drained.count).compactMap(\.stopped).map(\.node) == [NodeID(3)!])
    // Neither is the next one let go: two is the least.
    let count = cluster.story.commands.count
    for _ in 0..<40 { for node in [2, 4] as [UInt32] { cluster.load(node, flows: 10) } }
    #expect(cluster.story.commands.dropFirst(count).filter { $0.body.name == "drain-runtime" }.isEmpty)
  }

  @Test func `a drain that takes too long ends all the same, and so does the draining of a deleted cluster`() {
    for isDeleted in [false, true] {
      var cluster = BeatingCluster(runtimes: 2)
      cluster.scale(by: .drops()) { cluster in
        for _ in 0..<14 { for node in [2, 3] as [UInt32] { cluster.load(node, flows: 10) } }
      }
      #expect(cluster.state.nodes.filter { $0.drain != nil }.count == 1)
      let count = cluster.story.commands.count
      if isDeleted {
        cluster.story.say(.clusterDeleted(Samples.cluster), by: .tool(1))
        #expect(cluster.story.commands.dropFirst(count).compactMap(\.stopped).count == 3)
      } else {
        cluster.beat(milliseconds: 61_000)
        #expect(cluster.story.commands.dropFirst(count).compactMap(\.stopped).count >= 1)
      }
    }
  }

  @Test func `target utilisation has a target, a tolerance and no haste`() {
    var cluster = BeatingCluster(runtimes: 2)
    var policy = ScalingPolicy(.targetUtilisation(.init()))
    policy.maximumRuntimes = 4
    #expect(cluster.scale(by: policy) { $0.load(2, busy: 700_000, and: 3) }.compactMap(\.launch).isEmpty, "within the tolerance")
    let up = cluster.scale(by: policy) { $0.load(2, busy: 710_000, and: 3) }.filter { $0.launch != nil }
    #expect(up.count == 1)
    #expect(up[0].reason.contains("2 runtimes are 71 % busy on average, above 70 %"), "\(up[0].reason)")
    #expect(cluster.state.scaling.target == 3)
  }

  @Test func `an operator's new count is where the policy goes on from, and manual gives him the count back`() {
    var cluster = BeatingCluster(runtimes: 1)
    cluster.scale(by: .drops()) { $0.load(2, drops: 412, forSeconds: 2) }
    #expect(cluster.state.wanted(.runtime) == 2)
    var spec = cluster.state.spec!
    spec.runtimes = 3
    cluster.story.apply(spec)
    #expect(cluster.state.wanted(.runtime) == 3)
    cluster.story.say(.policyActivated(.drops(maximum: 2)), by: .tool(6))
    #expect(cluster.state.wanted(.runtime) == 2, "a limit holds at once")
    cluster.story.say(.policyActivated(ScalingPolicy(.manual)), by: .tool(7))
    #expect(cluster.state.wanted(.runtime) == 3)
  }

  @Test func `where runtimes can migrate, half the load moves, 500 flows at a time`() {
    var cluster = BeatingCluster(runtimes: 1)
    cluster.story.say(
      .nodeStarted(
        NodeStarted(
          node: NodeID(2)!, kind: .runtime, host: cluster.launches[1].host, processID: 1, ports: Samples.ports, startup: 1,
          canMigrate: true)),
      by: .node(.runtime, Samples.cluster, NodeID(2)!))
    let up = cluster.scale(by: .drops(maximum: 2)) { $0.load(2, flows: 2_600, drops: 300, forSeconds: 2) }
    let launch = up.compactMap(\.launch)[0]
    #expect(cluster.state.scaling.moves.map(\.goal) == [1_300])
    #expect(!cluster.story.commands.contains { $0.body.name == "set-migration-target" }, "the target does not serve yet")
    var asked = cluster.story.say(
      .nodeStarted(
        NodeStarted(
          node: launch.node, kind: .runtime, host: launch.host, processID: 1, ports: Samples.ports, startup: 1, canMigrate: true)),
      by: .node(.runtime, Samples.cluster, launch.node))
    var lines: [String] = []
    while let move = asked.first(where: { $0.body.name == "set-migration-target" }) {
      lines.append(String(move.line.drop { $0 != " " }.dropFirst()))
      asked = cluster.story.say(
        .commandAcknowledged(.init(slot: move.slot, by: .node(NodeID(2)!), outcome: .completed)),
        by: .node(.runtime, Samples.cluster, NodeID(2)!))
    }
    #expect(lines == ["move 500 flows from 2 to 3", "move 500 flows from 2 to 3", "move 300 flows from 2 to 3"])
    #expect(cluster.state.scaling.moves.isEmpty)
  }

  @Test func `a move without an answer is cancelled`() {
    var cluster = BeatingCluster(runtimes: 1)
    cluster.startMigrating(2)
    let launch = cluster.scale(by: .drops(maximum: 2)) { $0.load(2, flows: 2_000, drops: 300, forSeconds: 2) }.compactMap(
      \.launch)[0]
    cluster.startMigrating(launch.node.number, on: launch.host)
    let commands = cluster.beat(milliseconds: 31_000)
    #expect(commands.filter { $0.body.name == "cancel-migration" }.count == 1)
    #expect(cluster.state.scaling.moves.isEmpty)
  }

  @Test func `under rules 1 a policy rests`() {
    var cluster = BeatingCluster(runtimes: 1, rules: DecisionRules.first)
    #expect(cluster.scale(by: .drops()) { $0.load(2, drops: 900, forSeconds: 3) }.compactMap(\.launch).isEmpty)
    #expect(cluster.state.wanted(.runtime) == 1)
  }
}

extension ScalingPolicy {
  static func drops(minimum: UInt32 = 1, maximum: UInt32 = 8) -> ScalingPolicy {
    var policy = ScalingPolicy(.dropThreshold(.init()))
    policy.minimumRuntimes = minimum
    policy.maximumRuntimes = maximum
    policy.drainTimeout = 60_000
    policy.cooldown = 1_000
    return policy
  }
}

extension BeatingCluster {
  /// Activates a policy, lets the cooldown pass and returns what the load then leads to.
  @discardableResult
  mutating func scale(by policy: ScalingPolicy, _ load: (inout BeatingCluster) -> Void) -> [Command] {
    story.say(.policyActivated(policy), by: .tool(story.core.state.clock.now.milliseconds), isCritical: true)
    beat(milliseconds: policy.cooldown)
    let count = story.commands.count
    load(&self)
    return Array(story.commands.dropFirst(count))
  }

  /// A workload event of a node at the end of each interval, and signs of life in between.
  mutating func load(
    _ node: UInt32, flows: UInt64 = 0, drops: UInt64 = 0, reason: String = "missed-by-port", packets: UInt64 = 500,
    busy: UInt32 = 10_000,
    and other: UInt32? = nil, forSeconds seconds: Int = 0
  ) {
    for _ in 0...(other == nil ? seconds * 2 : 6) {
      for node in [node, other].compactMap({ $0 }) {
        var load = NodeWorkload(node: NodeID(node)!, interval: 500)
        load.activeFlows = flows
        load.droppedPackets = drops
        load.forwardedPackets = packets
        load.busyShare = busy
        if drops > 0 { load.drops = [.init(reason: reason, packets: drops)] }
        story.say(.workload(load), by: .node(.runtime, Samples.cluster, NodeID(node)!))
      }
      beat(milliseconds: 500)
    }
  }

  mutating func startMigrating(_ node: UInt32, on host: HostID? = nil) {
    let host = host ?? launches.first { $0.node.number == node }!.host
    story.say(
      .nodeStarted(
        NodeStarted(
          node: NodeID(node)!, kind: .runtime, host: host, processID: 1, ports: Samples.ports, startup: 1, canMigrate: true)),
      by: .node(.runtime, Samples.cluster, NodeID(node)!))
  }
}
