import ArgumentParser
import ControlMessages
import ControlNodes
import Foundation
import KafkaLog
import Logging
import NodeSupport
import Telemetry

struct Coordinator: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "nfv-coordinator",
    abstract: "A replica of the control plane.",
    discussion: """
      Folds the log into the state of every cluster and writes the commands that the log lacks. It keeps nothing: \
      started again it reads the log and goes on where the log ends. Several may run at once, under different names.

      Ends with SIGTERM or SIGINT. While the log cannot be reached it keeps trying, and says so.
      """)

  @Option(help: "Where the log is: host:port, or several separated by commas.")
  var bootstrap = "127.0.0.1:9092"

  @Option(help: "Name of this replica; the host's name if not given.")
  var name: String?

  @Option(name: .customLong("kafka-option"), help: "A property of librdkafka as KEY=VALUE, such as security.protocol=ssl. May be repeated.")
  var properties: [String] = []

  @Option(
    help: ArgumentHelp(
      "Serve the dashboard and metrics over HTTP at this address, such as 127.0.0.1:9480; trust whoever reaches it.",
      valueName: "host:port"))
  var http: PageServer.Address?

  @OptionGroup var log: LogOptions

  func validate() throws {
    guard HostID(name ?? Self.hostName) != nil else {
      throw ValidationError("'\(name ?? Self.hostName)' is not a name: use letters, digits, '-', '_' and '.'")
    }
    for property in properties where !property.dropFirst().contains("=") {
      throw ValidationError("'\(property)' is not KEY=VALUE")
    }
  }

  func run() throws {
    Shutdown.listen()
    var extra: [String: String] = [:]
    for property in properties {
      let parts = property.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      extra[String(parts[0])] = String(parts[1])
    }
    let node = CoordinatorNode(
      KafkaSettings(bootstrap: bootstrap, clientID: "nfv-coordinator", extra: extra), name: HostID(name ?? Self.hostName)!,
      startedAt: UInt64(max(1, Date().timeIntervalSince1970 * 1_000)), pages: http, logger: log.start("nfv-coordinator"))
    node.run(until: { Shutdown.isRequested })
  }

  private static var hostName: String { ProcessInfo.processInfo.hostName }
}

extension PageServer.Address: ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }
}

Coordinator.main()
