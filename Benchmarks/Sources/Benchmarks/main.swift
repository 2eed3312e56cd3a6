import Foundation

// make bench [BENCH=chain] [BENCH_QUICK=1]

let benchmarks: [String: (Bool) throws -> Void] = [
  "chain": { try ChainBenchmark(isQuick: $0).run() },
  "channel": { try ChannelBenchmark(isQuick: $0).run() },
]
let environment = ProcessInfo.processInfo.environment
let isQuick = environment["BENCH_QUICK"] == "1"
let wanted = environment["BENCH"].flatMap { $0.isEmpty ? nil : [$0] } ?? benchmarks.keys.sorted()
for name in wanted {
  guard let benchmark = benchmarks[name] else {
    FileHandle.standardError.write(
      Data("There is no benchmark '\(name)'; there are: \(benchmarks.keys.sorted().joined(separator: ", ")).\n".utf8))
    exit(64)
  }
  print("# \(name)")
  try benchmark(isQuick)
}
