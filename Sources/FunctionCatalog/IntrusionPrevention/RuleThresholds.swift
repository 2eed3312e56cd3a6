import Wire

/// How often rules with a `threshold` have matched lately, by rule and address, in memory set aside at start.
///
/// A period begins with a match and is over after its seconds. The table has rows of four; where a row is full, the entry
/// whose period began first is given up, counted as displaced: its rule may then speak sooner than it should.
/// These counts belong to the runtime. They do not move with a flow.
struct RuleThresholds {
  struct Entry: BitwiseCopyable {
    var address = IPAddress(high: 0, low: 0)
    var peer = IPAddress(high: 0, low: 0)
    /// Number of the rule plus one; 0 for a free entry.
    var rule: UInt32 = 0
    var matches: UInt32 = 0
    /// In milliseconds.
    var began: UInt64 = 0
  }

  /// What a match leads to.
  enum Consequence {
    /// Nothing at all.
    case none
    /// The rule's action without an alert.
    case actionOnly
    case alert
  }

  private let entries: FixedMemory<Entry>
  private(set) var displaced: UInt64 = 0

  private static let width = 4

  init(capacity: Int) { entries = FixedMemory(count: (capacity + Self.width - 1) / Self.width * Self.width, repeating: Entry()) }

  mutating func count(_ rule: UInt32, _ threshold: Rule.Threshold, _ frame: borrowing Frame) -> Consequence {
    guard entries.count > 0 else { return .alert }
    let index = entry(of: rule, threshold.track, frame)
    let now = frame.arrival.milliseconds
    if now &- entries[index].began >= UInt64(threshold.seconds) * 1000 {
      entries[index].began = now
      entries[index].matches = 0
    }
    if entries[index].matches < .max { entries[index].matches += 1 }
    let matches = entries[index].matches
    switch threshold.kind {
    case .limit:
      return matches <= threshold.count ? .alert : .actionOnly
    case .threshold:
      guard matches >= threshold.count else { return .none }
      entries[index].matches = 0
      return .alert
    case .both:
      return matches < threshold.count ? .none : matches == threshold.count ? .alert : .actionOnly
    case .detectionFilter:
      return matches > threshold.count ? .alert : .none
    }
  }

  /// The entry for this rule and the addresses it is tracked by, made if need be.
  private mutating func entry(of rule: UInt32, _ track: Rule.Threshold.Track, _ frame: borrowing Frame) -> Int {
    var wanted = Entry()
    wanted.rule = rule + 1
    wanted.began = frame.arrival.milliseconds
    switch track {
    case .source: wanted.address = frame.sourceAddress
    case .destination: wanted.address = frame.destinationAddress
    case .both: (wanted.address, wanted.peer) = (frame.sourceAddress, frame.destinationAddress)
    case .rule: break
    }
    let row = row(of: wanted)
    var oldest = row
    for index in row..<row + Self.width {
      let entry = entries[index]
      if entry.rule == wanted.rule, entry.address == wanted.address, entry.peer == wanted.peer { return index }
      if entry.rule == 0 {
        entries[index] = wanted
        return index
      }
      if entry.began < entries[oldest].began { oldest = index }
    }
    displaced &+= 1
    entries[oldest] = wanted
    return oldest
  }

  private func row(of entry: Entry) -> Int {
    var hash: UInt64 = 0
    for word in [entry.address.high, entry.address.low, entry.peer.high, entry.peer.low, UInt64(entry.rule)] {
      hash = entries.keyedHash(hash ^ word)
    }
    return Int(hash % UInt64(entries.count / Self.width)) * Self.width
  }
}
