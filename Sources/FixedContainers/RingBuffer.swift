import Synchronization

/// A queue from one thread to one other, without locks: the only thing a worker and its control thread share
/// besides counters.
///
/// Capacity is set once; a full ring refuses. Head and tail are on cache lines of their own.
public final class RingBuffer<Element>: @unchecked Sendable {
  // Each index is written by one side only: `tail` by the sender, `head` by the receiver. A cell belongs to
  // the sender until `tail` passes it with release order, and to the receiver until `head` does. That is
  // the invariant that makes sharing the cells sound.
  private let cells: UnsafeMutablePointer<Element>
  private let mask: Int
  private let head = Atomic<Int>(0)
  private let padding = (0, 0, 0, 0, 0, 0, 0, 0)
  private let tail = Atomic<Int>(0)
  private let refusals = Atomic<UInt64>(0)

  /// How many elements did not fit; asked from any thread.
  public var refused: UInt64 { refusals.load(ordering: .relaxed) }

  /// - Parameter capacity: rounded up to a power of two.
  public init(capacity: Int) {
    var size = 2
    while size < capacity { size *= 2 }
    unsafe cells = .allocate(capacity: size)
    mask = size - 1
  }

  deinit {
    while take() != nil {}
    unsafe cells.deallocate()
  }

  /// Called by the sending thread only. `false` when the ring is full.
  public func put(_ element: consuming Element) -> Bool {
    let end = tail.load(ordering: .relaxed)
    guard end &- head.load(ordering: .acquiring) <= mask else {
      refusals.add(1, ordering: .relaxed)
      return false
    }
    unsafe (cells + end & mask).initialize(to: element)
    tail.store(end &+ 1, ordering: .releasing)
    return true
  }

  /// Called by the receiving thread only.
  public func take() -> Element? {
    let start = head.load(ordering: .relaxed)
    guard start != tail.load(ordering: .acquiring) else { return nil }
    let element = unsafe (cells + start & mask).move()
    head.store(start &+ 1, ordering: .releasing)
    return element
  }
}
