import CIntrinsics

/// One deadline per slot, kept in a ring of lists: arming, cancelling and firing cost the same whatever the count.
///
/// Idle timeouts are lazy. A packet does not move its flow's timer, it only notes the time in the flow; when
/// the timer fires, the owner compares and arms it anew if the flow was used since. So a packet costs one
/// store, and nothing ever scans the flows. Deadlines beyond the horizon wait at the horizon and are armed again.
///
/// Positions are counted in the caller's grain (say 1/8 s); the wheel knows no clock.
@safe
public struct TimerWheel: ~Copyable {
  @usableFromInline static var none: UInt32 { .max }

  /// Neighbours of a slot in the list it is in: side by side, since whoever reads one reads both.
  @usableFromInline
  struct Link: BitwiseCopyable {
    @usableFromInline var next: UInt32
    @usableFromInline var previous: UInt32

    @inlinable
    init(next: UInt32, previous: UInt32) {
      self.next = next
      self.previous = previous
    }
  }

  @usableFromInline let links: UnsafeMutablePointer<Link>
  /// First slot of each position's list.
  @usableFromInline let heads: UnsafeMutablePointer<UInt32>
  @usableFromInline let positionMask: UInt64
  /// Everything before this position has fired.
  @usableFromInline var position: UInt64
  public let capacity: Int

  /// - Parameters:
  ///   - capacity: slots; each can have one deadline.
  ///   - horizon: positions on the wheel, rounded up to a power of two.
  public init(capacity: Int, horizon: Int, start: UInt64, memory: MemorySource) {
    self.capacity = capacity
    var positions = 64
    while positions < horizon { positions *= 2 }
    unsafe links = memory.allocate(Link.self, count: capacity)
    unsafe heads = memory.allocate(UInt32.self, count: positions)
    positionMask = UInt64(positions - 1)
    position = start
    for index in 0..<positions { unsafe heads[index] = Self.none }
    for slot in 0..<capacity { unsafe links[slot] = Link(next: Self.none, previous: Self.none) }
  }

  /// Asks for the memory of a slot's timer.
  @inlinable
  public func prefetch(_ slot: UInt32) {
    unsafe nfv_prefetch(links + Int(slot))
  }

  /// Arms the timer of `slot`, which must not be armed. A deadline already past fires at the next advance.
  @inline(__always)
  public mutating func arm(_ slot: UInt32, at deadline: UInt64) {
    // One short of a whole turn: what is armed while a list is being emptied must not land in it.
    let furthest = position &+ positionMask &- 1
    let place = Int(truncatingIfNeeded: min(max(deadline, position), furthest) & positionMask)
    let head = unsafe heads[place]
    // The list's first member remembers its place, so that it can be unlinked without a search.
    unsafe links[Int(slot)] = Link(next: head, previous: Self.mark(place))
    if head != Self.none { unsafe links[Int(head)].previous = slot }
    unsafe heads[place] = slot
  }

  /// Disarms the timer of `slot`, if it is armed.
  public mutating func cancel(_ slot: UInt32) {
    let before = unsafe links[Int(slot)].previous
    guard before != Self.none else { return }
    let after = unsafe links[Int(slot)].next
    if before < UInt32(truncatingIfNeeded: capacity) {
      unsafe links[Int(before)].next = after
    } else {
      unsafe heads[Int(Self.none &- 1 &- before)] = after
    }
    if after != Self.none { unsafe links[Int(after)].previous = before }
    unsafe links[Int(slot)] = Link(next: Self.none, previous: Self.none)
  }

  /// Moves to `target` and notes in `fired` what is due, at most as many as there is room for; the rest fires at the next call.
  ///
  /// A fired timer is disarmed. One that is armed anew for a position up to `target` before everything due has fired may fire
  /// before the others of its list.
  ///
  /// - Parameter ask: called with each at once, to ask for its owner's memory while the next one is looked for.
  /// - Returns: how many fired.
  @inlinable @inline(__always)
  public mutating func advance(
    to target: UInt64, into fired: UnsafeMutableBufferPointer<UInt32>, _ ask: (UInt32) -> Void = { _ in }
  ) -> Int {
    // After a whole turn every list has been seen: a longer leap of time costs no more than one turn.
    if target > position &+ positionMask &+ 1 { position &+= (target &- position &- positionMask &- 1) & ~positionMask }
    var count = 0
    while position <= target {
      let place = Int(truncatingIfNeeded: position & positionMask)
      var slot = unsafe heads[place]
      if slot != Self.none {
        // What fires goes one after the other: only who is first in the end has to know it.
        while slot != Self.none, count < fired.count {
          let next = unsafe links[Int(slot)].next
          unsafe links[Int(slot)] = Link(next: Self.none, previous: Self.none)
          unsafe fired[count] = slot
          ask(slot)
          count &+= 1
          slot = next
        }
        unsafe heads[place] = slot
        if slot != Self.none {
          unsafe links[Int(slot)].previous = Self.mark(place)
          return count
        }
      }
      position &+= 1
    }
    return count
  }

  /// What the first member of a list has in the place of a neighbour before it.
  @inlinable @inline(__always)
  static func mark(_ place: Int) -> UInt32 { none &- 1 &- UInt32(truncatingIfNeeded: place) }
}
