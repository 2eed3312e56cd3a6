import ControlMessages

/// What a cluster is, as far as its log tells: the operator's intent, the hosts on offer, and each node's life.
///
/// `apply` (in `ClusterState+Apply.swift`) moves it by events, `nextDecision` (`Decisions.swift`) reads it and
/// changes nothing, `enact` notes what was decided. Times of deadlines are in `clock.elapsed`.
public struct ClusterState: Hashable, Sendable {
  public let cluster: ClusterID

  // The operator's intent.
  /// What is carried out; nil before the cluster was applied.
  public package(set) var spec: ClusterSpec?
  /// What was applied and cannot be carried out while nodes of the old spec live, and why.
  public package(set) var pendingSpec: ClusterSpec?
  public package(set) var pendingChanges: [String] = []
  public package(set) var isDeleted = false
  /// The request that the current intent came with.
  public package(set) var correlation = ""

  /// The decision rules in force (`DecisionRules`).
  public package(set) var rules = DecisionRules.first
  public package(set) var scaling = Scaling()
  /// What operators asked about flows, oldest first.
  public package(set) var requests: [FlowRequest] = []

  // The world.
  public package(set) var clock = LogClock()
  /// Ascending by name.
  public package(set) var hosts: [Host] = []
  /// Ascending by number.
  public package(set) var nodes: [Node] = []
  /// Lives that were given up and are not known to have ended. Their pool shares are not used again until then.
  public package(set) var abandoned: [AbandonedLife] = []
  /// Who folds this log besides us, ascending by name. Nothing is decided by it.
  public package(set) var replicas: [Replica] = []
  /// The last lives that were declared dead, oldest first.
  public package(set) var deaths: [Death] = []
  /// `clock.elapsed` of the last of them.
  package var lastDeclared: UInt64 = 0
  /// Runtimes' lives that are over, oldest first: whose their flows are, and which shares of the pools wait for them.
  public package(set) var lostLives: [LostLife] = []
  /// No flow has moved between runtimes since this slot; nil while some may.
  public package(set) var stillSince: Slot?
  package var unansweredMoves: [UnansweredMove] = []
  /// Since when so many are silent that the fault is more likely ours: the alarm under which declarations are held back.
  public package(set) var manySilentSince: UInt64?

  // What was said.
  public package(set) var lastSlot = Slot.none
  public package(set) var table = ClusterTable(version: 0, members: [])
  /// `clock.elapsed` when `table` was sent.
  public package(set) var tableSent: UInt64 = 0
  /// How often settings of the chain have changed; the change that the runtimes were told last, and by which command.
  public package(set) var settingsVersion: UInt64 = 0
  package var settingsTold: UInt64 = 0
  package var settingsSlot = Slot.none

  // Book-keeping.
  package var nextNode: UInt32 = 1
  package var seen = SeenEvents()
  /// No timer fires and nothing new is decided before `clock.elapsed` gets there, as long as only signals come.
  var wake = Wake()
  public package(set) var ignored = Ignored()
  /// Set by a critical event of a newer version: from there on this program must not decide.
  public package(set) var needsNewerVersion: UnknownBody?

  public init(cluster: ClusterID) { self.cluster = cluster }

  /// A host's agent, and how it answers.
  public struct Host: Hashable, Sendable {
    public let id: HostID
    public package(set) var cores: UInt32
    public package(set) var runtimePorts: UInt32
    public package(set) var switchPorts: UInt32
    public package(set) var agentIncarnation: Incarnation
    public package(set) var lastHeard: UInt64
    public package(set) var isSilent = false
    /// Until when it is not asked again for a node of a kind that it refused, and what it said.
    public package(set) var runtimeRefusedUntil: UInt64 = 0
    public package(set) var switchRefusedUntil: UInt64 = 0
    public package(set) var refusal = ""

    package init(
      id: HostID, cores: UInt32, runtimePorts: UInt32, switchPorts: UInt32, agentIncarnation: Incarnation, lastHeard: UInt64
    ) {
      self.id = id
      self.cores = cores
      self.runtimePorts = runtimePorts
      self.switchPorts = switchPorts
      self.agentIncarnation = agentIncarnation
      self.lastHeard = lastHeard
    }
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
    public package(set) var phase: Phase
    /// Of the current or last life; 0 before the first.
    public package(set) var incarnation = Incarnation(0)
    /// Of the current or last life.
    public package(set) var host: HostID?
    /// Which share of the address pools the current life holds.
    public package(set) var poolShare: UInt32?

