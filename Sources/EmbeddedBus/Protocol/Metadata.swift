/// Metadata: which topics there are, how many partitions they have, and that this broker leads them all.

struct MetadataRequest: Equatable {
  /// nil asks for every topic.
  var topics: [String]?
  var mayCreate: Bool

  init(_ reader: inout ProtocolReader, _ version: Int16) throws(ProtocolError) {
    let names = try reader.nullableArray(elementSize: 2) { (r) throws(ProtocolError) in try r.string() }
    topics = version == 0 && names?.isEmpty == true ? nil : names
    mayCreate = version >= 4 ? try reader.bool() : true
  }
}

struct MetadataResponse {
  struct Topic {
    var error: ErrorCode
    var name: String
    var partitions: Int
  }

  var host: String
  var port: Int
  var clusterID: String
  var topics: [Topic]

  func write(to writer: inout ProtocolWriter, _ version: Int16) {
    if version >= 3 { writer.integer(Int32(0)) }
    writer.integer(Int32(1))  // one broker
    writer.integer(BrokerIdentity.node)
    writer.string(host)
    writer.integer(Int32(port))
    if version >= 1 { writer.nullableString(nil) }
    if version >= 2 { writer.nullableString(clusterID) }
    if version >= 1 { writer.integer(BrokerIdentity.node) }
    writer.array(topics) { writer, topic in
      writer.integer(topic.error.rawValue)
      writer.string(topic.name)
      if version >= 1 { writer.bool(false) }
      writer.array(Array(0..<topic.partitions)) { writer, index in
        writer.integer(ErrorCode.none.rawValue)
        writer.integer(Int32(index))
        writer.integer(BrokerIdentity.node)
        if version >= 7 { writer.integer(BrokerIdentity.leaderEpoch) }
        writer.array([BrokerIdentity.node]) { $0.integer($1) }
        writer.array([BrokerIdentity.node]) { $0.integer($1) }
        if version >= 5 { writer.array([Int32]()) { $0.integer($1) } }
      }
      if version >= 8 { writer.integer(Int32.min) }
    }
    if version >= 8 { writer.integer(Int32.min) }
  }
}

/// A single node that never loses an election: its id and its leader epoch are constants.
enum BrokerIdentity {
  static let node: Int32 = 1
  static let leaderEpoch: Int32 = 0
}
