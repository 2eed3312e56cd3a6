import ControlMessages

/// The commands of a log as readers take them: the first copy of each slot, in order.
///
/// What is passed over on the way is looked at, too: another copy has to say the same, and a slot that came too early has
/// to come again.
struct CommandStream: Sendable {
  /// Copies come within the hedge of the first; the last taken are kept for comparison.
  private static let memory = 1_024

  private let place: LogPartition
  private var reader: SlotReader
  /// Slots up to this one are not looked at.
  private let start: Slot
  private var recent: [Command] = []
  private var early: Set<Slot> = []
  private(set) var findings = Findings()
  private(set) var copyCount = 0

  /// - Parameter start: the last slot before those that are wanted.
  init(_ place: LogPartition, after start: Slot = .none) {
    self.place = place
    self.start = start
    reader = SlotReader(after: start)
  }

  var takenCount: UInt64 { reader.last.number - start.number }

  /// The next command that a reader takes; nil at the end of the log.
  mutating func next(_ read: () throws -> CommandRecord?) rethrows -> CommandRecord? {
    while let record = try read() {
      let command = record.command
      switch reader.read(command.slot) {
      case .taken:
        early.remove(command.slot)
        recent.append(command)
        if recent.count >= 2 * Self.memory { recent.removeFirst(Self.memory) }
        return record
      case .repeated:
        guard command.slot > start else { continue }
        copyCount += 1
        guard let first = recent.last(where: { $0.slot == command.slot }), first != command else { continue }
        findings.add(
          Finding(
            .differentCopy, place, at: record.offset, slot: command.slot,
            "a copy of slot \(command.slot) differs from the first in \(first.differences(from: command).joined(separator: ", ")); the first one counts"
          ))
      case .early:
        if early.count < Self.memory { early.insert(command.slot) }
        findings.add(
          Finding(
            .earlySlot, place, at: record.offset, slot: command.slot,
            "slot \(command.slot) came when \(reader.next) was next; readers passed it over"))
      }
    }
    return nil
  }

  /// The log has ended.
  mutating func finish() {
    guard let highest = early.max() else { return }
    findings.add(
      Finding(
        .missingSlot, place, slot: reader.next,
        "slot \(reader.next) is missing, though later ones up to \(highest) are there: no reader gets past it"))
  }
}

extension Command {
  /// In what two commands differ, in words.
  func differences(from other: Command) -> [String] {
    var found: [String] = []
    if slot != other.slot { found.append("slot") }
    if decision != other.decision { found.append("decision") }
    if target != other.target { found.append("target") }
    if body != other.body { found.append(body.name == other.body.name ? "body" : "kind") }
    if expiry != other.expiry { found.append("expiry") }
    if reason != other.reason { found.append("reason") }
    if correlation != other.correlation { found.append("correlation") }
    if stateHash != other.stateHash { found.append("state hash") }
    return found
  }
}
