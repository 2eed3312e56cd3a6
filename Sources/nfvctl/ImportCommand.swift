import ArgumentParser
import ControlMessages
import KafkaLog
import LogAnalysis
import NodeSupport

struct ImportCommand: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "import",
    abstract: "Write an exported log into empty topics of a broker.",
    discussion: """
      For moving a control plane to another broker. To look at a log no import is needed: the tools take it with --file.

      The partitions have to be empty, so that every record gets the offset that others name it by, and the topics have to \
      keep the records' own times (message.timestamp.type=CreateTime), since times are what deadlines are decided by. \
      Topics that are missing are made so. `nfvctl bus --bare` makes none; on a Kafka, set LogAppendTime after the import.

      Example:
        nfvctl bus --bare --data-dir /var/lib/nfv/new & nfvctl import --file case-4711.nfvlog
      """)

  @Option(help: ArgumentHelp("The log that `nfvctl export` wrote.", valueName: "file"), completion: .file())
  var file: String

  @Option(help: "Replicas of each partition of topics that are made.")
  var replication = 1

  @OptionGroup var output: OutputOptions
  @OptionGroup var log: LogAccess

  func validate() throws {
    guard (1...32_767).contains(replication) else { throw ValidationError("--replication is a number from 1 to 32767") }
  }

  func perform() throws {
    Shutdown.listen()
    let archive = try ArchiveFile(file)
    try readWhole(archive)
    let maker = try KafkaAdmin(log.settings, timeoutMilliseconds: LogAccess.patience)
    var topics: [KafkaTopic] = []
    for topic in Set(archive.trailer.sections.map(\.place.topic)).sorted() where try maker.partitionCount(of: topic) == nil {
      topics.append(
        KafkaTopic(
          name: topic, partitions: Int(ServiceTopics.partitionCount), replicationFactor: replication,
          settings: ["cleanup.policy": "delete", "retention.ms": "-1", "message.timestamp.type": "CreateTime"]))
    }
    try maker.createTopics(topics)
    // A client that has asked for a topic in vain goes on believing that it is not there.
    let admin = try KafkaAdmin(log.settings, timeoutMilliseconds: LogAccess.patience)
    for section in archive.trailer.sections {
      guard section.first.value == 0 else {
        throw Complaint(
          "\(section.place) begins at offset \(section.first) in \(file); only a log with its beginning can be imported")
      }
      let (_, high) = try admin.watermarks(topic: section.place.topic, partition: Int32(clamping: section.place.partition))
      guard high == 0 else { throw Complaint("\(section.place) has records already; import into empty topics") }
    }
    var written: UInt64 = 0
    var progress = LongWork("imported")
    for section in archive.trailer.sections { try write(section, of: archive, &written, &progress) }
    let json = JSON.object(["file": .string(file), "records": .number(written), "digest": .string(archive.trailer.digest)])
    switch output.output {
    case .text: Terminal.put("\(written) records imported from \(file)\n")
    case .json: Terminal.put(json.document)
    case .jsonl: Terminal.put(json.line + "\n")
    }
  }

  /// A damage found half-way would leave half a log behind.
  private func readWhole(_ archive: ArchiveFile) throws {
    for section in archive.trailer.sections {
      let reader = archive.open(section.place, from: nil)
      while try reader.next() != nil {}
    }
  }

  private func write(_ section: ArchiveSection, of archive: ArchiveFile, _ written: inout UInt64, _ progress: inout LongWork)
    throws
  {
    let producer = try KafkaProducer(log.settings, profile: .facts)
    let partition = Int32(clamping: section.place.partition)
    let reader = archive.open(section.place, from: nil)
    var isFirst = true
    var expected: [UInt64: UInt64] = [:]
    func check(_ deliveries: [KafkaDelivery]) throws {
      for delivery in deliveries {
        switch delivery.outcome {
        case .failed(let error): throw error
        case .stored(let offset):
          guard let wanted = expected.removeValue(forKey: delivery.id), offset >= 0, UInt64(offset) != wanted else { continue }
          throw Complaint("\(section.place): a record got offset \(offset) instead of \(wanted); somebody else writes there")
        }
      }
    }
    while let record = try reader.next() {
      if Shutdown.isRequested { throw Complaint("stopped after \(written) records; the topics hold a part of the log") }
      while true {
        do throws(KafkaError) {
          let id = try producer.send(
            topic: section.place.topic, partition: partition, key: record.key, value: record.value,
            timestampMilliseconds: Int64(clamping: record.timestamp.milliseconds))
          expected[id] = record.offset.value
          break
        } catch .queueFull {
          try check(producer.poll(timeoutMilliseconds: 50))
        }
      }
      if isFirst {
        try check(producer.flush(timeoutMilliseconds: LogAccess.patience))
        try checkTime(of: record)
        isFirst = false
      }
      written += 1
      progress.note(written)
      if written.isMultiple(of: 1_000) { try check(producer.poll(timeoutMilliseconds: 0)) }
    }
    try check(producer.flush(timeoutMilliseconds: 60_000))
  }

  /// A topic that stamps its own times would make another history of it.
  private func checkTime(of record: LogRecord) throws {
    let source = try BrokerSource(log)
    let stored = try source.open(LogPartition(record.topic, record.partition), from: record.offset).next()
    guard let stored, stored.timestamp != record.timestamp else { return }
    throw Complaint(
      "\(record.topic) stamps its own times; make it anew with message.timestamp.type=CreateTime, or let `nfvctl import` make it")
  }
}
