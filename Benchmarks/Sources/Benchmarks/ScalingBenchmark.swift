import Foundation

/// Dynamic scaling as in the paper's figure 7d: the whole platform under a load that rises for 15 seconds and falls for 45.
///
/// `nfvactor scaling` runs it, with bus, coordinator, agent and runtimes as processes; here its data becomes figures. The
/// full form writes the drawing and its data into docs/, the quick one beside the figures.
struct ScalingBenchmark {
  let isQuick: Bool

  func run() throws {
    let environment = ProcessInfo.processInfo.environment
    let binaries = environment["NFV_BINARIES"] ?? "../.build/release"
    let folder = isQuick ? ".build/bench" : "../docs"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    let data = "\(folder)/scaling.jsonl"
    var arguments = ["scaling", "--data", data, "--plot", "\(folder)/scaling.svg"] + (isQuick ? ["--quick"] : [])
    var program = "\(binaries)/nfvactor"
    guard FileManager.default.isExecutableFile(atPath: program) else { throw BenchmarkError("there is no \(program): make build") }
    if geteuid() != 0 { (program, arguments) = ("/usr/bin/sudo", ["-n", program] + arguments) }
    let process = Process()
    process.executableURL = URL(filePath: program)
    process.arguments = arguments
    try process.run()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else { throw BenchmarkError("nfvactor scaling ended with \(process.terminationStatus)") }

    let samples = try String(contentsOfFile: data, encoding: .utf8).split(separator: "\n").compactMap {
      try? JSONDecoder().decode(Sample.self, from: Data($0.utf8))
    }
    guard let top = samples.max(by: { $0.offered < $1.offered }) else { throw BenchmarkError("the run has no samples") }
    func share(_ part: [Sample]) -> Double {
      100 * part.reduce(0) { $0 + $1.achieved } / max(1, part.reduce(0) { $0 + $1.offered })
    }
    let report = Report(name: "scaling")
    try report.add(Measurement("scaling/delivered/all", [share(samples)], unit: "%"))
    try report.add(Measurement("scaling/delivered/going-down", [share(samples.filter { $0.seconds > top.seconds })], unit: "%"))
    try report.add(
      Measurement("scaling/short", [Double(samples.count { $0.achieved < 0.95 * $0.offered }) / 2], unit: "s below 95 %"))
    try report.add(Measurement("scaling/most-runtimes", [Double(samples.map(\.serving).max() ?? 0)], unit: "runtimes"))
    try report.add(Measurement("scaling/flows-moved", [Double(samples.map(\.moved).max() ?? 0)], unit: "flows"))
  }

  private struct Sample: Decodable {
    var seconds: Double
    var offered: Double
    var achieved: Double
    var serving: Int
    var moved: UInt64
  }
}
