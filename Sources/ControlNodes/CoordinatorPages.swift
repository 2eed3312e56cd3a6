import ControlMessages
import ControlPlane
import FoundationEssentials
import KafkaLog
import Synchronization
import Telemetry

/// What a coordinator shows over HTTP: the dashboard, live and at any past offset, and its metrics.
///
/// ```
///   /                          the page
///   /live                      server-sent events: `clusters`, twice a second
///   /clusters                  the same once
///   /state?cluster=web&at=4711 a cluster at a place of its log
///   /metrics /healthz /readyz
/// ```
///
/// All of it can be lost without harm: nothing here is asked by anybody who decides.
final class CoordinatorPages {
  private let server: PageServer
  private let board: StatusBoard
  private let past: PastStates
  private let latest: Latest
  private let name: HostID
  private var chronicles: [ClusterID: Chronicle] = [:]
  private var counts: [ClusterID: Counts] = [:]
  private let clock = ContinuousClock()
  private var nextPost: ContinuousClock.Instant
  private var lettersPosted: UInt64 = 0

  private struct Counts {
    var events: UInt64 = 0
    var commandsTaken: UInt64 = 0
    var copies: UInt64 = 0
    var commandsWritten: UInt64 = 0
  }

  /// The last `/clusters`, for whoever asks on another thread.
  private final class Latest: Sendable {
    let text = Mutex("[]")
  }

  private static let interval = Duration.milliseconds(500)

  init(at address: PageServer.Address, name: HostID, settings: KafkaSettings) throws {
    let board = StatusBoard()
    let past = PastStates(settings)
    let latest = Latest()
    let page = String(decoding: PackageResources.dashboard_html, as: UTF8.self)
    self.board = board
    self.past = past
    self.latest = latest
    self.name = name
    nextPost = clock.now
    server = try PageServer(at: address, readers: 2) { request in
      if let answer = board.answer(request.path) { return answer }
      switch request.path {
      case "/": return .init(type: .html, body: page)
      case "/live": return .stream
      case "/clusters": return .init(type: .json, body: latest.text.withLock { $0 })
      case "/state":
        guard let cluster = request.query["cluster"].flatMap({ ClusterID($0) }), let at = request.query["at"].flatMap({ UInt64($0) })
        else { return .init(status: 400, type: .plain, body: "say /state?cluster=NAME&at=OFFSET\n") }
        switch past.state(of: cluster, at: at) {
        case .found(let view): return .init(type: .json, body: Self.json(view))
        case .notFound(let why): return .init(status: 404, type: .plain, body: "\(why)\n")
        }
      default: return .init(status: 404, type: .plain, body: "there is nothing at \(request.path)\n")
      }
    }
  }

  var address: PageServer.Address { server.address }

  // MARK: What happens

  /// A new reading of the log begins; what the last one told will be told again, or lies before its snapshots.
  func begin() {
    chronicles = [:]
    counts = [:]
  }

  func note(_ item: ClusterFollower.Item) {
    switch item {
    case .event(let id, let record, let decided):
      chronicles[id, default: Chronicle()].take(record, decided: decided)
      counts[id, default: Counts()].events += 1
    case .command(let id, _, let reading):
      if reading == .taken { counts[id, default: Counts()].commandsTaken += 1 } else { counts[id, default: Counts()].copies += 1 }
    case .unreadable: lettersPosted += 1
    case .clusterFound, .caughtUp: break
    }
  }

  func noteWritten(_ id: ClusterID) { counts[id, default: Counts()].commandsWritten += 1 }

  /// Posts twice a second what there is to see; to be called often.
  func post(_ follower: ClusterFollower) {
    for cluster in follower.clusters { past.note(cluster.core, chronicles[cluster.id] ?? Chronicle(), partition: cluster.partition) }
    let now = clock.now
    guard now >= nextPost else { return }
    nextPost = now + Self.interval
    let views = Self.json(follower.clusters.map { ClusterView($0.core, chronicles[$0.id] ?? Chronicle()) })
    latest.text.withLock { $0 = views }
    if server.hasListeners { server.publish("clusters", views) }
    let obstacle =
      !follower.status.isReachable ? "the log cannot be reached" : !follower.isCaughtUp ? "the log has not been read to its end yet" : nil
    board.post(.init(metrics: metrics(follower), obstacle: obstacle))
  }

