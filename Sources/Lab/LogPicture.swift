import ControlMessages
import ControlPlane

/// What the log says about the lab's cluster: who serves, what passed through, what was decided.
///
/// A value fed with records, in their order. It knows nothing else: no process is asked, no counter is read, so what
/// the lab shows is what any reader of the log can know.
public struct LogPicture: Sendable {
  /// A node over all its lives: sums of its workload events, and the last of them.
  public struct Traffic: Hashable, Sendable {
    public var kind: NodeKind
    public var total: NodeWorkload
    public var last: NodeWorkload
    public var drops: [String: UInt64] = [:]
    public var lives = 1
  }

  public struct Line: Hashable, Sendable {
    public let time: Timestamp
    public let isCommand: Bool
    public let text: String
  }

  public private(set) var nodes: [NodeID: Traffic] = [:]
  /// The last few things that happened or were asked for, heartbeats and workloads left out.
  public private(set) var lines: [Line] = []
  public private(set) var events: UInt64 = 0
  public private(set) var commands: UInt64 = 0
  /// Copies of commands that were in the log already: what a restarted coordinator should not write.
  public private(set) var repeatedCommands: UInt64 = 0
  public private(set) var unreadable: UInt64 = 0
  /// Migrations that have ended, with their sources' numbers.
  public private(set) var migrations: [MigrationFinished] = []
  public private(set) var recoveries: [RecoveryFinished] = []

  /// The lives of switches that have had the uplinks, in turn.
  public private(set) var uplinkHolders: [NodeLife] = []

  /// The slot of the last table in which everything wanted serves.
  private var completeTable: Slot?
  private var lastTime = Timestamp.zero

  private static let longestMemory = 64

  public init() {}

  // MARK: Reading

  public mutating func read(_ record: EventRecord) {
    events += 1
    lastTime = record.timestamp
    switch record.event.body {
    case .heartbeat, .agentHeartbeat, .tick, .beacon: break
    case .workload(let workload): add(workload)
    case .nodeStarted(let started):
      if nodes[started.node] == nil {
        let nothing = NodeWorkload(node: started.node, interval: 0)
        nodes[started.node] = Traffic(kind: started.kind, total: nothing, last: nothing)
      } else {
        nodes[started.node]!.lives += 1
      }
      note("\(started.kind) \(started.node) started on \(started.host) in \(started.startup) ms, process \(started.processID)")
    case .clusterRegistered(let cluster): note("cluster \(cluster) registered")
    case .clusterApplied(let spec):
      note(
        "cluster \(spec.name) applied: \(spec.runtimes) runtimes, \(spec.switches) switches, \(spec.chain.functions.map(\.kind).joined(separator: " -> "))"
      )
    case .clusterDeleted(let cluster): note("cluster \(cluster) deleted")
    case .agentStarted(let agent):
      note(
        "agent of \(agent.host) offers \(agent.runtimePorts) runtimes, \(agent.switchPorts) switches, \(agent.cores) processors")
    case .processExited(let exit): note("process of node \(exit.node) \(Self.text(exit.ending))")
    case .nodeStopping(let node): note("node \(node) is stopping")
    case .commandAcknowledged(let answer):
      if case .rejected(let reason) = answer.outcome { note("command \(answer.slot) rejected: \(reason)") }
    case .migrationFinished(let end):
      migrations.append(end)
      note("\(record.event.body.name): \(record.event.body.summary)")
    case .recoveryFinished(let end):
      recoveries.append(end)
      note("\(record.event.body.name): \(record.event.body.summary)")
    case .functionLog, .backendChanged, .peerSilent, .rulesActivated, .policyActivated, .moveRequested,
      .drainRequested:
      note("\(record.event.body.name): \(record.event.body.summary)")
    case .unknown(let body): note("an event of a newer version (\(body.tag))")
    }
  }

