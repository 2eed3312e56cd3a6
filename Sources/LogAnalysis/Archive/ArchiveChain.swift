import ControlMessages

/// The chain over the records of one partition: what is said of each record depends on all before it.
struct ArchiveChain: Hashable, Sendable {
  private(set) var digest: [UInt8]

  init(_ place: LogPartition) {
    var seed = Array(place.topic.utf8)
    seed.put(place.partition)
    digest = SHA256.digest(seed)
  }

  /// The link of the next record.
  mutating func extend(_ body: [UInt8]) -> [UInt8] {
    digest = SHA256.digest(digest, body)
    return Array(digest.prefix(8))
  }
}

/// Reads the frames of one partition in their order and believes none of them.
public struct ArchiveSectionReader: Sendable {
  private let section: ArchiveSection
  private var chain: ArchiveChain
  private var taken: UInt64 = 0
  private var last: Offset?
  /// Where the next frame begins.
  public private(set) var position: UInt64

  public init(_ section: ArchiveSection) {
    self.section = section
    chain = ArchiveChain(section.place)
    position = section.position
  }

  public var isAtEnd: Bool { taken == section.count }

  /// The record of the frame at `position`.
  public mutating func take(_ head: ArchiveFrameHead, _ body: [UInt8]) throws(ArchiveError) -> LogRecord {
    func damaged(_ reason: String) -> ArchiveError {
      .damaged(
        at: position,
        "record \(taken + 1) of \(section.count) of \(section.place), after offset \(last.map { "\($0)" } ?? "none"): \(reason)")
    }
    guard CRC32C.checksum(body) == head.crc else { throw damaged("its checksum is wrong") }
    guard chain.extend(body) == head.link else {
      throw damaged("it does not follow from the record before: one was changed, left out or moved")
    }
    guard let record = ArchiveFormat.record(body), LogPartition(record.topic, record.partition) == section.place else {
      throw damaged("it is no record of this partition")
    }
    position += UInt64(ArchiveFormat.frameHeadLength + body.count)
    taken += 1
    last = record.offset
    if isAtEnd, chain.digest != section.digest || record.offset != section.last {
      throw damaged("the partition does not end as the trailer says")
    }
    return record
  }
}
