// A cluster told record by record: who says what, when, and what the core answers.
import ControlMessages
import ControlPlane

struct ClusterStory {
  var core = ClusterCore(cluster: Samples.cluster)
  var records: [EventRecord] = []
  var commands: [Command] = []
  /// Milliseconds.
  var time: UInt64 = 1_000_000
  private var authors: [ProducerID: EventAuthor] = [:]

  /// A record, and the commands it leads to.
  @discardableResult
  mutating func say(
    _ body: Event.Body, by producer: ProducerID, life: UInt64 = 1, after delay: UInt64 = 0, isCritical: Bool = false
  ) -> [Command] {
    time += delay
    let incarnation = Incarnation(life)
    var author = authors[producer] ?? EventAuthor(producer: producer, incarnation: incarnation)
    if author.incarnation < incarnation { author = EventAuthor(producer: producer, incarnation: incarnation) }
    let event = author.write(body, isCritical: isCritical)
    if author.incarnation == incarnation { authors[producer] = author }
    return append(event)
  }

  @discardableResult
  mutating func append(_ event: Event) -> [Command] {
    let record = EventRecord(
      offset: Offset(UInt64(records.count)), timestamp: Timestamp(milliseconds: time), event: event)
    records.append(record)
    let new = core.apply(record)
    commands += new
    return new
  }

  @discardableResult
  mutating func apply(_ spec: ClusterSpec, after delay: UInt64 = 0) -> [Command] {
    say(.clusterApplied(spec), by: .tool(1), after: delay)
  }

  @discardableResult
  mutating func agent(_ name: String, runtimes: UInt32 = 8, switches: UInt32 = 2, life: UInt64 = 1) -> [Command] {
    let host = HostID(name)!
    return say(
      .agentStarted(AgentStarted(host: host, cores: 8, runtimePorts: runtimes, switchPorts: switches)), by: .agent(host), life: life)
  }

  /// The node of a launch command starts.
  @discardableResult
  mutating func start(_ command: Command, after delay: UInt64 = 0) -> [Command] {
    let launch = command.launch!
    let ports = NodePorts(
      input: HardwareAddress(bits: UInt64(launch.node.number)), output: HardwareAddress(bits: 0x100), control: HardwareAddress(bits: 0x200))
    return say(
      .nodeStarted(
        NodeStarted(node: launch.node, kind: launch.kind, host: launch.host, processID: 100, ports: ports, startup: 200,
          canMigrate: launch.kind == .runtime && core.state.rules >= DecisionRules.flowRequests,
          canReplicate: launch.kind == .runtime && launch.replicas > 0)),
      by: .node(launch.kind, launch.cluster, launch.node), life: launch.incarnation.number, after: delay)
  }

  @discardableResult
  mutating func exit(_ launch: LaunchSpec, _ ending: ProcessExited.Ending = .signal(9), after delay: UInt64 = 0) -> [Command] {
    say(
      .processExited(ProcessExited(host: launch.host, node: launch.node, incarnation: launch.incarnation, ending: ending)),
      by: .agent(launch.host), after: delay)
  }

  @discardableResult
  mutating func answer(
    _ command: Command, _ outcome: CommandAcknowledgement.Outcome, after delay: UInt64 = 0
  ) -> [Command] {
    guard case .host(let host) = command.target else { return [] }
    return say(.commandAcknowledged(.init(slot: command.slot, by: .host(host), outcome: outcome)), by: .agent(host), after: delay)
  }

  @discardableResult
  mutating func workload(
    _ launch: LaunchSpec, flows: UInt64, drops: UInt64 = 0, busy: UInt32 = 0, after delay: UInt64 = 0
  ) -> [Command] {
    var load = NodeWorkload(node: launch.node, interval: 500)
    load.activeFlows = flows
    load.busyShare = busy
    load.droppedPackets = drops
    if drops > 0 { load.drops = [.init(reason: "missed-by-port", packets: drops)] }
    return say(
      .workload(load), by: .node(launch.kind, launch.cluster, launch.node), life: launch.incarnation.number, after: delay)
  }

