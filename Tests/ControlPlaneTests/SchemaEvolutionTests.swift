// Each way in which schemas can break readers is found, and growth as the rules allow it passes.
import Foundation
import Testing

@testable import SchemaEvolution

@Suite struct SchemaEvolutionTests {
  typealias Field = SchemaDescriptors.Field
  typealias Message = SchemaDescriptors.Message

  /// message Order { uint64 slot = 1; string reason = 2; repeated uint32 nodes = 3; oneof body { bytes a = 4; bytes b = 5; }
  ///   reserved 8; reserved "later"; }   enum Kind { NONE = 0; ONE = 1; }
  static let old = SchemaDescriptors(
    messages: [
      Message(
        name: ".t.Order",
        fields: [
          Field(name: "slot", number: 1, type: 4), Field(name: "reason", number: 2, type: 9),
          Field(name: "nodes", number: 3, label: 3, type: 13), Field(name: "a", number: 4, type: 12, oneof: 0),
          Field(name: "b", number: 5, type: 12, oneof: 0),
        ], oneofs: ["body"], reserved: .init(ranges: [8...8], names: ["later"]))
    ],
    enumerations: [.init(name: ".t.Kind", values: [.init(name: "NONE", number: 0), .init(name: "ONE", number: 1)])])

  private func changed(_ change: (inout Message, inout SchemaDescriptors.Enumeration) -> Void) -> [SchemaChange.Kind] {
    var message = Self.old.messages[0]
    var enumeration = Self.old.enumerations[0]
    change(&message, &enumeration)
    return SchemaDescriptors(messages: [message], enumerations: [enumeration]).changes(since: Self.old).map(\.kind)
  }

  @Test func `nothing changed is no change`() {
    #expect(changed { _, _ in } == [])
    #expect(SchemaDescriptors.present.changes(since: .present) == [])
  }

  @Test func `growth by new fields, bodies, messages and enums passes`() {
    var grown = Self.old.messages[0]
    grown.fields.append(Field(name: "cause", number: 6, type: 9))
    grown.fields.append(Field(name: "c", number: 7, type: 12, oneof: 0))
    grown.oneofs = ["renamed"]
    let new = SchemaDescriptors(
      messages: [grown, Message(name: ".t.More")], enumerations: Self.old.enumerations + [.init(name: ".t.Other")])
    #expect(new.changes(since: Self.old) == [])
  }

  @Test func `a field that went away passes when number and name are reserved, and only then`() {
    #expect(changed { message, _ in message.fields.remove(at: 1) } == [.fieldRemoved])
    #expect(
      changed { message, _ in
        message.fields.remove(at: 1)
        message.reserved.ranges.append(2...2)
      } == [.fieldRemoved])
    #expect(
      changed { message, _ in
        message.fields.remove(at: 1)
        message.reserved.ranges.append(2...2)
        message.reserved.names.append("reason")
      } == [])
  }

  @Test func `a number has one meaning for ever`() {
    #expect(changed { message, _ in message.fields[1].name = "remark" } == [.numberReused])
    #expect(changed { message, _ in message.fields[1].number = 9 } == [.fieldRenumbered])
    #expect(changed { message, _ in message.fields.append(Field(name: "new", number: 8, type: 9)) } == [.numberReused])
  }

  @Test func `a number kept free for a name may be given to it`() {
    let kinds = changed { message, _ in message.fields.append(Field(name: "later", number: 8, type: 9)) }
    #expect(kinds == [.reservedTaken])
  }

  @Test func `types and cardinalities stay`() {
    #expect(changed { message, _ in message.fields[0].type = 6 } == [.typeChanged])
    #expect(changed { message, _ in message.fields[0].typeName = ".t.More" } == [.typeChanged])
    #expect(changed { message, _ in message.fields[2].label = 1 } == [.cardinalityChanged])
  }

  @Test func `what excludes each other goes on excluding each other`() {
    #expect(changed { message, _ in message.fields[3].oneof = nil } == [.oneofChanged])
    #expect(changed { message, _ in message.fields[0].oneof = 0 } == [.oneofChanged])
    #expect(
      changed { message, _ in
        message.oneofs.append("other")
        message.fields[4].oneof = 1
      } == [.oneofChanged])
  }

  @Test func `enums keep their numbers and do not grow`() {
    #expect(changed { _, kind in kind.values[1].number = 2 } == [.enumValueRenumbered])
    #expect(changed { _, kind in kind.values.removeLast() } == [.enumValueRemoved])
    #expect(changed { _, kind in kind.values[1].name = "UNO" } == [.numberReused])
    #expect(changed { _, kind in kind.values.append(.init(name: "TWO", number: 2)) } == [.enumGrew])
  }

  @Test func `what went away whole is named`() {
    let nothing = SchemaDescriptors(messages: [Message(name: ".t.More")])
    #expect(nothing.changes(since: Self.old).map(\.kind) == [.messageRemoved, .enumRemoved])
  }

  @Test func `the present schemas are read as they are written`() throws {
    let event = try #require(SchemaDescriptors.present.message(".nfvactor.v1.Event"))
    #expect(event.fields.first { $0.name == "critical" }?.number == 8)
    #expect(event.oneofs == ["causation", "body"])
    let command = try #require(SchemaDescriptors.present.message(".nfvactor.v1.Command"))
    #expect(command.fields.first { $0.name == "stop_node" }?.typeName == ".nfvactor.v1.NodeLife")
    // What was reserved for replication has been given to it.
    #expect(command.fields.contains { $0.number == 23 } && !command.reserved.contains(23))
    let state = try #require(SchemaDescriptors.present.enumeration(".nfvactor.v1.Member.State"))
    #expect(state.values.last?.number == 4)
  }

  @Test func `bytes that are no descriptors are refused, however they are broken`() throws {
    let good = try Data(contentsOf: SchemaTests.root.appending(path: "schemas/nfvactor.binpb"))
    #expect(try SchemaDescriptors(Array(good)) == .present)
    for bytes in [[], [0xff], Array("not descriptors".utf8), [0x0a, 0x7f]] as [[UInt8]] {
      #expect(throws: SchemaDescriptors.Unreadable()) { try SchemaDescriptors(bytes) }
    }
    // Whatever stands there, it is read or refused.
    var random = RandomNumbers(seed: 7)
    for _ in 0..<500 {
      var bytes = Array(good)
      for _ in 0..<4 { bytes[Int.random(in: bytes.indices, using: &random)] = UInt8.random(in: 0...255, using: &random) }
      _ = try? SchemaDescriptors(bytes)
    }
  }

  @Test(.enabled(if: SchemaTests.hasCompiler, "protoc-c is not installed"))
  func `the committed descriptors are those of the schemas`() throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "nfv-descriptors-\(UInt64.random(in: .min ... .max))")
    defer { try? FileManager.default.removeItem(at: folder) }
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    let fresh = folder.appending(path: "fresh.binpb")
    let generate = Process()
    generate.executableURL = URL(filePath: "/bin/sh")
    generate.arguments = [
      SchemaTests.root.appending(path: "schemas/generate.sh").path, folder.appending(path: "c").path, fresh.path,
    ]
    try generate.run()
    generate.waitUntilExit()
    #expect(generate.terminationStatus == 0)
    let same = try Data(contentsOf: fresh) == Data(contentsOf: SchemaTests.root.appending(path: "schemas/nfvactor.binpb"))
    #expect(same, "schemas/nfvactor.binpb is stale: run `make schemas`")
  }
}
