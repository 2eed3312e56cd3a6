import FoundationEssentials

/// What a lab run came to: printed for people, written as JSON for programs.
public struct LabSummary: Codable, Equatable, Sendable {
  public struct Requests: Codable, Equatable, Sendable {
    public var requests: UInt64 = 0
    public var failed: UInt64 = 0
    public var bytes: UInt64 = 0
  }

  public struct Latency: Codable, Equatable, Sendable {
    public var p50Microseconds: UInt64
    public var p99Microseconds: UInt64
    public var longestMicroseconds: UInt64
  }

  public struct Server: Codable, Equatable, Sendable {
    public var name: String
    public var connections: UInt64
    public var requests: UInt64
  }

  public struct Node: Codable, Equatable, Sendable {
    public var name: String
    public var flows: UInt64
    public var receivedPackets: UInt64
    public var forwardedPackets: UInt64
    public var droppedPackets: UInt64
    public var forwardedBytes: UInt64
    public var drops: [String: UInt64]
    public var lives: Int
  }

  public struct Log: Codable, Equatable, Sendable {
    public var events: UInt64
    public var commands: UInt64
    /// Commands written although the log had them.
    public var repeatedCommands: UInt64
    public var unreadableRecords: UInt64
    /// Seconds after the traffic began.
    public var coordinatorKilledAt: Int?
  }

  public struct Migrations: Codable, Equatable, Sendable {
    public var count = 0
    public var moved: UInt64 = 0
    /// Not taken by the target; taken back by the source.
    public var refused: UInt64 = 0
    public var returned: UInt64 = 0
    public var bytes: UInt64 = 0
    public var missedDeadlines: UInt64 = 0
    /// Of one, by its source's clock.
    public var longestMicroseconds: UInt64 = 0
  }

  public struct Recoveries: Codable, Equatable, Sendable {
    public var count = 0
    public var recovered: UInt64 = 0
    /// No room, or their key was another flow's.
    public var refused: UInt64 = 0
    /// Of one, from the command to the last flow, by the clock of the runtime that took them over.
    public var longestMicroseconds: UInt64 = 0
  }

  /// Switches that were killed, and how the clients have noticed.
  public struct Takeovers: Codable, Equatable, Sendable {
    public var count = 0
    /// Flows that runtimes told the switch of, in all; and the longest time from the table to the last of them.
    public var flowsTold: UInt64 = 0
    public var longestMicroseconds: UInt64 = 0
    /// The link addresses that the client's kernel had for the virtual address, in turn.
    public var linkAddresses: [String] = []
  }

  /// A failure that was brought about (`LabHarm`), and what the platform made of it.
  public struct Harm: Codable, Equatable, Sendable {
    public var kind: String
    public var node: UInt32
    public var second: Int
    /// Whether the life that it befell is over.
    public var hasEnded: Bool
    /// Why it was declared dead, if it was; a process that its agent saw end needs no declaration.
    public var evidence: String
    public var recoveredAfterMilliseconds: UInt64?
    /// Whether it was shown as silent.
    public var wasSilent: Bool
    /// Packets that it sent while its link to the log was cut.
    public var packetsMeanwhile: UInt64?
  }

  /// What the packet counters behind the chains have seen of TCP.
  public struct Segments: Codable, Equatable, Sendable {
    public var packets: UInt64 = 0
    /// Segments that were missing when the next came; that came after all; and that were seen before.
    public var gaps: UInt64 = 0
    public var reordered: UInt64 = 0
    public var duplicates: UInt64 = 0
  }

  public struct Durations: Codable, Equatable, Sendable {
    /// From the start to everything serving.
    public var setup = 0.0
    public var traffic = 0.0
    public var removal = 0.0
  }

  /// All requests answered, and there were some.
  public var passed = false
  /// Why not, if not.
  public var problems: [String] = []
  public var total = Requests()
  /// wrk, over connections that are kept.
  public var kept = Requests()
  public var keptLatency: Latency?
  /// curl, a connection and a checksum for each.
  public var fresh = Requests()
  public var servers: [Server] = []
  public var nodes: [Node] = []
  public var dropsByReason: [String: UInt64] = [:]
  public var log = Log(events: 0, commands: 0, repeatedCommands: 0, unreadableRecords: 0)
  public var migrations = Migrations()
  public var recoveries = Recoveries()
  public var takeovers = Takeovers()
  public var harms: [Harm] = []
  /// Of a lab with transfers.
  public var segments: Segments?
  public var seconds = Durations()
  /// Where the logs are, if they were kept.
  public var logDirectory: String?

  public init() {}

  mutating func take(_ traffic: TrafficCount) {
    total = Requests(requests: traffic.requests, failed: traffic.failed, bytes: traffic.bytes)
    kept = Requests(requests: traffic.kept.requests, failed: traffic.kept.failed, bytes: traffic.kept.bytes)
    fresh = Requests(requests: traffic.fresh.requests, failed: traffic.fresh.failed, bytes: traffic.fresh.bytes)
    if traffic.kept.isFinal {
      keptLatency = Latency(
        p50Microseconds: traffic.kept.p50, p99Microseconds: traffic.kept.p99, longestMicroseconds: traffic.kept.longest)
    }
  }

