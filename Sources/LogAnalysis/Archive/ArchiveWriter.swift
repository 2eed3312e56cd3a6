import ControlMessages

/// Turns records into the bytes of an archive, piece by piece: what it returns is to be appended to the file.
public struct ArchiveWriter: Sendable {
  private var sections: [ArchiveSection] = []
  private var chain: ArchiveChain?
  private var position: UInt64
  /// What the file begins with.
  public let header: [UInt8]

  public init(madeAt: Timestamp) {
    header = ArchiveFormat.header(madeAt: madeAt)
    position = UInt64(header.count)
  }

  public var recordCount: UInt64 { sections.reduce(0) { $0 + $1.count } }

  /// The records of a partition have to come one after another.
  public mutating func append(_ record: LogRecord) -> [UInt8] {
    let place = LogPartition(record.topic, record.partition)
    if sections.last?.place != place {
      closeSection()
      chain = ArchiveChain(place)
      sections.append(ArchiveSection(place: place, position: position, first: record.offset))
    }
    let body = ArchiveFormat.body(record)
    let frame = ArchiveFrameHead.frame(body, link: chain!.extend(body))
    sections[sections.count - 1].count += 1
    sections[sections.count - 1].last = record.offset
    position += UInt64(frame.count)
    return frame
  }

  /// The end of the file, and the archive's digest in hexadecimal.
  public mutating func finish() -> (bytes: [UInt8], digest: String) {
    closeSection()
    let body = ArchiveTrailer.body(sections)
    let digest = SHA256.digest(body)
    return (
      ArchiveFrameHead.frame(body, link: Array(digest.prefix(8))) + ArchiveFormat.footer(trailerAt: position),
      ArchiveTrailer.text(digest)
    )
  }

  private mutating func closeSection() {
    if let chain { sections[sections.count - 1].digest = chain.digest }
    chain = nil
  }
}

/// The records of one partition in an archive.
public struct ArchiveSection: Hashable, Sendable {
  public let place: LogPartition
  /// Of its first frame in the file.
  public let position: UInt64
  public internal(set) var count: UInt64 = 0
  public let first: Offset
  public internal(set) var last: Offset
  var digest: [UInt8] = []

  init(place: LogPartition, position: UInt64, first: Offset) {
    self.place = place
    self.position = position
    self.first = first
    last = first
  }
}

/// What an archive holds, and its digest.
public struct ArchiveTrailer: Hashable, Sendable {
  public let sections: [ArchiveSection]
  public let digest: String

  static func body(_ sections: [ArchiveSection]) -> [UInt8] {
    var bytes: [UInt8] = [ArchiveFormat.trailerKind]
    bytes.put(UInt32(sections.count))
    for section in sections {
      bytes.put(section.place.topic)
      bytes.put(section.place.partition)
      bytes.put(section.position)
      bytes.put(section.count)
      bytes.put(section.first.value)
      bytes.put(section.last.value)
      bytes += section.digest
    }
    return bytes
  }

  /// - Parameter position: of the trailer's frame in the file, for complaints.
  public init(_ head: ArchiveFrameHead, _ body: [UInt8], at position: UInt64) throws(ArchiveError) {
    let digest = SHA256.digest(body)
    guard CRC32C.checksum(body) == head.crc, Array(digest.prefix(8)) == head.link else {
      throw .damaged(at: position, "the trailer's checksum is wrong")
    }
    var reader = ArchiveBytes(body)
    guard reader.take(UInt8.self) == ArchiveFormat.trailerKind, let count = reader.take(UInt32.self) else {
      throw .damaged(at: position, "there is no trailer here")
    }
    var sections: [ArchiveSection] = []
    for _ in 0..<count {
      guard let topic = reader.takeText(), let partition = reader.take(UInt32.self), let start = reader.take(UInt64.self),
        let count = reader.take(UInt64.self), let first = reader.take(UInt64.self), let last = reader.take(UInt64.self),
        let digest = reader.take(32)
      else { throw .damaged(at: position, "the trailer ends early") }
      var section = ArchiveSection(place: LogPartition(topic, partition), position: start, first: Offset(first))
      section.count = count
      section.last = Offset(last)
      section.digest = Array(digest)
      sections.append(section)
    }
    self.sections = sections
    self.digest = Self.text(digest)
  }

  static func text(_ digest: [UInt8]) -> String {
    digest.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }
}
