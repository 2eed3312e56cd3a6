/// What a run of the traffic generator found, in the form that is printed.
public struct TrafficReport: Encodable, Equatable, Sendable {
  public struct Packets: Encodable, Equatable, Sendable {
    public var sent: UInt64 = 0
    /// Duplicates not among them.
    public var received: UInt64 = 0
    /// Sent and not received: `sent = received + lost`, whatever happened.
    public var lost: UInt64 = 0
    public var duplicated: UInt64 = 0
    public var reordered: UInt64 = 0
    public var damaged: UInt64 = 0
    /// Frames that were not ours.
    public var foreign: UInt64 = 0
    /// Written, but not taken by the port until the end.
    public var untaken: UInt64 = 0
    /// Due by the rate but not sent, because this process or the port did not keep up.
    public var skipped: UInt64 = 0
    /// Frames that the devices received and that were not fetched in time.
    public var missed: UInt64 = 0
    /// Answers sent to SYNs.
    public var answers: UInt64 = 0
  }

  public struct Rate: Encodable, Equatable, Sendable {
    public var packetsPerSecond = 0.0
    /// Of frames with their check sequence, without preamble and gap.
    public var bitsPerSecond = 0.0

    init(packets: UInt64, bytes: UInt64, nanoseconds: UInt64) {
      guard nanoseconds > 0 else { return }
      packetsPerSecond = Double(packets) * 1e9 / Double(nanoseconds)
      bitsPerSecond = Double(bytes) * 8e9 / Double(nanoseconds)
    }
  }

  /// In microseconds.
  public struct Latency: Encodable, Equatable, Sendable {
    public var p50 = 0.0
    public var p90 = 0.0
    public var p99 = 0.0
    public var p999 = 0.0
    public var max = 0.0
  }

  public var port: String
  public var sink: String?
  public var seconds: Double
  public var flows: UInt32
  public var packets: Packets
  public var sent: Rate
  public var received: Rate
  /// `nil` when nothing was received.
  public var latency: Latency?
}

/// What a reflector did.
public struct ReflectionReport: Encodable, Equatable, Sendable {
  public var port: String
  public var seconds: Double
  public var received: UInt64 = 0
  public var reflected: UInt64 = 0
  /// Too short for two addresses, in more than one buffer, or not taken back by the port until the end.
  public var dropped: UInt64 = 0
  public var missed: UInt64 = 0
}

/// How far a run is: packets since it began.
public struct TrafficSample: Codable, Equatable, Sendable {
  public var seconds: Double
  /// Due by the schedule, sent or skipped.
  public var offered: UInt64
  public var sent: UInt64
  public var received: UInt64

  public init(seconds: Double, offered: UInt64, sent: UInt64, received: UInt64) {
    self.seconds = seconds
    self.offered = offered
    self.sent = sent
    self.received = received
  }
}