  func stop() { server.stop() }

  private static func json(_ value: some Encodable) -> String {
    (try? JSONEncoder().encode(value)).map { String(decoding: $0, as: UTF8.self) } ?? "null"
  }

  // MARK: Metrics

  private func metrics(_ follower: ClusterFollower) -> String {
    typealias Samples = [(labels: [(String, String)], value: UInt64)]
    var text = MetricsText(common: [("coordinator", name.name)])
    let clusters = follower.clusters
    func each(_ value: (ClusterFollower.Cluster) -> UInt64) -> Samples { clusters.map { ([("cluster", $0.id.name)], value($0)) } }
    func every(_ values: (ClusterFollower.Cluster) -> [([(String, String)], UInt64)]) -> Samples {
      clusters.flatMap { cluster in values(cluster).map { ([("cluster", cluster.id.name)] + $0.0, $0.1) } }
    }
    text.add("nfv_log_reachable", .gauge, "Whether the log answers.", follower.status.isReachable ? 1 : 0)
    text.add("nfv_caught_up", .gauge, "Whether the log was read to its end.", follower.isCaughtUp ? 1 : 0)
    text.add("nfv_clusters", .gauge, "Clusters in the directory.", UInt64(clusters.count))
    text.add("nfv_events_folded_total", .counter, "Events folded since the log was opened.", each { counts[$0.id]?.events ?? 0 })
    text.add("nfv_unreadable_records_total", .counter, "Records passed over that could not be read.", lettersPosted)
    text.add("nfv_event_offset", .gauge, "Offset of the last event folded.", each { $0.core.position?.value ?? 0 })
    text.add("nfv_command_slot", .gauge, "Slot of the last command in the log.", each { $0.outbox.lastInLog.number })
    text.add(
      "nfv_commands_total", .counter, "Commands, by what this replica had to do with them.",
      every {
        let count = counts[$0.id] ?? Counts()
        return [
          ([("fate", "in-log")], count.commandsTaken), ([("fate", "copy")], count.copies),
          ([("fate", "written-here")], count.commandsWritten),
        ]
      })
    text.add("nfv_decision_rules", .gauge, "Version of the decision rules in force.", each { UInt64($0.state.rules) })
    text.add("nfv_live_replicas", .gauge, "Replicas heard lately.", each { UInt64($0.state.liveReplicas.count) })
    text.add(
      "nfv_disagreements", .gauge, "Replicas that came to another state or log.", each { UInt64($0.agreement?.disagreements.count ?? 0) })
    text.add(
      "nfv_ignored_events_total", .counter, "Events that moved nothing, by reason.",
      every {
        let ignored = $0.state.ignored
        return [
          ([("reason", "repeated")], ignored.repeated), ([("reason", "unknown")], ignored.unknown),
          ([("reason", "misdirected")], ignored.misdirected),
        ]
      })
    text.add(
      "nfv_nodes", .gauge, "Nodes, by kind and state.",
      every { cluster in
        NodeKind.allCases.flatMap { kind in
          ClusterTable.MemberState.allCases.map { state in
            ([("kind", "\(kind)"), ("state", "\(state)")],
              UInt64(cluster.state.nodes.count { $0.kind == kind && $0.memberState == state }))
          }
        }
      })
    text.add(
      "nfv_nodes_wanted", .gauge, "Nodes that the operator or the policy wants.",
      every { cluster in NodeKind.allCases.map { ([("kind", "\($0)")], UInt64(cluster.state.wanted($0))) } })
    text.add("nfv_moves", .gauge, "Moves of flows that are not finished.", each { UInt64($0.state.scaling.moves.count) })
    text.add("nfv_deaths", .gauge, "Of the last lives, how many were declared dead.", each { UInt64($0.state.deaths.count) })
    text.add(
      "nfv_stalled_seconds_total", .counter, "Log time that counted for nothing, because the log stood still.",
      each { $0.state.clock.stalled / 1_000 })
    return text.text
  }
}
