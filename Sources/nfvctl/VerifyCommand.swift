import ArgumentParser
import ControlCodec
import ControlMessages
import ControlPlane
import LogAnalysis
import NodeSupport

struct VerifyCommand: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "verify",
    abstract: "Decide everything once more and compare it with the log.",
    discussion: """
      Finds records that are missing, repeated or moved, slots that are missing, copies that differ, and commands that do not \
      follow from the events; and snapshots that hold another state than the events lead to. Where the log's beginning is gone \
      it begins at the oldest snapshot that will do. Of a file it also checks every checksum and the chain over the records (exit 65). \
      Ends with 3 when there is a fault; notes are no faults.

      Examples:
        nfvctl verify
        nfvctl verify --file case-4711.nfvlog -o jsonl
        nfvctl verify --since-snapshot
      """)

  @Option(name: .shortAndLong, help: ArgumentHelp("Only this cluster.", valueName: "name"))
  var cluster: ClusterID?

  @Flag(help: "Believe each cluster's newest snapshot and decide only what came after it.")
  var sinceSnapshot = false

  @OptionGroup var output: OutputOptions
  @OptionGroup var source: LogSourceOptions

  func perform() throws {
    let source = try source.open()
    var reports: [VerificationReport] = []
    // A chain is checked by reading it, also where nothing is decided from the records.
    if let archive = source as? ArchiveFile {
      for section in archive.trailer.sections where ![ServiceTopics.events, ServiceTopics.commands, ServiceTopics.snapshots].contains(section.place.topic)
      {
        let reader = archive.open(section.place, from: nil)
        while try reader.next() != nil {}
      }
    }
    if let directory = try Self.verifyDirectory(source) { reports.append(directory) }
    for entry in try cluster.map({ [try source.cluster($0)] }) ?? source.directory().entries {
      reports.append(try Self.verify(entry, source, startsAtNewest: sinceSnapshot))
    }
    put(reports)
    let faults = reports.reduce(0) { $0 + $1.findings.faultCount }
    if faults > 0 { throw Complaint("\(faults) faults in \(source.name)", status: ExitStatus.different) }
    if output.output == .text, let archive = source as? ArchiveFile {
      Terminal.say("the file is whole; digest \(archive.trailer.digest)")
    }
  }

  /// Nothing is decided from the directory, but its records are numbered, too. nil: they are all there.
  private static func verifyDirectory(_ source: any LogSource) throws -> VerificationReport? {
    let events = try source.events(of: ServiceTopics.directoryPartition)
    var sequences = EventSequences(LogPartition(ServiceTopics.events, ServiceTopics.directoryPartition))
    while let event = try events.next() { sequences.take(event) }
    var findings = events.check.findings
    findings.add(events.unreadable)
    findings.add(sequences.findings)
    guard !findings.kept.isEmpty else { return nil }
    return VerificationReport(
      name: "(directory)", events: events.check.count, commands: 0, agreed: 0, copies: 0, snapshots: 0, hash: nil, findings: findings)
  }

  /// A cluster's snapshots, as far as they are whole.
  private static func snapshots(of partition: UInt32, _ source: any LogSource) throws -> [RecordedSnapshot] {
    let place = LogPartition(ServiceTopics.snapshots, partition)
    // A log that was imported may have none, nor a topic for them.
    guard try source.partitions(of: place.topic).contains(partition), try source.extent(of: place) != nil else { return [] }
    let reader = try source.open(place, from: nil)
    // Of more than these the oldest are not recomputed.
    var assembly = SnapshotAssembly(keeping: 1_000)
    while let record = try reader.next() {
      if let snapshot = try? RecordCodec.decodeSnapshotRecord(record.value) { assembly.read(snapshot) }
    }
    return assembly.found.map { RecordedSnapshot(manifest: $0.manifest, core: try? RecordCodec.decodeCore($0.bytes)) }
  }

  private static func verify(
    _ entry: Directory.Entry, _ source: any LogSource, startsAtNewest: Bool
  ) throws -> VerificationReport {
    // Snapshots and commands first: whatever they follow from is in the log by then.
    let snapshots = try snapshots(of: entry.partition, source)
    let commands = try source.commands(of: entry.partition)
    let events = try source.events(of: entry.partition)
    var verifier = ClusterVerifier(
      cluster: entry.cluster, partition: entry.partition, snapshots: snapshots, startsAtNewest: startsAtNewest)
    var progress = LongWork("verified")
    while let event = try events.next() {
      try verifier.take(event) { try commands.next() }
      progress.note(verifier.eventCount)
    }
    try verifier.finish { try commands.next() }
    var findings = Findings()
    for some in [events.check.findings, commands.check.findings, events.unreadable, commands.unreadable, verifier.findings] {
      findings.add(some)
    }
    if verifier.start != nil { findings.remove(.missingBeginning) }
    return VerificationReport(
      name: entry.cluster.name, events: events.check.count, commands: verifier.commandCount, agreed: verifier.agreedCount,
      copies: verifier.copyCount, snapshots: verifier.agreedSnapshots, hash: verifier.core.hash, findings: findings)
  }

  private func put(_ reports: [VerificationReport]) {
    switch output.output {
    case .text: for report in reports { Terminal.put(report.text) }
    case .json: Terminal.put(JSON.array(reports.map(\.json)).document)
    case .jsonl: for report in reports { Terminal.put(report.json.line + "\n") }
    }
  }
}

/// What became of one cluster's log.
struct VerificationReport {
  /// Of the cluster.
  let name: String
  let events: UInt64
  let commands: UInt64
  let agreed: UInt64
  let copies: Int
  /// Recomputed alike.
  let snapshots: Int
  /// At the end; nil where nothing is decided.
  let hash: StateHash?
  let findings: Findings

  var text: String {
    var text =
      "cluster \(name): \(events) events, \(commands) commands (\(copies) copies), \(agreed) decided again alike, \(snapshots) snapshots alike, state hash \(hash.map { "\($0)" } ?? "-")\n"
    for finding in findings.kept {
      let place = finding.offset.map { "\(finding.place) offset \($0)" } ?? "\(finding.place)"
      text +=
        TextTable.printable(
          "  \(finding.kind.isFault ? "FAULT" : "note") \(finding.kind.rawValue) at \(place): \(finding.sentence)") + "\n"
    }
    for (kind, count) in findings.counts.sorted(by: { $0.key.rawValue < $1.key.rawValue }) where count > Findings.keptOfEachKind {
      text += "  \(kind.rawValue): \(count) in all, the first \(Findings.keptOfEachKind) are shown\n"
    }
    return text
  }

  var json: JSON {
    let counts = findings.counts.sorted { $0.key.rawValue < $1.key.rawValue }.map {
      JSON.Member(key: $0.key.rawValue, value: .number($0.value))
    }
    return .object([
      "cluster": .string(name), "events": .number(events), "commands": .number(commands), "decidedAlike": .number(agreed),
      "copies": .number(copies), "snapshotsAlike": .number(snapshots), "stateHash": hash.map { JSON.text($0) }, "faults": .number(findings.faultCount),
      "counts": .object(counts),
      "findings": .array(findings.kept.map(\.json)),
    ])
  }
}

extension Finding {
  var json: JSON {
    let at: JSON? = offset.map { JSON.number($0.value) }
    let slot: JSON? = self.slot.map { JSON.number($0.number) }
    return .object([
      "kind": .string(kind.rawValue), "isFault": .bool(kind.isFault), "topic": .string(place.topic),
      "partition": .number(place.partition),
      "offset": at, "slot": slot, "sentence": .string(sentence),
    ])
  }
}
