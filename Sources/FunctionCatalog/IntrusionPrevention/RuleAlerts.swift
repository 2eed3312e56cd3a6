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
struct AlertRing {
  private let slots: FixedMemory<RuleAlert?>
  private var start = 0
  private(set) var count = 0
  private(set) var lost: UInt64 = 0

  init(capacity: Int) { slots = FixedMemory(count: capacity, repeating: nil) }

  mutating func append(_ alert: RuleAlert) {
    guard count < slots.count else {
      lost &+= 1
      return
    }
    slots[(start + count) % slots.count] = alert
    count += 1
  }

  /// Allocates: not for the packet path.
  mutating func takeAll() -> [RuleAlert] {
    defer {
      start = (start + count) % max(1, slots.count)
      count = 0
    }
    return (0..<count).compactMap { slots[(start + $0) % slots.count] }
  }
}
