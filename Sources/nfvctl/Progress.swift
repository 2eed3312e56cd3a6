import ControlMessages
import ControlNodes
import KafkaLog
import NodeSupport

/// Follows a cluster's log until the cluster is as the operator wants it, and says on stderr how far it is.
struct Progress {
  private let cluster: ClusterID
  private let follower: ClusterFollower
  private let log: LogAccess

  init(_ cluster: ClusterID, _ follower: ClusterFollower, _ log: LogAccess) {
    self.cluster = cluster
    self.follower = follower
    self.log = log
  }

  /// - Parameter offset: of the intent: what the state was before it does not count.
  func wait(seconds: Int, until goal: ClusterListing.Status, after offset: Offset?) throws {
    let clock = ContinuousClock()
    let deadline = clock.now + .seconds(seconds)
    var said = ""
    while true {
      for item in try follower.poll(timeoutMilliseconds: 100) {
        if case .event(_, let record, _) = item, let line = Self.line(record.event.body) { Terminal.say("  \(line)") }
      }
      guard let found = follower.cluster(cluster) else { continue }
      let isRead = found.isCaughtUp && offset.map { mine in found.core.position.map { $0 >= mine } ?? false } ?? true
      let listing = ClusterListing(found)
      if isRead {
        if listing.status == goal { return Terminal.say("cluster \(cluster) is \(goal.rawValue)") }
        let text = "cluster \(cluster) is \(listing.status.rawValue): \(listing.reason)"
        if text != said { Terminal.say(text) }
        said = text
      }
      guard clock.now < deadline else {
        let reason = listing.reason.isEmpty ? "" : ": \(listing.reason)"
        let hint = found.outbox.missingCount > 0 ? "; no coordinator writes its commands" : ""
        throw Complaint("cluster \(cluster) is not \(goal.rawValue) after \(seconds) s\(reason)\(hint)")
      }
    }
  }

  /// What is worth a line while one waits.
  private static func line(_ body: Event.Body) -> String? {
    switch body {
    case .nodeStarted, .nodeStopping, .processExited, .agentStarted: "\(body.name) \(TextTable.printable(body.summary))"
    case .commandAcknowledged(let acknowledgement):
      if case .rejected = acknowledgement.outcome { TextTable.printable(body.summary) } else { nil }
    default: nil
    }
  }
}
