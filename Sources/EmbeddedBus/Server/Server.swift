/// What the connections share: the broker, and who waits for what. Lives on one event loop.
import Logging
import NIOCore

#if canImport(Glibc)
  import Glibc
#else
  import Musl
#endif

final class Server {
  let broker: Broker
  var connections: [ObjectIdentifier: Connection] = [:]
  var waiting: [LongPolls.ID: Connection] = [:]
  var bytesInFlight = 0
  var isStopping = false

  init(_ broker: Broker) { self.broker = broker }

  /// How many bytes of records an answer may hold now.
  var room: Int { max(0, broker.configuration.limits.responseBytesInFlight - bytesInFlight) }

  /// Milliseconds since 1970: what records are stamped with.
  func now() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
  }

  /// Where clients are told to find the broker: where this one has found it.
  func endpoint(_ channel: any Channel) -> (host: String, port: Int) {
    let configured = broker.configuration.host
    let isWildcard = configured == "0.0.0.0" || configured == "::" || configured.isEmpty
    let local = channel.localAddress
    return (isWildcard ? local?.ipAddress ?? configured : configured, local?.port ?? broker.configuration.port)
  }

  /// Answers the fetches for which the requests just served have brought records.
  func answerReadyPolls() {
    for poll in broker.polls.takeReady() {
      guard let connection = waiting[poll] else { continue }
      connection.finishWaiting()
      connection.flush()
    }
  }

  /// nil: there are too many already.
  func admit(_ name: String, now: NIODeadline) -> Connection? {
    guard connections.count < broker.configuration.limits.connections else {
      broker.configuration.logger.warning("connection of \(name) refused: there are \(connections.count) already")
      return nil
    }
    let connection = Connection(server: self, name: name, now: now)
    connections[ObjectIdentifier(connection)] = connection
    return connection
  }

  func closeIdle(now: NIODeadline) {
    for connection in Array(connections.values) { connection.closeIfIdle(now: now) }
  }
}
