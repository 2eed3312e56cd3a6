import ModuleGraphs
import Wire

/// Datagrams that came in fragments, put together by the port and sent through the packet path as one.
///
/// A fragment is found where parsing fails for it, so packets that are none pay nothing. It counts as consumed, and the
/// datagram that the last one completes as received.
final class Reassembly {
  /// What the last call completed.
  let whole = PacketBatch()

  /// Hands the fragments among the frames that are not live to the port.
  ///
  /// - Returns: frames that are not the batch's any more, and of these the ones to count as consumed. The others are
  ///   dropped, with a reason.
  func take(_ batch: PacketBatch, _ candidates: UInt64, from port: PacketPort, now: Tick) -> (taken: UInt64, consumed: UInt64) {
    var fragments: UInt64 = 0
    PacketBatch.forEach(in: candidates) { index in
      if batch[index].dropReason == .fragment { fragments |= 1 << UInt64(index) }
    }
    guard fragments != 0 else { return (0, 0) }
    let result = port.reassemble(batch, mask: fragments, into: whole, now: now)
    PacketBatch.forEach(in: result.refused) { batch.drop($0, .fragmentRefused) }
    return (result.taken, result.taken & ~result.refused)
  }
}
