/// The topics of the bus, and which partition of them holds what.
///
/// A cluster has the same partition index in each topic; partition 0 is the directory, which says which
/// partition a cluster has.
public enum ServiceTopics {
  /// What happened: written by nodes, agents, tools and replicas.
  public static let events = "nfv.events"
  /// What is asked for, in numbered slots: written by replicas only.
  public static let commands = "nfv.commands"
  public static let snapshots = "nfv.snapshots"
  public static let audit = "nfv.audit"
  /// Records that could not be read: where they stand and why.
  public static let deadLetters = "nfv.dead-letters"

  public static let all = [events, commands, snapshots, audit, deadLetters]

  public static let directoryPartition: UInt32 = 0
  /// Partitions a topic is made with: the directory and 63 clusters.
  public static let partitionCount: UInt32 = 64
}
