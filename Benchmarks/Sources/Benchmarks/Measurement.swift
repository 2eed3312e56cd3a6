import Foundation
import Glibc

/// One figure beside its baseline of the same run: a row of the table, and a line of JSON.
struct Measurement: Encodable {
  var name: String
  /// Median over the repeats.
  var value: Double
  var unit: String
  var baseline: String
  /// value / the baseline's value.
  var ratio: Double
  /// 10th and 90th percentile of the repeats.
  var spread: [Double]
  var repeats: Int

  init(_ name: String, _ samples: [Double], unit: String, baseline: String, of baselineValue: Double) {
    let sorted = samples.sorted()
    func percentile(_ share: Double) -> Double { sorted[min(sorted.count - 1, Int(share * Double(sorted.count)))] }
    self.name = name
    value = (percentile(0.5) * 10).rounded() / 10
    self.unit = unit
    self.baseline = baseline
    ratio = (percentile(0.5) / baselineValue * 100).rounded() / 100
    spread = [percentile(0.1), percentile(0.9)].map { ($0 * 10).rounded() / 10 }
    repeats = samples.count
  }

  /// Whether the machine was too restless for the figure to mean much.
  var isNoisy: Bool { spread[1] > spread[0] * 1.25 }
}

/// Prints measurements as they come, and appends them to a file as JSON lines (`BENCH_OUT`).
struct Report {
  let name: String

  func add(_ measurement: Measurement) throws {
    let m = measurement
    let row = String(
      format: "%@ %8.1f %@  (%.1f - %.1f, %d repeats)  %.2f x %@%@", m.name.padding(toLength: 34, withPad: " ", startingAt: 0), m.value, m.unit,
      m.spread[0], m.spread[1], m.repeats, m.ratio, m.baseline, m.isNoisy ? "  noisy machine" : "")
    print(row)
    let path = ProcessInfo.processInfo.environment["BENCH_OUT"] ?? ".build/bench/\(name).jsonl"
    let directory = (path as NSString).deletingLastPathComponent
    if !directory.isEmpty { try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true) }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    let line = try encoder.encode(m) + Data("\n".utf8)
    if let file = FileHandle(forWritingAtPath: path) {
      try file.seekToEnd()
      try file.write(contentsOf: line)
      try file.close()
    } else {
      try line.write(to: URL(fileURLWithPath: path))
    }
  }
}

func nanoseconds() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
