import Foundation

/// Which seeds a run takes: those of `make test`, one by `NFV_SEED`, or more by `NFV_SEEDS` times the usual number.
enum Seeds {
  static var isWholeRun: Bool { ProcessInfo.processInfo.environment["NFV_SEED"] == nil }

  static func part(_ part: Int, of parts: Int, count: Int) -> [UInt64] {
    let environment = ProcessInfo.processInfo.environment
    if let seed = environment["NFV_SEED"].flatMap({ UInt64($0) }) { return part == 0 ? [seed] : [] }
    let all = count * (environment["NFV_SEEDS"].flatMap { Int($0) } ?? 1)
    return stride(from: part, to: all, by: parts).map { UInt64($0) }
  }
}
