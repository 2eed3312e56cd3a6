import ModuleGraphs
import Wire

/// Packets of other runtimes' flows on their way out: their state is stored here now.
@safe
final class ReleasedPackets {
  private let port: PacketPort
  private let batch = PacketBatch()
  /// Packets that are not copied yet, and what was done with the others; behind pointers, as everything a burst touches.
  private let waiting: UnsafeMutablePointer<UnsafeRawPointer>
  private let lengths: UnsafeMutablePointer<UInt16>
  private let state: UnsafeMutablePointer<(waiting: Int, sent: UInt64, lost: UInt64)>

  init(port: PacketPort) {
    self.port = port
    unsafe waiting = .allocate(capacity: PacketBatch.capacity)
    unsafe lengths = .allocate(capacity: PacketBatch.capacity)
    unsafe state = .allocate(capacity: 1)
    unsafe state.initialize(to: (0, 0, 0))
  }

  deinit {
    unsafe waiting.deallocate()
    unsafe lengths.deallocate()
    unsafe state.deallocate()
  }

  /// Takes a whole frame, addressed as it is to leave. Its bytes stay until `copy`.
  @inline(__always)
  func put(_ frame: UnsafeRawBufferPointer, now: Tick) {
    guard let base = frame.baseAddress, frame.count >= 14, frame.count <= Int(UInt16.max) else {
      unsafe state.pointee.lost &+= 1
      return
    }
    if unsafe state.pointee.waiting == PacketBatch.capacity { copy(now: now) }
    let place = unsafe state.pointee.waiting
    unsafe (waiting + place).initialize(to: base)
    unsafe (lengths + place).initialize(to: UInt16(truncatingIfNeeded: frame.count))
    unsafe state.pointee.waiting = place &+ 1
  }

  /// Copies what was put into frames of the port: the bytes may go now.
  func copy(now: Tick) {
    let count = unsafe state.pointee.waiting
    guard count > 0 else { return }
    if batch.count + count > PacketBatch.capacity { transmit() }
    let first = batch.count
    let made = unsafe port.makeFrames(in: batch, lengths: UnsafeBufferPointer(start: lengths, count: count), now: now)
    for index in 0..<made { unsafe batch[first &+ index].write(waiting[index], count: Int(lengths[index])) }
    unsafe state.pointee.lost &+= UInt64(count - made)
    unsafe state.pointee.waiting = 0
  }

  private func transmit() {
    let refused = port.transmit(batch, mask: batch.live)
    port.release(batch, mask: refused)
    unsafe state.pointee.sent &+= UInt64(batch.count - refused.nonzeroBitCount)
    unsafe state.pointee.lost &+= UInt64(refused.nonzeroBitCount)
    batch.removeAll()
  }

  /// Sends what was copied, and counts it.
  func flush(counters: inout Counters) {
    if !batch.isEmpty { transmit() }
    counters.packetsReleased &+= unsafe state.pointee.sent
    counters.dropped &+= unsafe state.pointee.lost
    unsafe (state.pointee.sent, state.pointee.lost) = (0, 0)
  }
}
