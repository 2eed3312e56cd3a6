import ControlMessages

/// Why a command was given: the event that decided it, what caused that, and so on back to somebody's wish or to something
/// that just happened.
///
/// Each cause stands before its effect in the log, so the chain ends. Where the log says no more, so does the chain.
public struct CauseChain: Hashable, Sendable {
  public enum Step: Hashable, Sendable {
    case command(CommandRecord)
    case event(EventRecord)
    /// A cause is named that the log does not have (any more).
    case lost(String)
  }

  /// From the command in question backwards.
  public var steps: [Step] = []
  /// What the operator wanted at the time.
  public var intent: EventRecord?
  /// How the command fared: its acknowledgements, in the order of the log.
  public var answers: [EventRecord] = []

  /// Longer chains are cut: somebody's answers cause commands that cause answers.
  public static let maximumSteps = 32

  /// - Parameters:
  ///   - command: the command of a slot, as a reader takes it.
  ///   - event: the event at an offset.
  ///   - intent: the newest operator's intent at or before an offset.
  /// - Returns: nil when there is no such command.
  public static func trace(
    _ slot: Slot, command: (Slot) throws -> CommandRecord?, event: (Offset) throws -> EventRecord?,
    intent: (Offset) throws -> EventRecord?
  ) rethrows -> CauseChain? {
    guard let first = try command(slot) else { return nil }
    var chain = CauseChain()
    chain.steps = [.command(first)]
    chain.intent = try intent(first.command.decision.offset)
    var next: Event.Causation = .event(first.command.decision.offset)
    var bound = (slot: slot, offset: Offset(.max))
    while chain.steps.count < maximumSteps {
      switch next {
      case .none: return chain
      case .event(let offset):
        guard offset < bound.offset, let found = try event(offset) else {
          chain.steps.append(.lost("the event at offset \(offset)"))
          return chain
        }
        bound.offset = offset
        chain.steps.append(.event(found))
        next = found.event.causation
      case .command(let slot):
        guard slot < bound.slot, let found = try command(slot) else {
          chain.steps.append(.lost("the command in slot \(slot)"))
          return chain
        }
        bound.slot = slot
        chain.steps.append(.command(found))
        next = .event(found.command.decision.offset)
      }
    }
    return chain
  }
}
