import NetworkFunctions
import Wire

/// What a virtual switch keeps for one direction of a flow: which runtime has it.
///
/// The two directions have an entry each. The client's is made when the flow's first packet is given to a
/// runtime; the server's is learned from what that runtime sends on, since only the runtime knows how the
/// chain rewrites the packet.
public struct SwitchActor: BitwiseCopyable, Sendable {
  /// Index into the switch's `RuntimeTable`.
  public var owner: UInt16
  /// Whom a migration took the flow from, `.max` when none named the owner; and when, in milliseconds of the worker's time.
  private var former: UInt16 = .max
  private var movedAt: UInt32 = 0
  /// Fences earlier owners: grows with every change of the owner.
  public var epoch: UInt32 = 0

  public init(owner: UInt16) { self.owner = owner }

  /// Gives the route to another runtime by the word of a migration.
  public mutating func move(to owner: UInt16, now: Tick) {
    former = self.owner
    movedAt = UInt32(truncatingIfNeeded: now.milliseconds)
    self.owner = owner
    epoch &+= 1
  }

  /// Whom a migration has just taken the flow from: who may have it again if the owner dies.
  public func recentFormer(now: Tick) -> UInt16? {
    former != .max && UInt32(truncatingIfNeeded: now.milliseconds) &- movedAt < Self.linger ? former : nil
  }

  /// A packet of the flow came from this runtime. If it is not the owner, the flow has begun anew there and the
  /// route follows; unless a migration has just named the owner, and the packet is one that was sent before: by the
  /// runtime that the flow left, or by one that it had left shortly before that.
  public mutating func hear(_ runtime: UInt16, now: Tick) {
    if runtime == owner { return }
    if former != .max, UInt32(truncatingIfNeeded: now.milliseconds) &- movedAt < Self.linger { return }
    owner = runtime
    former = .max
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
    /// Its share of the endpoints that functions hand out; `nil` while that is not known.
    public var share: RuntimeShare?
    /// Flows it had when the coordinator last said so, and those given to it since.
    public var flows: UInt64

    public init(
      node: UInt32, incarnation: UInt64, input: MACAddress, output: MACAddress, isServing: Bool, isAlive: Bool? = nil, flows: UInt64,
      share: RuntimeShare? = nil
    ) {
      self.share = share
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
  /// By index: who has taken over the flows of a life that is over.
  private var heirs: [Heir] = []
  /// Whether flows are replicated: then the routes of a dead runtime wait for word of who recovers its flows.
  public var awaitsRecovery = false

  public init() {}

  /// Who has a runtime's flows.
  public enum Heir: Equatable, Sendable {
    /// Nobody has said so yet.
    case unknown
    case runtime(UInt16)
    /// They are lost.
    case nobody
  }

  /// The life is over, and its flows are `by`'s, or nobody's: one write, however many flows there are.
  public mutating func recover(_ lost: FlowOwner, by: FlowOwner?) {
    guard let index = index(of: lost) else { return }
    entries[Int(index)].isServing = false
    entries[Int(index)].isAlive = false
    heirs[Int(index)] = by.flatMap { self.index(of: $0) }.map(Heir.runtime) ?? .nobody
  }

  /// Who has the flows of a runtime that is not alive: the end of a chain, if heirs have died since.
  public func heir(of index: UInt16) -> Heir {
    var index = index
    for _ in 0..<entries.count {
      guard case .runtime(let next) = heirs[Int(index)] else { break }
      if entries[Int(next)].isAlive { return .runtime(next) }
      index = next
    }
    return awaitsRecovery && heirs[Int(index)] == .unknown ? .unknown : .nobody
  }

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
        // What was recovered stays over.
        if heirs[index] != .unknown { (entries[index].isServing, entries[index].isAlive) = (false, false) }
      } else if entries.count < Int(UInt16.max) {
        entries.append(member)
        heirs.append(.unknown)
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

  /// The serving runtime whose share of the functions' endpoints has this port.
  public func serving(_ endpoints: ServerSideEndpoints, port: UInt16) -> UInt16? {
    entries.firstIndex { entry in
      guard entry.isServing, let share = entry.share else { return false }
      return endpoints.share(of: port, count: share.count) == share.index
    }.map { UInt16($0) }
  }

  /// The serving runtime that a word falls to: the same one for as long as it serves, and when another comes or goes only
  /// the words change that fall to that one (rendezvous hashing).
  public func serving(for word: UInt64) -> UInt16? {
    var best: (index: Int, score: UInt64)?
    for index in entries.indices where entries[index].isServing {
      let mixed = (word ^ UInt64(entries[index].node) &* 0x9e37_79b9_7f4a_7c15).multipliedFullWidth(by: 0xd6e8_feb8_6659_fd93)
      let score = mixed.high ^ mixed.low
      if best.map({ score > $0.score }) ?? true { best = (index, score) }
    }
    return best.map { UInt16($0.index) }
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
