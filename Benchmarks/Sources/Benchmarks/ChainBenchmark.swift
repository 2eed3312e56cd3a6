import Dataplane
import Wire

/// Nanoseconds per packet of the worker that ships, through a chain, beside the same work in C and beside receiving and
/// transmitting alone, all three in turn in every repeat.
///
/// 64-byte TCP frames, both directions mixed, of connections that were opened through the chain itself; checksums verified
/// and rewritten, connections tracked, timers and counters running. What is timed is `Worker.pass`. Before that, what leaves
/// the worker is compared with what leaves the C loop, byte for byte, and every checksum in it is computed anew.
struct ChainBenchmark {
  let isQuick: Bool

  func run() throws {
    let report = Report(name: "chain")
    for flows in isQuick ? [64_000] : [1_000, 64_000, 1_000_000] {
      for mix in [TrafficMix.steady(flows), .opening(flows), .paper(flows)] {
        var chains = [ChainUnderTest.whole]
        if mix.passing == 0 { chains.append(ChainUnderTest(name: "fw-nat-lb-per-function", functions: ChainUnderTest.whole.functions, isFused: false)) }
        for chain in chains { try ChainTrial(chain, mix).run(report, repeats: repeats, packets: packets) }
      }
    }
    for chain in Self.singleFunctions { try ChainTrial(chain, .steady(64_000)).run(report, repeats: repeats, packets: packets) }
    for payload in isQuick ? [64, 1_400] : [64, 256, 512, 1_024, 1_400] {
      try ChainTrial(Self.intrusionPrevention, .steady(isQuick ? 1_000 : 64_000), payload: payload)
        .run(report, repeats: repeats, packets: packets / 4)
    }
    try AllocationLedger.close()
  }

  private var repeats: Int { isQuick ? 7 : 21 }
  private var packets: Int { isQuick ? 320_000 : 960_000 }

  static let singleFunctions = [
    ChainUnderTest(name: "fw", functions: ["firewall"]), ChainUnderTest(name: "nat", functions: ["nat"]),
    ChainUnderTest(name: "lb", functions: ["load-balancer"]),
  ]
  static let intrusionPrevention = ChainUnderTest(name: "fw-nat-ips", functions: ["firewall", "nat", "ips"])
}

/// One chain under one kind of traffic: set up, compared, then measured.
struct ChainTrial {
  let chain: ChainUnderTest
  let mix: TrafficMix
  let payload: Int

  init(_ chain: ChainUnderTest, _ mix: TrafficMix, payload: Int = 6) {
    self.chain = chain
    self.mix = mix
    self.payload = payload
  }

  var label: String {
    let flows = mix.flows >= 1_000_000 ? "1m" : "\(mix.flows / 1_000)k"
    return ([chain.name, flows, mix.name, payload > 6 ? "\(payload)-bytes" : ""]).filter { !$0.isEmpty }.joined(separator: "/")
  }

  func run(_ report: Report, repeats: Int, packets: Int) throws {
    guard chain.missing.isEmpty else {
      print("chain/\(label): left out, the catalog has no '\(chain.missing.joined(separator: "', '"))'")
      return
    }
    let stage = try ChainStage(chain, mix, payload: payload)
    let bounce = Contender.bounce()
    bounce.port.insert(stage.cycle)
    let contenders = [bounce] + stage.contenders
    for contender in contenders { _ = contender.time(packets, step: mix.step) }
    let dropsBefore = stage.contenders.map { $0.drops() }
    var samples = contenders.map { _ in [Sample]() }
    for _ in 0..<repeats {
      for (index, contender) in contenders.enumerated() {
        let (sample, allocations) = contender.time(packets, step: mix.step)
        samples[index].append(sample)
        if contender === stage.worker { AllocationLedger.add(allocations, packets: packets, "chain/\(label)") }
      }
    }
    for contender in stage.contenders { contender.rest(milliseconds: 2) }
    guard stage.contenders.map({ $0.drops() }) == dropsBefore else { throw BenchmarkError("\(label): packets were dropped") }

    let values = samples.map { $0.map(\.nanoseconds) }
    let worker = contenders.firstIndex { $0 === stage.worker }!
    let yardstick = contenders.firstIndex { $0.name == "c-loop" } ?? 0
    for index in contenders.indices where index != worker {
      try report.add(
        Measurement("chain/\(contenders[index].name)/\(label)", values[index], unit: "ns/packet", baseline: "rx-tx-only", values[0]))
    }
    try report.add(
      Measurement("chain/\(label)", values[worker], unit: "ns/packet", baseline: contenders[yardstick].name, values[yardstick]))
    report.note(stolen: samples.flatMap { $0.map(\.stolen) })
  }
}
