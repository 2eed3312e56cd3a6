import ArgumentParser
import ControlMessages
import KafkaLog

struct TopicsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "topics", abstract: "The topics of the log.", subcommands: [CreateTopics.self])
}

struct CreateTopics: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "create",
    abstract: "Make the topics that are missing on a Kafka.",
    discussion: """
      `nfvctl bus` makes its own. Topics that exist are left as they are; their settings can be changed with Kafka's tools.

      Example:
        nfvctl topics create --replication 3 --bootstrap kafka-1:9092,kafka-2:9092
      """)

  @Option(help: "Replicas of each partition; 3 for a production Kafka.")
  var replication = 1

  @Option(help: "Partitions of each topic: one for the directory and one for each cluster there can be.")
  var partitions = Int(ServiceTopics.partitionCount)

  @OptionGroup var output: OutputOptions
  @OptionGroup var log: LogAccess

  func validate() throws {
    guard (1...32_767).contains(replication) else { throw ValidationError("--replication is a number from 1 to 32767") }
    guard (2...Int(ServiceTopics.partitionCount)).contains(partitions) else {
      throw ValidationError("--partitions is a number from 2 to \(ServiceTopics.partitionCount)")
    }
  }

  func perform() throws {
    let admin = try KafkaAdmin(log.settings, timeoutMilliseconds: LogAccess.patience)
    let made = Set(try admin.createTopics(topics))
    let results = topics.map { TopicListing(name: $0.name, isNew: made.contains($0.name), partitions: $0.partitions) }
    Terminal.put(output.output.list(results))
  }

  /// Commands and the audit are the history of the service and are kept. Nothing is compacted: a fold needs every event.
  var topics: [KafkaTopic] {
    let week = "604800000"
    return ServiceTopics.all.map { name in
      var settings = ["cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"]
      switch name {
      // Until states are kept as snapshots, the events are the only place where a cluster's state is.
      case ServiceTopics.events, ServiceTopics.commands, ServiceTopics.audit: settings["retention.ms"] = "-1"
      case ServiceTopics.deadLetters: settings["retention.ms"] = "7776000000"
      default: settings["retention.ms"] = week
      }
      if replication >= 3 {
        settings["min.insync.replicas"] = "2"
        settings["unclean.leader.election.enable"] = "false"
      }
      return KafkaTopic(name: name, partitions: partitions, replicationFactor: replication, settings: settings)
    }
  }
}

struct TopicListing: Listed {
  let name: String
  let isNew: Bool
  let partitions: Int

  static let columns: [TextTable.Column] = [.left("TOPIC"), .left("RESULT")]
  var cells: [String] { [name, isNew ? "made with \(partitions) partitions" : "was there"] }
  var json: JSON { .object(["topic": .string(name), "created": .bool(isNew)]) }
}
