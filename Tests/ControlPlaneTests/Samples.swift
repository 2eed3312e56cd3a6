// One record of every kind, with every field set to something that is not its default.
import ControlMessages

enum Samples {
  static let cluster = ClusterID("web")!
  static let host = HostID("lab-1")!
  static let node = NodeID(3)!
  static let ports = NodePorts(
    input: HardwareAddress(bits: 0x0200_0000_0001), output: HardwareAddress(bits: 0x0200_0000_0002),
    control: HardwareAddress(bits: 0x02ff_ffff_ffff))

  static let chain: ServiceChainSpec = {
    var flows = FlowTableSpec()
    flows.capacity = 1_000
    flows.ipv6Capacity = 10
    flows.midstream = .accept
    flows.tcpTransitoryTimeout = 1
    flows.tcpEstablishedTimeout = 2
    flows.udpTimeout = 3
    flows.icmpTimeout = 4
    flows.otherTimeout = 5
    let settings = Settings(
      .map([
        Settings.Entry("pool", Settings(.list([Settings(.scalar("192.0.2.1"), line: 4), Settings(.list([]), line: 5)]), line: 3)),
        Settings.Entry("name", Settings(.scalar("Grüße"), line: 6)),
        Settings.Entry("empty", Settings(.map([]), line: 7)),
      ]), line: 2)
    return ServiceChainSpec(
      functions: [
        .init(kind: "firewall", settings: Settings(.map([]), line: 1)), .init(kind: "nat", settings: settings),
      ], flows: flows)
  }()

  static let network = NetworkSpec(
    client: .init(
      addresses: [InterfaceAddress(address: 0x0a00_0001, prefixLength: 24)!], gateway: 0x0a00_00fe,
      answersFor: [AddressRange(first: 0x0a00_0064, last: 0x0a00_0066)!]),
    server: .init(addresses: [InterfaceAddress(address: 0x0a00_0101, prefixLength: 32)!]))

  static let spec: ClusterSpec = {
    var spec = ClusterSpec(name: cluster, chain: chain, runtimes: 2, switches: 1, network: network)
    spec.poolShares = 4
    spec.heartbeatInterval = 20
    spec.workloadInterval = 400
    spec.polling = .adaptive
    return spec
  }()

  static let workload: NodeWorkload = {
    var load = NodeWorkload(node: node, interval: 500)
    load.receivedPackets = 1
    load.forwardedPackets = 2
    load.droppedPackets = 3
    load.drops = [.init(reason: "no-route", packets: 2), .init(reason: "malformed", packets: 1)]
    load.receivedBytes = 4
    load.forwardedBytes = 5
    load.activeFlows = 6
    load.flowsCreated = 7
    load.flowsExpired = 8
    load.busyShare = 900_000
    load.capacity = 65_536
    return load
  }()

  static let launch = LaunchSpec(
    cluster: cluster, node: node, incarnation: Incarnation(9), kind: .runtime, host: host, chain: chain,
    poolShare: PoolShare(index: 1, of: 4)!, network: nil, heartbeatInterval: 20, workloadInterval: 400, polling: .adaptive)

  static let switchLaunch: LaunchSpec = {
    var spec = launch
    spec.kind = .virtualSwitch
    spec.poolShare = .whole
    spec.network = network
    return spec
  }()

  static let table = ClusterTable(
    version: 7,
    members: [
      .init(
        node: NodeID(1)!, kind: .virtualSwitch, incarnation: Incarnation(2), host: host, state: .serving, ports: ports,
        load: .init(activeFlows: 1, busyShare: 2, dropsPerSecond: 3)),
      .init(node: NodeID(2)!, kind: .runtime, incarnation: Incarnation(1), host: host, state: .starting),
      .init(node: NodeID(3)!, kind: .runtime, incarnation: Incarnation(1), host: host, state: .dead),
      .init(node: NodeID(4)!, kind: .runtime, incarnation: Incarnation(1), host: host, state: .stopping),
    ])

