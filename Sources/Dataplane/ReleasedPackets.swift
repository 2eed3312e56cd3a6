import ModuleGraphs
import Wire

/// Packets of other runtimes' flows on their way out: their state is stored here now.
@safe
final class ReleasedPackets {
  private let port: PacketPort
  private let batch = PacketBatch()
  private var sent: UInt64 = 0
  private var lost: UInt64 = 0

  init(port: PacketPort) { self.port = port }

  /// Takes a copy of a whole frame, addressed as it is to leave.
  func put(_ frame: UnsafeRawBufferPointer, now: Tick) {
    if batch.isFull { transmit() }
    guard let base = frame.baseAddress, frame.count >= 14, port.makeFrame(in: batch, length: frame.count, now: now) else {
      lost &+= 1
      return
    }
    unsafe batch[batch.count - 1].write(base, count: frame.count)
  }

  private func transmit() {
    let refused = port.transmit(batch, mask: batch.live)
    port.release(batch, mask: refused)
    sent &+= UInt64(batch.count - refused.nonzeroBitCount)
    lost &+= UInt64(refused.nonzeroBitCount)
    batch.removeAll()
  }

  /// Sends what there is, and counts it.
  func flush(counters: inout Counters) {
    if !batch.isEmpty { transmit() }
    counters.packetsReleased &+= sent
    counters.dropped &+= lost
    (sent, lost) = (0, 0)
  }
}
