import FixedContainers

/// Who is told of ends: each of at most two streams of replicas.
public enum EndsReader: Sendable {
  case one, other
}

/// Slots whose flows have ended and whose replicas are to end too: each once, oldest first. Room for all slots there are.
@safe
public struct SlotLog: ~Copyable {
  private let ring: UnsafeMutablePointer<UInt32>
  private let listed: UnsafeMutablePointer<UInt64>
  private let capacity: Int
  private var head = 0
  public private(set) var count = 0

  public init(capacity: Int, memory: MemorySource) {
    self.capacity = capacity
    unsafe ring = memory.allocate(UInt32.self, count: capacity)
    unsafe listed = memory.allocate(UInt64.self, count: (capacity + 63) / 64)
  }

  /// Whether it has room for any.
  public var isKept: Bool { capacity > 0 }
  public var first: UInt32? { count == 0 ? nil : unsafe ring[head] }

  /// Notes a slot; a log without room for any notes nothing.
  public mutating func append(_ slot: UInt32) {
    guard capacity > 0 else { return }
    let bit: UInt64 = 1 << UInt64(slot & 63)
    guard unsafe listed[Int(slot >> 6)] & bit == 0 else { return }
    unsafe listed[Int(slot >> 6)] |= bit
    let place = head + count < capacity ? head + count : head + count - capacity
    unsafe ring[place] = slot
    count += 1
  }

  public mutating func removeFirst() {
    let slot = unsafe ring[head]
    unsafe listed[Int(slot >> 6)] &= ~(1 << UInt64(slot & 63))
    head = head + 1 < capacity ? head + 1 : 0
    count -= 1
  }
}
