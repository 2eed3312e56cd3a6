import ArgumentParser
import ControlMessages
import ControlNodes
import LogAnalysis

struct GetCommand: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "get",
    abstract: "List clusters, runtimes, switches, hosts, commands, migrations or recoveries.",
    discussion: """
      Folds the log; no coordinator needs to be alive. Ages are in the time of the log, which stands still while nobody writes.

      Examples:
        nfvctl get clusters
        nfvctl get runtimes --cluster web
        nfvctl get commands --last 20 -o jsonl | jq .reason
        nfvctl get migrations --last 5
        nfvctl get recoveries --cluster web
      """)

  enum Resource: String, ExpressibleByArgument, CaseIterable {
    case clusters, runtimes, switches, hosts, commands, migrations, recoveries

    /// Takes the singular, too.
    init?(argument: String) {
      let word = argument.lowercased()
      guard let found = Self.allCases.first(where: { $0.rawValue == word || $0.singular == word }) else { return nil }
      self = found
    }

    var singular: String {
      switch self {
      case .switches: "switch"
      case .recoveries: "recovery"
      case .clusters, .runtimes, .hosts, .commands, .migrations: String(rawValue.dropLast())
      }
    }
  }

  @Argument(help: "clusters, runtimes, switches, hosts, commands, migrations or recoveries.")
  var resource: Resource

  @Option(name: .shortAndLong, help: ArgumentHelp("Only of this cluster.", valueName: "name"))
  var cluster: ClusterID?

  @Option(help: ArgumentHelp("How many commands, migrations or recoveries of each cluster to list, the newest.", valueName: "count"))
  var last = 50

  @OptionGroup var output: OutputOptions
  @OptionGroup var log: LogAccess

  func validate() throws {
    guard (1...1_000_000).contains(last) else { throw ValidationError("--last is a number from 1 to 1000000") }
  }

  func perform() throws {
    var history = CommandHistory(last: last)
    var migrations: [ClusterID: MigrationHistory] = [:]
    let follower = try log.readLog(only: cluster) { item in
      switch (resource, item) {
      case (.commands, _): history.notice(item)
      case (.migrations, .command(let cluster, let record, .taken)): migrations[cluster, default: .init()].take(record)
      case (.migrations, .event(let cluster, let record, _)): migrations[cluster, default: .init()].take(record)
      default: break
      }
    }
    if let cluster, follower.cluster(cluster) == nil { throw Complaint.noCluster(cluster) }
    let clusters = follower.clusters.sorted { $0.id < $1.id }
    if resource == .migrations {
      let listings = clusters.flatMap { cluster in
        (migrations[cluster.id]?.all ?? []).suffix(last).map { MigrationListing(cluster.id, $0) }
      }
      Terminal.put(output.output.list(listings))
    } else {
      Terminal.put(Self.text(resource, of: clusters, history, last: last, output.output))
    }
    guard output.output == .text else { return }
    for cluster in clusters { noteSilence(cluster) }
    if clusters.isEmpty { Terminal.say("no clusters; `nfvctl apply -f FILE` makes one") }
  }

  private static func text(
    _ resource: Resource, of clusters: [ClusterFollower.Cluster], _ history: CommandHistory, last: Int, _ format: OutputFormat
  ) -> String {
    switch resource {
    case .clusters: format.list(clusters.map { ClusterListing($0) })
    case .runtimes: format.list(clusters.flatMap { NodeListing.all(.runtime, of: $0.state) })
    case .switches: format.list(clusters.flatMap { NodeListing.all(.virtualSwitch, of: $0.state) })
    case .hosts: format.list(clusters.flatMap { cluster in cluster.state.hosts.map { HostListing($0, of: cluster.state) } })
    case .commands: format.list(clusters.flatMap { history.commands(of: $0.id) })
    case .recoveries: format.list(clusters.flatMap { RecoveryStateListing.all(of: $0.state).suffix(last) })
    case .migrations: ""  // of the log's past, not of the folded state
    }
  }

  /// A state that was true an hour ago looks like one that is true.
  private func noteSilence(_ cluster: ClusterFollower.Cluster) {
    let silence = Timestamp.now.since(cluster.state.clock.now)
    if cluster.state.clock.now != .zero, silence > 5_000 {
      Terminal.say(
        "note: nothing was written about \(cluster.id) for \(Quantity.span(milliseconds: silence)); is a coordinator running?")
    }
    if cluster.outbox.missingCount > 0 {
      Terminal.say("note: \(cluster.outbox.missingCount) commands of \(cluster.id) wait for a coordinator to write them")
    }
  }
}

extension Complaint {
  static func noCluster(_ cluster: ClusterID) -> Complaint {
    Complaint("there is no cluster '\(cluster)'; `nfvctl get clusters` lists them")
  }
}
