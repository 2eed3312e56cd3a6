/// Something asked for, in a numbered slot of its cluster.
///
/// Every replica computes the same commands; readers take the first copy of the next slot (`SlotReader`).
///
/// A launched process knows itself by the position of its launch command, `--partition P --launch-offset O`: it reads
/// that record of `nfv.commands` first, and follows the slots after it.
public struct Command: Hashable, Sendable {
  /// Whom it concerns. Everybody reads all slots of the cluster and acts on their own.
  public enum Target: Hashable, Sendable {
    case cluster
    case host(HostID)
    case node(NodeID, Incarnation)
  }

  public enum Body: Hashable, Sendable {
    case notifyClusterConfig(ClusterTable)
    /// The host's agent rejects it when it will not begin, and then never begins it; otherwise the node's own
    /// `nodeStarted` is the answer.
    case launchRuntime(LaunchSpec)
    case launchSwitch(LaunchSpec)
    /// To the host's agent, which ends the process (SIGTERM, then SIGKILL) and writes `processExited`. If there is no
    /// such process it acknowledges with `completed`, and must not begin it later.
    case stopNode(NodeID, Incarnation)
    /// To the host's agent: the life was declared dead. If its process still runs, it is killed at once; answered as `stopNode`.
    case fence(NodeID, Incarnation)
    /// To a runtime: switches give it no new flows any more. One that can migrate moves its flows to the others, which
    /// the table names; any other waits for them to end.
    case drainRuntime(NodeID, Incarnation)
    /// To a runtime that can migrate: move so many flows. Acknowledged with `progress` and `completed`.
    case setMigrationTarget(FlowMove)
    /// To the source of the migration that the slot asked for.
    case cancelMigration(Slot)
    /// To all runtimes: functions take over other settings while they run. Acknowledged with `applied` when they count.
    case changeSettings(SettingsChange)
    /// To a runtime that can replicate. Acknowledged with `received` when it has begun, and with `completed` when every
    /// flow that it had is on the holder.
    case setReplicas(ReplicaAssignment)
    /// To all: switches send the lost life's flows to who has them now. That one acknowledges with `progress` and
    /// `completed`. A process that reads of its own loss ends itself.
    case recover(Recovery)
    /// Written by a newer version. The slot counts, nothing is done.
    case unknown(UnknownBody)
  }

  public var slot: Slot
  public var decision: DecisionID
  public var target: Target
  /// After this, in the time of the log, the target must not begin it.
  public var expiry: Timestamp
  /// Why, for people.
  public var reason: String
  /// The operator's request that led here; empty when there was none.
  public var correlation: String
  /// Hash of the state that decided it: two replicas that differ notice it here.
  public var stateHash: UInt64
  public var body: Body

  public init(
    slot: Slot, decision: DecisionID, target: Target, expiry: Timestamp, reason: String, correlation: String = "",
    stateHash: UInt64 = 0, body: Body
  ) {
    self.slot = slot
    self.decision = decision
    self.target = target
    self.expiry = expiry
    self.reason = reason
    self.correlation = correlation
    self.stateHash = stateHash
    self.body = body
  }
}

/// Some flows of one runtime's life that are to go to another's.
public struct FlowMove: Hashable, Sendable {
  public var source: NodeID
  public var sourceIncarnation: Incarnation
  public var target: NodeID
  public var targetIncarnation: Incarnation
  public var flows: UInt32

  public init(source: NodeID, sourceIncarnation: Incarnation, target: NodeID, targetIncarnation: Incarnation, flows: UInt32) {
    self.source = source
    self.sourceIncarnation = sourceIncarnation
    self.target = target
    self.targetIncarnation = targetIncarnation
    self.flows = flows
  }
}

/// The record that led to a decision, and which of its decisions it was, from 0.
public struct DecisionID: Hashable, Sendable, CustomStringConvertible {
  public var offset: Offset
  public var index: UInt32

  public init(offset: Offset, index: UInt32) {
    self.offset = offset
    self.index = index
  }

  public var description: String { "\(offset).\(index)" }
}

/// All that a process needs to become a node of a cluster.
public struct LaunchSpec: Hashable, Sendable {
  public var cluster: ClusterID
  public var node: NodeID
  public var incarnation: Incarnation
  public var kind: NodeKind
  public var host: HostID
  public var chain: ServiceChainSpec
  /// The part of the chain's address pools that is this runtime's own. A switch has the whole.
  public var poolShare: PoolShare
  /// For switches only.
  public var network: NetworkSpec?
  /// Milliseconds.
  public var heartbeatInterval: UInt64
  public var workloadInterval: UInt64
  public var polling: ClusterSpec.Polling
  /// Replicas of each flow: a runtime needs memory for those of others.
  public var replicas: UInt32

