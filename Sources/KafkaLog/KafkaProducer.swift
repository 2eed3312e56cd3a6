/// Sends records, and tells what became of them.
///
/// `send` never waits: it copies the record into librdkafka's queue. What became of it comes out of
/// `poll`, which somebody must call: until then the record counts against the queue, which is bounded.
import CRdKafka
import Synchronization

/// What became of one record.
public struct KafkaDelivery: Sendable, Equatable {
  public enum Outcome: Sendable, Equatable {
    /// In the log. The offset is -1 where the log says only that it has the record already.
    case stored(offset: Int64)
    case failed(KafkaError)
  }

  /// What `send` returned for it.
  public var id: UInt64
  public var topic: String
  public var partition: Int32
  public var outcome: Outcome
}

/// `@unchecked Sendable`: `send` may be called by any thread, also while another polls; `poll`, `flush`
/// and `sendAndWait` exclude each other by a mutex around what they share.
public final class KafkaProducer: @unchecked Sendable {
  public enum Profile: Sendable {
    /// Every record once, in order, and acknowledged by all replicas; a millisecond may be spent on filling a batch.
    case facts
    /// As facts, but sent at once: few and urgent.
    case commands
    /// Now or never: a heartbeat that cannot be delivered within the time is dropped.
    case heartbeats(timeoutMilliseconds: Int)

    public static let heartbeats = Profile.heartbeats(timeoutMilliseconds: 100)

    var properties: [String: String] {
      switch self {
      case .facts: ["acks": "all", "enable.idempotence": "true", "linger.ms": "0"]
      case .commands: ["acks": "all", "enable.idempotence": "true", "linger.ms": "0"]
      case .heartbeats(let milliseconds):
        ["acks": "1", "retries": "0", "linger.ms": "0", "message.timeout.ms": String(max(10, milliseconds))]
      }
    }
  }

  private let client: KafkaClient
  private let lastID = Atomic<UInt64>(0)
  /// Outcomes that were read by somebody who waited for something else.
  private let untold = Mutex<[KafkaDelivery]>([])
  private let polling = Mutex<Void>(())

  public init(_ settings: KafkaSettings, profile: Profile) throws(KafkaError) {
    let bounds = ["queue.buffering.max.messages": "100000", "queue.buffering.max.kbytes": "65536"]
    client = try KafkaClient(settings, type: RD_KAFKA_PRODUCER, bounds.merging(profile.properties) { $1 })
  }

  public var status: KafkaStatus { client.status }
  /// Records whose outcome has not been told yet.
  public var outstanding: Int { Int(rd_kafka_outq_len(client.handle)) }
  public func takeLog() -> [KafkaLogLine] { client.takeLog() }

  /// Queues a record. One copy; no waiting. The id names the record in its `KafkaDelivery`. A time (milliseconds since
  /// 1970) is only kept by topics with `CreateTime`; without one it is now.
  @discardableResult
  public func send(
    topic: String, partition: Int32, key: [UInt8]? = nil, value: [UInt8], timestampMilliseconds: Int64? = nil
  ) throws(KafkaError) -> UInt64 {
    let handle = try client.topic(topic)
    let id = lastID.add(1, ordering: .relaxed).newValue
    let opaque = UnsafeMutableRawPointer(bitPattern: UInt(id))
    let code = value.withUnsafeBytes { value in
      (key ?? []).withUnsafeBytes { keyBytes in
        // An empty key is not the same as none.
        let keyStart = key == nil ? nil : keyBytes.baseAddress ?? UnsafeRawPointer(bitPattern: 1)
        if let timestampMilliseconds {
          let key = UnsafeRawBufferPointer(start: keyStart, count: keyBytes.count)
          return produce(handle, partition, value, key, opaque, timestampMilliseconds)
        }
        let result = rd_kafka_produce(
          handle, partition, RD_KAFKA_MSG_F_COPY, UnsafeMutableRawPointer(mutating: value.baseAddress), value.count, keyStart,
          keyBytes.count, opaque)
        return result == 0 ? RD_KAFKA_RESP_ERR_NO_ERROR : rd_kafka_last_error()
      }
    }
    switch code {
    case RD_KAFKA_RESP_ERR_NO_ERROR: return id
    case RD_KAFKA_RESP_ERR__QUEUE_FULL: throw .queueFull
    default: throw error(code, topic, partition, bytes: value.count + (key?.count ?? 0))
    }
  }

  /// `rd_kafka_produceva`, the only call that takes a time.
  private func produce(
    _ topic: OpaquePointer, _ partition: Int32, _ value: UnsafeRawBufferPointer, _ key: UnsafeRawBufferPointer,
    _ opaque: UnsafeMutableRawPointer?, _ timestamp: Int64
  ) -> rd_kafka_resp_err_t {
    func argument(_ type: rd_kafka_vtype_t, _ set: (inout rd_kafka_vu_t) -> Void) -> rd_kafka_vu_t {
      var argument = rd_kafka_vu_t()
      argument.vtype = type
      set(&argument)
      return argument
    }
    func bytes(_ buffer: UnsafeRawBufferPointer, _ argument: inout rd_kafka_vu_t) {
      argument.u.mem.ptr = UnsafeMutableRawPointer(mutating: buffer.baseAddress)
      argument.u.mem.size = buffer.count
    }
    var arguments = [
      argument(RD_KAFKA_VTYPE_RKT) { $0.u.rkt = topic }, argument(RD_KAFKA_VTYPE_PARTITION) { $0.u.i32 = partition },
      argument(RD_KAFKA_VTYPE_VALUE) { bytes(value, &$0) }, argument(RD_KAFKA_VTYPE_KEY) { bytes(key, &$0) },
      argument(RD_KAFKA_VTYPE_TIMESTAMP) { $0.u.i64 = timestamp }, argument(RD_KAFKA_VTYPE_OPAQUE) { $0.u.ptr = opaque },
      argument(RD_KAFKA_VTYPE_MSGFLAGS) { $0.u.i = RD_KAFKA_MSG_F_COPY },
    ]
    guard let failure = rd_kafka_produceva(client.handle, &arguments, arguments.count) else { return RD_KAFKA_RESP_ERR_NO_ERROR }
    defer { rd_kafka_error_destroy(failure) }
    return rd_kafka_error_code(failure)
  }

