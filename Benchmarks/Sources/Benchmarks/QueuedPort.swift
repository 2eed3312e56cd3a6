import Dataplane
import Glibc
import ModuleGraphs
import Wire

/// Memory for frames, shared by ports that send on what others have received, as DPDK ports of one pool do.
final class FrameMemory {
  static let longest = 2_048
  private let base: UnsafeMutableRawPointer
  private let free: UnsafeMutablePointer<UnsafeMutableRawPointer>
  private var count: Int
  let capacity: Int

  init(capacity: Int) {
    self.capacity = capacity
    base = .allocate(byteCount: capacity * Self.longest, alignment: 4_096)
    free = .allocate(capacity: capacity)
    for index in 0..<capacity { (free + index).initialize(to: base + index * Self.longest) }
    count = capacity
  }

  deinit {
    base.deallocate()
    free.deallocate()
  }

  /// Frames that somebody has.
  var used: Int { capacity - count }

  func take() -> UnsafeMutableRawPointer? {
    guard count > 0 else { return nil }
    count -= 1
    return free[count]
  }

  func give(_ frame: UnsafeMutableRawPointer) {
    free[count] = frame
    count += 1
  }
}

/// A port whose frames come from a queue in memory, and go, uncopied and at once, to where a subclass sends them.
class QueuedPort: PacketPort {
  struct Entry {
    var bytes: UnsafeMutableRawPointer
    var length: Int
  }

  static let burst = 32
  private static let capacity = 32_768
  let memory: FrameMemory
  private let queue: UnsafeMutablePointer<Entry>
  private var first = 0
  private(set) var waiting = 0

  init(_ name: String, _ address: MACAddress, memory: FrameMemory) {
    self.memory = memory
    queue = .allocate(capacity: Self.capacity)
    super.init(name: name, address: address)
  }

  deinit { queue.deallocate() }

  /// Gives back what nobody will fetch any more.
  func discard() {
    while waiting > 0 {
      memory.give(queue[first].bytes)
      first = (first + 1) & (Self.capacity - 1)
      waiting -= 1
    }
  }

  /// Takes a frame over; `false` when the queue is full.
  func put(_ bytes: UnsafeMutableRawPointer, length: Int) -> Bool {
    guard waiting < Self.capacity else { return false }
    (queue + ((first + waiting) & (Self.capacity - 1))).initialize(to: Entry(bytes: bytes, length: length))
    waiting += 1
    return true
  }

  override func receive(into batch: PacketBatch, now: Tick) {
    let count = min(Self.burst, waiting)
    for _ in 0..<count {
      let entry = queue[first]
      batch.append(bytes: entry.bytes, length: entry.length, buffer: entry.bytes, arrival: now)
      first = (first + 1) & (Self.capacity - 1)
    }
    waiting -= count
  }

  override func release(_ batch: PacketBatch, mask: UInt64) {
    PacketBatch.forEach(in: mask) { memory.give(batch[$0].buffer!) }
  }

  override func makeFrame(in batch: PacketBatch, length: Int, now: Tick) -> Bool {
    guard let bytes = memory.take() else { return false }
    bytes.initializeMemory(as: UInt8.self, repeating: 0, count: length)
    batch.append(bytes: bytes, length: length, buffer: bytes, arrival: now)
    return true
  }

  override func makeFrames(in batch: PacketBatch, lengths: UnsafeBufferPointer<UInt16>, now: Tick) -> Int {
    for made in 0..<lengths.count {
      guard let bytes = memory.take() else { return made }
      batch.append(bytes: bytes, length: Int(lengths[made]), buffer: bytes, arrival: now)
    }
    return lengths.count
  }
}

/// A node's port on the fabric: what it sends is in the queue of the node with the destination's address.
final class FabricPort: QueuedPort {
  /// By node number; looking one up costs no more than a port's table of addresses would.
  private static let mostNodes = 64
  private let nodes: UnsafeMutablePointer<Unmanaged<FabricPort>?>
  private var kept: [Int: FabricPort] = [:]
  /// Bytes of the frames of channels that it has sent, and how many there were.
  private(set) var channelBytes = 0
  private(set) var channelFrames = 0

