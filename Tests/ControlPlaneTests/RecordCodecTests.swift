// What goes through the codec comes back, old bytes still decode, and hostile bytes are only refused.
import ControlCodec
import ControlMessages
import Foundation
import Testing

@Suite struct RecordCodecTests {
  @Test(arguments: Samples.events.map(\.name)) func `an event comes back as it went`(name: String) throws {
    let event = try #require(Samples.events.first { $0.name == name }).event
    #expect(try RecordCodec.decodeEvent(RecordCodec.encode(event)) == event)
  }

  @Test(arguments: Samples.commands.map(\.name)) func `a command comes back as it went`(name: String) throws {
    let command = try #require(Samples.commands.first { $0.name == name }).command
    #expect(try RecordCodec.decodeCommand(RecordCodec.encode(command)) == command)
  }

  /// A golden file is written once and never again; delete nothing there.
  @Test func `records of every version written so far still decode to the same values`() throws {
    let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "golden/v1")
    let samples =
      Samples.events.map { ("event-\($0.name)", RecordCodec.encode($0.event)) }
      + Samples.commands.map { ("command-\($0.name)", RecordCodec.encode($0.command)) }
    if ProcessInfo.processInfo.environment["NFV_WRITE_GOLDEN"] != nil {
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
      for (name, bytes) in samples {
        let file = folder.appending(path: "\(name).hex")
        guard !FileManager.default.fileExists(atPath: file.path) else { continue }
        try (hex(bytes) + "\n").write(to: file, atomically: true, encoding: .utf8)
      }
    }
    for (name, bytes) in samples {
      let text = try String(contentsOf: folder.appending(path: "\(name).hex"), encoding: .utf8)
      let golden = try #require(unhex(text), "golden/v1/\(name).hex")
      if name.hasPrefix("event-") {
        #expect(try RecordCodec.decodeEvent(golden) == RecordCodec.decodeEvent(bytes), "\(name)")
      } else {
        #expect(try RecordCodec.decodeCommand(golden) == RecordCodec.decodeCommand(bytes), "\(name)")
      }
      #expect(golden == bytes, "this version writes \(name) differently")
    }
  }

  @Test func `a body from a newer version is kept and passed on unchanged`() throws {
    // An envelope, and a body with field number 60 that holds two bytes.
    let record = RecordCodec.encode(Samples.events[0].event)
    let body = try #require(record.indices.last { record[$0] == 0 && record[$0 - 1] == 0x01 && record[$0 - 2] == 0x82 })
    let newer = Array(record[..<(body - 2)]) + [0xe2, 0x03, 0x02, 0xaa, 0xbb]
    let event = try RecordCodec.decodeEvent(newer)
    #expect(event.body == .unknown(UnknownBody(tag: 60, record: newer)))
    #expect(event.sequence == Samples.events[0].event.sequence)
    #expect(RecordCodec.encode(event) == newer)
  }

  @Test func `what the envelope needs is required`() {
    #expect(throws: CodecError.missing(field: "version")) { try RecordCodec.decodeEvent([]) }
    #expect(throws: CodecError.missing(field: "version")) { try RecordCodec.decodeCommand([]) }
    #expect(throws: CodecError.unsupportedVersion(2)) { try RecordCodec.decodeEvent([0x08, 2]) }
    #expect(throws: CodecError.missing(field: "slot")) { try RecordCodec.decodeCommand([0x08, 1]) }
    #expect(throws: CodecError.missing(field: "sequence")) { try RecordCodec.decodeEvent([0x08, 1, 0x12, 1, 0x61]) }
    #expect(throws: CodecError.missing(field: "body")) { try RecordCodec.decodeEvent([0x08, 1, 0x12, 1, 0x61, 0x20, 1]) }
    #expect(throws: CodecError.malformed) { try RecordCodec.decodeEvent([0x12, 200, 1]) }
    #expect(throws: CodecError.tooLarge(bytes: 1_000_001)) {
      try RecordCodec.decodeEvent([UInt8](repeating: 0, count: 1_000_001))
    }
  }

  @Test func `text must be UTF-8 without NUL`() {
    let withProducer = { (name: [UInt8]) -> [UInt8] in [0x08, 1, 0x12, UInt8(name.count)] + name + [0x20, 1, 0x82, 1, 0] }
    #expect(throws: Never.self) { try RecordCodec.decodeEvent(withProducer([0x61, 0x62])) }
    #expect(throws: CodecError.invalid(field: "producer", reason: "has a NUL inside")) {
      try RecordCodec.decodeEvent(withProducer([0x61, 0, 0x62]))
    }
    #expect(throws: CodecError.invalid(field: "producer", reason: "is not UTF-8")) {
      try RecordCodec.decodeEvent(withProducer([0xc0, 0x80]))
    }
  }

  @Test func `settings nested too deep are refused`() {
    var settings = Settings(.scalar("x"))
    for _ in 0..<2_000 { settings = Settings(.list([settings])) }
    var spec = Samples.spec
    spec.chain.functions = [.init(kind: "deep", settings: settings)]
    let event = Event(producer: .tool(1), incarnation: Incarnation(1), sequence: 1, body: .clusterApplied(spec))
    #expect(throws: CodecError.invalid(field: "chain.deep", reason: "is nested deeper than 32")) {
      try RecordCodec.decodeEvent(RecordCodec.encode(event))
    }
  }

  @Test func `a million bytes of empty messages are refused in bounded memory`() {
    // A workload whose drops are half a million empty messages.
    let drops = [UInt8](repeating: 0, count: 999_000).enumerated().map { $0.offset % 2 == 0 ? UInt8(0x32) : 0 }
    let length: [UInt8] = [UInt8(999_000 & 0x7f) | 0x80, UInt8(999_000 >> 7 & 0x7f) | 0x80, UInt8(999_000 >> 14)]
    let record = [0x08, 1, 0x12, 1, 0x61, 0x20, 1, 0x92, 1] + length + drops
    #expect(throws: CodecError.self) { try RecordCodec.decodeEvent(record) }
  }

  /// Every mutant is refused, or is a value that goes through the codec again unchanged.
  @Test func `twenty thousand mutated records do no harm`() throws {
    var random = RandomNumbers(seed: 20_261_122)
    let corpus = Samples.events.map { RecordCodec.encode($0.event) } + Samples.commands.map { RecordCodec.encode($0.command) }
    var decoded = 0
    for _ in 0..<20_000 {
      var record = corpus.randomElement(using: &random)!
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        switch Int.random(in: 0..<5, using: &random) {
        case 0 where !record.isEmpty:
          record[Int.random(in: record.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
        case 1 where !record.isEmpty:
          record[Int.random(in: record.indices, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 2: record.removeLast(Int.random(in: 0...record.count, using: &random))
        case 3: record.insert(UInt8.random(in: 0...255, using: &random), at: Int.random(in: 0...record.count, using: &random))
        default:
          let other = corpus.randomElement(using: &random)!
          record += other.suffix(Int.random(in: 0...other.count, using: &random))
        }
      }
      if let event = try? RecordCodec.decodeEvent(record) {
        decoded += 1
        #expect(try RecordCodec.decodeEvent(RecordCodec.encode(event)) == event)
      }
      if let command = try? RecordCodec.decodeCommand(record) {
        #expect(try RecordCodec.decodeCommand(RecordCodec.encode(command)) == command)
      }
    }
    #expect(decoded > 1_000, "a fuzz that decodes nothing proves nothing")
  }

  private func hex(_ bytes: [UInt8]) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }

  private func unhex(_ text: String) -> [UInt8]? {
    let digits = text.compactMap(\.hexDigitValue)
    guard digits.count % 2 == 0, digits.count == text.utf8.filter({ $0 != 10 }).count else { return nil }
    return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
  }
}
