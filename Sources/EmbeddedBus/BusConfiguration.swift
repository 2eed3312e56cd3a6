/// Everything that can be chosen about an embedded bus, and the limits within which it stays.
import Logging

public struct BusConfiguration: Sendable {
  public struct Topic: Sendable, Equatable {
    public var name: String
    public var partitions: Int
    /// nil: the bus's own `retention`.
    public var retention: Retention?

    public init(name: String, partitions: Int, retention: Retention? = nil) {
      self.name = name
      self.partitions = partitions
      self.retention = retention
    }
  }

  /// How long records are kept; nil sets no limit.
  public struct Retention: Sendable, Equatable {
    public var milliseconds: Int64?
    public var bytes: Int?

    public init(milliseconds: Int64? = nil, bytes: Int? = nil) {
      self.milliseconds = milliseconds
      self.bytes = bytes
    }

    public static let forever = Retention()
  }

  /// When acknowledged records are forced to the disk. They are in the kernel's hands before the
  /// acknowledgement in every case, so the death of this process loses nothing; this is about the machine's.
  public enum Fsync: Sendable, Equatable {
    case never
    case interval(milliseconds: Int)
    case always
  }

  public enum Timestamps: String, Sendable {
    /// The bus gives each batch its time, never decreasing within a partition.
    case logAppendTime = "LogAppendTime"
    /// Records keep the time that their producer gave them.
    case createTime = "CreateTime"
  }

  public struct Limits: Sendable {
    /// A longer request closes its connection.
    public var requestBytes = 16 << 20
    public var batchBytes = 4 << 20
    public var connections = 256
    /// Requests of one connection that are served before the others get a turn.
    public var requestsPerTurn = 64
    public var responseBytes = 8 << 20
    /// Of all connections together; beyond it readers are given less at a time.
    public var responseBytesInFlight = 256 << 20
    public var partitions = 4096
    public var producersPerPartition = 4096
    /// A connection that has sent part of a request, or nothing at all, for this long is closed.
    public var requestSeconds = 30
    public var idleSeconds = 600

    public init() {}
  }

  public var host = "127.0.0.1"
  /// 0 takes any free port.
  public var port = 9092
  public var dataDirectory: String
  /// Created at start if they are missing; partitions are added, never taken away.
  public var topics: [Topic] = []
  /// Partitions of a topic that a client names and that does not exist; nil: it stays unknown.
  public var autoCreatePartitions: Int?
  public var timestamps = Timestamps.logAppendTime
  public var fsync = Fsync.interval(milliseconds: 1000)
  public var retention = Retention.forever
  public var segmentBytes = 128 << 20
  public var limits = Limits()
  public var logger = Logger(label: "nfv.bus")
  var calls = WriteCalls()
  var retentionCheckSeconds = 60

  public init(dataDirectory: String) { self.dataDirectory = dataDirectory }
}

/// Why a bus cannot start, with what to do about it.
public enum BusError: Error, Sendable, CustomStringConvertible {
  case directoryInUse(path: String, owner: String)
  case addressInUse(host: String, port: Int)
  case cannotListen(host: String, port: Int, reason: String)
  case storage(String)
  case invalidConfiguration(String)

  public var description: String {
    switch self {
    case .directoryInUse(let path, let owner):
      "the data directory \(path) is in use by another bus (\(owner)): stop that one, or give this one a directory of its own"
    case .addressInUse(let host, let port):
      "\(host):\(port) is taken by another program, perhaps by another bus: stop it, or listen on another port"
    case .cannotListen(let host, let port, let reason): "cannot listen on \(host):\(port): \(reason)"
    case .storage(let reason): reason
    case .invalidConfiguration(let reason): reason
    }
  }
}
