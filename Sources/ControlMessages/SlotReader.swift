/// Decides which copies of commands a reader takes: the first copy of the next slot, nothing else.
///
/// Several coordinators may write the same slot, and a coordinator that was dead for an hour may write an
/// old one again. Since every replica computes the same slots, the first copy of a slot in the partition is
/// the command; every later copy, and every slot that is not the next, is passed over. No lease, no leader.
///
/// A launched process starts after the slot of its own launch command; a tool starts after `Slot.none`.
public struct SlotReader: Hashable, Sendable {
  public enum Reading: Hashable, Sendable {
    /// The next expected slot: act on it.
    case taken
    /// A later copy of a slot already taken.
    case repeated
    /// A slot whose predecessors have not been seen; its writer was ahead of the log. It will come again.
    case early
  }

  /// The last slot taken.
  public private(set) var last: Slot

  public init(after last: Slot = .none) { self.last = last }

  public var next: Slot { last.next }

  public mutating func read(_ slot: Slot) -> Reading {
    if slot <= last { return .repeated }
    guard slot == next else { return .early }
    last = slot
    return .taken
  }
}
