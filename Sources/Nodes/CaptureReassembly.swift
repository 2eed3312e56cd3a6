import DPDKPorts
import Foundation
import ModuleGraphs
import Wire

/// Puts the fragments of a capture together as the ports of nodes do (`LargePackets`): in DPDK's table, from copies in DPDK's
/// buffers. So it takes DPDK's environment, on ordinary pages.
///
/// The second that a datagram's fragments wait for each other is the machine's, not the capture's.
public final class CaptureReassembly {
  private let port: DPDKPort
  private let fragments = PacketBatch()
  /// What the last call of `take` completed, until `release`.
  let whole = PacketBatch()

  public init() throws(PortError) {
    _ = try Environment(
      name: "nfv-process", processors: Array(0..<ProcessInfo.processInfo.activeProcessorCount),
      memory: .ordinaryPages(megabytes: 128))
    let pool = try MbufPool(name: "capture fragments", count: 8_191)
    port = try DPDKPort(PortSpec("ring"), number: 79, pool: pool, large: LargePackets(name: "capture wholes", pool: pool))
  }

  /// Takes the fragments among the frames that are not live; those that are refused have another reason then.
  ///
  /// - Returns: which frames are consumed.
  func take(_ batch: PacketBatch, now: Tick) -> UInt64 {
    var consumed: UInt64 = 0
    PacketBatch.forEach(in: batch.all & ~batch.live) { index in
      guard batch[index].dropReason == .fragment, !whole.isFull else { return }
      let length = Int(batch[index].length)
      guard length <= MbufPool.largeRoom, port.makeFrame(in: fragments, length: length, now: now) else { return }
      batch[index].withBytes { bytes in
        if let start = bytes.baseAddress { fragments[0].write(start, count: length) }
      }
      let result = port.reassemble(fragments, mask: 1, into: whole, now: now)
      if result.taken == 0 { port.release(fragments, mask: 1) }
      fragments.removeAll()
      if result.refused != 0 { batch.drop(index, .fragmentRefused) } else if result.taken != 0 { consumed |= 1 << UInt64(index) }
    }
    return consumed
  }

  func release() {
    port.release(whole, mask: whole.all)
    whole.removeAll()
  }
}
