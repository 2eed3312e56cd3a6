import ArgumentParser
import ControlCodec
import ControlMessages
import KafkaLog
import LogAnalysis
import NodeSupport

struct DeadLettersCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "dead-letters",
    abstract: "Records that could not be read.",
    discussion: """
      Replicas pass over such records, so they stop nobody; each has a letter that says where it stands and why.
      """,
    subcommands: [ListDeadLetters.self, ShowDeadLetter.self, SkipDeadLetter.self])
}

struct ListDeadLetters: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "list",
    abstract: "List the letters.",
    discussion: """
      Letters that somebody has dealt with are left out unless --all is given.

      Example:
        nfvctl dead-letters list --all -o jsonl
      """)

  @Flag(help: "Those that were skipped, too.")
  var all = false

  @OptionGroup var output: OutputOptions
  @OptionGroup var source: LogSourceOptions

  func perform() throws {
    let letters = try LetterBox(source.open()).letters
    Terminal.put(output.output.list(all ? letters : letters.filter { $0.skipped == nil }))
  }
}

struct ShowDeadLetter: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "show",
    abstract: "Show a letter and the bytes of its record.",
    discussion: """
      Example:
        nfvctl dead-letters show nfv.events/1/4711
      """)

  @Argument(help: ArgumentHelp("Where the record stands, as `list` tells it.", valueName: "topic/partition/offset"))
  var place: LetterPlace

  @OptionGroup var output: OutputOptions
  @OptionGroup var source: LogSourceOptions

  func perform() throws {
    let source = try source.open()
    guard let letter = try LetterBox(source).letter(place) else { throw Complaint.noLetter(place) }
    let found = try source.open(LogPartition(place.topic, place.partition), from: place.offset).next()
    let description = LetterDescription(letter: letter, record: found?.offset == place.offset ? found : nil)
    switch output.output {
    case .text: Terminal.put(description.text)
    case .json: Terminal.put(description.json.document)
    case .jsonl: Terminal.put(description.json.line + "\n")
    }
  }
}

struct SkipDeadLetter: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "skip",
    abstract: "Say that a letter has been dealt with.",
    discussion: """
      The record is passed over as before; the letter is no longer listed. Who said so and why is kept with it.

      Example:
        nfvctl dead-letters skip nfv.events/1/4711 --reason "a test wrote it"
      """)

  @Argument(help: ArgumentHelp("Where the record stands, as `list` tells it.", valueName: "topic/partition/offset"))
  var place: LetterPlace

  @Option(help: "Why, for whoever looks later.")
  var reason: String

  @OptionGroup var output: OutputOptions
  @OptionGroup var log: LogAccess

  func validate() throws {
    guard (1...1_000).contains(reason.utf8.count) else { throw ValidationError("--reason has 1 to 1000 bytes") }
  }

  func perform() throws {
    try log.check()
    guard let letter = try LetterBox(BrokerSource(log)).letter(place) else { throw Complaint.noLetter(place) }
    if letter.skipped == nil {
      let answer = DeadLetter(topic: place.topic, partition: place.partition, offset: place.offset, reason: reason)
      _ = try KafkaProducer(log.settings, profile: .facts).sendAndWait(
        topic: ServiceTopics.deadLetters, partition: Int32(clamping: place.partition), key: LetterBox.skipKey,
        value: RecordCodec.encode(answer), timeoutMilliseconds: LogAccess.patience)
    }
    let result = letter.skipped == nil ? "skipped" : "unchanged"
    let json = JSON.object(["place": .text(place), "result": .string(result)])
    switch output.output {
    case .text: Terminal.put("\(place) \(result)\n")
    case .json: Terminal.put(json.document)
    case .jsonl: Terminal.put(json.line + "\n")
    }
  }
}

/// topic/partition/offset
struct LetterPlace: ExpressibleByArgument, Hashable, CustomStringConvertible {
  let topic: String
  let partition: UInt32
  let offset: Offset

  init(_ letter: DeadLetter) {
    topic = letter.topic
    partition = letter.partition
    offset = letter.offset
  }

  init?(argument: String) {
    let parts = argument.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 3, !parts[0].isEmpty, let partition = UInt32(parts[1]), let offset = UInt64(parts[2]) else { return nil }
    topic = String(parts[0])
    self.partition = partition
    self.offset = Offset(offset)
  }

