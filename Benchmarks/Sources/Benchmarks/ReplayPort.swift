import CChain
import Glibc
import ModuleGraphs
import Wire

/// Frames of one length in memory, in the order they will arrive.
final class PreparedFrames {
  let length: Int
  /// Bytes from frame to frame: whole cache lines.
  let stride: Int
  let capacity: Int
  private(set) var count = 0
  let base: UnsafeMutableRawPointer

  init(capacity: Int, length: Int = 60) {
    self.length = length
    self.capacity = max(1, capacity)
    stride = (length + 63) / 64 * 64
    // Huge pages if the kernel has some to spare; the prepared frames are the benchmark's, not the runtime's.
    base = mmap(nil, self.capacity * stride, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    madvise(base, self.capacity * stride, 14)
  }

  deinit { munmap(base, capacity * stride) }

  /// Room for the next frame, zeroed.
  func append() -> UnsafeMutableRawPointer {
    precondition(count < capacity, "there is room for every prepared frame")
    defer { count += 1 }
    return base + count * stride
  }

  /// Lets both sides of every TCP connection go on by so many bytes: the same text comes once more, and not again.
  func goOn(_ bytes: UInt32) {
    for index in 0..<count {
      let frame = base + index * stride
      var sum = UInt64(~frame.loadUnaligned(fromByteOffset: 50, as: UInt16.self))
      for at in [38, 42] {
        let old = frame.loadUnaligned(fromByteOffset: at, as: UInt32.self)
        let new = (UInt32(bigEndian: old) &+ bytes).bigEndian
        frame.storeBytes(of: new, toByteOffset: at, as: UInt32.self)
        // RFC 1624, with two words of the header at once.
        sum += UInt64(~old) + UInt64(new)
      }
      frame.storeBytes(of: ~Checksum.fold(sum), toByteOffset: 50, as: UInt16.self)
    }
  }
}

/// A port backed by memory: gives out copies of prepared frames, again and again, and takes whatever is sent.
///
/// Receiving copies a frame to a buffer, as a NIC would write it, so that rewritten packets do not come round again. That cost
/// is in the baseline `rx+tx only` as it is in every measurement, and the C loop receives from the same memory.
final class ReplayPort: PacketPort {
  /// Shared with the C loop, which uses it in the place of this class.
  let memory: UnsafeMutablePointer<cchain_replay>
  private var frames: PreparedFrames?

  init() {
    memory = .allocate(capacity: 1)
    memory.initialize(to: cchain_replay())
    memory.pointee.buffers = .allocate(capacity: Int(CCHAIN_BUFFER_STRIDE) * PacketBatch.capacity)
    super.init(name: "replay", address: MACAddress(0x02_00_00_00_00_01))
  }

  deinit {
    memory.pointee.buffers.deallocate()
    memory.deallocate()
  }

  /// Where the next frame comes from.
  var position: UInt64 { memory.pointee.next }

  /// Plays these from their beginning, or from where they were left.
  func insert(_ frames: PreparedFrames, at position: UInt64 = 0) {
    self.frames = frames
    memory.pointee.frames = frames.base.assumingMemoryBound(to: UInt8.self)
    memory.pointee.count = UInt64(frames.count)
    memory.pointee.length = UInt32(frames.length)
    memory.pointee.stride = UInt32(frames.stride)
    memory.pointee.next = position
  }

  override func receive(into batch: PacketBatch, now: Tick) {
    let count = min(32, Int(memory.pointee.remaining))
    let (frames, buffers, stride, length) = (
      UnsafeRawPointer(memory.pointee.frames!), UnsafeMutableRawPointer(memory.pointee.buffers!), Int(memory.pointee.stride),
      Int(memory.pointee.length)
    )
    var next = Int(memory.pointee.next)
    let end = Int(memory.pointee.count)
    batch.fill { into in
      for index in 0..<count {
        let buffer = buffers + (index &* Int(CCHAIN_BUFFER_STRIDE) &+ 128)
        if stride == 64 {
          buffer.copyMemory(from: frames + next &* 64, byteCount: 64)
        } else {
          buffer.copyMemory(from: frames + next &* stride, byteCount: stride)
        }
        next &+= 1
        if next == end { next = 0 }
        (into + index).initialize(to: Frame(bytes: buffer, length: length, buffer: nil, arrival: now))
      }
      return count
    }
    memory.pointee.next = UInt64(next)
    memory.pointee.remaining &-= UInt64(count)
  }

  override func transmit(_ batch: PacketBatch, mask: UInt64) -> UInt64 {
    memory.pointee.transmitted &+= UInt64(mask.nonzeroBitCount)
    if memory.pointee.captured != nil { capture(batch, mask) }
    return 0
  }

  private func capture(_ batch: PacketBatch, _ mask: UInt64) {
    PacketBatch.forEach(in: mask) { index in
      batch[index].withBytes { bytes in
        UnsafeMutableRawPointer(memory.pointee.captured).copyMemory(from: bytes.baseAddress!, byteCount: bytes.count)
        memory.pointee.captured += bytes.count
      }
    }
  }

  override func release(_ batch: PacketBatch, mask: UInt64) {}
}
