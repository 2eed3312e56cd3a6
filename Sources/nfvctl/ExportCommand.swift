import ArgumentParser
import ControlMessages
import KafkaLog
import LogAnalysis
import NodeSupport

struct ExportCommand: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "export",
    abstract: "Write the log to a file, for looking at it elsewhere.",
    discussion: """
      All tools that look back take such a file with --file: state, verify, replay, why, audit, dead-letters. The file holds \
      every record byte for byte, is told to be whole or not by itself, and has a digest, printed on stderr: quote it with \
      the file. An export of a file makes a smaller one.

      Examples:
        nfvctl export --to case-4711.nfvlog
        nfvctl export --to web.nfvlog --cluster web --topics nfv.events,nfv.commands
      """)

  @Option(
    name: .customLong("to"), help: ArgumentHelp("The file to make; it must not be there.", valueName: "file"), completion: .file()
  )
  var path: String

  @Option(name: .shortAndLong, help: ArgumentHelp("Only this cluster, with the directory.", valueName: "name"))
  var cluster: ClusterID?

  @Option(help: ArgumentHelp("Only these topics.", valueName: "a,b"))
  var topics: String?

  @OptionGroup var output: OutputOptions
  @OptionGroup var source: LogSourceOptions

  private var wantedTopics: [String] { topics?.split(separator: ",").map(String.init) ?? ServiceTopics.all }

  func validate() throws {
    for topic in wantedTopics where !ServiceTopics.all.contains(topic) {
      throw ValidationError("there is no topic '\(topic)'; there are \(ServiceTopics.all.joined(separator: ", "))")
    }
  }

  func perform() throws {
    Shutdown.listen()
    let source = try source.open()
    let only = try cluster.map { [ServiceTopics.directoryPartition, try source.cluster($0).partition] }
    var places: [LogPartition] = []
    for topic in wantedTopics {
      for partition in try source.partitions(of: topic) where only?.contains(partition) ?? true {
        let place = LogPartition(topic, partition)
        if try source.extent(of: place) != nil { places.append(place) }
      }
    }
    let file = try ByteFile(creating: path)
    do {
      let listing = try write(places.sorted(), of: source, to: file)
      switch output.output {
      case .text:
        Terminal.put("\(listing.records) records of \(listing.partitions) partitions in \(path), \(listing.bytes) bytes\n")
      case .json: Terminal.put(listing.json.document)
      case .jsonl: Terminal.put(listing.json.line + "\n")
      }
      if output.output == .text { Terminal.say("digest \(listing.digest)") }
    } catch {
      // Half a log is none.
      file.remove()
      throw error
    }
  }

  private func write(_ places: [LogPartition], of source: any LogSource, to file: ByteFile) throws -> ExportListing {
    var writer = ArchiveWriter(madeAt: .now)
    var progress = LongWork("exported")
    try file.write(writer.header)
    for place in places {
      let reader = try source.open(place, from: nil)
      while let record = try reader.next() {
        try file.write(writer.append(record))
        progress.note(writer.recordCount)
        if Shutdown.isRequested { throw Complaint("stopped; nothing was written") }
      }
    }
    let records = writer.recordCount
    let (bytes, digest) = writer.finish()
    try file.write(bytes)
    try file.finish()
    return ExportListing(file: path, records: records, partitions: places.count, bytes: file.size, digest: digest)
  }
}

struct ExportListing {
  let file: String
  let records: UInt64
  let partitions: Int
  let bytes: UInt64
  let digest: String

  var json: JSON {
    .object([
      "file": .string(file), "records": .number(records), "partitions": .number(partitions), "bytes": .number(bytes),
      "digest": .string(digest),
    ])
  }
}

/// Says on stderr, every second, how far a long piece of work is; nothing about a short one.
struct LongWork {
  private let verb: String
  private let start = ContinuousClock.now
  private var said = ContinuousClock.now
  private var count: UInt64 = 0

  init(_ verb: String) { self.verb = verb }

  /// Cheap: looks at the clock for one in a thousand.
  mutating func note(_ count: UInt64) {
    guard count / 1_000 != self.count / 1_000 else { return }
    self.count = count
    guard ContinuousClock.now - said > .seconds(1) else { return }
    said = .now
    Terminal.say("\(count) records \(verb) in \((said - start).components.seconds) s")
  }
}
