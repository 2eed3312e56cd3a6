import ArgumentParser
import ControlMessages
import NodeSupport

struct EventsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "events", abstract: "What happened.", subcommands: [EventsTail.self])
}

struct EventsTail: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "tail",
    abstract: "Show the newest events, and those to come.",
    discussion: """
      Heartbeats and ticks are shown only when --types asks for them. A '>' marks commands.

      Examples:
        nfvctl events tail -f --commands
        nfvctl events tail --since 10m --cluster web --types node-started,process-exited
        nfvctl events tail --from 0 --cluster web -o jsonl | jq -c '[.time, .type]'
      """)

  @Flag(name: .shortAndLong, help: "Go on with what comes, until Ctrl-C.")
  var follow = false

  @Option(name: .shortAndLong, help: ArgumentHelp("Only of this cluster.", valueName: "name"))
  var cluster: ClusterID?

  @Option(name: .customShort("n"), help: ArgumentHelp("How many to begin with, the newest.", valueName: "count"))
  var count = 20

  @Option(help: ArgumentHelp("Everything since then instead, such as 30s, 10m or 2h.", valueName: "duration"))
  var since: Span?

  @Option(
    help: ArgumentHelp("Everything from this offset of the cluster's events on instead; needs --cluster.", valueName: "offset"))
  var from: UInt64?

  @Option(help: ArgumentHelp("Only of these types, such as node-started,workload.", valueName: "a,b"))
  var types: String?

  @Flag(help: "Commands, too, in between.")
  var commands = false

  @OptionGroup var output: OutputOptions
  @OptionGroup var log: LogAccess

  /// As `Event.Body.name` and `Command.Body.name` have them.
  static let knownTypes = [
    "cluster-registered", "cluster-applied", "cluster-deleted", "agent-started", "agent-heartbeat", "process-exited",
    "node-started", "heartbeat", "workload", "node-stopping", "command-acknowledged", "peer-silent", "rules-activated",
    "policy-activated", "move-requested", "drain-requested", "migration-finished", "recovery-finished",
    "function-log", "backend-changed", "tick", "beacon", "unknown", "unreadable", "notify-cluster-config", "launch-runtime",
    "launch-switch", "stop-node", "fence", "recover", "set-replicas", "drain-runtime", "set-migration-target",
    "cancel-migration", "change-settings",
  ]

  private var wantedTypes: Set<String>? { types.map { Set($0.split(separator: ",").map(String.init)) } }

  func validate() throws {
    guard (0...100_000).contains(count) else { throw ValidationError("-n is a number from 0 to 100000") }
    guard since == nil || from == nil else { throw ValidationError("--since and --from exclude each other") }
    guard from == nil || cluster != nil else {
      throw ValidationError("--from needs --cluster: each cluster counts its own offsets")
    }
    guard from ?? 0 <= UInt64(Int64.max) else { throw ValidationError("--from is an offset") }
    for type in wantedTypes ?? [] where !Self.knownTypes.contains(type) {
      throw ValidationError("there is no type '\(type)'; there are \(Self.knownTypes.joined(separator: ", "))")
    }
  }

  func perform() throws {
    Shutdown.listen()
    let start: LogTail.Start =
      if let since {
        .time(Timestamp(milliseconds: Timestamp.now.milliseconds - min(Timestamp.now.milliseconds, UInt64(since.milliseconds))))
      } else if let from { .offset(Offset(from)) } else { .newest(count) }
    let tail = try LogTail(log, only: cluster, start: start, withCommands: commands)

    // A document is written when it is whole, so it cannot follow; lines can.
    var document: [JSON] = []
    try tail.read(following: follow && output.output != .json, where: isWanted, until: { Shutdown.isRequested }) { entry in
      switch output.output {
      case .text: Terminal.put(entry.line + "\n")
      case .jsonl: Terminal.put(entry.json.line + "\n")
      case .json: document.append(entry.json)
      }
    }
    if output.output == .json { Terminal.put(JSON.array(document).document) }
    if follow, output.output == .json { Terminal.say("note: -f follows with -o text or -o jsonl only") }
  }

  private func isWanted(_ entry: LogEntry) -> Bool {
    if let wantedTypes { return wantedTypes.contains(entry.type) }
    return !entry.isSignal
  }
}
