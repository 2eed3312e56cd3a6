// Every kind of record that the schemas know has golden bytes, so that none can stop decoding unnoticed.
import ControlCodec
import ControlMessages
import Foundation
import Testing

@testable import SchemaEvolution

@Suite struct GoldenRecordTests {
  static let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "golden/v1")

  private func golden(_ prefix: String) throws -> [(name: String, bytes: [UInt8])] {
    try FileManager.default.contentsOfDirectory(atPath: Self.folder.path).filter { $0.hasPrefix(prefix) }.sorted().map { name in
      let text = try String(contentsOf: Self.folder.appending(path: name), encoding: .utf8)
      let digits = Array(text.filter { $0.isHexDigit })
      return (name, stride(from: 0, to: digits.count, by: 2).compactMap { UInt8(String(digits[$0..<($0 + 2)]), radix: 16) })
    }
  }

  /// Fails when a body is added to the schemas and no sample of it to `Samples`.
  @Test(arguments: [("Event", "event-"), ("Command", "command-")])
  func `each body of the schemas has a golden record`(message: String, prefix: String) throws {
    let schema = try #require(SchemaDescriptors.present.message(".nfvactor.v1.\(message)"))
    let oneof = try #require(schema.oneofs.firstIndex(of: "body"))
    let bodies = Set(schema.fields.filter { $0.oneof == UInt64(oneof) }.map(\.number))
    try #require(bodies.count >= 4)
    var covered: Set<UInt64> = []
    for (_, bytes) in try golden(prefix) { covered.formUnion(try WireReader.fields(bytes[...]).map(\.number)) }
    #expect(bodies.subtracting(covered) == [], "write them: NFV_WRITE_GOLDEN=1 swift test --filter RecordCodecTests")
  }

  @Test func `a dead letter of this version decodes for ever`() throws {
    let letter = DeadLetter(topic: "nfv.events", partition: 3, offset: Offset(4_711), reason: "version is missing")
    let file = Self.folder.appending(path: "dead-letter.hex")
    if ProcessInfo.processInfo.environment["NFV_WRITE_GOLDEN"] != nil, !FileManager.default.fileExists(atPath: file.path) {
      let text = RecordCodec.encode(letter).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
      try (text + "\n").write(to: file, atomically: true, encoding: .utf8)
    }
    let bytes = try #require(try golden("dead-letter").first).bytes
    #expect(try RecordCodec.decodeDeadLetter(bytes) == letter)
    #expect(RecordCodec.encode(letter) == bytes, "this version writes it differently")
  }
}
