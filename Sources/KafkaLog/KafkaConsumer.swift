/// Reads partitions of the log, each from where its reader wants.
///
/// There is no consumer group: which partition is read from which offset is the reader's decision,
/// and its progress is in its own state. Offsets may have gaps (a real Kafka has markers in its log);
/// having read everything is what `endOfPartition` says, never a comparison of offsets.
import CRdKafka
import Synchronization

public struct KafkaRecord: Sendable, Equatable {
  public var topic: String
  public var partition: Int32
  public var offset: Int64
  public var timestampMilliseconds: Int64
  public var key: [UInt8]?
  public var value: [UInt8]

  public init(topic: String, partition: Int32, offset: Int64, timestampMilliseconds: Int64, key: [UInt8]?, value: [UInt8]) {
    self.topic = topic
    self.partition = partition
    self.offset = offset
    self.timestampMilliseconds = timestampMilliseconds
    self.key = key
    self.value = value
  }
}

public enum KafkaMessage: Sendable, Equatable {
  case record(KafkaRecord)
  /// Everything there was has been read; `offset` is where the next record will be. Comes again whenever it is so again.
  case endOfPartition(topic: String, partition: Int32, offset: Int64)
}

public enum KafkaStart: Sendable, Equatable {
  case offset(Int64)
  case beginning
  case end
}

/// `@unchecked Sendable`: `poll` may be called by one thread at a time, which a mutex ensures; `assign` and
/// `unassign` by any.
public final class KafkaConsumer: @unchecked Sendable {
  private struct Partition: Hashable {
    var topic: String
    var index: Int32
  }

  private struct Polling {
    /// Found behind records that had to be handed out first.
    var errors: [KafkaError] = []
    var topicNames: [OpaquePointer: String] = [:]
  }

  private let client: KafkaClient
  private let queue: OpaquePointer
  private let assigned = Mutex<Set<Partition>>([])
  private let polling = Mutex(Polling())

  public init(_ settings: KafkaSettings) throws(KafkaError) {
    client = try KafkaClient(
      settings, type: RD_KAFKA_CONSUMER,
      [
        "enable.auto.commit": "false",
        "auto.offset.reset": "error",
        "enable.partition.eof": "true",
        "isolation.level": "read_uncommitted",
        "check.crcs": "true",
        "fetch.error.backoff.ms": "5",
        "fetch.wait.max.ms": "500",
        // Read ahead no more than this of each partition.
        "queued.max.messages.kbytes": "8192",
      ])
    queue = rd_kafka_queue_new(client.handle)
  }

  deinit {
    assigned.withLock { partitions in
      for partition in partitions {
        if let topic = try? client.topic(partition.topic) { rd_kafka_consume_stop(topic, partition.index) }
      }
    }
    rd_kafka_queue_destroy(queue)
  }

  public var status: KafkaStatus { client.status }
  public func takeLog() -> [KafkaLogLine] { client.takeLog() }

  /// Reads a partition from `start` on; if it is read already, reading begins anew from there.
  public func assign(topic: String, partition: Int32, start: KafkaStart) throws(KafkaError) {
    let handle = try client.topic(topic)
    let offset: Int64 =
      switch start {
      case .offset(let offset): offset
      case .beginning: Int64(RD_KAFKA_OFFSET_BEGINNING)
      case .end: Int64(RD_KAFKA_OFFSET_END)
      }
    if case .offset(let offset) = start, offset < 0 {
      throw .offsetOutOfRange(topic: topic, partition: partition, reason: "\(offset) is negative")
    }
    let code = assigned.withLock { partitions in
      let key = Partition(topic: topic, index: partition)
      if partitions.remove(key) != nil { rd_kafka_consume_stop(handle, partition) }
      guard rd_kafka_consume_start_queue(handle, partition, offset, queue) == 0 else { return rd_kafka_last_error() }
      partitions.insert(key)
      return RD_KAFKA_RESP_ERR_NO_ERROR
    }
    guard code == RD_KAFKA_RESP_ERR_NO_ERROR else { throw client.error(code, "read \(topic)[\(partition)]", milliseconds: 0) }
  }

  /// Stops reading a partition; nothing more of it comes out of a `poll` that begins after this.
  public func unassign(topic: String, partition: Int32) throws(KafkaError) {
    let handle = try client.topic(topic)
    assigned.withLock { partitions in
      if partitions.remove(Partition(topic: topic, index: partition)) != nil { rd_kafka_consume_stop(handle, partition) }
    }
  }

  /// Where a partition ended when the broker last answered; nil before it did. Asks nobody.
  ///
  /// `endOfPartition` needs a moment in which nothing comes, and in a partition full of heartbeats there is none: there,
  /// having read the record before this offset is having read everything.
  public func knownEnd(topic: String, partition: Int32) -> Int64? {
    var low: Int64 = 0, high: Int64 = 0
    let code = rd_kafka_get_watermark_offsets(client.handle, topic, partition, &low, &high)
    return code == RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0 ? high : nil
  }

