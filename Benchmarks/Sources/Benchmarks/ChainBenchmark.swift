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
    let (repeats, packets) = isQuick ? (7, 320_000) : (21, 960_000)
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
    try FirstPacketTrial(flows: 64_000).run(report, repeats: repeats)
    try TimerTrial(flows: 64_000).run(report, repeats: repeats, packets: packets)
    try FloodTrial(capacity: 128_000).run(report, repeats: repeats, packets: packets)
    try MemoryTrial().run(report)
    try AllocationLedger.close()
  }
}