  private static func table(withUplinks holder: NodeLife?) -> ClusterTable {
    var table = table
    table.uplinks = .only(holder)
    return table
  }

  static let tableWithShares: ClusterTable = {
    var shared = table
    shared.members[1].poolShare = PoolShare(index: 0, of: 4)
    shared.members[2].poolShare = PoolShare(index: 3, of: 4)
    return shared
  }()

  static let bodies: [(name: String, body: Event.Body)] = [
    ("tick", .tick),
    ("heartbeat", .heartbeat(Heartbeat(node: node, workerLoops: 1 << 40, busyLoops: 77))),
    ("workload", .workload(workload)),
    ("node-started", .nodeStarted(
      NodeStarted(node: node, kind: .runtime, host: host, processID: 4_242, ports: ports, startup: 210))),
    ("node-stopping", .nodeStopping(node)),
    ("acknowledged-received", .commandAcknowledged(.init(slot: Slot(5), by: .host(host), outcome: .received))),
    ("acknowledged-applied", .commandAcknowledged(.init(slot: Slot(5), by: .node(node), outcome: .applied))),
    ("acknowledged-rejected", .commandAcknowledged(.init(slot: Slot(5), by: .host(host), outcome: .rejected(reason: "no port")))),
    ("acknowledged-progress", .commandAcknowledged(.init(slot: Slot(5), by: .node(node), outcome: .progress(done: 3, of: 9)))),
    ("acknowledged-completed", .commandAcknowledged(.init(slot: Slot(5), by: .node(node), outcome: .completed))),
    ("agent-started", .agentStarted(AgentStarted(host: host, cores: 8, runtimePorts: 4, switchPorts: 1))),
    ("agent-heartbeat", .agentHeartbeat(host)),
    ("process-exited", .processExited(ProcessExited(host: host, node: node, incarnation: Incarnation(9), ending: .code(70)))),
    ("process-killed", .processExited(ProcessExited(host: host, node: node, incarnation: Incarnation(9), ending: .signal(9)))),
    ("cluster-registered", .clusterRegistered(cluster)),
    ("cluster-applied", .clusterApplied(spec)),
    ("cluster-deleted", .clusterDeleted(cluster)),
    ("beacon", .beacon(Beacon(position: Offset(0), stateHash: 0xfeed, logHash: 0xbeef, rules: 2))),
    ("beacon-first", .beacon(Beacon(position: nil, stateHash: 1, logHash: 2, rules: 1))),
    ("peer-silent", .peerSilent(PeerSilent(by: NodeID(1)!, node: node, incarnation: Incarnation(9)))),
    ("rules-activated", .rulesActivated(2)),
    ("policy-manual", .policyActivated(policy(.manual))),
    ("policy-drop-threshold", .policyActivated(dropPolicy)),
    ("policy-target-utilisation", .policyActivated(policy(.targetUtilisation(utilisation)))),
    ("node-started-migrating", .nodeStarted(
      NodeStarted(node: node, kind: .runtime, host: host, processID: 4_242, ports: ports, startup: 210, canMigrate: true))),
    ("move-requested", .moveRequested(MoveRequest(source: node, target: NodeID(3)!, flows: 1_000))),
    ("drain-keep", .drainRequested(DrainRequest(node: node, afterwards: .keep))),
    ("drain-stop", .drainRequested(DrainRequest(node: node, afterwards: .stop))),
    ("drain-undo", .drainRequested(DrainRequest(node: node, afterwards: .undo))),
    ("migration-finished", .migrationFinished(migrationEnd)),
    ("function-log", .functionLog(functionLog)),
    ("backend-changed", .backendChanged(
      BackendChanged(node: node, service: "10.1.0.100:80/tcp", backend: "10.2.0.11:80", isUp: true, reason: "connected"))),
    ("recovery-finished", .recoveryFinished(recoveryEnd)),
    ("workload-replicating", .workload(replicatingWorkload)),
    ("node-started-replicating", .nodeStarted(
      NodeStarted(
        node: node, kind: .runtime, host: host, processID: 4_242, ports: ports, startup: 210, canMigrate: true, canReplicate: true))),
    ("cluster-applied-replicated", .clusterApplied(replicatedSpec)),
    ("migration-finished-pauses", .migrationFinished(migrationEndWithPauses)),
    ("cluster-applied-two-replicas", .clusterApplied(twiceReplicatedSpec)),
  ]

