import CPcap
import ModuleGraphs
import Wire

/// Reads packets of a pcap or pcapng file (through libpcap) in batches.
///
/// Time is the capture's: the tick of a batch is that of its packets, from 0 at the first. A batch ends early
/// where the capture pauses, so that idle timeouts happen where they would have. Link types other than Ethernet
/// that carry IP (Linux cooked, raw, loopback) are given an Ethernet header.
public final class CaptureReader {
  private let handle: OpaquePointer
  private let link: LinkType
  private let slab: UnsafeMutableRawPointer
  private var pending: (header: pcap_pkthdr, data: UnsafePointer<UInt8>)?
  private var firstTimestamp: UInt64?
  private var lastTick = Tick.zero
  /// Packets read so far.
  public private(set) var packets: UInt64 = 0
  /// Why reading ended before the end of the file, if it did.
  public private(set) var fault: String?

  /// Room for the largest packet libpcap hands out, an Ethernet header, and what a frame may grow by.
  private static var slotSize: Int { Frame.headroom + 262_144 + 64 }
  /// The longest pause inside a batch.
  private static var pause: UInt64 { 10_000_000 }

  public init(path: String) throws(CaptureError) {
    var message = [CChar](repeating: 0, count: Int(PCAP_ERRBUF_SIZE))
    guard let handle = unsafe pcap_open_offline_with_tstamp_precision(path, UInt32(PCAP_TSTAMP_PRECISION_NANO), &message) else {
      throw CaptureError(path: path, message: text(message))
    }
    let type = pcap_datalink(handle)
    guard let link = LinkType(rawValue: type) else {
      let name = unsafe pcap_datalink_val_to_name(type).map { unsafe String(cString: $0) } ?? "\(type)"
      pcap_close(handle)
      throw CaptureError(path: path, message: "packets of link type \(name) are not supported (Ethernet, Linux cooked, raw IP and loopback are)")
    }
    self.handle = handle
    self.link = link
    unsafe slab = .allocate(byteCount: Self.slotSize * PacketBatch.capacity, alignment: 64)
  }

  deinit {
    pcap_close(handle)
    unsafe slab.deallocate()
  }

  /// Timestamp of tick 0, in nanoseconds since 1970.
  public var start: UInt64 { firstTimestamp ?? 0 }

  /// Fills an empty batch; returns its tick, or `nil` at the end of the file. The memory is good until the next call.
  public func read(into batch: PacketBatch) -> Tick? {
    var begin: Tick?
    while !batch.isFull {
      guard let (header, data) = unsafe pending ?? next() else { break }
      unsafe pending = nil
      let tick = tick(of: header)
      if let begin, tick.nanoseconds &- begin.nanoseconds > Self.pause {
        unsafe pending = (header, data)
        break
      }
      begin = begin ?? tick
      lastTick = tick
      packets += 1
      let slot = unsafe slab + batch.count * Self.slotSize + Frame.headroom
      let length = unsafe link.frame(data, count: min(Int(header.caplen), 262_144), into: slot)
      unsafe batch.append(bytes: slot, length: length, buffer: nil, arrival: tick)
      if length > 65_535 { batch.drop(batch.count - 1, .scattered) }
    }
    return begin == nil ? nil : lastTick
  }

  private func next() -> (pcap_pkthdr, UnsafePointer<UInt8>)? {
    guard fault == nil else { return nil }
    var header: UnsafeMutablePointer<pcap_pkthdr>?
    var data: UnsafePointer<UInt8>?
    switch unsafe pcap_next_ex(handle, &header, &data) {
    case 1:
      guard let header = unsafe header, let data = unsafe data else { return nil }
      return unsafe (header.pointee, data)
    case PCAP_ERROR_BREAK:
      return nil
    default:
      fault = unsafe String(cString: pcap_geterr(handle))
      return nil
    }
  }

  /// Capture clocks can step back; a worker's time does not.
  private func tick(of header: pcap_pkthdr) -> Tick {
    let seconds = UInt64(UInt32(truncatingIfNeeded: header.ts.tv_sec))
    let fraction = UInt64(UInt32(truncatingIfNeeded: header.ts.tv_usec)) % 1_000_000_000
    let timestamp = seconds * 1_000_000_000 + fraction
    if firstTimestamp == nil { firstTimestamp = timestamp }
    return max(lastTick, Tick(nanoseconds: timestamp - min(timestamp, firstTimestamp!)))
  }
}

/// A capture file could not be read or written.
public struct CaptureError: Error, CustomStringConvertible {
  public let path: String
  public let message: String

  public var description: String { message.hasPrefix(path) ? message : "\(path): \(message)" }
}

func text(_ characters: [CChar]) -> String {
  String(decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
