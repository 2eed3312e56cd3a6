import ControlMessages

/// Whether this replica and the others come to the same: compares their beacons with what was folded here.
///
/// Each beacon names a position and the hashes there. This replica remembers its own hashes at recent positions. One
/// that differs from most of the others writes nothing any more and says so; of two that differ from each other, the
/// one whose name comes first goes on, so that there is always one group that writes.
public struct Agreement: Hashable, Sendable {
  public struct Disagreement: Hashable, Sendable {
    public let with: ProducerID
    public let position: Offset
    /// The log itself differs, not only what was made of it.
    public let isOfLogs: Bool
  }

  private struct Mark: Hashable, Sendable {
    var position: Offset
    var state: UInt64
    var log: UInt64
  }

  private struct Opinion: Hashable, Sendable {
    var producer: ProducerID
    var disagreement: Disagreement?
  }

  /// Beacons come every 100 ms; this is more than a second of a large cluster's records.
  private static let remembered = 4_096

  private let own: ProducerID
  /// A ring; `next` is the oldest.
  private var marks: [Mark] = []
  private var next = 0
  /// The last word of each other replica, ascending by name.
  private var opinions: [Opinion] = []

  public init(own: ProducerID) { self.own = own }

  /// The core after folding a record, and the record.
  public mutating func note(_ core: ClusterCore, _ record: EventRecord) {
    guard let position = core.position else { return }
    let mark = Mark(position: position, state: core.hash.value, log: core.logHash.value)
    if marks.count < Self.remembered {
      marks.append(mark)
    } else {
      marks[next] = mark
      next = (next + 1) % Self.remembered
    }
    if case .beacon(let beacon) = record.event.body, record.event.producer != own { compare(beacon, by: record.event.producer) }
  }

  /// Why this replica must not write; nil when it may. `live` are those whose opinion counts.
  public func objection(among live: [ClusterState.Replica]) -> Disagreement? {
    var agreeing = 1
    var disagreeing: [Disagreement] = []
    for opinion in opinions where live.contains(where: { $0.producer == opinion.producer }) {
      if let disagreement = opinion.disagreement { disagreeing.append(disagreement) } else { agreeing += 1 }
    }
    guard let first = disagreeing.first else { return nil }
    if disagreeing.count > agreeing { return first }
    return disagreeing.count == agreeing && first.with < own ? first : nil
  }

  /// Every replica that came to something else, whoever is right.
  public var disagreements: [Disagreement] { opinions.compactMap(\.disagreement) }

  private mutating func compare(_ beacon: Beacon, by producer: ProducerID) {
    // What is older than our memory, or ahead of it, tells nothing.
    guard let position = beacon.position, let mark = mark(at: position) else { return }
    let isOfLogs = mark.log != beacon.logHash
    let differs = isOfLogs || mark.state != beacon.stateHash
    let opinion = Opinion(
      producer: producer, disagreement: differs ? Disagreement(with: producer, position: position, isOfLogs: isOfLogs) : nil)
    if let index = opinions.firstIndex(where: { $0.producer == producer }) {
      opinions[index] = opinion
    } else if opinions.count < ClusterState.maximumReplicas {
      opinions.insert(opinion, at: opinions.firstIndex { producer < $0.producer } ?? opinions.count)
    }
  }

  /// Positions ascend around the ring.
  private func mark(at position: Offset) -> Mark? {
    var low = 0, high = marks.count
    while low < high {
      let middle = (low + high) / 2
      if marks[(next + middle) % marks.count].position < position { low = middle + 1 } else { high = middle }
    }
    guard low < marks.count, case let mark = marks[(next + low) % marks.count], mark.position == position else { return nil }
    return mark
  }
}
