import FixedContainers
import Wire

/// A mapping was made or is no more: what an operator must be able to say who was behind an external endpoint
/// at a time (RFC 6888 §4). No destination is in it (REQ-12).
public struct NATLogEntry: Hashable, Sendable, BitwiseCopyable {
  public enum Event: UInt8, Hashable, Sendable, BitwiseCopyable {
    case created, removed
    /// A client was refused for want of a port or of room, for the first time since another got one.
    case exhausted
  }

  public let event: Event
  /// Of the packet that made the mapping, or when it was found that the mapping is needed no more.
  public let time: Tick
  public let client: IPAddress
  public let clientPort: UInt16
  public let external: IPv4Address
  public let externalPort: UInt16
  /// 6, 17 or 1.
  public let protocolNumber: UInt8
  public let vlan: UInt16
}

/// Log entries on their way from the worker to whoever keeps them, at most 16,384.
///
/// What does not fit is counted and lost, because the worker cannot wait. `entries.take()` may be called by one
/// other thread.
public struct NATLog {
  public let entries: RingBuffer<NATLogEntry>?
  public private(set) var written: UInt64 = 0
  public private(set) var lost: UInt64 = 0

  var isKept: Bool { entries != nil }

  init(isKept: Bool) { entries = isKept ? RingBuffer(capacity: 16_384) : nil }

  mutating func write(_ entry: NATLogEntry) {
    guard let entries else { return }
    if entries.put(entry) { written &+= 1 } else { lost &+= 1 }
  }
}
