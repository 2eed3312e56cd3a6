/// What can go wrong at the log, in the operator's words.
///
/// A broker that is away for a moment is no error: clients go on by themselves and say so in their
/// `KafkaStatus`. `fatal` means that this client is finished and has to be made anew.
import CRdKafka

public enum KafkaError: Error, Sendable, Equatable, CustomStringConvertible {
  case invalidSetting(String)
  case unreachable(bootstrap: String, reason: String)
  /// Nothing was waited for: records are produced faster than the log takes them.
  case queueFull
  case recordTooLarge(topic: String, bytes: Int)
  case unknownTopic(topic: String, partition: Int32)
  /// The offset asked for is not, or not any more, in the log.
  case offsetOutOfRange(topic: String, partition: Int32, reason: String)
  case corruptRecord(topic: String, partition: Int32, reason: String)
  case timedOut(operation: String, milliseconds: Int)
  /// The broker said no.
  case refused(operation: String, code: String, reason: String)
  case fatal(reason: String)

  public var description: String {
    switch self {
    case .invalidSetting(let reason): "the log's settings are wrong: \(reason)"
    case .unreachable(let bootstrap, let reason):
      "the log at \(bootstrap) cannot be reached: \(reason); is `nfvctl bus` (or Kafka) running there?"
    case .queueFull: "records are produced faster than the log takes them: the send queue is full"
    case .recordTooLarge(let topic, let bytes): "a record of \(bytes) bytes is too large for \(topic)"
    case .unknownTopic(let topic, let partition):
      partition < 0 ? "the log has no topic \(topic)" : "the log has no partition \(partition) of \(topic)"
    case .offsetOutOfRange(let topic, let partition, let reason):
      "\(topic)[\(partition)] does not hold the offset to start from: \(reason)"
    case .corruptRecord(let topic, let partition, let reason): "\(topic)[\(partition)] holds a damaged record: \(reason)"
    case .timedOut(let operation, let milliseconds): "\(operation) took longer than \(milliseconds) ms"
    case .refused(let operation, let code, let reason): "the log refused to \(operation): \(reason) (\(code))"
    case .fatal(let reason): "the client of the log is finished and has to be made anew: \(reason)"
    }
  }
}

extension rd_kafka_resp_err_t {
  /// librdkafka's or the broker's sentence for it.
  var text: String { String(cString: rd_kafka_err2str(self)) }
  var name: String { String(cString: rd_kafka_err2name(self)) }

  /// The client goes on by itself.
  var isRecoverable: Bool {
    switch self {
    case RD_KAFKA_RESP_ERR__TRANSPORT, RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, RD_KAFKA_RESP_ERR__RESOLVE,
      RD_KAFKA_RESP_ERR__TIMED_OUT, RD_KAFKA_RESP_ERR__WAIT_COORD, RD_KAFKA_RESP_ERR__RETRY,
      RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
      RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE, RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
      RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR, RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH, RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH,
      RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION, RD_KAFKA_RESP_ERR__NODE_UPDATE:
      true
    default: false
    }
  }

  var isUnreachable: Bool {
    switch self {
    case RD_KAFKA_RESP_ERR__TRANSPORT, RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, RD_KAFKA_RESP_ERR__RESOLVE: true
    default: false
    }
  }

  var isUnknownTopic: Bool {
    switch self {
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC, RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION: true
    default: false
    }
  }
}
