/// One librdkafka client, as its producer, consumer and admin faces share it.
///
/// librdkafka's own threads never call into Swift: everything they have to say (deliveries, errors,
/// log lines) comes out of a queue that the owner's thread empties. The one callback, `noteError`, is
/// called by the owner's thread too, inside its own calls: librdkafka has no other way to say that a
/// topic being read does not exist.
import CRdKafka
import Synchronization

/// How the client is getting on.
public struct KafkaStatus: Sendable, Equatable {
  /// nil as long as nothing is known to be wrong. Not an end: the client tries again by itself.
  public var problem: String?
  public var isReachable: Bool

  public init(problem: String?, isReachable: Bool) {
    self.problem = problem
    self.isReachable = isReachable
  }
}

/// A line of librdkafka's log.
public struct KafkaLogLine: Sendable, Equatable {
  /// As in syslog: 3 error, 4 warning, 6 information.
  public var level: Int
  public var facility: String
  public var text: String
}

/// Errors told by callback during a call of the owner's.
final class ErrorInbox: Sendable {
  struct Entry {
    var code: rd_kafka_resp_err_t
    var reason: String
  }

  private let entries = Mutex<[Entry]>([])

  /// Beyond a hundred that nobody took they repeat each other.
  func put(_ entry: Entry) { entries.withLock { if $0.count < 100 { $0.append(entry) } } }

  func take() -> [Entry] {
    entries.withLock { entries in
      defer { entries = [] }
      return entries
    }
  }
}

/// A global function and not a closure: a closure made in an actor's context traps on a foreign thread.
private func noteError(
  _: OpaquePointer?, _ code: Int32, _ reason: UnsafePointer<CChar>?, _ opaque: UnsafeMutableRawPointer?
) {
  guard let opaque, let reason else { return }
  Unmanaged<ErrorInbox>.fromOpaque(opaque).takeUnretainedValue()
    .put(.init(code: rd_kafka_resp_err_t(rawValue: code), reason: String(cString: reason)))
}

/// Owns the `rd_kafka_t` and its topic handles.
///
/// `@unchecked Sendable`: librdkafka's handles may be used by any thread; what is mutable here is behind a mutex.
final class KafkaClient: @unchecked Sendable {
  private struct State {
    var status = KafkaStatus(problem: nil, isReachable: true)
    var log: [KafkaLogLine] = []
    var fatal: String?
    var topics: [String: OpaquePointer] = [:]
  }

  /// Lines that nobody took are forgotten, the oldest first.
  private static let keptLogLines = 256

  let bootstrap: String
  let handle: OpaquePointer
  private let events: OpaquePointer
  /// Lives longer than the handle, which has a pointer to it.
  let inbox = ErrorInbox()
  private let state = Mutex(State())

