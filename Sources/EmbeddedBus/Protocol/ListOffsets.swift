/// ListOffsets: the first offset, the end, or the first record at or after a time.

struct ListOffsetsRequest {
  struct Partition {
    var index: Int32
    var target: Target
  }
  struct Topic {
    var name: String
    var partitions: [Partition]
  }
  enum Target: Equatable {
    case latest
    case earliest
    case timestamp(Int64)
  }

  var topics: [Topic]

  init(_ reader: inout ProtocolReader, _ version: Int16) throws(ProtocolError) {
    _ = try reader.integer(Int32.self)  // replica id
    if version >= 2 { _ = try reader.integer(Int8.self) }  // isolation level
    topics = try reader.array(elementSize: 6) { (r) throws(ProtocolError) in
      let name = try r.string()
      let partitions = try r.array(elementSize: 12) { (r) throws(ProtocolError) in
        let index: Int32 = try r.integer()
        if version >= 4 { _ = try r.integer(Int32.self) }  // leader epoch
        let timestamp: Int64 = try r.integer()
        let target: Target =
          switch timestamp {
          case -1: .latest
          case -2: .earliest
          default: .timestamp(timestamp)
          }
        return Partition(index: index, target: target)
      }
      return Topic(name: name, partitions: partitions)
    }
  }
}

enum ListOffsetsResponse {
  struct Partition {
    var index: Int32
    var error: ErrorCode
    var timestamp: Int64 = -1
    var offset: Int64 = -1
  }
  struct Topic {
    var name: String
    var partitions: [Partition]
  }

  static func write(_ topics: [Topic], to writer: inout ProtocolWriter, _ version: Int16) {
    if version >= 2 { writer.integer(Int32(0)) }
    writer.array(topics) { writer, topic in
      writer.string(topic.name)
      writer.array(topic.partitions) { writer, partition in
        writer.integer(partition.index)
        writer.integer(partition.error.rawValue)
        writer.integer(partition.timestamp)
        writer.integer(partition.offset)
        if version >= 4 { writer.integer(BrokerIdentity.leaderEpoch) }
      }
    }
  }
}
