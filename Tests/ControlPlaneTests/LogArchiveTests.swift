// A log in a file: what goes in comes out, and whatever is done to the file is found where it was done.
import ControlMessages
import Testing

@testable import LogAnalysis

@Suite struct LogArchiveTests {
  /// Three partitions, with keys, without, and with empty ones.
  static let records: [LogRecord] = [(0, "nfv.events", 2), (1, "nfv.commands", 3), (1, "nfv.events", 6)].flatMap {
    partition, topic, count in
    (0..<count).map { number in
      LogRecord(
        topic: topic, partition: UInt32(partition), offset: Offset(UInt64(number)),
        timestamp: Timestamp(milliseconds: UInt64(1_000 + number)),
        key: number % 3 == 0 ? nil : number % 3 == 1 ? [] : [7], value: [UInt8](repeating: UInt8(number), count: number * 3))
    }
  }

  static let archive: (bytes: [UInt8], digest: String) = {
    var writer = ArchiveWriter(madeAt: Timestamp(milliseconds: 42))
    let body = writer.header + records.flatMap { writer.append($0) }
    let end = writer.finish()
    return (body + end.bytes, end.digest)
  }()

  /// Everything in it, as a tool reads it: the footer, the trailer, then partition after partition.
  static func read(_ bytes: [UInt8]) throws(ArchiveError) -> (records: [LogRecord], digest: String, madeAt: Timestamp) {
    let madeAt = try ArchiveFormat.readHeader(Array(bytes.prefix(ArchiveFormat.headerLength)))
    guard let position = ArchiveFormat.readFooter(Array(bytes.suffix(ArchiveFormat.footerLength))) else {
      throw .truncated(at: UInt64(bytes.count))
    }
    func frame(_ position: UInt64) throws(ArchiveError) -> (ArchiveFrameHead, [UInt8]) {
      guard position < bytes.count, let head = ArchiveFrameHead(bytes[Int(position)...]),
        Int(position) + ArchiveFormat.frameHeadLength + head.length <= bytes.count
      else { throw .damaged(at: position, "no frame") }
      let start = Int(position) + ArchiveFormat.frameHeadLength
      return (head, Array(bytes[start..<(start + head.length)]))
    }
    let (head, body) = try frame(position)
    let trailer = try ArchiveTrailer(head, body, at: position)
    var records: [LogRecord] = []
    for section in trailer.sections {
      var reader = ArchiveSectionReader(section)
      while !reader.isAtEnd {
        let (head, body) = try frame(reader.position)
        records.append(try reader.take(head, body))
      }
    }
    return (records, trailer.digest, madeAt)
  }

  @Test func `what is written is read, byte for byte`() throws {
    let read = try Self.read(Self.archive.bytes)
    #expect(read.records == Self.records)
    #expect(read.digest == Self.archive.digest && read.digest.count == 64)
    #expect(read.madeAt == Timestamp(milliseconds: 42))
  }

  @Test func `an empty log is an archive, too`() throws {
    var writer = ArchiveWriter(madeAt: .zero)
    let bytes = writer.header + writer.finish().bytes
    #expect(try Self.read(bytes).records == [])
  }

  @Test func `every changed bit is found`() {
    for index in Self.archive.bytes.indices {
      var bytes = Self.archive.bytes
      bytes[index] ^= UInt8(1 << (index % 8))
      #expect(throws: ArchiveError.self, "byte \(index)") { try Self.read(bytes) }
    }
  }

  @Test func `every missing end is found`() {
    for count in Self.archive.bytes.indices {
      #expect(throws: ArchiveError.self, "\(count) bytes") { try Self.read(Array(Self.archive.bytes.prefix(count))) }
    }
  }

  /// The positions of the frames of a partition.
  private func frames(of section: ArchiveSection) throws -> [Range<Int>] {
    var reader = ArchiveSectionReader(section)
    var ranges: [Range<Int>] = []
    while !reader.isAtEnd {
      let start = Int(reader.position)
      let head = try #require(ArchiveFrameHead(Self.archive.bytes[start...]))
      let end = start + ArchiveFormat.frameHeadLength + head.length
      _ = try reader.take(head, Array(Self.archive.bytes[(end - head.length)..<end]))
      ranges.append(start..<end)
    }
    return ranges
  }

  private func sections() throws -> [ArchiveSection] {
    let bytes = Self.archive.bytes
    let position = try #require(ArchiveFormat.readFooter(Array(bytes.suffix(ArchiveFormat.footerLength))))
    let head = try #require(ArchiveFrameHead(bytes[Int(position)...]))
    let start = Int(position) + ArchiveFormat.frameHeadLength
    return try ArchiveTrailer(head, Array(bytes[start..<(start + head.length)]), at: position).sections
  }

  @Test func `a record that changed places with its neighbour is found at its place, though each is whole`() throws {
    let section = try #require(try sections().last)
    // Two frames of one length, so that nothing else moves.
    let ranges = try frames(of: section)
    let frames = ranges.map { Array(Self.archive.bytes[$0]) }
    var reader = ArchiveSectionReader(section)
    func take(_ index: Int) throws -> LogRecord {
      let head = try #require(ArchiveFrameHead(frames[index]))
      return try reader.take(head, Array(frames[index].dropFirst(ArchiveFormat.frameHeadLength)))
    }
    #expect(try take(0).offset == Offset(0))
    #expect(throws: ArchiveError.self) { try take(2) }
  }

  @Test func `a forged record is found although its checksum was made anew`() throws {
    let section = try #require(try sections().last)
    let range = try #require(try frames(of: section).last)
    var record = try #require(Self.records.last)
    record.value[0] ^= 1
    var reader = ArchiveSectionReader(section)
    for range in try frames(of: section).dropLast() {
      let bytes = Self.archive.bytes[range]
      _ = try reader.take(try #require(ArchiveFrameHead(bytes)), Array(bytes.dropFirst(ArchiveFormat.frameHeadLength)))
    }
    let body = ArchiveFormat.body(record)
    let link = Array(Self.archive.bytes[(range.lowerBound + 8)..<(range.lowerBound + 16)])
    let forged = try #require(ArchiveFrameHead(ArchiveFrameHead.frame(body, link: link)))
    #expect(throws: ArchiveError.self) { try reader.take(forged, body) }
  }

  @Test func `a file of something else is told from a broken one and from a newer one`() throws {
    #expect(throws: ArchiveError.notAnArchive) { try ArchiveFormat.readHeader(Array("#!/bin/sh and more bytes".utf8)) }
    #expect(throws: ArchiveError.notAnArchive) { try ArchiveFormat.readHeader([]) }
    var newer = Array(Self.archive.bytes.prefix(ArchiveFormat.headerLength))
    newer[8] = 2
    #expect(throws: ArchiveError.unsupportedVersion(2)) { try ArchiveFormat.readHeader(newer) }
  }

  /// FIPS 180-4's examples, and the lengths around a block's end.
  @Test(arguments: [
    ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
      "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    ),
    (String(repeating: "a", count: 64), "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"),
  ])
  func `digests are SHA-256`(text: String, digest: String) {
    #expect(ArchiveTrailer.text(SHA256.digest(Array(text.utf8))) == digest)
  }

  @Test func `checksums are CRC-32C`() {
    #expect(CRC32C.checksum(Array("123456789".utf8)) == 0xe306_9283)
    #expect(CRC32C.checksum([UInt8](repeating: 0, count: 32)) == 0x8a91_36aa)  // RFC 3720, B.4
  }
}
