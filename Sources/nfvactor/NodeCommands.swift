import ArgumentParser
import Configuration
import DPDKPorts
import KafkaLog
import Logging
import NodeSupport
import Nodes

struct AgentCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "agent",
    abstract: "Supervises this host: launches runtimes and switches as the log asks.",
    discussion: """
      SIGTERM ends the agent and the nodes it supervises, in order; with --leave-running the nodes go on, and the next \
      agent of the same host takes them over, as it does after a crash.

      Example: nfvactor agent --config examples/agent.yaml
      """)

  @Option(name: .shortAndLong, help: ArgumentHelp("What this host offers.", valueName: "agent.yaml"))
  var config: String

  @Option(name: .long, help: "host:port of the log, instead of the configuration's.")
  var bootstrap: String?

  @Option(name: .long, help: ArgumentHelp("A property of librdkafka; can be repeated.", valueName: "key=value"))
  var kafkaOption: [String] = []

  @Flag(name: .long, help: "On SIGTERM let the nodes go on.")
  var leaveRunning = false

  @OptionGroup var log: LogOptions

  func run() throws {
    var configuration = try loadAgentConfiguration(config)
    if let bootstrap { configuration.bootstrap = bootstrap }
    var location = LogLocation()
    location.bootstrap = configuration.bootstrap
    location.kafkaOption = kafkaOption
    let logger = log.start("agent")
    try AgentNode(
      configuration: configuration, kafka: location.settings(client: "agent-\(configuration.host)"), logger: logger
    ).run(leaveRunning: leaveRunning)
  }
}

struct RuntimeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "runtime",
    abstract: "Runs flow actors for one service chain; normally launched by an agent.")

  @OptionGroup var node: NodeOptions

  @Option(name: .long, help: "The fabric port, such as af_packet:rt0 (see 'nfvactor help').")
  var port: String

  func run() throws {
    let logger = node.log.start("runtime")
    try RuntimeNode.run(order: node.order("runtime"), port: PortSpec(port), share: node.share(), logger: logger)
  }
}

struct SwitchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "switch",
    abstract: "Dispatches flows to the runtimes of a cluster; normally launched by an agent.")

  @OptionGroup var node: NodeOptions

  @Option(name: .long, help: "Port towards the clients.")
  var clientPort: String

  @Option(name: .long, help: "Port towards the servers.")
  var serverPort: String

  @Option(name: .long, help: "Port towards the runtimes.")
  var fabricPort: String

  func run() throws {
    let logger = node.log.start("switch")
    try SwitchNode.run(
      order: node.order("switch"),
      ports: SwitchNode.Ports(client: PortSpec(clientPort), server: PortSpec(serverPort), fabric: PortSpec(fabricPort)),
      share: node.share(), logger: logger)
  }
}
