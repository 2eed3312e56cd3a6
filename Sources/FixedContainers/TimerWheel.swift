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
  private static var none: UInt32 { .max }

  @usableFromInline let next: UnsafeMutablePointer<UInt32>
  @usableFromInline let previous: UnsafeMutablePointer<UInt32>
  /// First slot of each position's list.
  private let heads: UnsafeMutablePointer<UInt32>
  private let positionMask: UInt64
  /// Everything before this position has fired.
  private var position: UInt64
  public let capacity: Int

  /// - Parameters:
  ///   - capacity: slots; each can have one deadline.
  ///   - horizon: positions on the wheel, rounded up to a power of two.
  public init(capacity: Int, horizon: Int, start: UInt64, memory: MemorySource) {
    self.capacity = capacity
    var positions = 64
    while positions < horizon { positions *= 2 }
    unsafe next = memory.allocate(UInt32.self, count: capacity)
    unsafe previous = memory.allocate(UInt32.self, count: capacity)
    unsafe heads = memory.allocate(UInt32.self, count: positions)
    positionMask = UInt64(positions - 1)
    position = start
    for index in 0..<positions { unsafe heads[index] = Self.none }
    for slot in 0..<capacity { unsafe (next[slot], previous[slot]) = (Self.none, Self.none) }
  }

  /// Asks for the memory of a slot's timer.
  @inlinable
  public func prefetch(_ slot: UInt32) {
    unsafe nfv_prefetch(next + Int(slot))
    unsafe nfv_prefetch(previous + Int(slot))
  }

  /// Arms the timer of `slot`, which must not be armed. A deadline already past fires at the next advance.
  public mutating func arm(_ slot: UInt32, at deadline: UInt64) {
    // One short of a whole turn: what `fire` arms while its own list is being emptied must not land in it.
    let furthest = position + positionMask - 1
    let place = Int(min(max(deadline, position), furthest) & positionMask)
    let head = unsafe heads[place]
    unsafe next[Int(slot)] = head
    // The list's first member remembers its place, so that it can be unlinked without a search.
    unsafe previous[Int(slot)] = Self.none &- 1 &- UInt32(place)
    if head != Self.none { unsafe previous[Int(head)] = slot }
    unsafe heads[place] = slot
  }

  /// Disarms the timer of `slot`, if it is armed.
  public mutating func cancel(_ slot: UInt32) {
    let before = unsafe previous[Int(slot)]
    guard before != Self.none else { return }
    let after = unsafe next[Int(slot)]
    if before < UInt32(capacity) {
      unsafe next[Int(before)] = after
    } else {
      unsafe heads[Int(Self.none &- 1 &- before)] = after
    }
    if after != Self.none { unsafe previous[Int(after)] = before }
    unsafe (next[Int(slot)], previous[Int(slot)]) = (Self.none, Self.none)
  }

  /// Moves to `target` and fires what is due, at most `limit` timers; the rest fires at the next call.
  ///
  /// A fired timer is disarmed; `fire` may arm it or any other anew.
  ///
  /// - Returns: how many fired.
  @discardableResult
  public mutating func advance(to target: UInt64, limit: Int, fire: (inout TimerWheel, UInt32) -> Void) -> Int {
    var fired = 0
    // After a whole turn every list has been seen: a longer leap of time costs no more than one turn.
    if target > position + positionMask + 1 {
      position += (target - position - positionMask - 1) & ~positionMask
    }
    while position <= target {
      let place = Int(position & positionMask)
      var slot = unsafe heads[place]
      while slot != Self.none {
        if fired == limit { return fired }
        cancel(slot)
        fired += 1
        // What `fire` arms for this very position would loop: it belongs to the next one.
        position += 1
        fire(&self, slot)
        position -= 1
        slot = unsafe heads[place]
      }
      position += 1
    }
    return fired
  }
}