  public mutating func read(_ record: CommandRecord, _ reading: SlotReader.Reading) {
    lastTime = record.timestamp
    guard reading == .taken else {
      repeatedCommands += 1
      return
    }
    commands += 1
    let command = record.command
    switch command.body {
    case .notifyClusterConfig(let table):
      let serving = table.members.count { $0.state == .serving }
      if serving == table.members.count, serving > 0 { completeTable = command.slot }
      if case .only(let holder?) = table.uplinks, holder != uplinkHolders.last {
        uplinkHolders.append(holder)
        if uplinkHolders.count > 1 { note("uplinks: \(holder) (\(command.reason))", isCommand: true) }
      }
      // Tables also go out to spread the load figures; only those with another membership are news.
      let membership = table.members.map { "\($0.kind) \($0.node) \($0.state)" }
      guard membership != lastMembership else { return }
      lastMembership = membership
      note("table \(table.version): \(membership.joined(separator: ", "))", isCommand: true)
    case .launchRuntime(let launch), .launchSwitch(let launch):
      note("launch \(launch.kind) \(launch.node) on \(launch.host) (\(command.reason))", isCommand: true)
    case .stopNode(let node, _): note("stop node \(node) (\(command.reason))", isCommand: true)
    case .fence, .drainRuntime, .setMigrationTarget, .cancelMigration, .changeSettings, .setReplicas, .recover:
      note("\(command.body.name) \(command.body.summary) (\(command.reason))", isCommand: true)
    case .unknown(let body): note("a command of a newer version (\(body.tag))", isCommand: true)
    }
  }

  public mutating func readUnreadable() { unreadable += 1 }

  private var lastMembership: [String] = []

  private mutating func add(_ workload: NodeWorkload) {
    guard var traffic = nodes[workload.node] else { return }
    traffic.last = workload
    traffic.total.interval &+= workload.interval
    traffic.total.receivedPackets &+= workload.receivedPackets
    traffic.total.forwardedPackets &+= workload.forwardedPackets
    traffic.total.droppedPackets &+= workload.droppedPackets
    traffic.total.receivedBytes &+= workload.receivedBytes
    traffic.total.forwardedBytes &+= workload.forwardedBytes
    traffic.total.flowsCreated &+= workload.flowsCreated
    traffic.total.flowsExpired &+= workload.flowsExpired
    traffic.total.activeFlows = workload.activeFlows
    for drop in workload.drops where traffic.drops.count < 256 { traffic.drops[drop.reason, default: 0] &+= drop.packets }
    nodes[workload.node] = traffic
  }

  private mutating func note(_ text: String, isCommand: Bool = false) {
    lines.append(Line(time: lastTime, isCommand: isCommand, text: text))
    if lines.count > Self.longestMemory { lines.removeFirst() }
  }

  private static func text(_ ending: ProcessExited.Ending) -> String {
    switch ending {
    case .code(let code): "ended with code \(code)"
    case .signal(let number): "was ended by signal \(number)"
    }
  }

  // MARK: Questions

  /// Everything that the operator wants serves, and every node has acknowledged a table that says so.
  public func isServing(_ state: ClusterState) -> Bool {
    guard state.spec != nil, let completeTable else { return false }
    for kind in NodeKind.allCases {
      let serving = state.nodes.filter { node in
        if case .serving = node.phase { return node.kind == kind && node.acknowledged >= completeTable }
        return false
      }
      guard serving.count == Int(state.wanted(kind)) else { return false }
    }
    return true
  }

  public var flowsMoved: UInt64 { migrations.reduce(0) { $0 + $1.moved } }

  public var drops: [(reason: String, packets: UInt64)] {
    var sums: [String: UInt64] = [:]
    for node in nodes.values { for (reason, packets) in node.drops { sums[reason, default: 0] &+= packets } }
    return sums.map { ($0.key, $0.value) }.sorted { ($1.1, $0.0) < ($0.1, $1.0) }
  }
}
