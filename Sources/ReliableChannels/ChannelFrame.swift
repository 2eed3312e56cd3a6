import CIntrinsics
import Wire

/// A frame of a reliable channel: what its header says, and where everything stands. Little-endian, version 1.
///
///     | Ethernet, VLAN tag | header, 64 bytes                                                        | body |
///
///      0  version     1  kind         2  body length (2)                4  CRC-32C (4)
///      8  source node (4)            12  destination node (4)
///     16  source incarnation (8)     24  destination incarnation (8), 0 = not heard of yet
///     32  sequence (4)               36  acknowledged (4): every earlier frame has arrived
///     40  selective (8): bit i = frame `acknowledged + 1 + i` has arrived
///     48  limit (4): the first frame that may not be sent yet              52  zero (4)
///     56  SipHash-2-4 of the cluster's key (8), 0 without one
///
/// The checksum covers header and body with its own four bytes as zero; the keyed hash covers the same with its own
/// eight bytes as zero as well. The body of a data frame is chunks: a 16-bit word, 14 bits of length, bit 14 = "continues
/// the message before", bit 15 = "the message goes on in the next frame"; and the bytes.
public struct ChannelHeader: BitwiseCopyable, Equatable, Sendable {
  public enum Kind: UInt8, BitwiseCopyable, Sendable {
    /// Begins a session; `sequence` is the first number its sender will use.
    case hello = 1
    case data = 2
    /// Acknowledges without data; also the sign of life of an idle channel.
    case acknowledgement = 3
  }

  public var kind: Kind
  public var bodyLength: UInt16 = 0
  public var sourceNode: UInt32
  public var destinationNode: UInt32
  public var sourceIncarnation: UInt64
  public var destinationIncarnation: UInt64
  public var sequence: SequenceNumber
  public var acknowledged: SequenceNumber
  public var selective: UInt64 = 0
  public var limit: SequenceNumber
}

/// Why a frame was not taken. Each is counted.
public enum FrameRefusal: UInt8, CaseIterable, Sendable {
  /// Too short, or shorter than its header says, or not of the channel's EtherType.
  case length
  case version
  case checksum
  /// The keyed hash is wrong or missing: not of this cluster.
  case authentication
  /// A kind, or a body, that version 1 does not have.
  case malformed
  /// Of another pair of nodes.
  case node
  /// From an earlier life of the peer, or to an earlier life of this end.
  case session
  /// Acknowledges what was never sent, or lies beyond the limit that was given.
  case window
}

/// A cluster's key for frames on a fabric that is not trusted: 128 bits.
public struct ChannelKey: Equatable, Sendable {
  public var low: UInt64
  public var high: UInt64

  public init(low: UInt64, high: UInt64) {
    self.low = low
    self.high = high
  }
}

/// The link header every frame of a channel begins with.
public struct ChannelLink: Equatable, Sendable {
  public var destination: MACAddress
  public var source: MACAddress
  /// Tag control information of an 802.1Q tag, if links are tagged.
  public var vlan: UInt16?

  public init(destination: MACAddress, source: MACAddress, vlan: UInt16? = nil) {
    self.destination = destination
    self.source = source
    self.vlan = vlan
  }

  public var length: Int { vlan == nil ? 14 : 18 }

  func write(to bytes: UnsafeMutableRawPointer) {
    unsafe bytes.storeBytes(of: (destination.value << 16 | source.value >> 32).bigEndian, as: UInt64.self)
    unsafe bytes.storeBytes(of: UInt32(truncatingIfNeeded: source.value).bigEndian, toByteOffset: 8, as: UInt32.self)
    var offset = 12
    if let vlan {
      unsafe bytes.storeBytes(of: (0x8100_0000 | UInt32(vlan)).bigEndian, toByteOffset: 12, as: UInt32.self)
      offset = 16
    }
    unsafe bytes.storeBytes(of: ChannelFrame.etherType.bigEndian, toByteOffset: offset, as: UInt16.self)
  }
}

/// Reads and writes frames. Parsing is total: any bytes give a header or a refusal.
public enum ChannelFrame {
  /// IEEE 802 local experimental EtherType 1.
  public static let etherType: UInt16 = 0x88b5
  public static let version: UInt8 = 1
  public static let headerLength = 64

  /// Where the channel's header begins; `nil` for a frame of another EtherType.
  @inlinable
  public static func headerOffset(_ frame: UnsafeRawBufferPointer) -> Int? {
    guard frame.count >= 18 else { return nil }
    let type = unsafe UInt16(bigEndian: frame.loadUnaligned(fromByteOffset: 12, as: UInt16.self))
    if type == etherType { return 14 }
    guard type == 0x8100 else { return nil }
    return unsafe UInt16(bigEndian: frame.loadUnaligned(fromByteOffset: 16, as: UInt16.self)) == etherType ? 18 : nil
  }

