/// What idle timers cost per packet in steady state: the same worker with its clock running and with its clock standing still.
///
/// Timeouts are two seconds, so that timers fire all the time, find that their flow was used, and are armed anew.
struct TimerTrial {
  let flows: Int

  func run(_ report: Report, repeats: Int, packets: Int) throws {
    let mix = TrafficMix.steady(flows)
    let stages = try (0..<2).map { _ in
      try ChainStage(.whole, flows: flows, timeouts: [2_000, 2_000, 2_000, 2_000, 2_000])
    }
    let steps = [0, mix.step]
    for stage in stages { _ = try stage.prepare(mix) }
    var samples: [[Sample]] = [[], []]
    for _ in 0..<repeats {
      for index in 0..<2 {
        let (sample, allocations) = stages[index].worker.time(packets, step: steps[index])
        samples[index].append(sample)
        AllocationLedger.add(allocations, packets: packets, "timers")
      }
    }
    let values = samples.map { $0.map(\.nanoseconds) }
    try report.add(
      Measurement("chain/timers/\(flowCount(flows))", values[1], unit: "ns/packet", baseline: "standing clock", values[0]))
    try report.add(
      Measurement(
        "chain/timers-alone/\(flowCount(flows))", zip(values[1], values[0]).map { $0 - $1 }, unit: "ns/packet"))
    report.noteNoise(samples[0])
  }
}
