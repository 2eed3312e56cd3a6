/// A cluster's state at an offset, as it lies in `nfv.snapshots`: parts first, the manifest last.
///
/// A reader that finds a manifest and all the parts it counts starts from there instead of from the log's beginning;
/// anything less is as if it were not there, so a writer that dies half way does no harm.
public enum SnapshotRecord: Hashable, Sendable {
  case part(SnapshotPart)
  case manifest(SnapshotManifest)
}

/// A piece of a snapshot's bytes.
public struct SnapshotPart: Hashable, Sendable {
  /// Of the snapshot it belongs to, as in the manifest.
  public var position: Offset
  public var writer: UInt64
  /// From 0.
  public var index: UInt32
  public var bytes: [UInt8]

  public init(position: Offset, writer: UInt64, index: UInt32, bytes: [UInt8]) {
    self.position = position
    self.writer = writer
    self.index = index
    self.bytes = bytes
  }
}

/// What makes the parts before it a snapshot.
public struct SnapshotManifest: Hashable, Sendable {
  public var cluster: ClusterID
  /// The last event that is in the state.
  public var position: Offset
  /// Tells the parts of two writers of the same position from each other.
  public var writer: UInt64
  /// The log's time at `position`.
  public var timestamp: Timestamp
  /// The last slot in the state; it was in the log when the snapshot was taken.
  public var slot: Slot
  /// Where reading `nfv.commands` goes on, with `slot` taken.
  public var commandsOffset: Offset
  public var parts: UInt32
  public var size: UInt64
  /// FNV-1a over all bytes.
  public var checksum: UInt64

  public init(
    cluster: ClusterID, position: Offset, writer: UInt64, timestamp: Timestamp, slot: Slot, commandsOffset: Offset, parts: UInt32,
    size: UInt64, checksum: UInt64
  ) {
    self.cluster = cluster
    self.position = position
    self.writer = writer
    self.timestamp = timestamp
    self.slot = slot
    self.commandsOffset = commandsOffset
    self.parts = parts
    self.size = size
    self.checksum = checksum
  }
}
