import ArgumentParser
import NodeSupport
import SchemaEvolution

struct SchemaCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "schema", abstract: "The records' schemas.", subcommands: [SchemaCheck.self])
}

struct SchemaCheck: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "check",
    abstract: "Compare this version's schemas with an older one's.",
    discussion: """
      Finds every change with which records of the one would be misread or refused by the other, by the rules of \
      schemas/README.md. Ends with 3 when there is one. Each release has its schemas/nfvactor.binpb.

      Examples:
        git show v0.1.0:schemas/nfvactor.binpb > old.binpb && nfvctl schema check --against old.binpb
        protoc --descriptor_set_out=old.binpb *.proto
      """)

  @Option(help: ArgumentHelp("The older version's descriptors.", valueName: "file"), completion: .file(extensions: ["binpb"]))
  var against: String

  @OptionGroup var output: OutputOptions

  func perform() throws {
    let file = try ByteFile(reading: against)
    guard file.size <= 16 << 20 else {
      throw Complaint("\(against) has \(file.size) bytes: these are no descriptors", status: ExitStatus.damaged)
    }
    let old: SchemaDescriptors
    do { old = try SchemaDescriptors(try file.read(at: 0, Int(file.size))) } catch let error as SchemaDescriptors.Unreadable {
      throw Complaint("\(against): \(error)", status: ExitStatus.damaged)
    }
    let changes = SchemaDescriptors.present.changes(since: old)
    switch output.output {
    case .text:
      for change in changes { Terminal.put("\(change.isBreaking ? "BREAKS" : "allowed") \(change.kind.rawValue) \(change)\n") }
    case .json: Terminal.put(JSON.array(changes.map(\.json)).document)
    case .jsonl: for change in changes { Terminal.put(change.json.line + "\n") }
    }
    let breaking = changes.count(where: \.isBreaking)
    if breaking > 0 { throw Complaint("\(breaking) changes break what \(against) says", status: ExitStatus.different) }
    if output.output == .text { Terminal.say("compatible with \(old.messages.count) messages of \(against)") }
  }
}

extension SchemaChange {
  var json: JSON {
    .object(["kind": .string(kind.rawValue), "breaks": .bool(isBreaking), "place": .string(place), "sentence": .string(sentence)])
  }
}
