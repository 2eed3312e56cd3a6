/// Nanoseconds per packet of the worker that ships, through a chain, beside the same work in C and beside receiving and
/// transmitting alone, all three in turn in every repeat.
///
/// 64-byte TCP frames, both directions mixed, of connections that were opened through the chain itself; checksums verified
/// and rewritten, connections tracked, timers and counters running. What is timed is `Worker.pass`. Before that, what leaves
/// the worker is compared with what leaves the C loop, byte for byte, and every checksum in it is computed anew.
struct ChainBenchmark {
  let isQuick: Bool
  private let report = Report(name: "chain")
  private var repeats: Int { isQuick ? 7 : 21 }
  private var packets: Int { isQuick ? 320_000 : 960_000 }

  init(isQuick: Bool) { self.isQuick = isQuick }

  func run() throws {
    for flows in isQuick ? [64_000] : [1_000, 64_000, 1_000_000] {
      for mix in [TrafficMix.steady(flows), .opening(flows), .paper(flows)] {
        try ChainTrial(.whole, mix).run(report, repeats: repeats, packets: packets)
      }
      try ChainTrial(.perFunction, .steady(flows)).run(report, repeats: repeats, packets: packets)
    }
    for chain in ChainUnderTest.singleFunctions {
      try ChainTrial(chain, .steady(64_000)).run(report, repeats: repeats, packets: packets)
    }
    for payload in isQuick ? [64, 1_400] : [64, 256, 512, 1_024, 1_400] {
      try ChainTrial(.intrusionPrevention, .steady(isQuick ? 16_000 : 64_000), payload: payload)
        .run(report, repeats: repeats, packets: packets)
    }
    try runFirstPackets()
    try TimerTrial(flows: 64_000).run(report, repeats: repeats, packets: packets)
    try runFlood()
    try MemoryTrial().run(report)
    try AllocationLedger.close()
  }

  /// One kind of traffic with few, more and many flows.
  func run(_ mix: (Int) -> TrafficMix) throws {
    for flows in [1_000, 64_000, 1_000_000] { try ChainTrial(.whole, mix(flows)).run(report, repeats: repeats, packets: packets) }
  }

  func runFirstPackets() throws { try FirstPacketTrial(flows: 64_000).run(report, repeats: repeats) }

  func runFlood() throws { try FloodTrial(capacity: 128_000).run(report, repeats: repeats, packets: packets) }
}
