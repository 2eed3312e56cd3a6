import ControlCodec
import ControlMessages
import KafkaLog
import Telemetry

/// How a launched process knows itself: the position of its launch command in the log.
public struct LaunchOrder: Sendable {
  public var kafka: KafkaSettings
  public var partition: UInt32
  /// Of the launch command in `nfv.commands`.
  public var offset: UInt64
  /// Where the process serves its metrics, or at one of the ports behind; nil: nowhere.
  public var pages: PageServer.Address?

  public init(kafka: KafkaSettings, partition: UInt32, offset: UInt64, pages: PageServer.Address? = nil) {
    self.pages = pages
    self.kafka = kafka
    self.partition = partition
    self.offset = offset
  }

  /// Reads the launch command, and leaves the consumer behind it.
  ///
  /// - Parameter patience: milliseconds to wait for a log that cannot be reached.
  func read(from consumer: KafkaConsumer, patience: Int, isStopped: () -> Bool) throws(NodeError) -> (slot: Slot, spec: LaunchSpec) {
    do throws(KafkaError) {
      try consumer.assign(topic: ServiceTopics.commands, partition: Int32(partition), start: .offset(Int64(offset)))
      var waited = 0
      while waited < patience, !isStopped() {
        guard case .record(let record)? = try consumer.poll(timeoutMilliseconds: 100, max: 1).first else {
          waited += 100
          continue
        }
        guard let command = try? RecordCodec.decodeCommand(record.value) else {
          throw KafkaError.corruptRecord(topic: record.topic, partition: record.partition, reason: "offset \(offset) holds no command that can be read")
        }
        switch command.body {
        case .launchRuntime(let spec), .launchSwitch(let spec):
          return (command.slot, spec)
        default:
          throw KafkaError.corruptRecord(topic: record.topic, partition: record.partition, reason: "offset \(offset) holds another command than a launch")
        }
      }
    } catch {
      throw NodeError("the launch command cannot be read: \(error)")
    }
    throw NodeError("the launch command \(ServiceTopics.commands)[\(partition)]@\(offset) cannot be read from \(kafka.bootstrap); is the log running there?")
  }
}

/// Why a node cannot start or go on.
public struct NodeError: Error, CustomStringConvertible {
  public let description: String

  public init(_ description: String) { self.description = description }
}
