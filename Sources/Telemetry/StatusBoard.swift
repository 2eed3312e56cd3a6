import Synchronization

/// What a process says about itself, posted by the thread that knows and read by whoever asks over HTTP.
///
/// The owner posts again and again; when he has not for a while, he is not well, whatever he said last.
public final class StatusBoard: Sendable {
  public struct Notice: Sendable {
    public var metrics: String
    /// Why the process cannot do its work now, or nil.
    public var obstacle: String?

    public init(metrics: String, obstacle: String? = nil) {
      self.metrics = metrics
      self.obstacle = obstacle
    }
  }

  private let notice = Mutex<(Notice, at: ContinuousClock.Instant)?>(nil)
  private let clock = ContinuousClock()
  private let patience: Duration

  /// - Parameter patience: how long the last notice holds.
  public init(patience: Duration = .seconds(5)) { self.patience = patience }

  public func post(_ new: Notice) {
    let now = clock.now
    notice.withLock { $0 = (new, now) }
  }

  /// `/metrics`, `/healthz` and `/readyz`; nil for any other path.
  public func answer(_ path: String) -> PageServer.Answer? {
    guard ["/metrics", "/healthz", "/readyz"].contains(path) else { return nil }
    let last = notice.withLock { $0 }
    let age = last.map { clock.now - $0.at }
    if path == "/metrics" {
      return .init(type: "text/plain; version=0.0.4; charset=utf-8", body: last?.0.metrics ?? "")
    }
    guard let last, let age else { return .init(status: 503, type: .plain, body: "has not begun yet\n") }
    if age > patience { return .init(status: 503, type: .plain, body: "has said nothing for \(age.components.seconds) s\n") }
    if path == "/readyz", let obstacle = last.0.obstacle { return .init(status: 503, type: .plain, body: "\(obstacle)\n") }
    return .init(type: .plain, body: "ok\n")
  }
}
