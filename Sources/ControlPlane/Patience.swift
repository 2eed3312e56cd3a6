/// Bounds of the core, in milliseconds of `LogClock.elapsed`.
enum Patience {
  /// From a launch command to the node's start.
  static let launch: UInt64 = 10_000
  /// From one request to stop to the next, doubled each time up to `stopCeiling`.
  static let stop: UInt64 = 10_000
  static let stopCeiling: UInt64 = 160_000
  /// A host that refused a node is not asked again for this long.
  static let refusal: UInt64 = 5_000
  /// A node that served this long has a clean slate.
  static let proof: UInt64 = 10_000
  /// Agents send a heartbeat every second.
  static let agentSilence: UInt64 = 10_000

  /// Before the next launch of a node, after `failures` in a row: at once, then 1 s, 2 s, ... 32 s.
  static func backoff(_ failures: UInt32) -> UInt64 { failures <= 1 ? 0 : 1_000 << UInt64(min(failures - 2, 5)) }

  /// Rules 1: silence is only shown.
  static func shownSilence(heartbeatInterval: UInt64) -> UInt64 {
    max(1_000, min(heartbeatInterval, 60_000) * 10)
  }

  // From rules 2 on.
  static let hostSilence: UInt64 = 2_500
  static func nodeSilence(heartbeatInterval: UInt64) -> UInt64 { max(200, min(heartbeatInterval, 60_000) * 10) }
  static func workerStandstill(heartbeatInterval: UInt64) -> UInt64 { max(500, min(heartbeatInterval, 60_000) * 50) }
  /// From rules 7 on: between two signs of life that belong together.
  static func speechPause(heartbeatInterval: UInt64) -> UInt64 { max(100, min(heartbeatInterval, 60_000) * 10) }
  /// A peer's word that a node does not answer is worth something for this long.
  static let witness: UInt64 = 2_000
  /// After a stall everybody has this long to be heard again.
  static let afterStall: UInt64 = 1_000
  /// While many are silent at once: how long nobody is declared dead, and then how far apart.
  static let massHold: UInt64 = 10_000
  static let massPace: UInt64 = 1_000
  /// From rules 4 on: processes that share a processor are silent for a while without being dead, and those that die are
  /// seen to by their agents.
  static func patientSilence(heartbeatInterval: UInt64) -> UInt64 { max(1_000, min(heartbeatInterval, 60_000) * 20) }
  /// Others say for so long that they do not hear a node before it counts as cut off.
  static let cutOff: UInt64 = 1_000
  /// For which a recovery may still be begun.
  static let recovery: UInt64 = 60_000
  /// From a migration command to its completion.
  static let move: UInt64 = 30_000
}