  init(_ settings: KafkaSettings, type: rd_kafka_type_t, _ properties: [String: String]) throws(KafkaError) {
    bootstrap = settings.bootstrap
    var text = [CChar](repeating: 0, count: 512)
    let conf = rd_kafka_conf_new()
    let all = settings.common.merging(properties) { $1 }.merging(settings.extra) { $1 }
    for (name, value) in all.sorted(by: { $0.key < $1.key }) {
      if rd_kafka_conf_set(conf, name, value, &text, text.count) != RD_KAFKA_CONF_OK {
        rd_kafka_conf_destroy(conf)
        throw .invalidSetting(Self.string(text))
      }
    }
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG)
    rd_kafka_conf_set_opaque(conf, Unmanaged.passUnretained(inbox).toOpaque())
    rd_kafka_conf_set_error_cb(conf, noteError)
    guard let handle = rd_kafka_new(type, conf, &text, text.count) else {
      rd_kafka_conf_destroy(conf)
      throw .invalidSetting(Self.string(text))
    }
    self.handle = handle
    rd_kafka_set_log_queue(handle, nil)
    events = rd_kafka_queue_get_main(handle)
  }

  /// Waits for librdkafka's threads; records not sent yet are dropped.
  deinit {
    state.withLock { for topic in $0.topics.values { rd_kafka_topic_destroy(topic) } }
    rd_kafka_queue_destroy(events)
    rd_kafka_destroy_flags(handle, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE)
  }

  var status: KafkaStatus { state.withLock { $0.status } }

  func takeLog() -> [KafkaLogLine] {
    state.withLock { state in
      defer { state.log = [] }
      return state.log
    }
  }

  /// The handle of a topic, which lives as long as the client. `key` and `value` are properties of that topic.
  func topic(_ name: String) throws(KafkaError) -> OpaquePointer {
    let topic = state.withLock { state in
      if let topic = state.topics[name] { return topic as OpaquePointer? }
      guard let topic = rd_kafka_topic_new(handle, name, nil) else { return nil }
      state.topics[name] = topic
      return topic
    }
    guard let topic else { throw .refused(operation: "use topic \(name)", code: rd_kafka_last_error().name, reason: rd_kafka_last_error().text) }
    return topic
  }

  /// Empties the queue of events; `delivered` sees every delivery report. Waits up to the timeout for the first one.
  func serve(timeoutMilliseconds: Int, max: Int = .max, _ delivered: (UnsafePointer<rd_kafka_message_t>) -> Void) {
    var timeout = Int32(clamping: Swift.max(0, timeoutMilliseconds))
    var served = 0
    while served < max, let event = rd_kafka_queue_poll(events, timeout) {
      switch rd_kafka_event_type(event) {
      case RD_KAFKA_EVENT_DR:
        while let message = rd_kafka_event_message_next(event) {
          delivered(message)
          served += 1
        }
        timeout = 0
      case RD_KAFKA_EVENT_ERROR: note(event)
      case RD_KAFKA_EVENT_LOG: noteLog(event)
      default: break
      }
      rd_kafka_event_destroy(event)
      if served == 0 { timeout = Swift.min(timeout, 1) }  // log lines are not what was waited for, nor a reason to wait anew
    }
  }

  /// Something came through: the log is there.
  func noteSuccess() {
    state.withLock { if $0.status.problem != nil { $0.status = KafkaStatus(problem: nil, isReachable: true) } }
  }

  func note(_ error: rd_kafka_resp_err_t, _ reason: String) {
    state.withLock { $0.status = KafkaStatus(problem: reason, isReachable: !error.isUnreachable && $0.status.isReachable) }
  }

  var fatalReason: String? {
    if let reason = state.withLock({ $0.fatal }) { return reason }
    var text = [CChar](repeating: 0, count: 512)
    let code = rd_kafka_fatal_error(handle, &text, text.count)
    return code == RD_KAFKA_RESP_ERR_NO_ERROR ? nil : Self.string(text)
  }

  /// An error that an operation ended with, in our words.
  func error(_ code: rd_kafka_resp_err_t, _ operation: String, milliseconds: Int, reason: String? = nil) -> KafkaError {
    let status = status
    if code.isUnreachable || (code == RD_KAFKA_RESP_ERR__TIMED_OUT && !status.isReachable) {
      return .unreachable(bootstrap: bootstrap, reason: status.problem ?? reason ?? code.text)
    }
    if code == RD_KAFKA_RESP_ERR__TIMED_OUT || code == RD_KAFKA_RESP_ERR__MSG_TIMED_OUT {
      return .timedOut(operation: operation, milliseconds: milliseconds)
    }
    if code == RD_KAFKA_RESP_ERR__FATAL { return .fatal(reason: fatalReason ?? reason ?? code.text) }
    return .refused(operation: operation, code: code.name, reason: reason ?? code.text)
  }

  private func note(_ event: OpaquePointer) {
    let code = rd_kafka_event_error(event)
    let reason = String(cString: rd_kafka_event_error_string(event))
    if rd_kafka_event_error_is_fatal(event) != 0 || code == RD_KAFKA_RESP_ERR__FATAL {
      state.withLock { $0.fatal = $0.fatal ?? reason }
    }
    note(code, reason)
  }

  private func noteLog(_ event: OpaquePointer) {
    var facility: UnsafePointer<CChar>?
    var text: UnsafePointer<CChar>?
    var level: Int32 = 0
    guard rd_kafka_event_log(event, &facility, &text, &level) == 0 else { return }
    let line = KafkaLogLine(
      level: Int(level), facility: facility.map { String(cString: $0) } ?? "", text: text.map { String(cString: $0) } ?? "")
    state.withLock { state in
      if state.log.count == Self.keptLogLines { state.log.removeFirst() }
      state.log.append(line)
    }
  }

  private static func string(_ text: [CChar]) -> String {
    String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

/// Milliseconds of a clock that never goes back, for deadlines.
struct Deadline {
  private let end: ContinuousClock.Instant

  init(milliseconds: Int) { end = .now + .milliseconds(max(0, milliseconds)) }

  /// Rounded up, so that what remains is zero only when it is over.
  var remainingMilliseconds: Int {
    let rest = (end - .now).components
    return max(0, Int(rest.seconds) * 1000 + Int((rest.attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000))
  }

  var isOver: Bool { .now >= end }
}
