import ControlMessages

/// Something in a log that is not as it should be, or that its reader should know.
public struct Finding: Hashable, Sendable {
  public enum Kind: String, Hashable, Sendable, CaseIterable {
    // The log has lost or changed something.
    case missingBeginning = "missing-beginning"
    case missingRecords = "missing-records"
    case repeatedRecord = "repeated-record"
    case missingEvents = "missing-events"
    case missingSlot = "missing-slot"
    // The log says what does not follow from it.
    case differentDecision = "different-decision"
    case differentState = "different-state"
    case differentCopy = "different-copy"
    case unexplainedCommand = "unexplained-command"
    case newerVersion = "newer-version"
    case differentSnapshot = "different-snapshot"
    // Worth knowing, and harmless.
    case timeWentBack = "time-went-back"
    case unreadable
    case earlySlot = "early-slot"
    case unwrittenCommands = "unwritten-commands"
    case beginsAtSnapshot = "begins-at-snapshot"
    case unreadableSnapshot = "unreadable-snapshot"

    /// Whether a log with it is not whole, or is not what this version would have made of it.
    public var isFault: Bool {
      switch self {
      case .timeWentBack, .unreadable, .earlySlot, .unwrittenCommands, .beginsAtSnapshot, .unreadableSnapshot: false
      default: true
      }
    }
  }

  public let kind: Kind
  public let place: LogPartition
  public let offset: Offset?
  public let slot: Slot?
  public let sentence: String

  public init(_ kind: Kind, _ place: LogPartition, at offset: Offset? = nil, slot: Slot? = nil, _ sentence: String) {
    self.kind = kind
    self.place = place
    self.offset = offset
    self.slot = slot
    self.sentence = sentence
  }
}

/// Findings in the order in which they were made. Of each kind the first are kept and all are counted: one cause can
/// show itself in every later record.
public struct Findings: Hashable, Sendable {
  public static let keptOfEachKind = 20

  public private(set) var kept: [Finding] = []
  public private(set) var counts: [Finding.Kind: Int] = [:]

  public init() {}

  public mutating func add(_ finding: Finding) {
    counts[finding.kind, default: 0] += 1
    if counts[finding.kind]! <= Self.keptOfEachKind { kept.append(finding) }
  }

  public mutating func add(_ others: Findings) {
    for finding in others.kept { add(finding) }
    for (kind, count) in others.counts { counts[kind, default: 0] += count - min(count, Self.keptOfEachKind) }
  }

  /// Forgets a kind that another finding has explained.
  public mutating func remove(_ kind: Finding.Kind) {
    kept.removeAll { $0.kind == kind }
    counts[kind] = nil
  }

  public var faultCount: Int { counts.reduce(0) { $0 + ($1.key.isFault ? $1.value : 0) } }
}
