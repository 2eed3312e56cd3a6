import ControlMessages

/// What a cluster is, as far as its log tells: the operator's intent, the hosts on offer, and each node's life.
///
/// `apply` (in `ClusterState+Apply.swift`) moves it by events, `nextDecision` (`Decisions.swift`) reads it and
/// changes nothing, `enact` notes what was decided. Times of deadlines are in `clock.elapsed`.
public struct ClusterState: Hashable, Sendable {
  public let cluster: ClusterID

  // The operator's intent.
  /// What is carried out; nil before the cluster was applied.
  public internal(set) var spec: ClusterSpec?
  /// What was applied and cannot be carried out while nodes of the old spec live, and why.
  public internal(set) var pendingSpec: ClusterSpec?
  public internal(set) var pendingChanges: [String] = []
  public internal(set) var isDeleted = false
  /// The request that the current intent came with.
  public internal(set) var correlation = ""

  // The world.
  public internal(set) var clock = LogClock()
  /// Ascending by name.
  public internal(set) var hosts: [Host] = []
  /// Ascending by number.
  public internal(set) var nodes: [Node] = []
  /// Lives that were given up and are not known to have ended. Their pool shares are not used again until then.
  public internal(set) var abandoned: [AbandonedLife] = []

  // What was said.
  public internal(set) var lastSlot = Slot.none
  public internal(set) var table = ClusterTable(version: 0, members: [])
  /// `clock.elapsed` when `table` was sent.
  public internal(set) var tableSent: UInt64 = 0

  // Book-keeping.
  var nextNode: UInt32 = 1
  var seen = SeenEvents()
  public internal(set) var ignored = Ignored()
  /// Set by a critical event of a newer version: from there on this program must not decide.
  public internal(set) var needsNewerVersion: UnknownBody?

  public init(cluster: ClusterID) { self.cluster = cluster }

  /// A host's agent, and how it answers.
  public struct Host: Hashable, Sendable {
    public let id: HostID
    public internal(set) var cores: UInt32
    public internal(set) var runtimePorts: UInt32
    public internal(set) var switchPorts: UInt32
    public internal(set) var agentIncarnation: Incarnation
    public internal(set) var lastHeard: UInt64
    public internal(set) var isSilent = false
    /// Until when it is not asked again for a node of a kind that it refused, and what it said.
    public internal(set) var runtimeRefusedUntil: UInt64 = 0
    public internal(set) var switchRefusedUntil: UInt64 = 0
    public internal(set) var refusal = ""
  }

  /// A node that is wanted or not yet gone.
  public struct Node: Hashable, Sendable {
    public enum Phase: Hashable, Sendable {
      /// To be launched, not before the given time.
      case waiting(until: UInt64)
      /// Asked for by `slot`; given up at `deadline`.
      case launching(slot: Slot, deadline: UInt64)
      case serving(since: UInt64)
      /// No longer wanted; asked to stop once `slot` is set.
      case stopping(StopRequest?)
    }

    public let id: NodeID
    public let kind: NodeKind
    public internal(set) var phase: Phase
    /// Of the current or last life; 0 before the first.
    public internal(set) var incarnation = Incarnation(0)
    /// Of the current or last life.
    public internal(set) var host: HostID?
    /// Which share of the address pools the current life holds.
    public internal(set) var poolShare: UInt32?

    public internal(set) var ports: NodePorts?
    public internal(set) var processID: UInt32 = 0
    /// Milliseconds.
    public internal(set) var startup: UInt64 = 0
    public internal(set) var lastHeard: UInt64 = 0
    public internal(set) var isSilent = false
    /// It said that it goes down.
    public internal(set) var isLeaving = false
    public internal(set) var workerLoops: UInt64 = 0
    public internal(set) var workload: NodeWorkload?
    /// The greatest slot it acknowledged.
    public internal(set) var acknowledged = Slot.none
    /// Launches that failed since it last served well.
    public internal(set) var failures: UInt32 = 0
    /// What ended its last life, for people.
    public internal(set) var lastProblem = ""

    init(id: NodeID, kind: NodeKind, waitingUntil: UInt64) {
      self.id = id
      self.kind = kind
      phase = .waiting(until: waitingUntil)
    }

    /// Whether a process of it exists, as far as is known.
    public var isAlive: Bool {
      switch phase {
      case .waiting: false
      case .launching, .serving, .stopping: true
      }
    }

    public var memberState: ClusterTable.MemberState {
      switch phase {
      case .waiting: .dead
      case .launching: .starting
      case .serving: isLeaving ? .stopping : .serving
      case .stopping: .stopping
      }
    }
  }

  /// How often and when a life was asked to stop.
  public struct StopRequest: Hashable, Sendable {
    public var slot: Slot
    public var retryAt: UInt64
    public var attempts: UInt32
  }

  public struct AbandonedLife: Hashable, Sendable {
    public let node: NodeID
    public let kind: NodeKind
    public let incarnation: Incarnation
    public let host: HostID
    public let poolShare: UInt32?
    public internal(set) var stop: StopRequest?
  }

  /// Records that moved nothing, by reason.
  public struct Ignored: Hashable, Sendable {
    public internal(set) var repeated: UInt64 = 0
    public internal(set) var unknown: UInt64 = 0
    /// About a node, a life, a host or a cluster that this cluster does not have.
    public internal(set) var misdirected: UInt64 = 0
  }

  // MARK: Looking things up

  public func node(_ id: NodeID) -> Node? { nodeIndex(id).map { nodes[$0] } }
  public func host(_ id: HostID) -> Host? { hostIndex(id).map { hosts[$0] } }

  func nodeIndex(_ id: NodeID) -> Int? { nodes.firstIndex { $0.id == id } }
  func hostIndex(_ id: HostID) -> Int? { hosts.firstIndex { $0.id == id } }
  /// The node whose current life this is.
  func nodeIndex(_ id: NodeID, _ incarnation: Incarnation) -> Int? {
    nodes.firstIndex { $0.id == id && $0.incarnation == incarnation && $0.isAlive }
  }

  /// How many nodes of a kind the operator wants now.
  public func wanted(_ kind: NodeKind) -> UInt32 {
    guard let spec, !isDeleted else { return 0 }
    switch kind {
    case .runtime: return min(spec.runtimes, ClusterSpec.maximumRuntimes, spec.poolShares)
    case .virtualSwitch: return min(spec.switches, ClusterSpec.maximumSwitches)
    }
  }

  /// Lives on a host that occupy a port of a kind, known to have ended or not.
  func used(_ kind: NodeKind, on host: HostID) -> Int {
    nodes.count { $0.kind == kind && $0.isAlive && $0.host == host } + abandoned.count { $0.kind == kind && $0.host == host }
  }
}
