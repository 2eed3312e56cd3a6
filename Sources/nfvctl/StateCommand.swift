import ArgumentParser
import ControlMessages
import ControlPlane
import LogAnalysis
import NodeSupport

struct StateCommand: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "state",
    abstract: "Show what a cluster was at any moment of its log.",
    discussion: """
      Folds the events up to the moment, the record there included.

      Examples:
        nfvctl state --at 4711
        nfvctl state --at 2026-11-22T22:31:21.5Z --cluster web -o json
        nfvctl state --at 10m --file case-4711.nfvlog
      """)

  @Option(help: ArgumentHelp("The moment: \(LogPoint.help). Without it, the end of the log.", valueName: "offset|time"))
  var at: LogPoint?

  @Option(name: .shortAndLong, help: ArgumentHelp("The cluster; needed when there are several.", valueName: "name"))
  var cluster: ClusterID?

  @OptionGroup var output: OutputOptions
  @OptionGroup var source: LogSourceOptions

  func perform() throws {
    let source = try source.open()
    let entry = try source.cluster(cluster)
    let place = LogPartition(ServiceTopics.events, entry.partition)
    let extent = try source.extent(of: place)
    if case .offset(let offset) = at, offset.value >= extent?.upperBound ?? 0 {
      throw Complaint("\(place) of \(source.name) ends before offset \(offset); its next record gets \(extent?.upperBound ?? 0)")
    }
    var core = ClusterCore(cluster: entry.cluster)
    var listings: [CommandListing] = []
    let events = try source.events(of: entry.partition)
    var progress = LongWork("folded")
    var count: UInt64 = 0
    while let event = try events.next(), at?.includes(event.offset, event.timestamp) ?? true {
      for command in core.apply(event) {
        listings.append(
          CommandListing(
            cluster: entry.cluster, record: CommandRecord(offset: event.offset, timestamp: event.timestamp, command: command)))
      }
      listings.removeFirst(max(0, listings.count - 10))
      count += 1
      progress.note(count)
    }
    let lacksBeginning = (extent?.lowerBound ?? 0) > 0
    let moment = Moment(
      position: core.position, hash: core.hash,
      description: ClusterDescription(
        ClusterListing(core.state, partition: entry.partition, lacksBeginning: lacksBeginning), core.state, listings))
    switch output.output {
    case .text: Terminal.put(moment.text)
    case .json: Terminal.put(moment.json.document)
    case .jsonl: Terminal.put(moment.json.line + "\n")
    }
    if lacksBeginning { Terminal.say("note: the log has lost its beginning; what is shown is folded from what is left") }
  }
}

/// A cluster at one moment of its log.
struct Moment: Described {
  /// Of the last record that is in it.
  let position: Offset?
  let hash: StateHash
  /// Its commands are those that follow from the events, at the events' places.
  let description: ClusterDescription

  private var hashText: String { "\(hash)" }

  var text: String {
    TextTable.facts([["Offset:", position.map { "\($0)" } ?? "before the first"], ["State hash:", hashText]]) + description.text
  }

  var json: JSON {
    guard case .object(let members) = description.json else { return description.json }
    let own = JSON.object(["offset": position.map { JSON.number($0.value) }, "stateHash": .string(hashText)])
    guard case .object(let first) = own else { return own }
    return .object(first + members)
  }
}
