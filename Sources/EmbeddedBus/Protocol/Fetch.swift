/// Fetch: records from given offsets, with a long poll: an answer may wait until there are `minBytes`
/// or `maxWait` has passed.
///
/// Fetch sessions (version 7 on) spare a client with thousands of partitions the repetition of its
/// request. They are optional, and this broker does without: it answers session id 0.
import NIOCore

struct FetchRequest {
  struct Partition {
    var index: Int32
    var leaderEpoch: Int32
    var offset: Int64
    var maxBytes: Int32
  }
  struct Topic {
    var name: String
    var partitions: [Partition]
  }

  var maxWaitMilliseconds: Int32
  var minBytes: Int32
  var maxBytes: Int32
  var sessionID: Int32
  var topics: [Topic]

  init(_ reader: inout ProtocolReader, _ version: Int16) throws(ProtocolError) {
    _ = try reader.integer(Int32.self)  // replica id
    maxWaitMilliseconds = try reader.integer()
    minBytes = try reader.integer()
    maxBytes = try reader.integer()
    _ = try reader.integer(Int8.self)  // isolation level: without transactions both levels read the same
    sessionID = 0
    if version >= 7 {
      sessionID = try reader.integer()
      _ = try reader.integer(Int32.self)  // session epoch
    }
    topics = try reader.array(elementSize: 6) { (r) throws(ProtocolError) in
      let name = try r.string()
      let partitions = try r.array(elementSize: 16) { (r) throws(ProtocolError) in
        let index: Int32 = try r.integer()
        let leaderEpoch: Int32 = version >= 9 ? try r.integer() : -1
        let offset: Int64 = try r.integer()
        if version >= 5 { _ = try r.integer(Int64.self) }  // a follower's log start
        return Partition(index: index, leaderEpoch: leaderEpoch, offset: offset, maxBytes: try r.integer())
      }
      return Topic(name: name, partitions: partitions)
    }
    if version >= 7 {
      _ = try reader.array(elementSize: 6) { (r) throws(ProtocolError) in
        _ = try r.string()
        _ = try r.array(elementSize: 4) { (r) throws(ProtocolError) in try r.integer(Int32.self) }
      }
    }
    if version >= 11 { _ = try reader.string() }  // rack
  }
}

struct FetchResponse {
  struct Partition {
    var index: Int32
    var error: ErrorCode
    var highWatermark: Int64 = -1
    var logStartOffset: Int64 = -1
    var records: ByteBuffer?
  }
  struct Topic {
    var name: String
    var partitions: [Partition]
  }

  var error: ErrorCode = .none
  var topics: [Topic]
  var recordBytes = 0

  func write(to writer: inout ProtocolWriter, _ version: Int16) {
    writer.integer(Int32(0))
    if version >= 7 {
      writer.integer(error.rawValue)
      writer.integer(Int32(0))
    }
    writer.array(topics) { writer, topic in
      writer.string(topic.name)
      writer.array(topic.partitions) { writer, partition in
        writer.integer(partition.index)
        writer.integer(partition.error.rawValue)
        writer.integer(partition.highWatermark)
        writer.integer(partition.highWatermark)  // last stable offset
        if version >= 5 { writer.integer(partition.logStartOffset) }
        writer.integer(Int32(-1))  // aborted transactions
        if version >= 11 { writer.integer(Int32(-1)) }  // preferred replica
        writer.bytes(partition.records)
      }
    }
  }
}
