import Foundation
import Glibc

/// What one repeat has measured.
struct Sample {
  /// Of this thread's processor time, per packet: what other processes take of the core is not in it.
  var nanoseconds: Double
  /// Share of the time in which the core was somebody else's.
  var stolen: Double
}

/// Processor time and wall time side by side.
struct Stopwatch {
  private let processor = Self.time(CLOCK_THREAD_CPUTIME_ID)
  private let wall = Self.time(CLOCK_MONOTONIC)

  func read(per count: Int) -> Sample {
    let used = Double(Self.time(CLOCK_THREAD_CPUTIME_ID) - processor)
    let passed = Double(Self.time(CLOCK_MONOTONIC) - wall)
    return Sample(nanoseconds: used / Double(count), stolen: max(0, 1 - used / max(1, passed)))
  }

  /// Of this thread so far, in nanoseconds.
  static func processorTime() -> UInt64 { time(CLOCK_THREAD_CPUTIME_ID) }

  static func wallTime() -> UInt64 { time(CLOCK_MONOTONIC) }

  private static func time(_ clock: clockid_t) -> UInt64 {
    var time = timespec()
    clock_gettime(clock, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}

/// One figure beside its baseline of the same run: a row of the table, and a line of JSON.
struct Measurement: Encodable {
  var name: String
  /// Median over the repeats.
  var value: Double
  var unit: String
  var baseline: String
  /// Median of the repeats' ratios to the baseline's repeat beside them.
  var ratio: Double
  /// 10th and 90th percentile of the repeats.
  var spread: [Double]
  var repeats: Int

  init(_ name: String, _ values: [Double], unit: String, baseline: String = "none", _ baselineValues: [Double] = []) {
    self.name = name
    value = (values.percentile(0.5) * 10).rounded() / 10
    self.unit = unit
    self.baseline = baseline
    ratio = baselineValues.isEmpty ? 1 : (zip(values, baselineValues).map { $0 / $1 }.percentile(0.5) * 100).rounded() / 100
    spread = [values.percentile(0.1), values.percentile(0.9)].map { ($0 * 10).rounded() / 10 }
    repeats = values.count
  }
}

extension [Double] {
  func percentile(_ share: Double) -> Double {
    let sorted = sorted()
    return sorted[Swift.min(sorted.count - 1, Int(share * Double(sorted.count)))]
  }
}

/// Prints measurements as they come, and appends them to a file as JSON lines (`BENCH_OUT`).
struct Report {
  let name: String

  func add(_ measurement: Measurement) throws {
    let m = measurement
    var row = String(format: "%@ %8.1f %@", m.name.padding(toLength: 46, withPad: " ", startingAt: 0), m.value, m.unit)
    if m.repeats > 1 { row += String(format: "  (%.1f - %.1f, %d repeats)", m.spread[0], m.spread[1], m.repeats) }
    if m.baseline != "none" { row += String(format: "  %.2f x %@", m.ratio, m.baseline) }
    print(row)
    fflush(nil)
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

  /// Says so when the core was not ours alone, or its speed not the same throughout, as a loop that always does the same
  /// tells: ratios of one run still hold, absolute figures hardly.
  func noteNoise(_ samples: [Sample]) {
    let stolen = samples.map(\.stolen).reduce(0, +) / Double(Swift.max(1, samples.count))
    let times = samples.map(\.nanoseconds)
    let spread = times.percentile(0.9) / times.percentile(0.1)
    guard stolen > 0.02 || spread > 1.25 else { return }
    print(
      String(
        format: "  noisy machine: others had %.0f %% of the time, and the core's own speed changed %.1f-fold", stolen * 100,
        spread))
  }
}

struct BenchmarkError: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}
