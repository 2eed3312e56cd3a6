/// Something that happened, as a producer wrote it into the log.
///
/// The envelope is what the fold needs to take each event once, whatever the bus repeats: who wrote it, in which
/// life, and its number in that life.
public struct Event: Hashable, Sendable {
  public var producer: ProducerID
  public var incarnation: Incarnation
  /// Dense from 1 for each partition, producer, incarnation and lane (`Body.lane`), and sent in this order.
  public var sequence: UInt64
  /// The operator's request this belongs to; empty when there was none.
  public var correlation: String
  public var causation: Causation
  /// A reader that does not know the body must stop instead of passing over it.
  public var isCritical: Bool
  /// Of a critical event: the first release whose programs can follow it; empty if its writer did not say.
  public var neededRelease: String
  public var body: Body

  public init(
    producer: ProducerID, incarnation: Incarnation, sequence: UInt64, correlation: String = "", causation: Causation = .none,
    isCritical: Bool = false, neededRelease: String = "", body: Body
  ) {
    self.producer = producer
    self.incarnation = incarnation
    self.sequence = sequence
    self.correlation = correlation
    self.causation = causation
    self.isCritical = isCritical
    self.neededRelease = neededRelease
    self.body = body
  }

  public enum Causation: Hashable, Sendable {
    case none
    case event(Offset)
    case command(Slot)
  }

  /// Facts arrive all and in order. Signals travel on a connection of their own, without retries: a late
  /// heartbeat must be lost rather than delivered late, so each lane has its own sequence.
  public enum Lane: UInt8, Hashable, Sendable { case facts, signals }

  /// What is long or rare is kept aside (`indirect`): nine of ten records are heartbeats, and are copied whole.
  public enum Body: Hashable, Sendable {
    /// In the directory: the cluster gets the partition 1 + the number of distinct names before it.
    case clusterRegistered(ClusterID)
    indirect case clusterApplied(ClusterSpec)
    /// The cluster's nodes are to stop and none are to be launched, until it is applied again.
    case clusterDeleted(ClusterID)

    /// An agent writes this into every cluster's partition that the directory names, and again when one is added.
    indirect case agentStarted(AgentStarted)
    case agentHeartbeat(HostID)
    indirect case processExited(ProcessExited)

    indirect case nodeStarted(NodeStarted)
    case heartbeat(Heartbeat)
    indirect case workload(NodeWorkload)
    /// The node goes down in order, as asked or by a signal.
    case nodeStopping(NodeID)

    indirect case commandAcknowledged(CommandAcknowledgement)
    /// A node of the cluster does not answer another one.
    case peerSilent(PeerSilent)
    /// From here on the cluster is decided about by these rules; a replica that cannot follow them stops.
    case rulesActivated(UInt32)
    indirect case policyActivated(ScalingPolicy)
    /// An operator wants flows of one runtime to be another's.
    indirect case moveRequested(MoveRequest)
    /// An operator wants a runtime without flows, or takes that back.
    case drainRequested(DrainRequest)
    /// What a migration came to; before the acknowledgement that it is completed.
    indirect case migrationFinished(MigrationFinished)
    /// What functions had to say: nothing is decided by it.
    indirect case functionLog(FunctionLog)
    indirect case backendChanged(BackendChanged)
    /// What a recovery came to; before the acknowledgement that it is completed.
    indirect case recoveryFinished(RecoveryFinished)
    /// Nothing happened; log time moves.
    case tick
    /// A replica lives; log time moves.
    case beacon(Beacon)
    /// Written by a newer version.
    case unknown(UnknownBody)

    public var lane: Lane {
      switch self {
      case .agentHeartbeat, .heartbeat, .peerSilent, .tick, .beacon: .signals
      default: .facts
      }
    }
  }
}

/// A host offers itself. The agent owns its cores and ports; the core only proposes.
public struct AgentStarted: Hashable, Sendable {
  public var host: HostID
  public var cores: UInt32
  /// How many runtimes and switches have ports on this host.
  public var runtimePorts: UInt32
  public var switchPorts: UInt32

  public init(host: HostID, cores: UInt32, runtimePorts: UInt32, switchPorts: UInt32) {
    self.host = host
    self.cores = cores
    self.runtimePorts = runtimePorts
    self.switchPorts = switchPorts
  }
}

/// An agent saw a process end: the strongest evidence there is.
public struct ProcessExited: Hashable, Sendable {
  public enum Ending: Hashable, Sendable {
    case code(UInt32)
    case signal(UInt32)
  }

  public var host: HostID
  public var node: NodeID
  /// Of the process that ended, not of the agent.
  public var incarnation: Incarnation
  public var ending: Ending

  public init(host: HostID, node: NodeID, incarnation: Incarnation, ending: Ending) {
    self.host = host
    self.node = node
    self.incarnation = incarnation
    self.ending = ending
  }
}

/// A node's ports are open and its worker turns. Its incarnation is the envelope's, here and below.
public struct NodeStarted: Hashable, Sendable {
  public var node: NodeID
  public var kind: NodeKind
  public var host: HostID
  public var processID: UInt32
  public var ports: NodePorts
  /// Milliseconds from the process's start to this.
  public var startup: UInt64
  /// It carries out `SetMigrationTarget` and `DrainRuntime`. A node that does not only takes no new flows.
  public var canMigrate: Bool
  /// It carries out `SetReplicas` and `Recover`, and has memory for other runtimes' replicas.
  public var canReplicate: Bool

  public init(
    node: NodeID, kind: NodeKind, host: HostID, processID: UInt32, ports: NodePorts, startup: UInt64, canMigrate: Bool = false,
    canReplicate: Bool = false
  ) {
    self.node = node
    self.kind = kind
    self.host = host
    self.processID = processID
    self.ports = ports
    self.startup = startup
    self.canMigrate = canMigrate
    self.canReplicate = canReplicate
  }
}