    public package(set) var ports: NodePorts?
    public package(set) var processID: UInt32 = 0
    /// Milliseconds.
    public package(set) var startup: UInt64 = 0
    public package(set) var lastHeard: UInt64 = 0
    public package(set) var isSilent = false
    /// It said that it goes down.
    public package(set) var isLeaving = false
    public package(set) var workerLoops: UInt64 = 0
    /// When `workerLoops` last changed.
    public package(set) var loopsMovedAt: UInt64 = 0
    /// The last word of another node that this one does not answer; forgotten as soon as it is heard.
    public package(set) var peerWitness: PeerWitness?
    /// From rules 4 on: the nodes that say that they do not hear this one, ascending.
    public package(set) var unheardBy: [PeerWitness] = []
    public package(set) var canMigrate = false
    public package(set) var canReplicate = false
    /// Who keeps the replicas of its flows.
    public package(set) var protection: Protection?
    /// It gets no new flows any more; unless it is kept, it stops when it has none.
    public package(set) var drain: Drain?
    public package(set) var workload: NodeWorkload?
    /// Which settings its functions have, and why not newer ones.
    public package(set) var settingsVersion: UInt64 = 0
    public package(set) var settingsProblem = ""
    /// What its checks say of the backends that it balances, in the order of their first verdict.
    public package(set) var backends: [Backend] = []
    /// The greatest slot it acknowledged.
    public package(set) var acknowledged = Slot.none
    /// Launches that failed since it last served well.
    public package(set) var failures: UInt32 = 0
    /// What ended its last life, for people.
    public package(set) var lastProblem = ""

    package init(id: NodeID, kind: NodeKind, waitingUntil: UInt64) {
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
      case .serving: isLeaving || drain != nil ? .stopping : .serving
      case .stopping: .stopping
      }
    }
  }

  /// How often and when a life was asked to stop.
  public struct StopRequest: Hashable, Sendable {
    public var slot: Slot
    public var retryAt: UInt64
    public var attempts: UInt32

    package init(slot: Slot, retryAt: UInt64, attempts: UInt32) {
      self.slot = slot
      self.retryAt = retryAt
      self.attempts = attempts
    }
  }

  public struct Drain: Hashable, Sendable {
    public let since: UInt64
    /// When it is stopped whatever it holds.
    public let deadline: UInt64
    /// It is not stopped, neither empty nor at a deadline, and counts as one of the cluster's runtimes.
    public package(set) var isKept: Bool

    package init(since: UInt64, deadline: UInt64, isKept: Bool = false) {
      self.since = since
      self.deadline = deadline
      self.isKept = isKept
    }
  }

  public struct AbandonedLife: Hashable, Sendable {
    public let node: NodeID
    public let kind: NodeKind
    public let incarnation: Incarnation
    public let host: HostID
    public let poolShare: UInt32?
    public package(set) var stop: StopRequest?
    /// It served and was declared dead: whatever is left of it is to be killed, not asked to stop.
    public let isDeclaredDead: Bool

    package init(
      node: NodeID, kind: NodeKind, incarnation: Incarnation, host: HostID, poolShare: UInt32?, stop: StopRequest? = nil,
      isDeclaredDead: Bool = false
    ) {
      self.node = node
      self.kind = kind
      self.incarnation = incarnation
      self.host = host
      self.poolShare = poolShare
      self.stop = stop
      self.isDeclaredDead = isDeclaredDead
    }
  }

  /// Records that moved nothing, by reason.
  public struct Ignored: Hashable, Sendable {
    public package(set) var repeated: UInt64 = 0
    public package(set) var unknown: UInt64 = 0
    /// About a node, a life, a host or a cluster that this cluster does not have.
    public package(set) var misdirected: UInt64 = 0

    package init(repeated: UInt64 = 0, unknown: UInt64 = 0, misdirected: UInt64 = 0) {
      self.repeated = repeated
      self.unknown = unknown
      self.misdirected = misdirected
    }
  }

  // MARK: Looking things up

  public func node(_ id: NodeID) -> Node? { nodeIndex(id).map { nodes[$0] } }
  public func host(_ id: HostID) -> Host? { hostIndex(id).map { hosts[$0] } }

  // By index: a closure would be handed copies of nodes, and this is asked for every heartbeat.
  func nodeIndex(_ id: NodeID) -> Int? {
    for index in nodes.indices where nodes[index].id == id { return index }
    return nil
  }
  func hostIndex(_ id: HostID) -> Int? {
    for index in hosts.indices where hosts[index].id == id { return index }
    return nil
  }
  /// The node whose current life this is.
  func nodeIndex(_ id: NodeID, _ incarnation: Incarnation) -> Int? {
    guard let index = nodeIndex(id), nodes[index].incarnation == incarnation else { return nil }
    if case .waiting = nodes[index].phase { return nil }
    return index
  }

  /// How many nodes of a kind are wanted now: by the operator, or for runtimes by the policy that acts for him.
  public func wanted(_ kind: NodeKind) -> UInt32 {
    guard let spec, !isDeleted else { return 0 }
    switch kind {
    case .runtime:
      return min(scaling.runtimes(of: spec, under: rules), ClusterSpec.maximumRuntimes, spec.poolShares)
    case .virtualSwitch: return min(spec.switches, ClusterSpec.maximumSwitches)
    }
  }

  /// Lives on a host that occupy a port of a kind, known to have ended or not.
  func used(_ kind: NodeKind, on host: HostID) -> Int {
    nodes.count { $0.kind == kind && $0.isAlive && $0.host == host } + abandoned.count { $0.kind == kind && $0.host == host }
  }
}
