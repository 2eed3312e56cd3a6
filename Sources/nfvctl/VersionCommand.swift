import ArgumentParser
import ControlCodec
import ControlMessages

struct VersionCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "version",
    abstract: "The version of this program and of the records it reads and writes.",
    discussion: """
      Example:
        nfvctl version -o json
      """)

  static let version = Release.current

  @OptionGroup var output: OutputOptions

  func run() {
    let json = JSON.object(["version": .string(Self.version), "recordVersion": .number(RecordCodec.version)])
    switch output.output {
    case .text: Terminal.put("nfvctl \(Self.version), records of version \(RecordCodec.version)\n")
    case .json: Terminal.put(json.document)
    case .jsonl: Terminal.put(json.line + "\n")
    }
  }
}
