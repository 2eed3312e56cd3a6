import ControlMessages

/// Decides which computed commands have to be written: those whose slots the log does not have.
///
/// A replica computes every command of the log again when it starts. It writes none of them until it has read both
/// topics to their ends, and then only the slots that are missing. The log's copy of a slot is the command, also when
/// this replica would have decided otherwise; that it did is a divergence, and a diverged replica writes nothing.
public struct CommandOutbox: Hashable, Sendable {
  /// Slots whose commands in the log and here differ.
  public struct Divergence: Hashable, Sendable {
    public var slot: Slot
    public var inLog: UInt64
    public var here: UInt64
  }

  public private(set) var divergence: Divergence?
  private var reader = SlotReader()
  /// Computed and not in the log yet, ascending and dense.
  private var missing: [Command] = []
  /// State hashes of slots that the log has and this replica has not computed yet, from `computed.next` on.
  private var ahead: [UInt64] = []
  /// The last slot computed here.
  private var computed = Slot.none
  /// The last slot handed out for writing.
  private var written = Slot.none

  public init() {}

  /// The last slot that the log has.
  public var lastInLog: Slot { reader.last }
  /// How many computed commands the log does not have.
  public var missingCount: Int { missing.count }
  /// How many commands of the log were not computed here yet.
  public var aheadCount: Int { ahead.count }

  /// The core decided `commands`, the next slots after those before.
  public mutating func computed(_ commands: [Command]) {
    for command in commands {
      computed = command.slot
      if command.slot <= reader.last {
        let inLog = ahead.isEmpty ? command.stateHash : ahead.removeFirst()
        compare(command.slot, inLog: inLog, here: command.stateHash)
      } else {
        missing.append(command)
      }
    }
  }

  /// A record of the commands topic; tells whether it is the command of its slot.
  @discardableResult
  public mutating func read(_ command: Command) -> SlotReader.Reading {
    let reading = reader.read(command.slot)
    switch reading {
    case .taken:
      if let first = missing.first, first.slot == command.slot {
        compare(command.slot, inLog: command.stateHash, here: first.stateHash)
        missing.removeFirst()
      } else if command.slot > computed {
        ahead.append(command.stateHash)
      }
      written = max(written, command.slot)
    case .early:
      // Its writer saw slots that the log lost, or wrote them in another order. Readers pass it over, so it has to come again.
      written = reader.last
    case .repeated: break
    }
    return reading
  }

  /// What to write now, given that both topics were read to their ends: once each, in order.
  public mutating func takeMissing() -> [Command] {
    guard divergence == nil else { return [] }
    let new = missing.filter { $0.slot > written }
    if let last = new.last { written = last.slot }
    return new
  }

  /// What was handed out may not have reached the log: hand it out again unless it turns up.
  public mutating func writingFailed() { written = reader.last }

  private mutating func compare(_ slot: Slot, inLog: UInt64, here: UInt64) {
    if inLog != here, divergence == nil { divergence = Divergence(slot: slot, inLog: inLog, here: here) }
  }
}