  static let functionLog: FunctionLog = {
    func entry(_ kind: FunctionLog.Entry.Kind) -> FunctionLog.Entry {
      FunctionLog.Entry(
        time: Timestamp(milliseconds: 1_800_000_000_123), source: "2001:db8::1", sourcePort: 5_000, destination: "10.2.0.9",
        destinationPort: 65_535, protocolNumber: 17, kind: kind)
    }
    return FunctionLog(
      node: node,
      entries: [
        entry(.alert(gid: 1, sid: 2_000_001, revision: 3, priority: 2, isDropped: true)),
        entry(.ruling(rule: 7, isAllowed: true)), entry(.ruling(rule: 0, isAllowed: false)),
      ] + FunctionLog.Entry.MappingEvent.allCases.map { entry(.mapping($0, vlan: 12)) }, lost: 99)
  }()

  static let recoveryEnd: RecoveryFinished = {
    var end = RecoveryFinished(slot: Slot(18), node: NodeID(4)!, lost: NodeLife(node, Incarnation(9)))
    end.recovered = 100_000
    end.onDemand = 312
    end.refused = 2
    end.microseconds = 4_100
    return end
  }()

  static let replicatingWorkload: NodeWorkload = {
    var load = workload
    load.unprotectedFlows = 9
    load.replicasHeld = 10
    load.packetsReplicated = 11
    load.packetsReleased = 12
    load.borrowed = [.init(share: 0, flows: 13), .init(share: 3, flows: 14)]
    load.lastSlot = Slot(15)
    return load
  }()

  static let replicatedSpec: ClusterSpec = {
    var spec = Self.spec
    spec.replicas = 1
    return spec
  }()

  static let twiceReplicatedSpec: ClusterSpec = {
    var spec = Self.spec
    spec.replicas = 2
    return spec
  }()

  static let replicatedLaunch: LaunchSpec = {
    var spec = launch
    spec.replicas = 1
    return spec
  }()

  static let migrationEnd: MigrationFinished = {
    var end = MigrationFinished(slot: Slot(17), node: node)
    end.wanted = 1_000
    end.moved = 990
    end.refused = 7
    end.returned = 3
    end.bytes = 200_000
    end.missedDeadlines = 2
    end.microseconds = 1_700
    end.targetEnded = true
    return end
  }()

  static let migrationEndWithPauses: MigrationFinished = {
    var end = migrationEnd
    (end.paused, end.pauseP50, end.pauseP99, end.longestPause) = (40, 120, 300, 512)
    return end
  }()

  static let dropPolicy: ScalingPolicy = {
    var rule = ScalingPolicy.DropThreshold()
    rule.drops = 100
    rule.reasons = ["missed-by-port", "full"]
    rule.idleBusyShare = 250_000
    return policy(.dropThreshold(rule))
  }()

  private static let utilisation: ScalingPolicy.TargetUtilisation = {
    var rule = ScalingPolicy.TargetUtilisation()
    rule.busyShare = 550_000
    rule.tolerance = 50_000
    return rule
  }()

  private static func policy(_ kind: ScalingPolicy.Kind) -> ScalingPolicy {
    var policy = ScalingPolicy(kind)
    policy.minimumRuntimes = 2
    policy.maximumRuntimes = 4
    policy.cooldown = 1
    policy.overloadPatience = 2
    policy.idlePatience = 3
    policy.flowsPerMove = 4
    policy.concurrentMoves = 5
    policy.drainTimeout = 6
    return policy
  }