  /// Ends the wait of a `poll` that waits for its first message, or of the next one; from any thread.
  public func wake() { rd_kafka_queue_yield(queue) }

  /// Up to `max` messages, in order within each partition; waits up to the timeout for the first one.
  ///
  /// Throws only what does not go away by itself, once for each time it is found; reading other
  /// partitions goes on with the next call.
  public func poll(timeoutMilliseconds: Int, max: Int = 1000) throws(KafkaError) -> [KafkaMessage] {
    client.serve(timeoutMilliseconds: 0) { _ in }
    let result: Result<[KafkaMessage], KafkaError> = polling.withLock { polling in
      if !polling.errors.isEmpty { return .failure(polling.errors.removeFirst()) }
      // The batch call waits for a full batch, or its whole time; so the first message is waited for alone.
      guard max > 0, let first = rd_kafka_consume_queue(queue, Int32(clamping: Swift.max(0, timeoutMilliseconds))) else {
        takeInbox(&polling)
        return polling.errors.isEmpty ? .success([]) : .failure(polling.errors.removeFirst())
      }
      var messages: [KafkaMessage] = []
      take(first, into: &messages, &polling)
      if max > 1 {
        withUnsafeTemporaryAllocation(of: UnsafeMutablePointer<rd_kafka_message_t>?.self, capacity: max - 1) { rest in
          let count = rd_kafka_consume_batch_queue(queue, 0, rest.baseAddress, rest.count)
          if count > 0 { messages.reserveCapacity(count + 1) }
          for index in 0..<Swift.max(0, count) {
            if let message = rest[index] { take(message, into: &messages, &polling) }
          }
        }
      }
      takeInbox(&polling)
      if messages.isEmpty, !polling.errors.isEmpty { return .failure(polling.errors.removeFirst()) }
      return .success(messages)
    }
    client.serve(timeoutMilliseconds: 0) { _ in }
    if let reason = client.fatalReason { throw .fatal(reason: reason) }
    return try result.get()
  }

  /// Turns librdkafka's message into ours, and gives it back.
  private func take(
    _ message: UnsafeMutablePointer<rd_kafka_message_t>, into messages: inout [KafkaMessage], _ polling: inout Polling
  ) {
    defer { rd_kafka_message_destroy(message) }
    let topic = name(message.pointee.rkt, &polling)
    let partition = message.pointee.partition
    switch message.pointee.err {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
      client.noteSuccess()
      messages.append(
        .record(
          KafkaRecord(
            topic: topic, partition: partition, offset: message.pointee.offset,
            timestampMilliseconds: rd_kafka_message_timestamp(message, nil),
            key: message.pointee.key.map { bytes($0, message.pointee.key_len) },
            value: message.pointee.payload.map { bytes($0, message.pointee.len) } ?? [])))
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
      client.noteSuccess()
      messages.append(.endOfPartition(topic: topic, partition: partition, offset: message.pointee.offset))
    case let code:
      let reason = message.pointee.payload.map { String(decoding: bytes($0, message.pointee.len), as: UTF8.self) } ?? code.text
      if code.isRecoverable {
        client.note(code, reason)
      } else {
        polling.errors.append(error(code, reason, topic, partition))
      }
    }
  }

  /// What was told by callback: that a partition cannot be read, named at the start of the sentence; or something general.
  private func takeInbox(_ polling: inout Polling) {
    for entry in client.inbox.take() {
      let partition = assigned.withLock { $0.first { entry.reason.hasPrefix("\($0.topic) [\($0.index)]:") } }
      if let partition, !entry.code.isRecoverable {
        polling.errors.append(error(entry.code, entry.reason, partition.topic, partition.index))
      } else {
        client.note(entry.code, entry.reason)
      }
    }
  }

  private func error(_ code: rd_kafka_resp_err_t, _ reason: String, _ topic: String, _ partition: Int32) -> KafkaError {
    if code.isUnknownTopic { return .unknownTopic(topic: topic, partition: partition) }
    switch code {
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE, RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
      return .offsetOutOfRange(topic: topic, partition: partition, reason: reason)
    case RD_KAFKA_RESP_ERR__BAD_MSG, RD_KAFKA_RESP_ERR_INVALID_MSG, RD_KAFKA_RESP_ERR__BAD_COMPRESSION:
      return .corruptRecord(topic: topic, partition: partition, reason: reason)
    default: return client.error(code, "give records of \(topic)[\(partition)]", milliseconds: 0, reason: reason)
    }
  }

  private func name(_ topic: OpaquePointer?, _ polling: inout Polling) -> String {
    guard let topic else { return "" }
    if let name = polling.topicNames[topic] { return name }
    let name = String(cString: rd_kafka_topic_name(topic))
    // Handles live as long as the client (see `KafkaClient.topic`), so the pointer stays the name's.
    polling.topicNames[topic] = name
    return name
  }

  private func bytes(_ pointer: UnsafeMutableRawPointer, _ count: Int) -> [UInt8] {
    Array(UnsafeRawBufferPointer(start: pointer, count: count))
  }
}
