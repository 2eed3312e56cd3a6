import ArgumentParser
import ControlMessages
import LogAnalysis
import NodeSupport

struct WhyCommand: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "why",
    abstract: "Show the chain of causes of a command.",
    discussion: """
      From the command to the event that decided it, to what caused that, and so on; then what the operator wanted at the \
      time, and how the command fared.

      Examples:
        nfvctl why 17 --cluster web
        nfvctl why 17 --file case-4711.nfvlog -o json
      """)

  @Argument(help: ArgumentHelp("The command's slot, as `nfvctl get commands` lists it.", valueName: "slot"))
  var slot: UInt64

  @Option(name: .shortAndLong, help: ArgumentHelp("The cluster; needed when there are several.", valueName: "name"))
  var cluster: ClusterID?

  @OptionGroup var output: OutputOptions
  @OptionGroup var source: LogSourceOptions

  func perform() throws {
    let source = try source.open()
    let entry = try source.cluster(cluster)
    guard let chain = try Self.chain(Slot(slot), entry.partition, source) else {
      throw Complaint("cluster \(entry.cluster) has no command in slot \(slot); `nfvctl get commands` lists them")
    }
    switch output.output {
    case .text: Terminal.put(chain.text)
    case .json: Terminal.put(chain.json.document)
    case .jsonl: Terminal.put(chain.json.line + "\n")
    }
  }

  static func chain(_ slot: Slot, _ partition: UInt32, _ source: any LogSource) throws -> CauseChain? {
    var chain = try CauseChain.trace(
      slot,
      command: { wanted in
        let commands = try source.commands(of: partition)
        var reader = SlotReader()
        while let record = try commands.next() {
          if reader.read(record.command.slot) == .taken, record.command.slot == wanted { return record }
        }
        return nil
      },
      event: { offset in
        let found = try source.events(of: partition, from: offset).next()
        return found?.offset == offset ? found : nil
      },
      intent: { offset in
        let events = try source.events(of: partition)
        var last: EventRecord?
        while let event = try events.next(), event.offset <= offset {
          switch event.event.body {
          case .clusterApplied, .clusterDeleted: last = event
          default: break
          }
        }
        return last
      })
    // Answers come after the decision.
    if case .command(let command)? = chain?.steps.first {
      let events = try source.events(of: partition, from: command.command.decision.offset)
      while let event = try events.next() {
        if case .commandAcknowledged(let acknowledgement) = event.event.body, acknowledgement.slot == slot {
          chain?.answers.append(event)
        }
        if event.event.causation == .command(slot), event.event.body.name != "command-acknowledged" {
          chain?.answers.append(event)
        }
      }
    }
    return chain
  }
}

extension CauseChain: Described {
  var text: String {
    var text = ""
    for (index, step) in steps.enumerated() {
      text += TextTable.printable((index == 0 ? "" : String(repeating: "  ", count: index - 1) + "because ") + step.words) + "\n"
    }
    if let intent { text += TextTable.printable("wanted at the time: \(Step.event(intent).words)") + "\n" }
    for answer in answers { text += TextTable.printable("answer: \(Step.event(answer).words)") + "\n" }
    if answers.isEmpty { text += "no answer is in the log\n" }
    return text
  }

  var json: JSON {
    .object([
      "chain": .array(steps.map(\.json)), "intent": intent.map { Step.event($0).json },
      "answers": .array(answers.map { Step.event($0).json }),
    ])
  }
}

extension CauseChain.Step {
  var words: String {
    switch self {
    case .command(let record):
      let command = record.command
      let request = command.correlation.isEmpty ? "" : ", request \(command.correlation)"
      return
        "\(record.timestamp.clockTime) slot \(command.slot) \(command.body.name) \(command.body.summary): \(command.reason)\(request)"
    case .event(let record):
      let event = record.event
      let request = event.correlation.isEmpty ? "" : ", request \(event.correlation)"
      return
        "\(record.timestamp.clockTime) offset \(record.offset) \(event.body.name) \(event.body.summary), by \(event.producer)\(request)"
    case .lost(let what): return "\(what), which the log does not have"
    }
  }

  var json: JSON {
    switch self {
    case .command(let record): CommandListing(cluster: nil, record: record).json
    case .event(let record): record.json
    case .lost(let what): .object(["type": .string("lost"), "summary": .string(what)])
    }
  }
}

extension EventRecord {
  /// As `nfvctl events tail` has it, without the place that goes without saying.
  var json: JSON {
    let correlation: JSON? = event.correlation.isEmpty ? nil : .string(event.correlation)
    return .object([
      "offset": .number(offset.value), "time": .string(timestamp.iso8601), "type": .string(event.body.name),
      "summary": .string(event.body.summary),
      "producer": .text(event.producer), "correlation": correlation, "data": event.body.json,
    ])
  }
}