  override init(_ name: String, _ address: MACAddress, memory: FrameMemory) {
    nodes = .allocate(capacity: Self.mostNodes)
    nodes.initialize(repeating: nil, count: Self.mostNodes)
    super.init(name, address, memory: memory)
  }

  deinit { nodes.deallocate() }

  static func connect(_ ports: [(node: UInt32, port: FabricPort)]) {
    for (_, port) in ports { for (node, other) in ports { port.connect(node, other) } }
  }

  private func connect(_ node: UInt32, _ other: FabricPort) {
    kept[Int(node)] = other
    nodes[Int(node)] = .passUnretained(other)
  }

  override func transmit(_ batch: PacketBatch, mask: UInt64) -> UInt64 {
    var refused: UInt64 = 0
    PacketBatch.forEach(in: mask) { index in
      let node = Int(batch[index].destinationMAC.value >> 8 & 0xffff)
      let (bytes, length) = (batch[index].buffer!, Int(batch[index].length))
      let other = node < Self.mostNodes ? nodes[node] : nil
      if other?._withUnsafeGuaranteedRef({ $0.put(bytes, length: length) }) != true { refused |= 1 << UInt64(index) }
      if bytes.load(fromByteOffset: 12, as: UInt16.self) == UInt16(0x88b5).bigEndian {
        channelBytes += length
        channelFrames += 1
      }
    }
    return refused
  }
}

/// An uplink with the whole world behind it: every address answers ARP, and packets are handed to a book.
final class OutsidePort: QueuedPort {
  /// Whom answers come from.
  private let neighbor: MACAddress
  private let note: (UnsafeRawPointer) -> Void

  init(
    _ name: String, _ address: MACAddress, neighbor: MACAddress, memory: FrameMemory, note: @escaping (UnsafeRawPointer) -> Void
  ) {
    self.neighbor = neighbor
    self.note = note
    super.init(name, address, memory: memory)
  }

  override func transmit(_ batch: PacketBatch, mask: UInt64) -> UInt64 {
    PacketBatch.forEach(in: mask) { index in
      let bytes = batch[index].buffer!
      if bytes.load(fromByteOffset: 12, as: UInt16.self) == UInt16(0x0806).bigEndian {
        answer(bytes, length: Int(batch[index].length))
      } else {
        note(bytes)
        memory.give(bytes)
      }
    }
    return 0
  }

  /// The request becomes its answer (RFC 826).
  private func answer(_ bytes: UnsafeMutableRawPointer, length: Int) {
    let (sender, wanted) = (
      bytes.loadUnaligned(fromByteOffset: 28, as: UInt32.self), bytes.loadUnaligned(fromByteOffset: 38, as: UInt32.self)
    )
    Self.write(address, neighbor, to: bytes)
    bytes.storeBytes(of: UInt16(2).bigEndian, toByteOffset: 20, as: UInt16.self)
    memmove(bytes + 22, bytes + 6, 6)
    bytes.storeBytes(of: wanted, toByteOffset: 28, as: UInt32.self)
    memmove(bytes + 32, bytes, 6)
    bytes.storeBytes(of: sender, toByteOffset: 38, as: UInt32.self)
    if !put(bytes, length: length) { memory.give(bytes) }
  }

  /// Makes a frame one that has come from the world to this port.
  func address(_ bytes: UnsafeMutableRawPointer) { Self.write(address, neighbor, to: bytes) }

  private static func write(_ destination: MACAddress, _ source: MACAddress, to bytes: UnsafeMutableRawPointer) {
    for (at, address) in [(0, destination.value), (6, source.value)] {
      bytes.storeBytes(of: UInt16(truncatingIfNeeded: address >> 32).bigEndian, toByteOffset: at, as: UInt16.self)
      bytes.storeBytes(of: UInt32(truncatingIfNeeded: address).bigEndian, toByteOffset: at + 2, as: UInt32.self)
    }
  }
}
