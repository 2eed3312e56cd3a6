/// Produce: record batches to append. The batches stay views of the request until they are written.
import NIOCore

struct ProduceRequest {
  struct Partition {
    var index: Int32
    var records: ByteBuffer?
  }
  struct Topic {
    var name: String
    var partitions: [Partition]
  }

  var version: Int16
  var isTransactional: Bool
  var acks: Int16
  var topics: [Topic]

  init(_ reader: inout ProtocolReader, _ version: Int16) throws(ProtocolError) {
    self.version = version
    isTransactional = version >= 3 ? try reader.nullableString() != nil : false
    acks = try reader.integer()
    _ = try reader.integer(Int32.self)  // timeout: there are no replicas to wait for
    topics = try reader.array(elementSize: 6) { (r) throws(ProtocolError) in
      let name = try r.string()
      let partitions = try r.array(elementSize: 8) { (r) throws(ProtocolError) in
        let index: Int32 = try r.integer()
        return Partition(index: index, records: try r.nullableBytes())
      }
      return Topic(name: name, partitions: partitions)
    }
  }
}

enum ProduceResponse {
  struct Partition {
    var index: Int32
    var error: ErrorCode
    var baseOffset: Int64 = -1
    var logAppendTime: Int64 = -1
    var logStartOffset: Int64 = -1
  }
  struct Topic {
    var name: String
    var partitions: [Partition]
  }

  static func write(_ topics: [Topic], to writer: inout ProtocolWriter, _ version: Int16) {
    writer.array(topics) { writer, topic in
      writer.string(topic.name)
      writer.array(topic.partitions) { writer, partition in
        writer.integer(partition.index)
        writer.integer(partition.error.rawValue)
        writer.integer(partition.baseOffset)
        if version >= 2 { writer.integer(partition.logAppendTime) }
        if version >= 5 { writer.integer(partition.logStartOffset) }
        if version >= 8 {
          writer.integer(Int32(0))
          writer.nullableString(nil)
        }
      }
    }
    if version >= 1 { writer.integer(Int32(0)) }
  }
}
