/// What a release's schemas say: the messages and enums of a `FileDescriptorSet`, as `protoc --descriptor_set_out` writes it.
///
/// Of the descriptors (google/protobuf/descriptor.proto) only what decides about bytes is read.
public struct SchemaDescriptors: Equatable, Sendable {
  public struct Field: Equatable, Sendable {
    public var name = ""
    public var number: UInt64 = 0
    /// 1 optional, 2 required, 3 repeated.
    public var label: UInt64 = 1
    public var type: UInt64 = 0
    /// Of a message or an enum.
    public var typeName = ""
    /// Index among the message's oneofs.
    public var oneof: UInt64?
  }

  public struct Message: Equatable, Sendable {
    public var name = ""
    public var fields: [Field] = []
    public var oneofs: [String] = []
    public var reserved = Reserved()
  }

  public struct Enumeration: Equatable, Sendable {
    public struct Value: Equatable, Sendable {
      public var name: String
      public var number: UInt64
    }

    public var name = ""
    public var values: [Value] = []
    public var reserved = Reserved()
  }

  /// What may not be used (again).
  public struct Reserved: Equatable, Sendable {
    public var ranges: [ClosedRange<UInt64>] = []
    public var names: [String] = []
    public func contains(_ number: UInt64) -> Bool { ranges.contains { $0.contains(number) } }
  }

  /// By full name.
  public private(set) var messages: [Message] = []
  public private(set) var enumerations: [Enumeration] = []

  /// Why a file is no set of descriptors.
  public struct Unreadable: Error, Equatable, CustomStringConvertible {
    public var description: String {
      "this is no set of descriptors; `protoc --descriptor_set_out=FILE *.proto` writes one, and each release has schemas/nfvactor.binpb"
    }
  }

  /// Of the schemas that this program was built with.
  public static let present: SchemaDescriptors = {
    do { return try SchemaDescriptors(PackageResources.nfvactor_binpb) } catch {
      preconditionFailure("schemas/nfvactor.binpb is a set of descriptors; `make schemas` writes it")
    }
  }()

  public init(_ bytes: [UInt8]) throws(Unreadable) {
    do throws(WireReader.Malformed) {
      for (number, value) in try WireReader.fields(bytes[...]) {
        guard number == 1, case .bytes(let file) = value else { throw WireReader.Malformed() }
        try read(file: file)
      }
    } catch { throw Unreadable() }
    guard !messages.isEmpty else { throw Unreadable() }
    messages.sort { $0.name < $1.name }
    enumerations.sort { $0.name < $1.name }
  }

  public init(messages: [Message], enumerations: [Enumeration] = []) {
    self.messages = messages
    self.enumerations = enumerations
  }

  public func message(_ name: String) -> Message? { messages.first { $0.name == name } }
  public func enumeration(_ name: String) -> Enumeration? { enumerations.first { $0.name == name } }

  // MARK: Reading. The numbers are those of descriptor.proto.

  private static let maximumDepth = 32

  private mutating func read(file bytes: ArraySlice<UInt8>) throws(WireReader.Malformed) {
    let fields = try WireReader.fields(bytes)
    let package = Self.text(fields, 2).map { ".\($0)" } ?? ""
    for (number, value) in fields {
      guard case .bytes(let inner) = value else { continue }
      if number == 4 { try read(message: inner, within: package, depth: 0) }
      if number == 5 { try read(enumeration: inner, within: package) }
    }
  }

  private mutating func read(message bytes: ArraySlice<UInt8>, within scope: String, depth: Int) throws(WireReader.Malformed) {
    guard depth < Self.maximumDepth else { throw WireReader.Malformed() }
    let fields = try WireReader.fields(bytes)
    var message = Message()
    message.name = "\(scope).\(Self.text(fields, 1) ?? "")"
    for (number, value) in fields {
      guard case .bytes(let inner) = value else { continue }
      switch number {
      case 2: message.fields.append(try Self.field(inner))
      case 3: try read(message: inner, within: message.name, depth: depth + 1)
      case 4: try read(enumeration: inner, within: message.name)
      case 8: message.oneofs.append(Self.text(try WireReader.fields(inner), 1) ?? "")
      // The end of a message's reserved range does not belong to it.
      case 9: try message.reserved.read(range: inner, endIsReserved: false)
      case 10: message.reserved.names.append(String(decoding: inner, as: UTF8.self))
      default: break
      }
    }
    messages.append(message)
  }

  private mutating func read(enumeration bytes: ArraySlice<UInt8>, within scope: String) throws(WireReader.Malformed) {
    let fields = try WireReader.fields(bytes)
    var enumeration = Enumeration()
    enumeration.name = "\(scope).\(Self.text(fields, 1) ?? "")"
    for (number, value) in fields {
      guard case .bytes(let inner) = value else { continue }
      switch number {
      case 2:
        let value = try WireReader.fields(inner)
        enumeration.values.append(.init(name: Self.text(value, 1) ?? "", number: Self.number(value, 2) ?? 0))
      case 4: try enumeration.reserved.read(range: inner, endIsReserved: true)
      case 5: enumeration.reserved.names.append(String(decoding: inner, as: UTF8.self))
      default: break
      }
    }
    enumerations.append(enumeration)
  }

  private static func field(_ bytes: ArraySlice<UInt8>) throws(WireReader.Malformed) -> Field {
    let fields = try WireReader.fields(bytes)
    return Field(
      name: text(fields, 1) ?? "", number: number(fields, 3) ?? 0, label: number(fields, 4) ?? 1, type: number(fields, 5) ?? 0,
      typeName: text(fields, 6) ?? "", oneof: number(fields, 9))
  }

  private static func text(_ fields: [(number: UInt64, value: WireReader.Value)], _ wanted: UInt64) -> String? {
    for (number, value) in fields where number == wanted {
      if case .bytes(let bytes) = value { return String(decoding: bytes, as: UTF8.self) }
    }
    return nil
  }

  fileprivate static func number(_ fields: [(number: UInt64, value: WireReader.Value)], _ wanted: UInt64) -> UInt64? {
    for (number, value) in fields where number == wanted { if case .number(let found) = value { return found } }
    return nil
  }
}

extension SchemaDescriptors.Reserved {
  fileprivate mutating func read(range bytes: ArraySlice<UInt8>, endIsReserved: Bool) throws(WireReader.Malformed) {
    let fields = try WireReader.fields(bytes)
    let first = SchemaDescriptors.number(fields, 1) ?? 0
    let end = SchemaDescriptors.number(fields, 2) ?? 0
    guard endIsReserved ? end >= first : end > first else { return }
    ranges.append(first...(endIsReserved ? end : end - 1))
  }
}

extension SchemaDescriptors.Field {
  /// `FieldDescriptorProto.Type`, or the name of the message or enum.
  var typeWords: String {
    let names: [UInt64: String] = [
      1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 6: "fixed64", 7: "fixed32", 8: "bool", 9: "string",
      10: "group", 12: "bytes", 13: "uint32", 15: "sfixed32", 16: "sfixed64", 17: "sint32", 18: "sint64",
    ]
    return typeName.isEmpty ? names[type] ?? "type \(type)" : String(typeName.drop { $0 == "." })
  }

  var labelWords: String { label == 3 ? "repeated" : label == 2 ? "required" : "singular" }
}
