import CPcap
import ModuleGraphs
import Wire

/// Writes frames to a pcap file of Ethernet packets, with nanosecond timestamps.
public final class CaptureWriter {
  private let path: String
  private let handle: OpaquePointer
  private let dumper: OpaquePointer

  public init(path: String) throws(CaptureError) {
    self.path = path
    guard let handle = pcap_open_dead_with_tstamp_precision(LinkType.ethernet.rawValue, 262_144, UInt32(PCAP_TSTAMP_PRECISION_NANO)) else {
      throw CaptureError(path: path, message: "out of memory")
    }
    guard let dumper = pcap_dump_open(handle, path) else {
      let message = unsafe String(cString: pcap_geterr(handle))
      pcap_close(handle)
      throw CaptureError(path: path, message: message)
    }
    self.handle = handle
    self.dumper = dumper
  }

  deinit {
    pcap_dump_close(dumper)
    pcap_close(handle)
  }

  /// Writes the live frames of `batch`, in order.
  ///
  /// - Parameter start: time of tick 0, in nanoseconds since 1970.
  public func write(_ batch: PacketBatch, start: UInt64) {
    PacketBatch.forEach(in: batch.live) { index in
      let timestamp = start &+ batch[index].arrival.nanoseconds
      var header = pcap_pkthdr()
      header.ts.tv_sec = Int(timestamp / 1_000_000_000)
      header.ts.tv_usec = Int(timestamp % 1_000_000_000)
      header.caplen = UInt32(batch[index].length)
      header.len = UInt32(batch[index].length)
      batch[index].withBytes { bytes in
        unsafe pcap_dump(
          UnsafeMutablePointer<UInt8>(dumper), &header, bytes.baseAddress!.assumingMemoryBound(to: UInt8.self))
      }
    }
  }

  /// Puts everything on disk; reports what `write` could not.
  public func finish() throws(CaptureError) {
    guard pcap_dump_flush(dumper) == 0 else { throw CaptureError(path: path, message: "could not be written completely; is the disk full?") }
  }
}
