import ArgumentParser
import Foundation
import FunctionCatalog
import NodeSupport

/// What the intrusion prevention makes of a rule file, before it is deployed.
struct RulesCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rules", abstract: "Checks rules of the intrusion prevention.", subcommands: [Check.self])

  struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "check",
      abstract: "Says how many rules of a file are understood, and why the others are not.",
      discussion: """
        Example: nfvactor rules check --variable HOME_NET=10.1.0.0/16 local.rules

        Exit code 0; with --strict 1 if any rule is refused; 66 for a file that cannot be read.
        """)

    @Argument(help: "Rule files; together they are one set.")
    var files: [String]

    @Option(name: .long, help: ArgumentHelp("A variable that rules use; can be repeated.", valueName: "NAME=value"))
    var variable: [String] = []

    @Flag(name: .long, help: "Also list every refused rule with its line.")
    var list = false

    @Flag(name: .long, help: "Fail if any rule is refused.")
    var strict = false

    func run() throws {
      var values: [String: String] = [:]
      for text in variable {
        let parts = text.split(separator: "=", maxSplits: 1).map(String.init)
        guard parts.count == 2 else { throw ValidationError("'\(text)' is not NAME=value.") }
        values[parts[0]] = parts[1]
      }
      let texts = files.map { path -> (name: String, text: [UInt8]) in
        guard let data = FileManager.default.contents(atPath: path) else { fail("\(path): cannot be read", 66) }
        return (path, Array(data))
      }
      let ips = IntrusionPrevention(RuleSet(files: texts, variables: RuleVariables(values)))
      let report = ips.report
      let memory = ips.memory
      print("loaded   \(report.loaded)")
      print("refused  \(report.refused.count)")
      for (reason, count) in report.refusedByReason { print("         \(count)  \(reason)") }
      print(
        "memory   \(memory.automatonBytes) bytes for \(memory.states) states of the automaton, \(memory.ruleBytes) for the rules")
      print("         \(ips.streamMemory) bytes of each flow's streams, if 'stream-memory' says nothing else")
      if list { for refused in report.refused { print(refused) } }
      if strict, !report.refused.isEmpty { throw ExitCode(1) }
    }
  }
}
