import ArgumentParser
import Configuration
import ControlMessages
import ControlPlane
import LogAnalysis
import NodeSupport

struct ReplayCommand: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "replay",
    abstract: "Show what would have been decided, and where it differs.",
    discussion: """
      Folds the events of the range again and compares the decisions with those in the log: by this version's core, and with \
      --spec or --policy as if that file had been applied or activated at the beginning of the range (those within it are \
      passed over). The world answers as it did: a node that only the replay launches never starts.

      A line with - was decided and would not be, one with + would be and was not. Ends with 3 when there is any.

      Examples:
        nfvctl replay --file case-4711.nfvlog
        nfvctl replay --from 2026-11-22T22:10 --to 2026-11-22T22:20 --spec larger.yaml
        nfvctl replay --from 1200 --spec larger.yaml -o jsonl
        nfvctl replay --from 10m --policy eager.yaml
      """)

  @Option(help: ArgumentHelp("Where to begin: \(LogPoint.help).", valueName: "offset|time"))
  var from: LogPoint?

  @Option(help: ArgumentHelp("Where to end, the same.", valueName: "offset|time"))
  var to: LogPoint?

  @Option(
    help: ArgumentHelp("A cluster's YAML file, to be applied instead.", valueName: "file"),
    completion: .file(extensions: ["yaml", "yml"]))
  var spec: String?

  @Option(
    help: ArgumentHelp("A scaling policy's YAML file, to be in force instead.", valueName: "file"),
    completion: .file(extensions: ["yaml", "yml"]))
  var policy: String?

  @Option(name: .shortAndLong, help: ArgumentHelp("The cluster; needed when there are several.", valueName: "name"))
  var cluster: ClusterID?

  @OptionGroup var output: OutputOptions
  @OptionGroup var source: LogSourceOptions

  func perform() throws {
    var given = try spec.map { try ApplyCommand.read($0) }
    let policy = try policy.map { try loadScalingPolicy($0) }
    let source = try source.open()
    let entry = try source.cluster(cluster)
    // The file may be another cluster's: what counts is what it asks for.
    given?.name = entry.cluster
    let range = try range(of: entry.partition, source)
    var instead: [Event.Body] = []
    if let given { instead.append(.clusterApplied(given)) }
    if let policy { instead.append(.policyActivated(policy)) }
    var replay = Replay(cluster: entry.cluster, partition: entry.partition, range: range, instead: instead)
    let commands = try source.commands(of: entry.partition)
    let events = try source.events(of: entry.partition)
    var progress = LongWork("replayed")
    var document: [JSON] = []
    var differing = 0
    var count: UInt64 = 0
    while let event = try events.next(), event.offset <= range.upperBound {
      count += 1
      progress.note(count)
      guard let difference = try replay.take(event, nextCommand: { try commands.next() }) else { continue }
      differing += 1
      switch output.output {
      case .text: Terminal.put(difference.text)
      case .jsonl: Terminal.put(difference.json.line + "\n")
      case .json: document.append(difference.json)
      }
    }
    if output.output == .json { Terminal.put(JSON.array(document).document) }
    Terminal.say("\(replay.eventCount) events: \(replay.recordedCount) commands were decided, \(replay.decidedCount) would be")
    // Rules 1 know no policies: that nothing differs must not be taken for the policy's doing.
    if policy != nil, replay.state.rules < DecisionRules.failureDetection {
      Terminal.say("the cluster's decision rules are \(replay.state.rules) throughout; policies act from \(DecisionRules.failureDetection) on")
    }
    if differing > 0 { throw Complaint("decisions differ at \(differing) events", status: ExitStatus.different) }
  }

  /// Times are turned into offsets by looking at the events once.
  private func range(of partition: UInt32, _ source: any LogSource) throws -> ClosedRange<Offset> {
    var first = Offset(0)
    var last = Offset(.max)
    if case .offset(let offset) = from { first = offset }
    if case .offset(let offset) = to { last = offset }
    if from?.isTime == true || to?.isTime == true {
      var begins = false
      var end: Offset?
      let events = try source.events(of: partition)
      while let event = try events.next() {
        if case .time(let time) = from, !begins, event.timestamp >= time { (first, begins) = (event.offset, true) }
        if case .time(let time) = to, event.timestamp <= time { end = event.offset }
      }
      if from?.isTime == true, !begins { throw Complaint("no event is as late as --from") }
      if to?.isTime == true {
        guard let end else { throw Complaint("no event is as early as --to") }
        last = end
      }
    }
    guard first <= last else { throw Complaint("--from lies behind --to", status: ExitStatus.usage) }
    return first...last
  }
}

extension LogPoint {
  var isTime: Bool { if case .time = self { true } else { false } }
}

extension Replay.Difference {
  var text: String {
    var text = TextTable.printable("\(timestamp.clockTime) offset \(offset) \(event)") + "\n"
    for command in dropped {
      text += TextTable.printable("  - \(command.body.name) \(command.body.summary) (\(command.reason))") + "\n"
    }
    for command in added {
      text += TextTable.printable("  + \(command.body.name) \(command.body.summary) (\(command.reason))") + "\n"
    }
    return text
  }

  var json: JSON {
    .object([
      "offset": .number(offset.value), "time": .string(timestamp.iso8601), "event": .string(event),
      "dropped": .array(dropped.map(Self.json)), "added": .array(added.map(Self.json)),
    ])
  }

  private static func json(_ command: Command) -> JSON {
    .object([
      "type": .string(command.body.name), "target": .string(command.target.words), "summary": .string(command.body.summary),
      "reason": .string(command.reason),
    ])
  }
}
