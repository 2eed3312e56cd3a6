import ControlMessages

/// Looks at the places of a partition's records, one after another: none may be missing, twice there, or moved.
///
/// The offsets of the control plane's topics are dense: nobody writes transactions into them, and they are not compacted.
public struct PartitionCheck: Sendable {
  private let place: LogPartition
  private var last: (offset: Offset, timestamp: Timestamp)?
  public private(set) var findings = Findings()
  public private(set) var count: UInt64 = 0

  public init(_ place: LogPartition) { self.place = place }

  public mutating func take(_ offset: Offset, _ timestamp: Timestamp) {
    count += 1
    defer { last = (max(offset, last?.offset ?? offset), max(timestamp, last?.timestamp ?? timestamp)) }
    guard let last else {
      if offset.value > 0 {
        findings.add(Finding(.missingBeginning, place, at: offset, "the first \(offset) records are no longer there"))
      }
      return
    }
    if offset <= last.offset {
      findings.add(Finding(.repeatedRecord, place, at: offset, "the record stands after offset \(last.offset)"))
    } else if offset.value > last.offset.value + 1 {
      let range =
        offset.value == last.offset.value + 2
        ? "offset \(offset.value - 1) is" : "offsets \(last.offset.value + 1) to \(offset.value - 1) are"
      findings.add(Finding(.missingRecords, place, at: offset, "\(range) missing"))
    }
    if timestamp < last.timestamp {
      findings.add(
        Finding(
          .timeWentBack, place, at: offset,
          "its time is \(last.timestamp.since(timestamp)) ms before that of an earlier record; the log's clock went back"))
    }
  }
}

/// Looks at the numbers that producers give their facts: they are dense, so a hole is an event that was lost or removed.
///
/// Signals may be lost and are not looked at. Memory is bounded: producers beyond `capacity` are not looked at either.
public struct EventSequences: Sendable {
  public static let capacity = 65_536

  private let place: LogPartition
  private var last: [ProducerID: (incarnation: Incarnation, sequence: UInt64)] = [:]
  public private(set) var findings = Findings()
  /// Facts that came again; readers take the first copy.
  public private(set) var repeatedCount = 0

  public init(_ place: LogPartition) { self.place = place }

  public mutating func take(_ record: EventRecord) {
    let event = record.event
    guard event.body.lane == .facts else { return }
    if case .unknown = event.body { return }  // its lane is not known either
    let before = last[event.producer]
    guard before != nil || last.count < Self.capacity else { return }
    var expected: UInt64 = 1
    if let before {
      if event.incarnation < before.incarnation || event.incarnation == before.incarnation && event.sequence <= before.sequence {
        repeatedCount += 1
        return
      }
      if event.incarnation == before.incarnation { expected = before.sequence + 1 }
    }
    if event.sequence > expected {
      findings.add(
        Finding(
          .missingEvents, place, at: record.offset,
          "\(event.sequence - expected) events of \(event.producer), life \(event.incarnation), are missing before its number \(event.sequence)"
        ))
    }
    last[event.producer] = (event.incarnation, event.sequence)
  }
}
