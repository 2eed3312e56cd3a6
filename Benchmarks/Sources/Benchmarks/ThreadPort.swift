import FixedContainers
import ModuleGraphs
import Wire

/// A port that leads to another thread of this process: frames are handed over uncopied, and their memory comes back.
final class ThreadPort: PacketPort, @unchecked Sendable {
  private struct Entry {
    var bytes: UnsafeMutableRawPointer
    var length: Int
  }

  private static let burst = 32
  private let outgoing: RingBuffer<Entry>
  private let incoming: RingBuffer<Entry>
  /// Memory of frames that were received here and belong to the other side; and of this side's that has come back.
  private let returning: RingBuffer<UnsafeMutableRawPointer>
  private let returned: RingBuffer<UnsafeMutableRawPointer>
  private var free: [UnsafeMutableRawPointer]

  private init(
    _ name: String, _ out: RingBuffer<Entry>, _ in: RingBuffer<Entry>, _ returning: RingBuffer<UnsafeMutableRawPointer>,
    _ returned: RingBuffer<UnsafeMutableRawPointer>
  ) {
    (outgoing, incoming, self.returning, self.returned) = (out, `in`, returning, returned)
    free = (0..<1_024).map { _ in .allocate(byteCount: 2_048, alignment: 64) }
    super.init(name: name, address: MACAddress(0))
  }

  /// Both ends. Their memory lasts as long as the process.
  static func pair() -> (ThreadPort, ThreadPort) {
    let (there, back) = (RingBuffer<Entry>(capacity: 256), RingBuffer<Entry>(capacity: 256))
    let (thereAgain, backAgain) = (
      RingBuffer<UnsafeMutableRawPointer>(capacity: 2_048), RingBuffer<UnsafeMutableRawPointer>(capacity: 2_048)
    )
    return (ThreadPort("left", there, back, thereAgain, backAgain), ThreadPort("right", back, there, backAgain, thereAgain))
  }

  override func receive(into batch: PacketBatch, now: Tick) {
    for _ in 0..<Self.burst {
      guard let entry = incoming.take() else { return }
      batch.append(bytes: entry.bytes, length: entry.length, buffer: entry.bytes, arrival: now)
    }
  }

  override func transmit(_ batch: PacketBatch, mask: UInt64) -> UInt64 {
    var refused: UInt64 = 0
    PacketBatch.forEach(in: mask) { index in
      if refused != 0 || !outgoing.put(Entry(bytes: batch[index].buffer!, length: Int(batch[index].length))) {
        refused |= 1 << UInt64(index)
      }
    }
    return refused
  }

  /// What is released has been received here.
  override func release(_ batch: PacketBatch, mask: UInt64) {
    PacketBatch.forEach(in: mask) { _ = returning.put(batch[$0].buffer!) }
  }

  override func makeFrame(in batch: PacketBatch, length: Int, now: Tick) -> Bool {
    guard let bytes = free.popLast() ?? returned.take() else { return false }
    batch.append(bytes: bytes, length: length, buffer: bytes, arrival: now)
    return true
  }
}
