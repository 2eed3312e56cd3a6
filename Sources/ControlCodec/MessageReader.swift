import CProtobufC
import CSchemas
import ControlMessages

/// Turns unpacked C messages into values, believing nothing.
///
/// The parts that events and commands share are here; `+Event`, `+Command` and `+Spec` hold the rest.
struct MessageReader {
  let arena: MessageArena

  /// A record of n bytes unpacks to at most this: two bytes can make an empty message of a hundred.
  static func memoryLimit(recordSize: Int) -> Int { 4_096 + 96 * recordSize }

  /// What `protobuf-c` lets every absent string point to; it belongs to no arena.
  private static let emptyString: UInt = {
    var message = Nfvactor__V1__AgentHeartbeat()
    nfvactor__v1__agent_heartbeat__init(&message)
    return UInt(bitPattern: message.host)
  }()

  func text(_ pointer: UnsafeMutablePointer<CChar>?, _ field: String) throws(CodecError) -> String {
    guard let pointer, UInt(bitPattern: pointer) != Self.emptyString else { return "" }
    let length = arena.size(of: pointer) - 1
    return try text(UnsafeRawBufferPointer(start: pointer, count: length), field)
  }

  private func text(_ bytes: UnsafeRawBufferPointer, _ field: String) throws(CodecError) -> String {
    var union: UInt8 = 0
    for index in bytes.indices {
      guard bytes[index] != 0 else { throw .invalid(field: field, reason: "has a NUL inside") }
      union |= bytes[index]
    }
    // ASCII needs no validation, and names are.
    if union < 0x80 { return String(decoding: bytes, as: UTF8.self) }
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw .invalid(field: field, reason: "is not UTF-8")
    }
    return text
  }

  func required<Message>(_ pointer: UnsafeMutablePointer<Message>?, _ field: String) throws(CodecError) -> Message {
    guard let pointer else { throw .missing(field: field) }
    return pointer.pointee
  }

  func values<Message, Value>(
    _ pointers: UnsafeMutablePointer<UnsafeMutablePointer<Message>?>?, count: Int, atMost maximum: Int, _ field: String,
    _ read: (Message) throws(CodecError) -> Value
  ) throws(CodecError) -> [Value] {
    guard count <= maximum else { throw .invalid(field: field, reason: "has \(count) entries; the most is \(maximum)") }
    var values: [Value] = []
    values.reserveCapacity(count)
    for index in 0..<count {
      guard let message = pointers?[index] else { throw .malformed }
      values.append(try read(message.pointee))
    }
    return values
  }

  func texts(
    _ pointers: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?, count: Int, atMost maximum: Int, _ field: String
  ) throws(CodecError) -> [String] {
    guard count <= maximum else { throw .invalid(field: field, reason: "has \(count) entries; the most is \(maximum)") }
    var texts: [String] = []
    for index in 0..<count { texts.append(try text(pointers?[index], field)) }
    return texts
  }

  func binary(_ data: ProtobufCBinaryData) -> [UInt8] {
    guard let bytes = data.data, data.len > 0 else { return [] }
    return [UInt8](UnsafeBufferPointer(start: bytes, count: data.len))
  }

  func cluster(_ pointer: UnsafeMutablePointer<CChar>?, _ field: String) throws(CodecError) -> ClusterID {
    guard let cluster = ClusterID(try text(pointer, field)) else {
      throw .invalid(field: field, reason: "is not a cluster's name")
    }
    return cluster
  }

  func host(_ pointer: UnsafeMutablePointer<CChar>?, _ field: String) throws(CodecError) -> HostID {
    guard let host = HostID(try text(pointer, field)) else { throw .invalid(field: field, reason: "is not a host's name") }
    return host
  }

  func node(_ number: UInt32, _ field: String) throws(CodecError) -> NodeID {
    guard let node = NodeID(number) else { throw .missing(field: field) }
    return node
  }

  func life(_ message: Nfvactor__V1__NodeLife, _ field: String) throws(CodecError) -> (NodeID, Incarnation) {
    (try node(message.node, field), Incarnation(message.incarnation))
  }

  func nodeLife(_ message: Nfvactor__V1__NodeLife, _ field: String) throws(CodecError) -> NodeLife {
    NodeLife(try node(message.node, field), Incarnation(message.incarnation))
  }

  func nodeLife(
    ifPresent pointer: UnsafeMutablePointer<Nfvactor__V1__NodeLife>?, _ field: String
  ) throws(CodecError) -> NodeLife? {
    guard let pointer else { return nil }
    return try nodeLife(pointer.pointee, field)
  }

  func kind(_ kind: Nfvactor__V1__NodeKind, _ field: String) throws(CodecError) -> NodeKind {
    try choice(kind.rawValue, field)
  }

  func ports(_ message: Nfvactor__V1__NodePorts) -> NodePorts {
    NodePorts(
      input: HardwareAddress(bits: message.input), output: HardwareAddress(bits: message.output),
      control: HardwareAddress(bits: message.control))
  }

  /// A member of one of our enums, whose raw values are those of the schema.
  func choice<Choice: RawRepresentable>(_ raw: UInt32, _ field: String) throws(CodecError) -> Choice
  where Choice.RawValue == UInt8 {
    guard let small = UInt8(exactly: raw), let choice = Choice(rawValue: small) else {
      throw .invalid(field: field, reason: "has the unknown value \(raw)")
    }
    return choice
  }

  /// Whether the envelope is one this version reads.
  func check(version: UInt32) throws(CodecError) {
    guard version != 0 else { throw .missing(field: "version") }
    guard version == RecordCodec.version else { throw .unsupportedVersion(version) }
  }

  /// The body of a record from a newer version: its field number, if there is one among the fields not understood.
  func unknownBody(_ base: ProtobufCMessage, record: [UInt8], neededRelease: String = "") throws(CodecError) -> UnknownBody {
    for index in 0..<Int(base.n_unknown_fields) where base.unknown_fields[index].tag >= 16 {
      return UnknownBody(tag: base.unknown_fields[index].tag, record: record, neededRelease: neededRelease)
    }
    throw .missing(field: "body")
  }
}