  /// What became of records sent earlier. Waits up to the timeout for the first outcome. No particular order
  /// across partitions.
  public func poll(timeoutMilliseconds: Int, max: Int = 10_000) -> [KafkaDelivery] {
    let told = untold.withLock { untold in
      let told = Array(untold.prefix(max))
      untold.removeFirst(told.count)
      return told
    }
    if !told.isEmpty { return told }
    return serve(timeoutMilliseconds: timeoutMilliseconds, max: max)
  }

  /// Waits until every record sent so far has its outcome. The outcomes are returned here, or, when the time is
  /// over before, by the next `poll`.
  @discardableResult
  public func flush(timeoutMilliseconds: Int) throws(KafkaError) -> [KafkaDelivery] {
    let deadline = Deadline(milliseconds: timeoutMilliseconds)
    var outcomes = untold.withLock { untold in
      defer { untold = [] }
      return untold
    }
    repeat {
      outcomes += serve(timeoutMilliseconds: outstanding == 0 ? 0 : min(50, deadline.remainingMilliseconds), max: .max)
      if outstanding == 0 { return outcomes }
    } while !deadline.isOver
    untold.withLock { $0 = outcomes + $0 }
    throw client.error(RD_KAFKA_RESP_ERR__TIMED_OUT, "send \(outstanding) records", milliseconds: timeoutMilliseconds)
  }

  /// Sends one record and waits for its offset: for the command line, where one record is all there is.
  public func sendAndWait(
    topic: String, partition: Int32, key: [UInt8]? = nil, value: [UInt8], timeoutMilliseconds: Int = 5000
  ) throws(KafkaError) -> Int64 {
    let deadline = Deadline(milliseconds: timeoutMilliseconds)
    let id = try send(topic: topic, partition: partition, key: key, value: value)
    repeat {
      for delivery in serve(timeoutMilliseconds: min(50, deadline.remainingMilliseconds), max: .max) {
        if delivery.id != id { untold.withLock { $0.append(delivery) } }
        else if case .failed(let error) = delivery.outcome { throw error }
        else if case .stored(let offset) = delivery.outcome { return offset }
      }
      // Another thread's poll may have read it.
      let index = untold.withLock { $0.firstIndex { $0.id == id } }
      if let index {
        switch untold.withLock({ $0.remove(at: index) }).outcome {
        case .stored(let offset): return offset
        case .failed(let error): throw error
        }
      }
      if let reason = client.fatalReason { throw .fatal(reason: reason) }
    } while !deadline.isOver
    throw client.error(RD_KAFKA_RESP_ERR__TIMED_OUT, "store a record in \(topic)", milliseconds: timeoutMilliseconds)
  }

  private func serve(timeoutMilliseconds: Int, max: Int) -> [KafkaDelivery] {
    polling.withLock { _ in
      var deliveries: [KafkaDelivery] = []
      var topics: [OpaquePointer: String] = [:]
      client.serve(timeoutMilliseconds: timeoutMilliseconds, max: max) { message in
        let name: String
        if let known = topics[message.pointee.rkt] {
          name = known
        } else {
          name = String(cString: rd_kafka_topic_name(message.pointee.rkt))
          topics[message.pointee.rkt] = name
        }
        deliveries.append(delivery(message.pointee, topic: name))
      }
      return deliveries
    }
  }

  private func delivery(_ message: rd_kafka_message_t, topic: String) -> KafkaDelivery {
    let outcome: KafkaDelivery.Outcome
    if message.err == RD_KAFKA_RESP_ERR_NO_ERROR {
      client.noteSuccess()
      outcome = .stored(offset: message.offset)
    } else {
      outcome = .failed(error(message.err, topic, message.partition, bytes: message.len + message.key_len))
    }
    return KafkaDelivery(
      id: UInt64(UInt(bitPattern: message._private)), topic: topic, partition: message.partition, outcome: outcome)
  }

  private func error(_ code: rd_kafka_resp_err_t, _ topic: String, _ partition: Int32, bytes: Int) -> KafkaError {
    if code.isUnknownTopic { return .unknownTopic(topic: topic, partition: partition) }
    if code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE { return .recordTooLarge(topic: topic, bytes: bytes) }
    if code == RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, !client.status.isReachable {
      return .unreachable(bootstrap: client.bootstrap, reason: client.status.problem ?? code.text)
    }
    return client.error(code, "store a record in \(topic)", milliseconds: 0)
  }
}
