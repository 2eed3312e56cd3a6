/// Why a lab could not go on, in words for the person who started it.
public enum LabError: Error, Equatable, CustomStringConvertible {
  /// SIGINT or SIGTERM, while it was being set up.
  case interrupted
  /// This machine or this user cannot run a lab at all.
  case notPossible(String)
  /// A program that was run to its end said no.
  case refused(command: String, answer: String)
  /// A process that should have gone on did not; with the last lines of its log.
  case died(name: String, ending: ChildProcess.Ending, log: String, lastLines: [String])
  /// What was waited for did not come.
  case late(String)
  /// Something about the lab's own files.
  case file(String)

  public var description: String {
    switch self {
    case .interrupted: "interrupted"
    case .notPossible(let reason): reason
    case .refused(let command, let answer): "'\(command)' failed: \(answer.isEmpty ? "it said nothing" : answer)"
    case .died(let name, let ending, let log, let lines):
      "\(name) \(ending); its log is \(log)" + lines.map { "\n    \($0)" }.joined()
    case .late(let what): what
    case .file(let what): what
    }
  }
}
