import ControlMessages

/// A log as one file: what a support case travels as, and what every tool reads as it reads a broker.
///
/// ```
///   header    "NFVLOG\r\n"  version u32  made at u64 (ms)  CRC u32
///   frame     length u32    CRC u32      link 8 bytes      body       one for each record, partition after partition
///   ...
///   trailer   a frame whose body says where each partition begins, its counts, and its digest
///   footer    position of the trailer u64                  "NFVLOGED"
/// ```
///
/// Numbers are little-endian, checksums CRC-32C of the body. The records of a partition are a chain: `link` is the
/// beginning of SHA-256 over the link before and the body, so a record that was changed, left out or moved is found where
/// it happened. The digests of the chains stand in the trailer, whose own digest is the archive's: written down elsewhere,
/// it also finds what was forged with care.
public enum ArchiveFormat {
  public static let version: UInt32 = 1
  static let magic = Array("NFVLOG\r\n".utf8)
  static let footerMagic = Array("NFVLOGED".utf8)

  public static let headerLength = 24
  public static let frameHeadLength = 16
  public static let footerLength = 16
  /// Of a body: a record of the log has at most a million bytes, and a trailer of 320 partitions is far smaller.
  public static let maximumBodyLength = 8 << 20

  static let recordKind: UInt8 = 1
  static let trailerKind: UInt8 = 2

  static func header(madeAt: Timestamp) -> [UInt8] {
    var bytes = magic
    bytes.put(version)
    bytes.put(madeAt.milliseconds)
    bytes.put(CRC32C.checksum(bytes))
    return bytes
  }

  /// When the archive was made.
  public static func readHeader(_ bytes: [UInt8]) throws(ArchiveError) -> Timestamp {
    var reader = ArchiveBytes(bytes)
    guard reader.take(magic.count).map({ Array($0) == magic }) == true else { throw .notAnArchive }
    guard let version = reader.take(UInt32.self), let madeAt = reader.take(UInt64.self), let crc = reader.take(UInt32.self)
    else { throw .truncated(at: UInt64(bytes.count)) }
    guard version == Self.version else { throw .unsupportedVersion(version) }
    guard crc == CRC32C.checksum(bytes.prefix(headerLength - 4)) else { throw .damaged(at: 0, "the header's checksum is wrong") }
    return Timestamp(milliseconds: madeAt)
  }

  static func footer(trailerAt position: UInt64) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.put(position)
    return bytes + footerMagic
  }

  /// Where the trailer begins; nil: this is not the end of a whole archive.
  public static func readFooter(_ bytes: [UInt8]) -> UInt64? {
    var reader = ArchiveBytes(bytes)
    guard let position = reader.take(UInt64.self), Array(reader.rest) == footerMagic else { return nil }
    return position
  }

  static func body(_ record: LogRecord) -> [UInt8] {
    var bytes: [UInt8] = [recordKind]
    bytes.reserveCapacity(record.value.count + (record.key?.count ?? 0) + 64)
    bytes.put(record.topic)
    bytes.put(record.partition)
    bytes.put(record.offset.value)
    bytes.put(record.timestamp.milliseconds)
    bytes.put(record.key.map { UInt32(clamping: $0.count) } ?? .max)
    bytes += record.key ?? []
    return bytes + record.value
  }

  static func record(_ body: [UInt8]) -> LogRecord? {
    var reader = ArchiveBytes(body)
    guard reader.take(UInt8.self) == recordKind, let topic = reader.takeText(), let partition = reader.take(UInt32.self),
      let offset = reader.take(UInt64.self), let time = reader.take(UInt64.self), let keyLength = reader.take(UInt32.self)
    else { return nil }
    var key: [UInt8]?
    if keyLength != .max {
      guard let bytes = reader.take(Int(keyLength)) else { return nil }
      key = Array(bytes)
    }
    return LogRecord(
      topic: topic, partition: partition, offset: Offset(offset), timestamp: Timestamp(milliseconds: time), key: key,
      value: Array(reader.rest))
  }
}

/// What stands before a body.
public struct ArchiveFrameHead: Equatable, Sendable {
  public let length: Int
  let crc: UInt32
  let link: [UInt8]

  /// nil: no frame begins like this.
  public init?(_ bytes: some Sequence<UInt8>) {
    var reader = ArchiveBytes(bytes)
    guard let length = reader.take(UInt32.self), let crc = reader.take(UInt32.self), let link = reader.take(8),
      length > 0, length <= ArchiveFormat.maximumBodyLength
    else { return nil }
    self.length = Int(length)
    self.crc = crc
    self.link = Array(link)
  }

  static func frame(_ body: [UInt8], link: [UInt8]) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(body.count + ArchiveFormat.frameHeadLength)
    bytes.put(UInt32(body.count))
    bytes.put(CRC32C.checksum(body))
    return bytes + link + body
  }
}

/// Why a file is not, or not any more, a log that was written to a file. Positions are bytes of the file.
public enum ArchiveError: Error, Hashable, Sendable, CustomStringConvertible {
  case notAnArchive
  case unsupportedVersion(UInt32)
  case truncated(at: UInt64)
  case damaged(at: UInt64, String)

  public var description: String {
    switch self {
    case .notAnArchive: "this is no log written by `nfvctl export`"
    case .unsupportedVersion(let version):
      "an archive of version \(version); this program reads version \(ArchiveFormat.version): use a newer nfvctl"
    case .truncated(let position):
      "the file ends at byte \(position) without its trailer: it was cut short while it was written or copied; "
        + "copy it again, or export the log again"
    case .damaged(let position, let reason):
      "byte \(position): \(reason); the file was changed after it was written: copy it again, or export the log again"
    }
  }
}
