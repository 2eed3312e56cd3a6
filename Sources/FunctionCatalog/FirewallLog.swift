import FixedContainers
import Wire

/// One decision of a rule with `log: true`.
public struct FirewallLogEntry: Hashable, Sendable, BitwiseCopyable {
  /// Of the packet that was asked about, in the worker's time.
  public let time: Tick
  public let key: ClassificationKey
  public let action: FirewallRule.Action
  /// Position of the rule, from 0.
  public let rule: UInt32
}

/// Log entries on their way from the worker to whoever writes them down, at most 4096 of them.
///
/// A flood of denied packets fills the ring and not the memory: what does not fit is counted and lost, because
/// the worker cannot wait. `entries.take()` may be called by one other thread.
public struct FirewallLog {
  public let entries = RingBuffer<FirewallLogEntry>(capacity: 4096)
  public private(set) var written: UInt64 = 0
  public private(set) var lost: UInt64 = 0

  mutating func write(_ entry: FirewallLogEntry) {
    if entries.put(entry) { written &+= 1 } else { lost &+= 1 }
  }
}