  mutating func take(_ picture: LogPicture) {
    nodes = picture.nodes.sorted { $0.key < $1.key }.map { id, node in
      Node(
        name: "\(node.kind) \(id)", flows: node.total.flowsCreated, receivedPackets: node.total.receivedPackets,
        forwardedPackets: node.total.forwardedPackets, droppedPackets: node.total.droppedPackets,
        forwardedBytes: node.total.forwardedBytes, drops: node.drops, lives: node.lives)
    }
    dropsByReason = Dictionary(uniqueKeysWithValues: picture.drops.map { ($0.reason, $0.packets) })
    for end in picture.migrations {
      migrations.count += 1
      migrations.moved += end.moved
      migrations.refused += end.refused
      migrations.returned += end.returned
      migrations.bytes += end.bytes
      migrations.missedDeadlines += end.missedDeadlines
      migrations.longestMicroseconds = max(migrations.longestMicroseconds, end.microseconds)
    }
    for end in picture.recoveries {
      if picture.nodes[end.node]?.kind == .virtualSwitch {
        takeovers.flowsTold += end.recovered
        takeovers.longestMicroseconds = max(takeovers.longestMicroseconds, end.microseconds)
        continue
      }
      recoveries.count += 1
      recoveries.recovered += end.recovered
      recoveries.refused += end.refused
      recoveries.longestMicroseconds = max(recoveries.longestMicroseconds, end.microseconds)
    }
    takeovers.count = max(0, picture.uplinkHolders.count - 1)
    log.events = picture.events
    log.commands = picture.commands
    log.repeatedCommands = picture.repeatedCommands
    log.unreadableRecords = picture.unreadable
  }

  public func json() -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    guard let data = try? encoder.encode(self) else { return "{}" }
    return String(decoding: data, as: UTF8.self) + "\n"
  }

  /// For people: a few lines.
  public var text: String {
    var lines = [
      "\(passed ? "Passed" : "Failed"): \(total.requests) requests, \(total.failed) failed, \(Self.size(total.bytes)) "
        + "in \(Self.tenths(seconds.traffic)) s"
    ]
    if let latency = keptLatency {
      lines.append(
        "  wrk: \(kept.requests) requests over \(TrafficClients.keptConnections) connections, "
          + "p50 \(latency.p50Microseconds) us, p99 \(latency.p99Microseconds) us, longest \(latency.longestMicroseconds) us")
    }
    lines.append("  curl: \(fresh.requests) files of 1 MB, a connection each, every checksum compared, \(fresh.failed) wrong")
    for server in servers { lines.append("  \(server.name): \(server.connections) connections, \(server.requests) requests") }
    for node in nodes {
      lines.append(
        "  \(node.name): \(node.flows) flows, \(node.receivedPackets) packets in, \(node.forwardedPackets) forwarded, \(node.droppedPackets) dropped"
      )
    }
    if migrations.count > 0 {
      lines.append(
        "  migrations: \(migrations.count), \(migrations.moved) flows moved, \(migrations.refused) refused, "
          + "\(migrations.returned) returned, the longest \(migrations.longestMicroseconds) us")
    }
    if recoveries.count > 0 {
      lines.append(
        "  recoveries: \(recoveries.count), \(recoveries.recovered) flows taken over, \(recoveries.refused) refused, "
          + "the longest \(recoveries.longestMicroseconds) us from the command on")
    }
    if takeovers.count > 0 {
      lines.append(
        "  takeovers of the uplinks: \(takeovers.count), all flows known after \(takeovers.longestMicroseconds) us at most; the client has known the virtual address by "
          + takeovers.linkAddresses.joined(separator: ", then "))
    }
    for harm in harms {
      var words = "node \(harm.node) " + (harm.hasEnded ? "was fenced" : "goes on")
      if let time = harm.recoveredAfterMilliseconds { words += ", its flows taken over after \(time) ms" }
      if let packets = harm.packetsMeanwhile { words += ", having sent \(packets) packets meanwhile" }
      lines.append("  \(harm.kind): \(words)\(harm.evidence.isEmpty ? "" : " (\(harm.evidence))")")
    }
    if let segments {
      lines.append(
        "  packet counters: \(segments.packets) packets, \(segments.gaps) gaps, \(segments.reordered) out of order, "
          + "\(segments.duplicates) seen before")
    }
    for (reason, packets) in dropsByReason.sorted(by: { $0.key < $1.key }) { lines.append("  dropped, \(reason): \(packets)") }
    lines.append("  log: \(log.events) events, \(log.commands) commands, \(log.repeatedCommands) commands written twice")
    lines.append(
      "  set up in \(Self.tenths(seconds.setup)) s, removed in \(Self.tenths(seconds.removal)) s"
        + (logDirectory.map { ", logs in \($0)" } ?? ""))
    for problem in problems { lines.append("  problem: \(problem)") }
    return lines.joined(separator: "\n")
  }

  static func size(_ bytes: UInt64) -> String {
    bytes < 10_000_000 ? "\(bytes / 1000) kB" : bytes < 10_000_000_000 ? "\(bytes / 1_000_000) MB" : "\(bytes / 1_000_000_000) GB"
  }

  static func tenths(_ seconds: Double) -> String {
    let tenths = Int((seconds * 10).rounded())
    return "\(tenths / 10).\(tenths % 10)"
  }
}
