import ControlMessages

/// Which partition a cluster has: the fold of partition 0 of `nfv.events`.
///
/// A cluster gets 1 + the number of distinct names registered before it. A name keeps its partition for ever, so
/// registering it again changes nothing, whoever does it and however often.
public struct Directory: Hashable, Sendable {
  public struct Entry: Hashable, Sendable {
    public let cluster: ClusterID
    public let partition: UInt32
  }

  /// In the order of partitions.
  public private(set) var entries: [Entry] = []
  /// Names that came when all partitions were taken.
  public private(set) var refused: [ClusterID] = []
  public private(set) var position: Offset?

  public let partitionCount: UInt32

  public init(partitionCount: UInt32 = ServiceTopics.partitionCount) { self.partitionCount = partitionCount }

  public func partition(of cluster: ClusterID) -> UInt32? { entries.first { $0.cluster == cluster }?.partition }
  public func cluster(at partition: UInt32) -> ClusterID? { entries.first { $0.partition == partition }?.cluster }

  /// The entry that the record added, if it did.
  @discardableResult
  public mutating func apply(_ record: EventRecord) -> Entry? {
    if let position, record.offset <= position { return nil }
    position = record.offset
    guard case .clusterRegistered(let cluster) = record.event.body, partition(of: cluster) == nil else { return nil }
    guard entries.count + 1 < Int(partitionCount) else {
      if !refused.contains(cluster), refused.count < Int(partitionCount) { refused.append(cluster) }
      return nil
    }
    let entry = Entry(cluster: cluster, partition: UInt32(entries.count + 1))
    entries.append(entry)
    return entry
  }
}
