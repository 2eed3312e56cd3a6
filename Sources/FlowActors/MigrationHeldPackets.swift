import FixedContainers

/// Packets that wait for the state of their flow, in queues that share memory set aside at start.
///
/// A packet is copied in and handed out as a view, in the order of arrival within its queue.
@safe
struct MigrationHeldPackets: ~Copyable {
  private struct Packet: BitwiseCopyable {
    var next: UInt32 = .max
    var length: UInt16 = 0
    var side: UInt8 = 0
  }

  /// First and last packet of a queue, `.max` when it is empty.
  struct Queue: BitwiseCopyable {
    var first: UInt32 = .max
    var last: UInt32 = .max
  }

  private let packets: UnsafeMutablePointer<Packet>
  private let bytes: UnsafeMutableRawPointer
  private let longest: Int
  private var free: SlotPool

  init(capacity: Int, longest: Int, memory: MemorySource) {
    self.longest = longest
    packets = memory.allocate(Packet.self, count: capacity)
    bytes = UnsafeMutableRawPointer(memory.allocate(UInt8.self, count: capacity * longest))
    free = SlotPool(capacity: capacity, memory: memory)
  }

  var count: Int { free.used }

  /// Adds a packet; `false` when there is no room.
  mutating func put(_ frame: UnsafeRawBufferPointer, side: UInt8, in queue: inout Queue) -> Bool {
    guard frame.count <= longest, let base = frame.baseAddress, let slot = free.take() else { return false }
    packets[Int(slot)] = Packet(length: UInt16(frame.count), side: side)
    (bytes + Int(slot) * longest).copyMemory(from: base, byteCount: frame.count)
    if queue.last == .max { queue.first = slot } else { packets[Int(queue.last)].next = slot }
    queue.last = slot
    return true
  }

  /// Empties a queue.
  mutating func release(_ queue: inout Queue, _ body: (UnsafeRawBufferPointer, _ side: UInt8) -> Void) {
    var slot = queue.first
    while slot != .max {
      let packet = packets[Int(slot)]
      body(UnsafeRawBufferPointer(start: bytes + Int(slot) * longest, count: Int(packet.length)), packet.side)
      free.put(slot)
      slot = packet.next
    }
    queue = Queue()
  }
}
