import Foundation

// make bench [BENCH=name] [BENCH_QUICK=1]

let benchmarks: [String: (Bool) throws -> Void] = [
  "chain": { try ChainBenchmark(isQuick: $0).run() },
  "channel": { try ChannelBenchmark(isQuick: $0).run() },
  "control": { try ControlBenchmark(isQuick: $0).run() },
  "detection": { try DetectionBenchmark(isQuick: $0).run() },
  "migration": { try MigrationBenchmark(isQuick: $0).run() },
  "recovery": { try RecoveryBenchmark(isQuick: $0).run() },
  "takeover": { try TakeoverBenchmark(isQuick: $0).run() },
  "replication": { try ReplicationBenchmark(isQuick: $0).run() },
  "scaling": { try ScalingBenchmark(isQuick: $0).run() },
  "vhost": { try VhostBenchmark(isQuick: $0).run() },
]
// What scripts and other benchmarks run, and `make bench` without a name does not.
let tools: [String: (Bool) throws -> Void] = [
  "vhost-worker": { _ in try VhostWorker.run() },
  // One line of the chain's table at a time.
  "chain-steady": { try ChainBenchmark(isQuick: $0).run { .steady($0) } },
  "chain-opening": { try ChainBenchmark(isQuick: $0).run { .opening($0) } },
  "chain-first-packets": { try ChainBenchmark(isQuick: $0).runFirstPackets() },
  "chain-flood": { try ChainBenchmark(isQuick: $0).runFlood() },
  "instructions": { _ in try InstructionTrial().run(.steady(InstructionTrial.flows)) },
  "instructions-c-loop": { _ in try InstructionTrial().run(.steady(InstructionTrial.flows), inC: true) },
  "instructions-migration": { _ in try InstructionTrial().runMigration() },
  "instructions-opening": { _ in try InstructionTrial().run(.opening(InstructionTrial.comingAndGoing)) },
  "instructions-opening-c-loop": { _ in try InstructionTrial().run(.opening(InstructionTrial.comingAndGoing), inC: true) },
]
let environment = ProcessInfo.processInfo.environment
let isQuick = environment["BENCH_QUICK"] == "1"
let wanted = environment["BENCH"].flatMap { $0.isEmpty ? nil : [$0] } ?? benchmarks.keys.sorted()
for name in wanted {
  guard let benchmark = benchmarks[name] ?? tools[name] else {
    let names = benchmarks.keys.sorted().joined(separator: ", ")
    FileHandle.standardError.write(Data("There is no benchmark '\(name)'; there are: \(names).\n".utf8))
    exit(64)
  }
  print("# \(name)")
  do {
    try benchmark(isQuick)
  } catch {
    FileHandle.standardError.write(Data("\(name): \(error)\n".utf8))
    exit(1)
  }
}
