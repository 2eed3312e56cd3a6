/// Questions about the log as a whole, and the making of topics. Every call waits for its answer.
import CRdKafka

public struct KafkaTopic: Sendable, Equatable {
  public var name: String
  public var partitions: Int
  public var replicationFactor: Int
  /// Kafka's settings of a topic, such as `retention.ms`.
  public var settings: [String: String]

  public init(name: String, partitions: Int, replicationFactor: Int = 1, settings: [String: String] = [:]) {
    self.name = name
    self.partitions = partitions
    self.replicationFactor = replicationFactor
    self.settings = settings
  }
}

/// May be used by any thread: it has no state but librdkafka's handle.
public final class KafkaAdmin: Sendable {
  private let client: KafkaClient
  private let timeout: Int

  public init(_ settings: KafkaSettings, timeoutMilliseconds: Int = 5000) throws(KafkaError) {
    // A consumer's handle, because a producer's makes the topics that it asks about.
    client = try KafkaClient(settings, type: RD_KAFKA_CONSUMER, [:])
    timeout = timeoutMilliseconds
  }

  public var status: KafkaStatus { client.status }
  public func takeLog() -> [KafkaLogLine] { client.takeLog() }

  /// Makes the topics that are missing and returns their names; one that exists is left as it is.
  @discardableResult
  public func createTopics(_ topics: [KafkaTopic]) throws(KafkaError) -> [String] {
    guard !topics.isEmpty else { return [] }
    defer { client.serve(timeoutMilliseconds: 0) { _ in } }
    var wanted: [OpaquePointer?] = []
    defer { for topic in wanted { rd_kafka_NewTopic_destroy(topic) } }
    var text = [CChar](repeating: 0, count: 512)
    for topic in topics {
      guard let new = rd_kafka_NewTopic_new(topic.name, Int32(clamping: topic.partitions), Int32(clamping: topic.replicationFactor), &text, text.count)
      else { throw .refused(operation: "make topic \(topic.name)", code: "_INVALID_ARG", reason: String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)) }
      wanted.append(new)
      for (name, value) in topic.settings { _ = rd_kafka_NewTopic_set_config(new, name, value) }
    }
    let answers = rd_kafka_queue_new(client.handle)
    defer { rd_kafka_queue_destroy(answers) }
    let options = rd_kafka_AdminOptions_new(client.handle, RD_KAFKA_ADMIN_OP_CREATETOPICS)
    defer { rd_kafka_AdminOptions_destroy(options) }
    rd_kafka_AdminOptions_set_request_timeout(options, Int32(clamping: timeout), &text, text.count)
    rd_kafka_AdminOptions_set_operation_timeout(options, Int32(clamping: timeout), &text, text.count)
    rd_kafka_CreateTopics(client.handle, &wanted, wanted.count, options, answers)
    guard let event = rd_kafka_queue_poll(answers, Int32(clamping: timeout + 1000)) else {
      throw failure(RD_KAFKA_RESP_ERR__TIMED_OUT, "make topics")
    }
    defer { rd_kafka_event_destroy(event) }
    let code = rd_kafka_event_error(event)
    guard code == RD_KAFKA_RESP_ERR_NO_ERROR else { throw failure(code, "make topics", String(cString: rd_kafka_event_error_string(event))) }
    var count = 0
    let results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count)
    var created: [String] = []
    for index in 0..<count {
      guard let result = results?[index] else { continue }
      let name = String(cString: rd_kafka_topic_result_name(result))
      switch rd_kafka_topic_result_error(result) {
      case RD_KAFKA_RESP_ERR_NO_ERROR: created.append(name)
      case RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS: break
      case let code:
        let reason = rd_kafka_topic_result_error_string(result).map { String(cString: $0) }
        throw failure(code, "make topic \(name)", reason)
      }
    }
    return created
  }

  /// nil: there is no such topic.
  public func partitionCount(of topic: String) throws(KafkaError) -> Int? {
    defer { client.serve(timeoutMilliseconds: 0) { _ in } }
    let handle = try client.topic(topic)
    var metadata: UnsafePointer<rd_kafka_metadata>?
    let code = rd_kafka_metadata(client.handle, 0, handle, &metadata, Int32(clamping: timeout))
    guard code == RD_KAFKA_RESP_ERR_NO_ERROR, let metadata else {
      if code.isUnknownTopic { return nil }
      throw failure(code, "describe \(topic)")
    }
    defer { rd_kafka_metadata_destroy(metadata) }
    guard metadata.pointee.topic_cnt > 0 else { return nil }
    let found = metadata.pointee.topics[0]
    if found.err.isUnknownTopic { return nil }
    guard found.err == RD_KAFKA_RESP_ERR_NO_ERROR else { throw failure(found.err, "describe \(topic)") }
    return Int(found.partition_cnt)
  }

  /// The first offset that is there, and the one that the next record will have.
  public func watermarks(topic: String, partition: Int32) throws(KafkaError) -> (low: Int64, high: Int64) {
    defer { client.serve(timeoutMilliseconds: 0) { _ in } }
    var low: Int64 = 0
    var high: Int64 = 0
    let code = rd_kafka_query_watermark_offsets(client.handle, topic, partition, &low, &high, Int32(clamping: timeout))
    guard code == RD_KAFKA_RESP_ERR_NO_ERROR else { throw failure(code, topic: topic, partition) }
    return (low, high)
  }

  /// The first record at or after a time (milliseconds since 1970); nil if all are older.
  public func offset(topic: String, partition: Int32, atTimestamp timestamp: Int64) throws(KafkaError) -> Int64? {
    defer { client.serve(timeoutMilliseconds: 0) { _ in } }
    let list = rd_kafka_topic_partition_list_new(1)
    defer { rd_kafka_topic_partition_list_destroy(list) }
    guard let entry = rd_kafka_topic_partition_list_add(list, topic, partition) else { return nil }
    entry.pointee.offset = timestamp
    let code = rd_kafka_offsets_for_times(client.handle, list, Int32(clamping: timeout))
    guard code == RD_KAFKA_RESP_ERR_NO_ERROR else { throw failure(code, topic: topic, partition) }
    guard entry.pointee.err == RD_KAFKA_RESP_ERR_NO_ERROR else { throw failure(entry.pointee.err, topic: topic, partition) }
    return entry.pointee.offset >= 0 ? entry.pointee.offset : nil
  }

  private func failure(_ code: rd_kafka_resp_err_t, topic: String, _ partition: Int32) -> KafkaError {
    code.isUnknownTopic
      ? .unknownTopic(topic: topic, partition: partition) : failure(code, "tell the offsets of \(topic)[\(partition)]")
  }

  private func failure(_ code: rd_kafka_resp_err_t, _ operation: String, _ reason: String? = nil) -> KafkaError {
    client.serve(timeoutMilliseconds: 0) { _ in }  // learns why, if it is the connection
    return client.error(code, operation, milliseconds: timeout, reason: reason)
  }
}
