import Wire

/// Where a flow is in its migration: two bytes of its record. What else a moving flow needs is in the slabs of
/// `MigrationSource` and `MigrationTarget`, which are as large as what may be in flight.
///
///     source:  settled ─▶ leaving ─▶ handedOver ─▶ departed       target:  arriving ─▶ settled
///
/// What a runtime does with a packet of the flow follows from the phase alone.
public struct MigrationPhase: BitwiseCopyable, Equatable, Sendable {
  public enum Step: UInt8, BitwiseCopyable, Sendable {
    /// Not migrating: packets go through the chain.
    case settled
    /// A target is being made ready, or the route is being changed: packets still go through the chain here.
    case leaving
    /// The flow state is on its way: packets that still come are sent after it, over the channel.
    case handedOver
    /// The target has it. The record stays for a while, so that late packets find where to go.
    case departed
    /// The flow state has not come yet: packets are held.
    case arriving
  }

  public var step: Step
  /// The other runtime, as an index the worker gives its peers.
  public var peer: UInt8

  public init(_ step: Step, peer: UInt8 = 0) {
    self.step = step
    self.peer = peer
  }

  public static let settled = MigrationPhase(.settled)

  /// Packets go through the chain of this runtime: it owns the flow. At any time one runtime at most does.
  @inlinable public var isServing: Bool { step.rawValue <= Step.leaving.rawValue }
  /// Idle timers and evictions leave the flow alone.
  @inlinable public var isPinned: Bool { step != .settled && step != .departed }
}

/// Who a flow's packets go to: one life of one runtime.
public struct FlowOwner: BitwiseCopyable, Equatable, Hashable, Sendable {
  public var node: UInt32
  public var incarnation: UInt64

  public init(node: UInt32, incarnation: UInt64) {
    self.node = node
    self.incarnation = incarnation
  }
}

/// Both keys of a flow: a switch has a route for each.
public enum FlowKeyPair: BitwiseCopyable, Equatable, Sendable {
  case ipv4(forward: IPv4FiveTuple, reverse: IPv4FiveTuple)
  case ipv6(forward: IPv6FiveTuple, reverse: IPv6FiveTuple)
  /// IPv6 on the client's side, IPv4 on the server's: a chain translates between the two.
  case translated(forward: IPv6FiveTuple, reverse: IPv4FiveTuple)
}

/// The sizes and times of migrations. Times are nanoseconds.
public struct MigrationSettings: Equatable, Sendable {
  /// Flows that move in one message; at most 32.
  public var flowsPerBatch = 32
  /// Batches under way at once, at a source and, over all its sources, at a target.
  public var sourceBatches = 32
  /// Of those, how many may be between the request for their routes and the target's answer: for so long packets wait at the
  /// target. The others are prepared, and their flows served as ever. A pause is what is under way over the rate.
  public var pausedBatches = 4
  public var targetBatches = 128
  /// Packets a target can hold for flows whose state has not come, and bytes of the longest.
  public var heldPackets = 4_096
  public var longestPacket = 2_048
  /// How long a step may take, or four times as long as steps take lately. The last step is asked for again after it; a missed
  /// one is counted.
  public var stepDeadline: UInt64 = 20_000_000
  /// How long the first step may take, before it is undone. Nobody waits meanwhile; a source that is flooded hears answers late.
  public var prepareDeadline: UInt64 = 2_000_000_000
  /// From how long a step takes on, the way there and back decides how long packets wait, and not how many flows are under way:
  /// then all batches may be paused.
  public var longWay: UInt64 = 5_000_000
  /// Longest message of the channel.
  public var largestMessage = 65_535

  public init() {}
}

/// Where the migration's messages go: the reliable channels of the worker.
public protocol MigrationOutbox: ~Copyable {
  /// Sends to the peer with this index; `false` when its channel has no room now. The message is copied.
  mutating func send(_ message: RawSpan, to peer: UInt8) -> Bool

  // Of a runtime whose flows are replicated; without a holder there is nothing to wait for.

  /// Tells the holders of a flow's replicas that the flow is about to be handed over to this peer; `false`: no room now.
  mutating func announce(_ slot: UInt32, to peer: UInt8) -> Bool
  /// Whether packets that were committed wait here before a holder is sent them.
  var holdsPackets: Bool { get }
  /// Behind all that the holders were sent so far.
  var commitMark: CommitMark { get }
  /// Whether the holders have everything before this mark; of one that is none by now nothing is waited for.
  func hasCommitted(_ mark: CommitMark) -> Bool
}

extension MigrationOutbox where Self: ~Copyable {
  public mutating func announce(_ slot: UInt32, to peer: UInt8) -> Bool { true }
  public var holdsPackets: Bool { false }
  public var commitMark: CommitMark { CommitMark() }
  public func hasCommitted(_ mark: CommitMark) -> Bool { true }
}

/// A place in what was sent to the holders of replicas: behind it nothing was promised yet.
public struct CommitMark: BitwiseCopyable, Equatable, Sendable {
  /// In what one of them was sent.
  public struct Place: BitwiseCopyable, Equatable, Sendable {
    public var holder: ReplicationStanding.Holder
    /// Of the channel's frame.
    public var sequence: UInt32

    public init(holder: ReplicationStanding.Holder = .none, sequence: UInt32 = 0) {
      self.holder = holder
      self.sequence = sequence
    }
  }

  public var first = Place()
  public var second = Place()
  /// Packets before it that have waited for one of them.
  public var taken: UInt64 = 0

  public init(first: Place = Place(), second: Place = Place(), taken: UInt64 = 0) {
    self.first = first
    self.second = second
    self.taken = taken
  }
}