  public init(
    cluster: ClusterID, node: NodeID, incarnation: Incarnation, kind: NodeKind, host: HostID, chain: ServiceChainSpec,
    poolShare: PoolShare = .whole, network: NetworkSpec? = nil, heartbeatInterval: UInt64 = 10, workloadInterval: UInt64 = 500,
    polling: ClusterSpec.Polling = .busy, replicas: UInt32 = 0
  ) {
    self.cluster = cluster
    self.node = node
    self.incarnation = incarnation
    self.kind = kind
    self.host = host
    self.chain = chain
    self.poolShare = poolShare
    self.network = network
    self.heartbeatInterval = heartbeatInterval
    self.workloadInterval = workloadInterval
    self.polling = polling
    self.replicas = replicas
  }
}

/// Share `index` of `count` equal, disjoint shares of an address pool.
public struct PoolShare: Hashable, Sendable, CustomStringConvertible {
  public let index: UInt32
  public let count: UInt32

  public init?(index: UInt32, of count: UInt32) {
    guard index < count else { return nil }
    self.index = index
    self.count = count
  }

  public static let whole = PoolShare(index: 0, of: 1)!
  public var description: String { "\(index)/\(count)" }
}

/// Who is in the cluster and how loaded: what switches dispatch by and what nodes address each other by.
public struct ClusterTable: Hashable, Sendable {
  public enum MemberState: UInt8, Hashable, Sendable, CaseIterable, CustomStringConvertible {
    case starting = 1
    case serving = 2
    case stopping = 3
    case dead = 4

    public var description: String {
      switch self {
      case .starting: "starting"
      case .serving: "serving"
      case .stopping: "stopping"
      case .dead: "dead"
      }
    }
  }

  public struct Load: Hashable, Sendable {
    public var activeFlows: UInt64
    /// Parts per million.
    public var busyShare: UInt32
    public var dropsPerSecond: UInt64

    public init(activeFlows: UInt64 = 0, busyShare: UInt32 = 0, dropsPerSecond: UInt64 = 0) {
      self.activeFlows = activeFlows
      self.busyShare = busyShare
      self.dropsPerSecond = dropsPerSecond
    }
  }

  public struct Member: Hashable, Sendable {
    public var node: NodeID
    public var kind: NodeKind
    public var incarnation: Incarnation
    public var host: HostID
    public var state: MemberState
    /// Known once the node has started.
    public var ports: NodePorts?
    public var load: Load
    /// Of the pools; known while it lives, and to switches that can use it.
    public var poolShare: PoolShare?

    public init(
      node: NodeID, kind: NodeKind, incarnation: Incarnation, host: HostID, state: MemberState, ports: NodePorts? = nil,
      load: Load = Load(), poolShare: PoolShare? = nil
    ) {
      self.poolShare = poolShare
      self.node = node
      self.kind = kind
      self.incarnation = incarnation
      self.host = host
      self.state = state
      self.ports = ports
      self.load = load
    }
  }

  /// Grows with every table of the cluster, from 1.
  public var version: UInt64
  /// Ascending by node.
  public var members: [Member]
  public var uplinks: UplinkHolder

  /// Which switch answers for the addresses of the cluster's networks.
  public enum UplinkHolder: Hashable, Sendable, CustomStringConvertible {
    /// Nobody has chosen: the living switch with the lowest number does.
    case unassigned
    /// The others stand by; nobody when none serves.
    case only(NodeLife?)

    public var description: String {
      switch self {
      case .unassigned: "unassigned"
      case .only(let life): life.map { "\($0)" } ?? "nobody"
      }
    }
  }

  public init(version: UInt64, members: [Member], uplinks: UplinkHolder = .unassigned) {
    self.version = version
    self.members = members
    self.uplinks = uplinks
  }
}

/// A command with its place in the log.
public struct CommandRecord: Hashable, Sendable {
  public var offset: Offset
  public var timestamp: Timestamp
  public var command: Command

  public init(offset: Offset, timestamp: Timestamp, command: Command) {
    self.offset = offset
    self.timestamp = timestamp
    self.command = command
  }
}
