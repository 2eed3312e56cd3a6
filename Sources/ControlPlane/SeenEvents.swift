import ControlMessages

/// Which events were taken already: the newest life of each producer and the last sequence of each lane in it.
///
/// An event is new iff its (incarnation, sequence) is beyond what its lane has seen. So a record that the bus repeats
/// counts once, and what an earlier life of a producer still had in its buffers counts not at all. Memory is bounded:
/// beyond `capacity` producers, the one not heard for longest is forgotten.
public struct SeenEvents: Hashable, Sendable {
  public static let capacity = 4_096

  package struct Entry: Hashable, Sendable {
    package var producer: ProducerID
    package var incarnation: Incarnation
    package var facts: UInt64
    package var signals: UInt64
    package var lastOffset: Offset

    package init(producer: ProducerID, incarnation: Incarnation, facts: UInt64, signals: UInt64, lastOffset: Offset) {
      self.producer = producer
      self.incarnation = incarnation
      self.facts = facts
      self.signals = signals
      self.lastOffset = lastOffset
    }
  }

  package private(set) var entries: [Entry] = []
  /// Where a producer's entry is. For looking up only: its order differs from run to run.
  private var places: [ProducerID: Int] = [:]

  public init() {}

  /// As a snapshot kept them. A producer that is there twice counts once.
  package init(entries: [Entry]) {
    for entry in entries where places[entry.producer] == nil && self.entries.count < Self.capacity {
      places[entry.producer] = self.entries.count
      self.entries.append(entry)
    }
  }

  /// Whether the event is new; if so, it no longer is.
  mutating func take(_ event: Event, at offset: Offset) -> Bool {
    guard let place = places[event.producer] else {
      add(event, at: offset)
      return true
    }
    if event.incarnation < entries[place].incarnation { return false }
    if event.incarnation > entries[place].incarnation {
      entries[place].incarnation = event.incarnation
      entries[place].facts = 0
      entries[place].signals = 0
    }
    switch event.body.lane {
    case .facts:
      guard event.sequence > entries[place].facts else { return false }
      entries[place].facts = event.sequence
    case .signals:
      guard event.sequence > entries[place].signals else { return false }
      entries[place].signals = event.sequence
    }
    entries[place].lastOffset = offset
    return true
  }

  private mutating func add(_ event: Event, at offset: Offset) {
    let isFact = event.body.lane == .facts
    let entry = Entry(
      producer: event.producer, incarnation: event.incarnation, facts: isFact ? event.sequence : 0,
      signals: isFact ? 0 : event.sequence, lastOffset: offset)
    if entries.count < Self.capacity {
      places[event.producer] = entries.count
      entries.append(entry)
      return
    }
    var oldest = 0
    for index in entries.indices where entries[index].lastOffset < entries[oldest].lastOffset { oldest = index }
    places[entries[oldest].producer] = nil
    places[event.producer] = oldest
    entries[oldest] = entry
  }
}
