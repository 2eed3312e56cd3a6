import ArgumentParser
import ControlMessages

struct DeleteCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Stop a cluster.", subcommands: [DeleteCluster.self])
}

struct DeleteCluster: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "cluster",
    abstract: "Stop all nodes of a cluster and launch none until it is applied again.",
    discussion: """
      Its name keeps its partition, and its log stays.

      Example:
        nfvctl delete cluster web --wait 30
      """)

  @Argument(help: "The cluster's name.")
  var name: ClusterID

  @Option(help: ArgumentHelp("Follow the log until every node has ended, at most this long.", valueName: "seconds"))
  var wait: Int?

  @OptionGroup var output: OutputOptions
  @OptionGroup var log: LogAccess

  func validate() throws {
    guard (1...86_400).contains(wait ?? 1) else { throw ValidationError("--wait is a number of seconds from 1 to 86400") }
  }

  func perform() throws {
    let follower = try log.readLog(only: name)
    let intent = try Intent.delete(name, follower, log)
    switch output.output {
    case .text: Terminal.put(intent.sentence)
    case .json: Terminal.put(intent.json.document)
    case .jsonl: Terminal.put(intent.json.line + "\n")
    }
    if let wait { try Progress(name, follower, log).wait(seconds: wait, until: .deleted, after: intent.offset) }
  }
}