  static let events: [(name: String, event: Event)] = bodies.enumerated().map { index, sample in
    let causation: Event.Causation = [.none, .event(Offset(0)), .command(Slot(12))][index % 3]
    return (
      sample.name,
      Event(
        producer: .node(.runtime, cluster, node), incarnation: Incarnation(9), sequence: UInt64(index + 1),
        correlation: index % 2 == 0 ? "" : "ctl/5f2a", causation: causation, isCritical: index % 4 == 1, body: sample.body)
    )
  }

  private static let orders: [(name: String, target: Command.Target, body: Command.Body)] = [
    ("notify-cluster-config", .cluster, .notifyClusterConfig(table)),
    ("launch-runtime", .host(host), .launchRuntime(launch)),
    ("launch-switch", .host(host), .launchSwitch(switchLaunch)),
    ("stop-node", .node(node, Incarnation(9)), .stopNode(node, Incarnation(9))),
    ("fence", .host(host), .fence(node, Incarnation(9))),
    ("drain-runtime", .node(node, Incarnation(9)), .drainRuntime(node, Incarnation(9))),
    ("set-migration-target", .node(node, Incarnation(9)), .setMigrationTarget(
      FlowMove(source: node, sourceIncarnation: Incarnation(9), target: NodeID(4)!, targetIncarnation: Incarnation(1), flows: 500))),
    ("cancel-migration", .node(node, Incarnation(9)), .cancelMigration(Slot(5))),
    ("change-settings", .cluster, .changeSettings(SettingsChange(version: 4, functions: chain.functions))),
    ("notify-with-shares", .cluster, .notifyClusterConfig(tableWithShares)),
    ("set-replicas", .node(node, Incarnation(9)), .setReplicas(
      ReplicaAssignment(owner: NodeLife(node, Incarnation(9)), holder: NodeLife(NodeID(4)!, Incarnation(1))))),
    ("set-replicas-none", .node(node, Incarnation(9)), .setReplicas(
      ReplicaAssignment(owner: NodeLife(node, Incarnation(9)), holder: nil))),
    ("recover", .cluster, .recover(Recovery(lost: NodeLife(node, Incarnation(9)), by: NodeLife(NodeID(4)!, Incarnation(1))))),
    ("recover-none", .cluster, .recover(Recovery(lost: NodeLife(node, Incarnation(9)), by: nil))),
    ("launch-runtime-replicated", .host(host), .launchRuntime(replicatedLaunch)),
    ("notify-with-uplinks", .cluster, .notifyClusterConfig(table(withUplinks: NodeLife(node, Incarnation(9))))),
    ("notify-without-uplinks", .cluster, .notifyClusterConfig(table(withUplinks: nil))),
    ("set-replicas-pair", .node(node, Incarnation(9)), .setReplicas(
      ReplicaAssignment(
        owner: NodeLife(node, Incarnation(9)), holder: NodeLife(NodeID(4)!, Incarnation(1)), second: NodeLife(NodeID(5)!, Incarnation(2))))),
    ("recover-standby", .cluster, .recover(
      Recovery(
        lost: NodeLife(node, Incarnation(9)), by: NodeLife(NodeID(4)!, Incarnation(1)), standby: NodeLife(NodeID(5)!, Incarnation(2))))),
  ]

  static let commands: [(name: String, command: Command)] = orders.enumerated().map { index, sample in
    (
      sample.name,
      Command(
        slot: Slot(UInt64(index + 1)), decision: DecisionID(offset: Offset(41), index: UInt32(index)), target: sample.target,
        expiry: Timestamp(milliseconds: 1_800_000_000_000), reason: "2 runtimes wanted, 1 there",
        correlation: index % 2 == 0 ? "" : "ctl/5f2a", stateHash: 0xfeed_0000_0000_beef, body: sample.body)
    )
  }
}
