/// CreateTopics: partitions and, of the many settings of a Kafka topic, its retention.

struct CreateTopicsRequest {
  struct Topic {
    var name: String
    /// -1 asks for the broker's default.
    var partitions: Int32
    var replicationFactor: Int16
    var hasAssignments: Bool
    var settings: [(name: String, value: String?)]
  }

  var topics: [Topic]
  var validateOnly: Bool

  init(_ reader: inout ProtocolReader, _ version: Int16) throws(ProtocolError) {
    topics = try reader.array(elementSize: 16) { (r) throws(ProtocolError) in
      let name = try r.string()
      let partitions: Int32 = try r.integer()
      let replicationFactor: Int16 = try r.integer()
      let assignments: [Void] = try r.array(elementSize: 8) { (r) throws(ProtocolError) in
        _ = try r.integer(Int32.self)
        _ = try r.array(elementSize: 4) { (r) throws(ProtocolError) in try r.integer(Int32.self) }
      }
      let settings = try r.array(elementSize: 4) { (r) throws(ProtocolError) in
        (name: try r.string(), value: try r.nullableString())
      }
      return Topic(
        name: name, partitions: partitions, replicationFactor: replicationFactor,
        hasAssignments: !assignments.isEmpty, settings: settings)
    }
    _ = try reader.integer(Int32.self)  // timeout: creation is immediate
    validateOnly = version >= 1 ? try reader.bool() : false
  }
}

enum CreateTopicsResponse {
  struct Topic {
    var name: String
    var error: ErrorCode
    var message: String?
  }

  static func write(_ topics: [Topic], to writer: inout ProtocolWriter, _ version: Int16) {
    if version >= 2 { writer.integer(Int32(0)) }
    writer.array(topics) { writer, topic in
      writer.string(topic.name)
      writer.integer(topic.error.rawValue)
      if version >= 1 { writer.nullableString(topic.message) }
    }
  }
}
