import FixedContainers

/// Packets that wait until a holder has the state that they have led to: a ring of bytes, oldest first.
@safe
struct WaitingPackets: ~Copyable {
  /// What is known of one.
  struct Entry: BitwiseCopyable {
    var slot: UInt32
    /// Which flow of that slot it is of.
    var birth: UInt16
    /// Which holder's word it waits for.
    var epoch: UInt16
    /// Behind its state in what that holder is sent.
    var mark: UInt32 = 0
    fileprivate var length: UInt32 = 0

    init(slot: UInt32, birth: UInt16, epoch: UInt16) { (self.slot, self.birth, self.epoch) = (slot, birth, epoch) }
  }

  /// A few thousand packets: what comes while a holder has no processor for some milliseconds.
  static var usualBytes: Int { 4 << 20 }

  private let bytes: UnsafeMutableRawPointer
  private let capacity: Int
  private var head = 0
  private var used = 0

  init(bytes count: Int, memory: MemorySource) {
    capacity = count / 16 * 16
    unsafe bytes = UnsafeMutableRawPointer(memory.allocate(UInt64.self, count: capacity / 8))
  }

  @inline(__always)
  var isEmpty: Bool { used == 0 }

  /// Bytes that a packet of this length takes: its entry, and itself.
  private static func size(_ length: Int) -> Int { 16 + (length + 15) / 16 * 16 }

  /// Whether a packet fits, also where the ring's end makes it begin at its beginning.
  func hasRoom(for length: Int) -> Bool { capacity - used >= 2 * Self.size(length) }

  mutating func append(_ entry: Entry, _ packet: UnsafeRawBufferPointer) {
    let size = Self.size(packet.count)
    var place = head + used < capacity ? head + used : head + used - capacity
    if place + size > capacity {
      unsafe write(Entry(skip: capacity - place), at: place)
      used += capacity - place
      place = 0
    }
    var entry = entry
    entry.length = UInt32(packet.count)
    unsafe write(entry, at: place)
    if let base = packet.baseAddress { unsafe (bytes + place + 16).copyMemory(from: base, byteCount: packet.count) }
    used += size
  }

  private func write(_ entry: Entry, at place: Int) { unsafe bytes.storeBytes(of: entry, toByteOffset: place, as: Entry.self) }

  var first: Entry? { used == 0 ? nil : unsafe bytes.load(fromByteOffset: head, as: Entry.self) }

  /// The bytes of the first packet, until it is removed.
  @unsafe
  var firstPacket: UnsafeRawBufferPointer {
    unsafe UnsafeRawBufferPointer(start: bytes + head + 16, count: Int(bytes.load(fromByteOffset: head, as: Entry.self).length))
  }

  mutating func removeFirst() {
    step(by: Self.size(unsafe Int(bytes.load(fromByteOffset: head, as: Entry.self).length)))
    // The rest before the ring's end is no packet.
    if used > 0, let next = first, next.isSkip { step(by: Int(next.mark)) }
  }

  private mutating func step(by count: Int) {
    head = head + count < capacity ? head + count : head + count - capacity
    used -= count
    if used == 0 { head = 0 }
  }
}

extension WaitingPackets.Entry {
  fileprivate init(skip count: Int) {
    self.init(slot: .max, birth: 0, epoch: 0)
    mark = UInt32(count)
  }

  fileprivate var isSkip: Bool { slot == .max }
}