/// The control thread lives, and says how far the worker has come: a counter that stands still is a frozen worker.
public struct Heartbeat: Hashable, Sendable {
  public var node: NodeID
  /// Turns of the worker's loop since its start.
  public var workerLoops: UInt64
  /// Of these, turns that moved packets.
  public var busyLoops: UInt64

  public init(node: NodeID, workerLoops: UInt64, busyLoops: UInt64) {
    self.node = node
    self.workerLoops = workerLoops
    self.busyLoops = busyLoops
  }
}

/// What a node did in an interval. Counts are of this interval, `activeFlows` and `capacity` of its end.
public struct NodeWorkload: Hashable, Sendable {
  public struct Drops: Hashable, Sendable {
    public var reason: String
    public var packets: UInt64

    public init(reason: String, packets: UInt64) {
      self.reason = reason
      self.packets = packets
    }
  }

  /// Flows here with addresses of another share of the pools than the node's own.
  public struct Borrowed: Hashable, Sendable {
    public var share: UInt32
    public var flows: UInt64

    public init(share: UInt32, flows: UInt64) {
      self.share = share
      self.flows = flows
    }
  }

  public var node: NodeID
  /// Milliseconds.
  public var interval: UInt64
  public var receivedPackets: UInt64 = 0
  public var forwardedPackets: UInt64 = 0
  public var droppedPackets: UInt64 = 0
  /// The same by reason; only reasons that occurred.
  public var drops: [Drops] = []
  public var receivedBytes: UInt64 = 0
  public var forwardedBytes: UInt64 = 0
  public var activeFlows: UInt64 = 0
  public var flowsCreated: UInt64 = 0
  public var flowsExpired: UInt64 = 0
  /// Cycles spent on packets of all cycles, in parts per million.
  public var busyShare: UInt32 = 0
  /// Flows the node can hold.
  public var capacity: UInt64 = 0
  /// At the interval's end: flows without a replica where there should be one, and replicas of other runtimes' flows.
  public var unprotectedFlows: UInt64 = 0
  public var replicasHeld: UInt64 = 0
  /// Packets that left by way of a replica, and packets of other runtimes that left from here.
  public var packetsReplicated: UInt64 = 0
  public var packetsReleased: UInt64 = 0
  /// At the interval's end. Ascending by share, each once, none without flows.
  public var borrowed: [Borrowed] = []
  /// The last command that the node had taken when it counted: what was said later is not in these numbers.
  public var lastSlot = Slot.none

  public init(node: NodeID, interval: UInt64) {
    self.node = node
    self.interval = interval
  }
}

/// How a command fared at its target. A command may be acknowledged several times as it advances.
public struct CommandAcknowledgement: Hashable, Sendable {
  public enum Acknowledger: Hashable, Sendable {
    case host(HostID)
    case node(NodeID)
  }

  public enum Outcome: Hashable, Sendable {
    case received
    case applied
    case rejected(reason: String)
    /// Parts done of all.
    case progress(done: UInt64, of: UInt64)
    case completed
  }

  public var slot: Slot
  public var by: Acknowledger
  public var outcome: Outcome

  public init(slot: Slot, by: Acknowledger, outcome: Outcome) {
    self.slot = slot
    self.by = by
    self.outcome = outcome
  }
}

/// A body this version does not know, kept so that the record can be passed on unchanged.
public struct UnknownBody: Hashable, Sendable {
  /// Field number of the body in the schema; 0 when there was none at all.
  public var tag: UInt32
  /// The whole record, envelope included, as it was read.
  public var record: [UInt8]
  /// The first release that knows it, if the record says so.
  public var neededRelease: String

  public init(tag: UInt32, record: [UInt8], neededRelease: String = "") {
    self.tag = tag
    self.record = record
    self.neededRelease = neededRelease
  }

  /// For people: a body by its field number, or decision rules, which are a body that is known.
  public var name: String { tag == 0 ? String(decoding: record.prefix(64), as: UTF8.self) : "body \(tag)" }

  /// What to do about it, for people.
  public var advice: String {
    neededRelease.isEmpty
      ? "a newer release than \(Release.current) is needed"
      : "release \(neededRelease) or later is needed; this is \(Release.current)"
  }
}

/// An event with its place in the log.
public struct EventRecord: Hashable, Sendable {
  public var offset: Offset
  public var timestamp: Timestamp
  public var event: Event

  public init(offset: Offset, timestamp: Timestamp, event: Event) {
    self.offset = offset
    self.timestamp = timestamp
    self.event = event
  }
}

/// Numbers the events of one producer in one life and one partition, each lane by itself.
public struct EventAuthor: Hashable, Sendable {
  public let producer: ProducerID
  public let incarnation: Incarnation
  private var facts: UInt64 = 0
  private var signals: UInt64 = 0

  public init(producer: ProducerID, incarnation: Incarnation) {
    self.producer = producer
    self.incarnation = incarnation
  }

  /// The next event of this author. It has to be sent, in order within its lane, or the sequence has a hole.
  public mutating func write(
    _ body: Event.Body, correlation: String = "", causation: Event.Causation = .none, isCritical: Bool = false
  ) -> Event {
    let sequence: UInt64
    switch body.lane {
    case .facts:
      facts += 1
      sequence = facts
    case .signals:
      signals += 1
      sequence = signals
    }
    return Event(
      producer: producer, incarnation: incarnation, sequence: sequence, correlation: correlation, causation: causation,
      isCritical: isCritical, neededRelease: isCritical ? Release.needed(for: body) : "", body: body)
  }
}