  /// The node a frame says it comes from, to find the channel it belongs to; nothing is checked yet.
  @inlinable
  public static func sourceNode(_ frame: UnsafeRawBufferPointer) -> UInt32? {
    guard let offset = headerOffset(frame), frame.count >= offset + headerLength else { return nil }
    return unsafe UInt32(littleEndian: frame.loadUnaligned(fromByteOffset: offset + 8, as: UInt32.self))
  }

  public enum Reading {
    case header(ChannelHeader, bodyOffset: Int)
    case refused(FrameRefusal)
  }

  /// Checks everything that can be checked without knowing the session.
  public static func read(_ frame: UnsafeRawBufferPointer, key: ChannelKey?) -> Reading {
    guard let offset = headerOffset(frame), frame.count >= offset + headerLength else { return .refused(.length) }
    let bytes = unsafe frame.baseAddress! + offset
    guard unsafe bytes.load(as: UInt8.self) == version else { return .refused(.version) }
    // Short frames are padded on the way (to 60 bytes on Ethernet): what follows the body is not looked at.
    let bodyLength = unsafe bytes.word16(2)
    guard frame.count >= offset + headerLength + Int(bodyLength) else { return .refused(.length) }
    guard unsafe checksum(bytes, bodyLength: Int(bodyLength)) == bytes.word32(4) else { return .refused(.checksum) }
    let tag = unsafe bytes.word64(56)
    if let key {
      guard unsafe SipHash.tag(bytes, bodyLength: Int(bodyLength), key: key) == tag else { return .refused(.authentication) }
    } else if tag != 0 {
      return .refused(.authentication)
    }
    guard let kind = ChannelHeader.Kind(rawValue: unsafe bytes.load(fromByteOffset: 1, as: UInt8.self)), bytes.word32(52) == 0,
      kind == .data ? bodyLength >= 2 : bodyLength == 0
    else { return .refused(.malformed) }
    return unsafe .header(fields(bytes, kind: kind), bodyOffset: offset + headerLength)
  }

  /// The fields of a header as they stand.
  static func fields(_ bytes: UnsafeRawPointer, kind: ChannelHeader.Kind) -> ChannelHeader {
    unsafe ChannelHeader(
      kind: kind, bodyLength: bytes.word16(2), sourceNode: bytes.word32(8), destinationNode: bytes.word32(12),
      sourceIncarnation: bytes.word64(16), destinationIncarnation: bytes.word64(24), sequence: SequenceNumber(bytes.word32(32)),
      acknowledged: SequenceNumber(bytes.word32(36)), selective: bytes.word64(40), limit: SequenceNumber(bytes.word32(48)))
  }

  /// Writes the header in front of a body that is already in its place, and seals both.
  public static func write(_ header: ChannelHeader, to bytes: UnsafeMutableRawPointer, key: ChannelKey?) {
    func store<Word: FixedWidthInteger & BitwiseCopyable>(_ word: Word, _ offset: Int) {
      unsafe bytes.storeBytes(of: word.littleEndian, toByteOffset: offset, as: Word.self)
    }
    store(version, 0)
    store(header.kind.rawValue, 1)
    store(header.bodyLength, 2)
    store(UInt32(0), 4)
    store(header.sourceNode, 8)
    store(header.destinationNode, 12)
    store(header.sourceIncarnation, 16)
    store(header.destinationIncarnation, 24)
    store(header.sequence.number, 32)
    store(header.acknowledged.number, 36)
    store(header.selective, 40)
    store(header.limit.number, 48)
    store(UInt32(0), 52)
    store(UInt64(0), 56)
    if let key { store(unsafe SipHash.tag(bytes, bodyLength: Int(header.bodyLength), key: key), 56) }
    store(unsafe checksum(bytes, bodyLength: Int(header.bodyLength)), 4)
  }

  private static func checksum(_ bytes: UnsafeRawPointer, bodyLength: Int) -> UInt32 {
    // The first word has version, kind and length, and the checksum in its upper half.
    let first = unsafe UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self)) & 0xffff_ffff
    var crc = nfv_crc32c_word(0xffff_ffff, first)
    crc = unsafe nfv_crc32c(crc, bytes + 8, headerLength - 8 + bodyLength)
    return ~crc
  }
}

extension UnsafeRawPointer {
  func word16(_ offset: Int) -> UInt16 { unsafe UInt16(littleEndian: loadUnaligned(fromByteOffset: offset, as: UInt16.self)) }
  func word32(_ offset: Int) -> UInt32 { unsafe UInt32(littleEndian: loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }
  func word64(_ offset: Int) -> UInt64 { unsafe UInt64(littleEndian: loadUnaligned(fromByteOffset: offset, as: UInt64.self)) }
}
