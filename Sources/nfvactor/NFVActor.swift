import ArgumentParser
import Configuration
import DPDKPorts
import KafkaLog
import Logging
import NodeSupport
import Nodes
import Telemetry

/// The data-plane executable.
@main
struct NFVActor: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "nfvactor",
    abstract: "Runs network functions with one actor per flow on DPDK.",
    discussion: """
      On a host of a cluster only 'nfvactor agent' is started by hand (or by systemd); it launches runtimes and \
      switches as the log asks. 'nfvactor process' needs neither log nor ports, and 'nfvactor lab' makes a whole \
      cluster with clients and servers on this machine. 'nfvactor simulate' plays one without a machine.
      """,
    subcommands: [
      AgentCommand.self, RuntimeCommand.self, SwitchCommand.self, ProcessCommand.self, RulesCommand.self, TrafficCommand.self,
      LabCommand.self, ScalingCommand.self, RecoveryCommand.self, SoakCommand.self, SimulateCommand.self,
    ])

  static func main() {
    Shutdown.listen()
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch {
      if error is PortError || error is NodeError || error is KafkaError {
        fail("\(error)", ExitStatus.unavailable)
      }
      if error is ConfigurationError { fail("\(error)", ExitStatus.usage) }
      exit(withError: error)
    }
  }
}

/// One sentence on stderr, and the end.
func fail(_ message: String, _ status: Int32) -> Never {
  writeToStandardError("Error: \(message)\n")
  NFVActor.exit(withError: ExitCode(status))
}

/// Where the log is.
struct LogLocation: ParsableArguments {
  @Option(name: .long, help: "host:port of the log, several with commas.")
  var bootstrap = "127.0.0.1:9092"

  @Option(name: .long, help: ArgumentHelp("A property of librdkafka, such as security.protocol=ssl; can be repeated.", valueName: "key=value"))
  var kafkaOption: [String] = []

  func settings(client: String) throws -> KafkaSettings {
    var extra: [String: String] = [:]
    for option in kafkaOption {
      let parts = option.split(separator: "=", maxSplits: 1).map(String.init)
      guard parts.count == 2 else { throw ValidationError("'\(option)' is not key=value.") }
      extra[parts[0]] = parts[1]
    }
    return KafkaSettings(bootstrap: bootstrap, clientID: client, extra: extra)
  }
}

/// What an agent gives to the node it launches.
struct NodeOptions: ParsableArguments {
  @OptionGroup var location: LogLocation
  @OptionGroup var log: LogOptions

  @Option(name: .long, help: "Partition of the cluster.")
  var partition: UInt32

  @Option(name: .long, help: "Offset of the launch command in nfv.commands.")
  var launchOffset: UInt64

  @Option(name: .long, help: "Processors the worker may run on, such as 0,1.")
  var processors = "0"

  @Option(name: .long, help: "Packet memory: huge, ordinary, or auto (huge pages if enough are free).")
  var memory = HostShare.Memory.auto

  @Option(name: .long, help: "Name by which an agent finds this process again; set by the agent.")
  var identity: String?

  @Option(
    name: .long,
    help: ArgumentHelp("Serve metrics over HTTP at this address, or at one of the ports behind it.", valueName: "host:port"))
  var http: PageServer.Address?

  func order(_ client: String) throws -> LaunchOrder {
    LaunchOrder(kafka: try location.settings(client: client), partition: partition, offset: launchOffset, pages: http)
  }

  func share() throws -> HostShare {
    HostShare(processors: try parseProcessors(processors), memory: memory)
  }
}

/// `0,1`
func parseProcessors(_ text: String) throws -> [Int] {
  let numbers = text.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
  guard !numbers.isEmpty, numbers.allSatisfy({ $0 != nil && $0! >= 0 }) else {
    throw ValidationError("--processors '\(text)' is not a list such as 0,1.")
  }
  return numbers.map { $0! }
}

extension HostShare.Memory: ExpressibleByArgument {}

extension PageServer.Address: ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }
}
