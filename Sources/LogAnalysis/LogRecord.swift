import ControlMessages

/// A record of the log as it lies there: its place, its time, and its bytes, not yet understood.
public struct LogRecord: Hashable, Sendable {
  public var topic: String
  public var partition: UInt32
  public var offset: Offset
  public var timestamp: Timestamp
  public var key: [UInt8]?
  public var value: [UInt8]

  public init(topic: String, partition: UInt32, offset: Offset, timestamp: Timestamp, key: [UInt8]? = nil, value: [UInt8]) {
    self.topic = topic
    self.partition = partition
    self.offset = offset
    self.timestamp = timestamp
    self.key = key
    self.value = value
  }
}

/// One partition of one topic, in the order in which a log is written to a file: the directory, then cluster by cluster.
public struct LogPartition: Hashable, Comparable, Sendable, CustomStringConvertible {
  public let topic: String
  public let partition: UInt32

  public init(_ topic: String, _ partition: UInt32) {
    self.topic = topic
    self.partition = partition
  }

  public static func < (a: Self, b: Self) -> Bool { (a.partition, a.topic) < (b.partition, b.topic) }
  public var description: String { "\(topic)[\(partition)]" }
}
