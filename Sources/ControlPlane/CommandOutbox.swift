import ControlMessages

/// Decides which computed commands have to be written: those whose slots the log does not have.
///
/// A replica computes every command of the log again when it starts. It writes none of them until it has read both
/// topics to their ends, and then only the slots that are missing. The log's copy of a slot is the command, also when
/// this replica would have decided otherwise; that it did is a divergence, and a diverged replica writes nothing.
///
/// Several replicas compute the same slots. The first in rank writes at once, the others a hedge later each, and only
/// what they have not seen appear: a dead first replica delays a command by the hedge, and a slow one costs a copy
/// that every reader passes over.
public struct CommandOutbox: Hashable, Sendable {
  /// Slots whose commands in the log and here differ.
  public struct Divergence: Hashable, Sendable {
    public var slot: Slot
    public var inLog: UInt64
    public var here: UInt64
  }

  public private(set) var divergence: Divergence?
  private var reader: SlotReader
  /// Computed and not in the log yet, ascending and dense.
  private var missing: [Command] = []
  /// When, on the reader's own clock, `missing` became due for writing: since it has had its first command, or its
  /// first command has been another one.
  private var missingSince: UInt64 = 0
  /// State hashes of slots that the log has and this replica has not computed yet, from `computed.next` on.
  private var ahead: [UInt64] = []
  /// The last slot computed here.
  private var computed: Slot
  /// The last slot handed out for writing.
  private var written: Slot

  /// - Parameter slot: the last one that is in the log and in the core already, when both start from a snapshot.
  public init(after slot: Slot = .none) {
    reader = SlotReader(after: slot)
    computed = slot
    written = slot
  }

  /// The last slot that the log has.
  public var lastInLog: Slot { reader.last }
  /// How many computed commands the log does not have.
  public var missingCount: Int { missing.count }
  /// How many commands of the log were not computed here yet.
  public var aheadCount: Int { ahead.count }

  /// Whether something waits for its hedge.
  public var isHolding: Bool { missing.last.map { $0.slot > written } ?? false }
  /// Whether the log and this replica have the same slots, as far as they were read.
  public var isSettled: Bool { missing.isEmpty && ahead.isEmpty && divergence == nil }

  /// The core decided `commands`, the next slots after those before.
  /// - Parameter now: milliseconds on the reader's own clock, for the hedge.
  public mutating func computed(_ commands: [Command], now: UInt64 = 0) {
    if missing.isEmpty { missingSince = now }
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
  public mutating func read(_ command: Command, now: UInt64 = 0) -> SlotReader.Reading {
    let reading = reader.read(command.slot)
    switch reading {
    case .taken:
      if let first = missing.first, first.slot == command.slot {
        compare(command.slot, inLog: command.stateHash, here: first.stateHash)
        missing.removeFirst()
        missingSince = now
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
  ///
  /// - Parameters:
  ///   - now: milliseconds on the reader's own clock.
  ///   - hedge: how long others are given to write first.
  public mutating func takeMissing(now: UInt64 = 0, hedge: UInt64 = 0) -> [Command] {
    guard divergence == nil, now >= missingSince &+ hedge else { return [] }
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