  @discardableResult
  mutating func heartbeat(_ launch: LaunchSpec, after delay: UInt64 = 0) -> [Command] {
    say(
      .heartbeat(Heartbeat(node: launch.node, workerLoops: time, busyLoops: 0)),
      by: .node(launch.kind, launch.cluster, launch.node), life: launch.incarnation.number, after: delay)
  }

  @discardableResult
  mutating func peerSilent(_ launch: LaunchSpec, by peer: LaunchSpec, after delay: UInt64 = 0) -> [Command] {
    say(
      .peerSilent(PeerSilent(by: peer.node, node: launch.node, incarnation: launch.incarnation)),
      by: .node(peer.kind, peer.cluster, peer.node), life: peer.incarnation.number, after: delay)
  }

  /// Seconds pass: a tick each, and the agents' heartbeats with it.
  @discardableResult
  mutating func wait(seconds: Int) -> [Command] {
    var new: [Command] = []
    for _ in 0..<seconds {
      new += say(.tick, by: .coordinator(Samples.host), after: 1_000)
      for host in core.state.hosts { new += say(.agentHeartbeat(host.id), by: .agent(host.id)) }
    }
    return new
  }

  /// Two hosts, a switch and two runtimes, all serving.
  static func running(_ change: (inout ClusterSpec) -> Void = { _ in }) -> (story: ClusterStory, launches: [LaunchSpec]) {
    var story = ClusterStory()
    var spec = Samples.spec
    change(&spec)
    story.apply(spec)
    story.agent("a")
    story.agent("b")
    let launches = story.commands
    for command in launches { story.start(command, after: 100) }
    story.wait(seconds: 1)
    return (story, launches.compactMap(\.launch))
  }
}

extension Command {
  var launch: LaunchSpec? {
    switch body {
    case .launchRuntime(let spec), .launchSwitch(let spec): spec
    default: nil
    }
  }
  var table: ClusterTable? { if case .notifyClusterConfig(let table) = body { table } else { nil } }
  var stopped: (node: NodeID, incarnation: Incarnation)? {
    switch body {
    case .stopNode(let node, let incarnation), .fence(let node, let incarnation): (node, incarnation)
    default: nil
    }
  }

  /// One line, for expectations that read as a list.
  var line: String {
    switch body {
    case .notifyClusterConfig(let table):
      "\(slot) table \(table.version): " + table.members.map { "\($0.node)/\($0.incarnation) \($0.state)" }.joined(separator: ", ")
    case .launchRuntime(let spec): "\(slot) launch runtime \(spec.node)/\(spec.incarnation) on \(spec.host), share \(spec.poolShare)"
    case .launchSwitch(let spec): "\(slot) launch switch \(spec.node)/\(spec.incarnation) on \(spec.host)"
    case .fence(let node, let incarnation): "\(slot) fence \(node)/\(incarnation)"
    case .drainRuntime(let node, let incarnation): "\(slot) drain \(node)/\(incarnation)"
    case .setMigrationTarget(let move): "\(slot) move \(move.flows) flows from \(move.source) to \(move.target)"
    case .cancelMigration(let cancelled): "\(slot) cancel \(cancelled)"
    case .changeSettings(let change): "\(slot) settings \(change.version)"
    case .stopNode(let node, let incarnation): "\(slot) stop \(node)/\(incarnation)"
    case .setReplicas(let assignment):
      "\(slot) replicas of \(assignment.owner.short) on \(assignment.holder?.short ?? "nobody")"
        + (assignment.second.map { " and \($0.short)" } ?? "")
    case .recover(let recovery):
      "\(slot) recover \(recovery.lost.short) by \(recovery.by?.short ?? "nobody")"
        + (recovery.standby.map { ", \($0.short) stands by" } ?? "")
    case .unknown: "\(slot) unknown"
    }
  }
}

extension NodeLife {
  var short: String { "\(node)/\(incarnation)" }
}
