/// Which decisions follow from which state, by version. A version in use never changes.
///
/// A log is decided about by rules 1 from its beginning, and by newer ones from the record `rulesActivated` on, which
/// a replica writes when every living replica can follow them. So a program with better rules still computes every
/// command of an old log as it was, and an older program stops at that record instead of deciding otherwise.
public enum DecisionRules {
  /// Lives, launches, stops, tables.
  public static let first: UInt32 = 1
  /// Nodes are declared dead by evidence; scaling policies act; stalls are noticed within 300 ms.
  public static let failureDetection: UInt32 = 2
  /// Operators move flows and drain runtimes; a drain moves its flows; nobody is sent flows before the table names him.
  public static let flowRequests: UInt32 = 3
  /// Runtimes' flows have replicas on others and are recovered from there; a share of the address pools is free only when
  /// no flow uses it; nodes that others do not hear are declared dead, and those that others hear are not.
  public static let replication: UInt32 = 4
  /// Settings that functions can change while they run are told to the runtimes; tables name the pool shares.
  public static let liveSettings: UInt32 = 5
  /// One switch has the uplinks; when it ends, another one takes them over.
  public static let switchTakeover: UInt32 = 6
  /// A worker stands still only while its node is heard: what was silent and is heard again starts afresh.
  public static let excusedSilence: UInt32 = 7
  /// Flows can have two replicas: their holders are a pair, and whoever recovers the flows of a lost life has a standby.
  public static let secondReplica: UInt32 = 8
  /// The newest that this program can follow.
  public static let newest = secondReplica
}