  var description: String { "\(topic)/\(partition)/\(offset)" }
}

extension Complaint {
  static func noLetter(_ place: LetterPlace) -> Complaint {
    Complaint("there is no letter for \(place); `nfvctl dead-letters list --all` lists them")
  }
}

/// The letters of a log. A letter is answered by another one for the same place, whose key says that it is an answer:
/// programs that do not know of answers see a letter that they have.
struct LetterBox {
  static let skipKey = Array("skipped".utf8)

  /// In the order of the log.
  private(set) var letters: [LetterListing] = []

  init(_ source: any LogSource) throws {
    var places: [LetterPlace: Int] = [:]
    for partition in try source.partitions(of: ServiceTopics.deadLetters) {
      let place = LogPartition(ServiceTopics.deadLetters, partition)
      guard try source.extent(of: place) != nil else { continue }
      let reader = try source.open(place, from: nil)
      while let record = try reader.next() {
        guard let letter = try? RecordCodec.decodeDeadLetter(record.value) else { continue }
        let found = places[LetterPlace(letter)]
        if record.key == Self.skipKey {
          if let found, letters[found].skipped == nil { letters[found].skipped = letter.reason }
        } else if found == nil {
          places[LetterPlace(letter)] = letters.count
          letters.append(LetterListing(letter: letter, timestamp: record.timestamp))
        }
      }
    }
  }

  func letter(_ place: LetterPlace) -> LetterListing? { letters.first { LetterPlace($0.letter) == place } }
}

struct LetterListing: Listed, Equatable {
  let letter: DeadLetter
  let timestamp: Timestamp
  /// The operator's reason, once it was dealt with.
  var skipped: String?

  static let columns: [TextTable.Column] = [.left("PLACE"), .left("FOUND"), .left("STATE"), .left("WHY")]

  var cells: [String] {
    [
      "\(LetterPlace(letter))", timestamp.iso8601, skipped == nil ? "open" : "skipped",
      skipped.map { "\(letter.reason) (\($0))" } ?? letter.reason,
    ]
  }

  var json: JSON {
    .object([
      "place": .text(LetterPlace(letter)), "topic": .string(letter.topic), "partition": .number(letter.partition),
      "offset": .number(letter.offset.value),
      "found": .string(timestamp.iso8601), "reason": .string(letter.reason), "skipped": skipped.map { JSON.string($0) },
    ])
  }
}

/// A letter with the record that it is about, and what this version makes of it.
struct LetterDescription: Described {
  let letter: LetterListing
  /// nil: the log does not have it any more.
  let record: LogRecord?

  /// Bytes shown; enough for an envelope.
  private static let shownBytes = 256

  /// A later version may read what an earlier one could not.
  private var reading: String {
    guard let record else { return "the log does not have the record any more" }
    let entry = LogEntry(record)
    if case .unreadable(let reason) = entry.content { return "this version cannot read it either: \(reason)" }
    return "this version reads it: \(entry.type)"
  }

  private var rows: [String] {
    let bytes = record.map { Array($0.value.prefix(Self.shownBytes)) } ?? []
    return stride(from: 0, to: bytes.count, by: 16).map { start in
      bytes[start..<min(start + 16, bytes.count)].map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: " ")
    }
  }

  var text: String {
    var facts = [
      ["Record:", "\(LetterPlace(letter.letter))"], ["Found:", letter.timestamp.iso8601], ["Why:", letter.letter.reason],
      ["Now:", reading],
    ]
    if let skipped = letter.skipped { facts.append(["Skipped:", skipped]) }
    if let record {
      facts.append(["Written:", record.timestamp.iso8601])
      facts.append([
        "Bytes:",
        "\(record.value.count)" + (record.value.count > Self.shownBytes ? ", the first \(Self.shownBytes) of them:" : ""),
      ])
    }
    return TextTable.facts(facts) + rows.map { "  \($0)\n" }.joined()
  }

  var json: JSON {
    guard case .object(let members) = letter.json else { return letter.json }
    let more = JSON.object([
      "now": .string(reading), "written": record.map { JSON.string($0.timestamp.iso8601) },
      "bytes": record.map { JSON.number($0.value.count) },
      "hex": record.map { _ in JSON.string(rows.joined(separator: " ")) },
    ])
    guard case .object(let rest) = more else { return more }
    return .object(members + rest)
  }
}
