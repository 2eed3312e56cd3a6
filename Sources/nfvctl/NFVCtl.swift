import ArgumentParser

/// `nfvctl`, the operator's tool.
///
/// It needs nothing but the log: what it shows is folded from the log here, by the same core as a coordinator's, and
/// what it changes is an event in the log. So it works while every other process is dead, and says the same as
/// they would.
@main
struct NFVCtl: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "nfvctl",
    abstract: "Deploys clusters of network functions and shows what becomes of them.",
    discussion: """
      Example:
        nfvctl bus &
        nfvctl apply -f examples/cluster.yaml --wait 30
        nfvctl get runtimes
        nfvctl events tail -f

      Data goes to stdout, messages to stderr. Exit codes: 0 done, 1 refused or not found, 3 different (verify, replay, \
      schema check), 64 a wrong command line or file, 65 a damaged file, 69 the log cannot be reached.
      """,
    subcommands: [
      ApplyCommand.self, DeleteCommand.self, PolicyCommand.self, MigrateCommand.self, DrainCommand.self, GetCommand.self,
      DescribeCommand.self, EventsCommand.self, AuditCommand.self, WhyCommand.self, StateCommand.self, ReplayCommand.self, VerifyCommand.self, ExportCommand.self, ImportCommand.self,
      DeadLettersCommand.self, SchemaCommand.self, TopicsCommand.self, BusCommand.self, VersionCommand.self,
    ])
}
