import Glibc
import ModuleGraphs
import Wire

/// A port backed by memory: gives out copies of prepared frames, again and again, and takes whatever is sent.
///
/// Receiving copies one cache line per frame from the prepared frames to a buffer, as a NIC would write it, so that rewritten
/// packets do not come round again. That cost is in the baseline `rx+tx only` as it is in every measurement.
final class ReplayPort: PacketPort {
  static let frameSize = 64
  private static let bufferSize = 2_048

  /// Prepared frames, 64 bytes each, in the order they arrive.
  private let frames: UnsafeMutableRawPointer
  private let frameCapacity: Int
  private(set) var frameCount = 0
  private let buffers: UnsafeMutableRawPointer
  private var next = 0
  private(set) var transmitted: UInt64 = 0
  /// Sees every transmitted frame while flows are being set up.
  var sent: ((UnsafeRawBufferPointer) -> Void)?
  /// Frames still to be given out; the port is silent at 0.
  var remaining = 0

  init(capacity: Int) {
    frameCapacity = capacity
    let bytes = max(capacity, 1) * Self.frameSize
    // Huge pages if the kernel has some to spare; the prepared frames are the benchmark's, not the runtime's.
    frames = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    madvise(frames, bytes, 14)
    buffers = UnsafeMutableRawPointer.allocate(byteCount: Self.bufferSize * PacketBatch.capacity, alignment: 64)
    super.init(name: "replay", address: MACAddress(0x02_00_00_00_00_01))
  }

  func removeAll() {
    frameCount = 0
    next = 0
  }

  func append(_ frame: [UInt8]) {
    precondition(frame.count <= Self.frameSize && frameCount < frameCapacity, "a prepared frame has at most 64 bytes")
    frame.withUnsafeBytes { (frames + frameCount * Self.frameSize).copyMemory(from: $0.baseAddress!, byteCount: frame.count) }
    frameCount += 1
  }

  override func receive(into batch: PacketBatch, now: Tick) {
    let count = min(32, remaining)
    let (frames, frameCount, buffers) = (frames, frameCount, buffers)
    var next = next
    batch.fill { into in
      for index in 0..<count {
        let buffer = buffers + (index &* Self.bufferSize &+ 128)
        buffer.copyMemory(from: frames + next &* Self.frameSize, byteCount: Self.frameSize)
        next &+= 1
        if next == frameCount { next = 0 }
        (into + index).initialize(to: Frame(bytes: buffer, length: 60, buffer: nil, arrival: now))
      }
      return count
    }
    self.next = next
    remaining &-= count
  }

  override func transmit(_ batch: PacketBatch, mask: UInt64) -> UInt64 {
    transmitted &+= UInt64(mask.nonzeroBitCount)
    if let sent { PacketBatch.forEach(in: mask) { batch[$0].withBytes(sent) } }
    return 0
  }

  override func release(_ batch: PacketBatch, mask: UInt64) {}
}
