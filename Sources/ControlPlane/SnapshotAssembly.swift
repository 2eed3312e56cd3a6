import ControlMessages

/// Finds the newest whole snapshot among the records of a cluster's partition of `nfv.snapshots`.
///
/// Parts of writers that died half way, and manifests whose parts the log has deleted, are as if they were not there.
public struct SnapshotAssembly: Sendable {
  public struct Found: Hashable, Sendable {
    public var manifest: SnapshotManifest
    public var bytes: [UInt8]
  }

  private struct Key: Hashable {
    var position: Offset
    var writer: UInt64
  }

  /// The newest whole ones, the best last; more than one, since the best may turn out unreadable.
  public private(set) var found: [Found] = []
  private var parts: [Key: [SnapshotPart]] = [:]

  private let kept: Int
  /// Snapshots begun and not finished that are remembered.
  private static let openOnes = 64
  /// A greater one is no snapshot of ours.
  public static let maximumParts: UInt32 = 256

  /// - Parameter keeping: how many of the newest.
  public init(keeping: Int = 3) { kept = keeping }

  public mutating func read(_ record: SnapshotRecord) {
    switch record {
    case .part(let part):
      guard part.index < Self.maximumParts else { return }
      let key = Key(position: part.position, writer: part.writer)
      if parts[key] == nil, parts.count >= Self.openOnes, let oldest = parts.keys.min(by: { $0.position < $1.position }) {
        parts[oldest] = nil
      }
      parts[key, default: []].append(part)
    case .manifest(let manifest):
      let mine = parts.removeValue(forKey: Key(position: manifest.position, writer: manifest.writer)) ?? []
      guard let bytes = Self.join(mine, manifest) else { return }
      // Two replicas may take one at the same place; the order of the log decides between them.
      let place = found.firstIndex { manifest.position < $0.manifest.position } ?? found.count
      found.insert(Found(manifest: manifest, bytes: bytes), at: place)
      if found.count > kept { found.removeFirst() }
    }
  }

  private static func join(_ parts: [SnapshotPart], _ manifest: SnapshotManifest) -> [UInt8]? {
    var bytes: [UInt8] = []
    var next: UInt32 = 0
    // A part that the bus repeated is there twice.
    for part in parts where part.index == next {
      bytes += part.bytes
      next += 1
    }
    guard next == manifest.parts, UInt64(bytes.count) == manifest.size, checksum(bytes) == manifest.checksum else { return nil }
    return bytes
  }

  /// FNV-1a.
  static func checksum(_ bytes: [UInt8]) -> UInt64 {
    bytes.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }

  /// The records of a snapshot, in the order in which they have to be written.
  public static func records(
    of core: ClusterCore, bytes: [UInt8], writer: UInt64, commandsOffset: Offset, partSize: Int = 500_000
  ) -> [SnapshotRecord] {
    guard let position = core.position else { return [] }
    var records: [SnapshotRecord] = []
    for start in stride(from: 0, to: bytes.count, by: max(1, partSize)) {
      let part = SnapshotPart(
        position: position, writer: writer, index: UInt32(records.count),
        bytes: Array(bytes[start..<min(bytes.count, start + partSize)]))
      records.append(.part(part))
    }
    let manifest = SnapshotManifest(
      cluster: core.state.cluster, position: position, writer: writer, timestamp: core.state.clock.now, slot: core.state.lastSlot,
      commandsOffset: commandsOffset, parts: UInt32(records.count), size: UInt64(bytes.count), checksum: checksum(bytes))
    return records + [.manifest(manifest)]
  }
}
