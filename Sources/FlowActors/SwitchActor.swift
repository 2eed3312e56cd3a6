import Wire

/// What a virtual switch keeps for one direction of a flow: which runtime has it.
///
/// The two directions have an entry each. The client's is made when the flow's first packet is given to a
/// runtime; the server's is learned from what that runtime sends on, since only the runtime knows how the
/// chain rewrites the packet.
public struct SwitchActor: BitwiseCopyable, Sendable {
  /// Index into the switch's `RuntimeTable`.
  public var owner: UInt16
  /// Whether the owner was named by a migration, and when, in milliseconds of the worker's time.
  private var hasMoved = false
  private var movedAt: UInt32 = 0
  /// Fences earlier owners: grows with every change of the owner.
  public var epoch: UInt32 = 0

  public init(owner: UInt16) { self.owner = owner }

  /// Gives the route to another runtime by the word of a migration.
  public mutating func move(to owner: UInt16, now: Tick) {
    hasMoved = true
    movedAt = UInt32(truncatingIfNeeded: now.milliseconds)
    self.owner = owner
    epoch &+= 1
  }

  /// A packet of the flow came from this runtime. If it is not the owner, the flow has begun anew there and the
  /// route follows; unless a migration has just named the owner, and the packet is one that was sent before: by the
  /// runtime that the flow left, or by one that it had left shortly before that.
  public mutating func hear(_ runtime: UInt16, now: Tick) {
    if runtime == owner { return }
    if hasMoved, UInt32(truncatingIfNeeded: now.milliseconds) &- movedAt < Self.linger { return }
    owner = runtime
    hasMoved = false
    epoch &+= 1
  }

  /// Milliseconds for which packets may still be on their way from a flow's former runtimes.
  public static var linger: UInt32 { 2_000 }
}

/// The runtimes a virtual switch may give flows to, and how loaded each is.
///
/// The coordinator distributes every runtime's workload from time to time; in between the switch counts the
/// flows it has given out itself, so that a burst of new flows does not all go to whoever was idle last.
public struct RuntimeTable: Sendable {
  public struct Entry: Sendable, Equatable {
    public var node: UInt32
    public var incarnation: UInt64
    /// Where client-side and server-side packets for this runtime go.
    public var input: MACAddress
    public var output: MACAddress
    /// It takes new flows.
    public var isServing: Bool
    /// Packets of the flows it has go to it: also while it drains.
    public var isAlive: Bool
    /// Flows it had when the coordinator last said so, and those given to it since.
    public var flows: UInt64

    public init(
      node: UInt32, incarnation: UInt64, input: MACAddress, output: MACAddress, isServing: Bool, isAlive: Bool? = nil, flows: UInt64
    ) {
      self.node = node
      self.incarnation = incarnation
      self.input = input
      self.output = output
      self.isServing = isServing
      self.isAlive = isAlive ?? isServing
      self.flows = flows
    }
  }

  public private(set) var entries: [Entry] = []

  public init() {}

  /// Takes over what the coordinator says. An index keeps its meaning for as long as the table lives: routes
  /// hold indexes, so a runtime that is gone stays as a place that serves nobody.
  public mutating func update(_ members: [Entry]) {
    for index in entries.indices {
      entries[index].isServing = false
      entries[index].isAlive = false
    }
    for member in members {
      if let index = entries.firstIndex(where: { $0.node == member.node && $0.incarnation == member.incarnation }) {
        entries[index] = member
      } else if entries.count < Int(UInt16.max) {
        entries.append(member)
      }
    }
  }

  /// The place of one life of one runtime.
  public func index(of owner: FlowOwner) -> UInt16? {
    entries.firstIndex { $0.node == owner.node && $0.incarnation == owner.incarnation }.map { UInt16($0) }
  }

  /// The serving runtime with the fewest flows; the lower node id among equals.
  public func leastLoaded() -> UInt16? {
    var best: Int?
    for index in entries.indices where entries[index].isServing {
      guard let leader = best else {
        best = index
        continue
      }
      let (a, b) = (entries[index], entries[leader])
      if a.flows < b.flows || (a.flows == b.flows && a.node < b.node) { best = index }
    }
    return best.map { UInt16($0) }
  }

  public mutating func assign(to index: UInt16) { entries[Int(index)].flows += 1 }

  /// Whose packet this is, by its source address. Lives of one node have the same addresses: the one that
  /// lives is meant, else the latest.
  public func index(of source: MACAddress) -> UInt16? {
    var latest: UInt16?
    for index in entries.indices where entries[index].output == source || entries[index].input == source {
      if entries[index].isAlive { return UInt16(index) }
      latest = UInt16(index)
    }
    return latest
  }
}
