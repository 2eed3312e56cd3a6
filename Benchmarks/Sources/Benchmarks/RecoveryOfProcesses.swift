import Foundation

/// The other half of `BENCH=recovery`: processes that are killed under traffic, from SIGKILL to the last flow.
///
/// `nfvactor recovery` does it, with bus, coordinator, agent, switch and runtimes as processes; here its figures become rows.
/// All of them, the traffic and whoever measures share the machine's cores.
struct RecoveryOfProcesses {
  let isQuick: Bool

  func run(_ report: Report) throws {
    let environment = ProcessInfo.processInfo.environment
    let program = "\(environment["NFV_BINARIES"] ?? "../.build/release")/nfvactor"
    guard FileManager.default.isExecutableFile(atPath: program) else { throw BenchmarkError("there is no \(program): make build") }
    try FileManager.default.createDirectory(atPath: ".build/bench", withIntermediateDirectories: true)
    print("  processes that are killed: everything shares \(ProcessInfo.processInfo.activeProcessorCount) cores")
    for flows in isQuick ? [10_000, 100_000] : [10_000, 100_000, 300_000] {
      let data = ".build/bench/recovery-\(flows).jsonl"
      let arguments = ["recovery", "--flows", "\(flows)", "--kills", isQuick ? "3" : "20", "--data", data]
      let process = Process()
      process.executableURL = URL(filePath: geteuid() == 0 ? program : "/usr/bin/sudo")
      process.arguments = (geteuid() == 0 ? [] : ["-n", program]) + arguments
      try process.run()
      process.waitUntilExit()
      guard process.terminationStatus == 0 else { throw BenchmarkError("nfvactor recovery ended with \(process.terminationStatus)") }
      let kills = try String(contentsOfFile: data, encoding: .utf8).split(separator: "\n").compactMap {
        try? JSONDecoder().decode(Kill.self, from: Data($0.utf8))
      }
      guard !kills.isEmpty else { throw BenchmarkError("the run has no deaths") }
      try add(kills, "recovery/processes/\(flowCount(flows))", to: report)
    }
  }

  private func add(_ kills: [Kill], _ label: String, to report: Report) throws {
    let times: [(String, [Double?])] = [
      ("served", kills.map(\.served)), ("detection", kills.map(\.evidence)), ("decision", kills.map { $0.decision - $0.evidence }),
      ("after-the-command", kills.map { kill in kill.served.map { max(0, $0 - kill.decision) } }),
      ("taken-over", kills.map { Double($0.microseconds) / 1_000 }), ("last-flow-heard", kills.map(\.lastFirst)),
    ]
    for (name, all) in times {
      let values = all.compactMap { $0 }
      guard !values.isEmpty else { continue }
      try report.add(Measurement("\(label)/\(name)", values, unit: "ms"))
      try report.add(Measurement("\(label)/\(name)-p99", [values.percentile(0.99)], unit: "ms"))
      try report.add(Measurement("\(label)/\(name)-max", [values.percentile(1)], unit: "ms"))
    }
    try report.add(Measurement("\(label)/lost-per-flow", kills.map { Double($0.lost) / Double($0.flows) }, unit: "packets"))
    try report.add(Measurement("\(label)/lost-of-one-flow", [Double(kills.map(\.mostOfOneFlow).max() ?? 0)], unit: "packets"))
  }

  /// A line of the run's data. Times are milliseconds since the kill.
  private struct Kill: Decodable {
    var flows: Int
    var evidence: Double
    var decision: Double
    var microseconds: UInt64
    var served: Double?
    var lastFirst: Double?
    var lost: UInt64
    var mostOfOneFlow: Int
  }
}
