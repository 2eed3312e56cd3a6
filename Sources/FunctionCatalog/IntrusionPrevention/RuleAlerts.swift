import FixedContainers
import Wire

/// A rule matched: what is worth telling, flat, so that the packet path only copies it.
public struct RuleAlert: Hashable, Sendable, BitwiseCopyable {
  public enum Outcome: UInt8, Hashable, Sendable, BitwiseCopyable {
    case forwarded, dropped
  }

  public let sid: UInt32
  public let gid: UInt32
  public let revision: UInt32
  public let priority: UInt8
  /// What became of the packet because of this rule.
  public let outcome: Outcome
  public let direction: Direction
  public let protocolNumber: UInt8
  /// Of the packet as it stood in the chain where it was inspected.
  public let source: IPAddress
  public let destination: IPAddress
  public let sourcePort: UInt16
  public let destinationPort: UInt16
  public let arrival: Tick

  init(_ rule: CompiledRule, _ outcome: Outcome, _ frame: borrowing Frame) {
    sid = rule.sid
    gid = rule.gid
    revision = rule.revision
    priority = rule.priority
    self.outcome = outcome
    direction = frame.direction
    protocolNumber = frame.protocolNumber
    source = frame.sourceAddress
    destination = frame.destinationAddress
    sourcePort = frame.sourcePort
    destinationPort = frame.destinationPort
    arrival = frame.arrival
  }
}

/// Alerts waiting to be taken, oldest first, in memory set aside at start.
///
/// A full ring keeps what it has and counts what it could not take: the first alerts of a flood say more than the last.
/// `ring.take()` may be called by one other thread.
public struct AlertRing {
  public let ring: RingBuffer<RuleAlert>
  public private(set) var lost: UInt64 = 0

  init(capacity: Int) { ring = RingBuffer(capacity: capacity) }

  mutating func append(_ alert: RuleAlert) {
    if !ring.put(alert) { lost &+= 1 }
  }
}
