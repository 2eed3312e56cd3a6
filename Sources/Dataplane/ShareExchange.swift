import FixedContainers
import FlowActors
import NetworkFunctions
import Wire

/// Brings back to its owner what flows had taken from the shared state of another runtime: an external endpoint of a NAT,
/// say, whose flow moved and ended here.
///
///     chain.takeReturn ─▶ waits until nothing of its flow can be on its way ─▶ channel ─▶ chain.takeBack of the owner
///
/// A return goes out once, over a channel that delivers once; if the owner's life ends meanwhile, its books end with it. What
/// nobody can take back, as its share has no living runtime, is counted and forgotten.
@safe
struct ShareExchange: ~Copyable {
  private struct Waiting: BitwiseCopyable {
    var returned = SharedReturn(share: 0, words: SIMD2(0, 0))
    /// Low 32 bits of the tick in milliseconds when it may go.
    var due: UInt32 = 0
  }

  private let layout: UInt64
  /// Returns of this runtime's flows, oldest first, in a ring.
  private let outgoing: UnsafeMutablePointer<Waiting>
  private let capacity: Int
  private var first = 0
  private var waiting = 0
  /// Returns to this runtime that came before their flow had left, by its books.
  private let early: UnsafeMutablePointer<SharedReturn>
  private static let earlyCapacity = 1_024
  private var earlyCount = 0
  /// By peer: its share, or -1.
  private let shares: UnsafeMutablePointer<Int32>
  private let scratch: UnsafeMutableRawPointer
  private var next = Tick.zero

  private(set) var sent: UInt64 = 0
  private(set) var accepted: UInt64 = 0
  /// Fitted nothing that is missing here.
  private(set) var refused: UInt64 = 0
  /// Nobody alive has their share.
  private(set) var ownerless: UInt64 = 0

  /// Milliseconds that a return waits. A switch that has just moved a flow's routes does not believe its former runtime for
  /// so long (`SwitchActor.linger`): by then the owner may give the endpoint to another flow.
  static var delay: UInt32 { SwitchActor.linger }

  /// - Parameter capacity: most returns that wait; what the functions owe beyond that waits with them.
  init(layout: UInt64, capacity: Int, memory: MemorySource) {
    self.layout = layout
    self.capacity = capacity
    unsafe outgoing = memory.allocate(Waiting.self, count: capacity)
    unsafe early = memory.allocate(SharedReturn.self, count: Self.earlyCapacity)
    unsafe shares = memory.allocate(Int32.self, count: Peers.capacity)
    unsafe scratch = UnsafeMutableRawPointer(memory.allocate(UInt8.self, count: MigrationMessage.headerLength + 24 * 32))
    for peer in 0..<Peers.capacity { unsafe shares[peer] = -1 }
  }

  // MARK: Owners

  /// Takes over what the coordinator says of who has which share.
  mutating func update(_ members: [RuntimeTable.Entry], _ peers: borrowing Peers) {
    for peer in 0..<Peers.capacity { unsafe shares[peer] = -1 }
    for member in members where member.isAlive {
      guard let share = member.share, let peer = peers.index(ofNode: member.node) else { continue }
      unsafe shares[Int(peer)] = Int32(share.index)
    }
  }

  private func owner(of share: UInt16) -> UInt8? {
    for peer in 0..<Peers.capacity { if unsafe shares[peer] == Int32(share) { return UInt8(peer) } }
    return nil
  }

  // MARK: Returns

  /// Does what is due, once in a millisecond.
  ///
  /// - Parameter isLending: flows are leaving here, whose return may come before they have left by the books.
  mutating func advance(chain: ServiceChain, peers: inout Peers, isLending: Bool, now: Tick) {
    guard now >= next else { return }
    next = now.advanced(byMilliseconds: 1)
    collect(chain, now: now)
    deliver(&peers, now: UInt32(truncatingIfNeeded: now.milliseconds))
    if earlyCount > 0 { acceptEarly(chain, isLending: isLending) }
  }

  /// The runtime ends: what waits goes now.
  mutating func hurry(chain: ServiceChain, peers: inout Peers, now: Tick) {
    collect(chain, now: now)
    deliver(&peers, now: UInt32(truncatingIfNeeded: now.milliseconds) &+ Self.delay)
  }

  private mutating func collect(_ chain: ServiceChain, now: Tick) {
    let due = UInt32(truncatingIfNeeded: now.milliseconds) &+ Self.delay
    while waiting < capacity, let returned = chain.takeReturn() {
      unsafe outgoing[(first + waiting) % capacity] = Waiting(returned: returned, due: due)
      waiting += 1
    }
  }

  private mutating func deliver(_ peers: inout Peers, now: UInt32) {
    var returns = InlineArray<32, SharedReturn>(repeating: SharedReturn(share: 0, words: SIMD2(0, 0)))
    while waiting > 0 {
      let head = unsafe outgoing[first].returned
      var count = 0
      while count < min(MigrationMessage.mostFlows, waiting) {
        let entry = unsafe outgoing[(first + count) % capacity]
        guard Int32(bitPattern: now &- entry.due) >= 0, entry.returned.share == head.share else { break }
        returns[count] = entry.returned
        count += 1
      }
      guard count > 0 else { return }
      if let owner = owner(of: head.share) {
        let message = unsafe MigrationMessage.returns(returns.span.extracting(0..<count), layout: layout, into: scratch)
        guard unsafe peers.send(message.bytes, to: owner) else { return }
        sent &+= UInt64(count)
      } else {
        ownerless &+= UInt64(count)
      }
      first = (first + count) % capacity
      waiting -= count
    }
  }

  /// Takes a message of kind `returned`; `false` when it is malformed.
  mutating func accept(_ message: RawSpan, chain: ServiceChain, isLending: Bool, now: Tick) -> Bool {
    message.withUnsafeBytes { bytes in
      unsafe MigrationMessage.returns(bytes, layout: layout) { returned in
        if chain.takeBack(returned) {
          accepted &+= 1
        } else if isLending, earlyCount < Self.earlyCapacity {
          unsafe early[earlyCount] = returned
          earlyCount += 1
        } else {
          refused &+= 1
        }
      }
    }
  }

  private mutating func acceptEarly(_ chain: ServiceChain, isLending: Bool) {
    var kept = 0
    for index in 0..<earlyCount {
      let returned = unsafe early[index]
      if chain.takeBack(returned) {
        accepted &+= 1
      } else if isLending {
        unsafe early[kept] = returned
        kept += 1
      } else {
        refused &+= 1
      }
    }
    earlyCount = kept
  }
}
