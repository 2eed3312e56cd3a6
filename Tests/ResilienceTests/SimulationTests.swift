import Foundation
import Simulation
import Testing

/// What the channel, the migration and the workers promise, in simulated worlds.
///
/// A few worlds are played here, in the tests' own build, which checks everything that Swift can check. Thousands more are
/// played by the program that `make build` makes: `nfvactor simulate`, which names the command that repeats a world.
@Suite struct SimulationTests {
  @Test(arguments: Scenario.allCases)
  func `a few worlds, with every check that the compiler has`(scenario: Scenario) throws {
    var tally: Scenario.Tally = [:]
    for seed in 0..<UInt64(max(4, scenario.usualSeeds / 50)) { tally.merge(try scenario.play(seed: seed), uniquingKeysWith: +) }
    // A run in which nothing happened proves nothing.
    #expect(!tally.isEmpty && scenario.lacks(tally) == nil, "\(tally)")
  }

  static let program: String =
    (ProcessInfo.processInfo.environment["NFV_BINARIES"]
      ?? URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
      .appending(path: ".build/release").path) + "/nfvactor"
  static let isBuilt = FileManager.default.isExecutableFile(atPath: program)

  @Test(.enabled(if: isBuilt, "'make build' makes the program that plays them"), .timeLimit(.minutes(5)))
  func `thousands of worlds`() throws {
    let (code, output) = try Self.run(["simulate"])
    #expect(code == 0, "\(output)")
    #expect(output.contains("0 failed"), "\(output)")
  }

  @Test(.enabled(if: isBuilt, "'make build' makes the program that plays them"), arguments: ReturnDefect.allCases)
  func `an endpoint that does not come back, or comes back twice, is noticed`(defect: ReturnDefect) throws {
    let (code, output) = try Self.run(["simulate", "--scenario", "workers", "--defect", defect.rawValue, "--seeds", "150"])
    #expect(code == 1 && output.contains("again: nfvactor simulate --scenario workers --seed"), "\(output)")
  }

  @Test(.enabled(if: isBuilt, "'make build' makes the program that plays them"))
  func `a world that fails is named with the command that repeats it`() throws {
    let (code, output) = try Self.run([
      "simulate", "--scenario", "migration-reordering", "--defect", "dropsLatePackets", "--seeds", "100",
    ])
    #expect(code == 1, "\(output)")
    let command = try #require(output.firstMatch(of: /nfvactor simulate (.*)/)).1.split(separator: " ").map(String.init)
    #expect(command.contains("--seed"))
    let again = try Self.run(["simulate"] + command)
    #expect(again.code == 1 && again.output.contains("was lost") || again.output.contains("were processed"), "\(again.output)")
  }

  private static func run(_ arguments: [String]) throws -> (code: Int32, output: String) {
    let process = Process()
    let pipe = Pipe()
    process.executableURL = URL(filePath: program)
    process.arguments = arguments
    process.standardOutput = pipe
    process.standardError = pipe
    try process.run()
    let data = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (process.terminationStatus, String(decoding: data, as: UTF8.self))
  }
}
