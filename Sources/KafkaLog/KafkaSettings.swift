/// Where the log is and how to talk to it.

public struct KafkaSettings: Sendable, Equatable {
  /// Comma-separated host:port.
  public var bootstrap: String
  public var clientID: String
  /// Properties of librdkafka, passed on as they are and after all others: TLS, SASL, tuning.
  /// https://github.com/confluentinc/librdkafka/blob/v2.0.2/CONFIGURATION.md
  public var extra: [String: String]

  public init(bootstrap: String = "127.0.0.1:9092", clientID: String = "nfv", extra: [String: String] = [:]) {
    self.bootstrap = bootstrap
    self.clientID = clientID
    self.extra = extra
  }

  /// For every client. The back-offs are short because a control plane that waits half a second to
  /// look again adds that to every recovery; a broker that comes back is found within 0.2 s.
  var common: [String: String] {
    [
      "bootstrap.servers": bootstrap,
      "client.id": clientID,
      "log.queue": "true",
      "log.connection.close": "false",
      "socket.keepalive.enable": "true",
      "socket.nagle.disable": "true",
      "reconnect.backoff.ms": "10",
      "reconnect.backoff.max.ms": "200",
      "retry.backoff.ms": "10",
      "topic.metadata.refresh.fast.interval.ms": "20",
      // A topic that was just made may not be known everywhere; after this long it is called unknown.
      "topic.metadata.propagation.max.ms": "2000",
    ]
  }
}
