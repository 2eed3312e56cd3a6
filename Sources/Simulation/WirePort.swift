import ModuleGraphs
import NetworkFunctionTesting
import Wire

/// A port without a device: packets put into `incoming` are received, what is transmitted stands in `sent`.
///
/// Ports that share a `WireMemory` may transmit each other's frames, as DPDK ports of one pool may. The memory
/// keeps books: a frame given back twice stops the test, and one never given back can be asked for.
public final class WirePort: PacketPort {
  public var incoming: [TestPacket] = []
  public private(set) var sent: [TestPacket] = []
  /// Frames it still accepts; then its transmit queue is full.
  public var room = Int.max
  /// Bytes of the longest IP packet.
  public var longest = 65_535
  public override var mtu: Int { longest }
  /// Frames per burst.
  public var burst = PacketBatch.capacity
  public let memory: WireMemory

  public init(_ name: String, _ address: MACAddress, memory: WireMemory = WireMemory()) {
    self.memory = memory
    super.init(name: name, address: address)
  }

  /// What was transmitted since the last call.
  public func takeSent() -> [TestPacket] {
    defer { sent = [] }
    return sent
  }

  public override func receive(into batch: PacketBatch, now: Tick) {
    let count = min(burst, incoming.count)
    for packet in incoming.prefix(count) { memory.append(packet.bytes, to: batch, now: now) }
    incoming.removeFirst(count)
  }

  public override func transmit(_ batch: PacketBatch, mask: UInt64) -> UInt64 {
    var refused: UInt64 = 0
    PacketBatch.forEach(in: mask) { index in
      guard room > 0 else {
        refused |= 1 << UInt64(index)
        return
      }
      room -= 1
      batch[index].withBytes { sent.append(TestPacket(bytes: Array($0))) }
      memory.free(batch[index])
    }
    return refused
  }

  public override func release(_ batch: PacketBatch, mask: UInt64) {
    PacketBatch.forEach(in: mask) { memory.free(batch[$0]) }
  }

  public override func allowResizing() -> Bool { true }

  public override func makeFrame(in batch: PacketBatch, length: Int, now: Tick) -> Bool {
    memory.append(Array(repeating: 0, count: length), to: batch, now: now)
    return true
  }
}

/// The frames of one or several `WirePort`s, each in memory of exactly its size and the room before it.
public final class WireMemory {
  private var used: Set<UnsafeMutableRawPointer> = []

  /// Frames that nobody has given back yet.
  public var framesInUse: Int { used.count }

  public init() {}

  public func append(_ bytes: [UInt8], to batch: PacketBatch, now: Tick) {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: Frame.headroom + bytes.count, alignment: 16)
    let start = memory + Frame.headroom
    start.copyMemory(from: bytes, byteCount: bytes.count)
    used.insert(memory)
    batch.append(bytes: start, length: bytes.count, buffer: memory, arrival: now)
  }

  public func free(_ frame: borrowing Frame) {
    guard let memory = frame.buffer, used.remove(memory) != nil else {
      preconditionFailure("a frame is given back once, and only to the memory it came from")
    }
    memory.deallocate()
  }

  deinit { for memory in used { memory.deallocate() } }
}
