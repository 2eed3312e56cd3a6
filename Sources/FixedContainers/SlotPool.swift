/// Free slots of a preallocated slab, last returned first: the warmest memory is used again at once.
@safe
public struct SlotPool: ~Copyable {
  private let free: UnsafeMutablePointer<UInt32>
  private var freeCount: Int
  public let capacity: Int

  public init(capacity: Int, memory: MemorySource) {
    precondition(capacity < Int(UInt32.max), "slots are numbered with 32 bits")
    unsafe free = memory.allocate(UInt32.self, count: capacity)
    self.capacity = capacity
    freeCount = capacity
    for index in 0..<capacity { unsafe free[index] = UInt32(capacity - 1 - index) }
  }

  public var used: Int { capacity - freeCount }

  /// A slot nobody uses, or `nil` when all are used.
  @inline(__always)
  public mutating func take() -> UInt32? {
    guard freeCount > 0 else { return nil }
    freeCount -= 1
    return unsafe free[freeCount]
  }

  /// The slot that `take` will return after `ahead` others, or `nil`: to ask for its memory in time.
  @inline(__always)
  public func upcoming(_ ahead: Int) -> UInt32? {
    ahead < freeCount ? unsafe free[freeCount - 1 - ahead] : nil
  }

  @inline(__always)
  public mutating func put(_ slot: UInt32) {
    precondition(freeCount < capacity, "a slot is given back once")
    unsafe free[freeCount] = slot
    freeCount += 1
  }
}
