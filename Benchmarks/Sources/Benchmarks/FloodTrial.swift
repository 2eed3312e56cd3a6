/// A SYN flood of ten times the table's capacity per second against established connections, half a table of them.
///
/// The flood is mixed with the connections' packets as it would be if both came at the rates at which the worker can just
/// serve the connections alone. Then the table is full of half-open connections, and every SYN evicts one. The share of
/// their throughput that connections keep is what a packet of theirs cost without the flood, over what it costs with it.
struct FloodTrial {
  let capacity: Int

  func run(_ report: Report, repeats: Int, packets: Int) throws {
    let staying = capacity / 2
    let mix = TrafficMix.steady(staying)
    let stage = try ChainStage(
      .whole, flows: staying + 4 * capacity, capacity: capacity, timeouts: [240_000, 7_440_000, 300_000, 60_000, 60_000])
    let worker = stage.worker
    try stage.open(staying, staying: staying)
    let calm = mix.frames(stage.connections)
    worker.port.insert(calm)
    _ = worker.time(packets, step: mix.step)
    let alone = worker.time(packets, step: mix.step).sample.nanoseconds

    // Per packet of a connection: SYNs in the time that it takes alone. So many different ones that each comes again only when
    // it has been evicted.
    let share = Double(10 * capacity) * alone / 1e9
    let rounds = Int((Double(2 * capacity) / (Double(calm.count) * share)).rounded(.up))
    let flood = PreparedFrames(capacity: Int(Double(rounds * calm.count) * (1 + share)) + 1)
    var (owed, next) = (0.0, staying)
    for index in 0..<rounds * calm.count {
      flood.append().copyMemory(from: calm.base + index % calm.count * calm.stride, byteCount: calm.stride)
      owed += share
      while owed >= 1 {
        owed -= 1
        stage.connections.write(next, .syn, to: flood.append())
        next = next + 1 == stage.connections.count ? staying : next + 1
      }
    }
    // Until the table is full.
    worker.port.insert(flood)
    worker.play(flood.count, step: mix.step)

    let flooded = Int(Double(packets) * (1 + share))
    var samples: [[Sample]] = [[], []]
    worker.rest(milliseconds: 2)
    let (dropsBefore, refusalsBefore) = (worker.drops(), worker.refusals())
    var position: UInt64 = 0
    for _ in 0..<repeats {
      worker.port.insert(calm)
      samples[0].append(worker.time(packets, step: mix.step).sample)
      worker.port.insert(flood, at: position)
      let (sample, allocations) = worker.time(flooded, step: mix.step)
      position = worker.port.position
      samples[1].append(sample)
      AllocationLedger.add(allocations, packets: flooded, "SYN flood")
    }
    worker.rest(milliseconds: 2)
    let perConnectionPacket = 1 + share
    let values = [samples[0].map(\.nanoseconds), samples[1].map { $0.nanoseconds * perConnectionPacket }]
    try report.add(
      Measurement("chain/syn-flood/\(flowCount(capacity))", values[1], unit: "ns/packet", baseline: "without flood", values[0]))
    let kept = zip(values[0], values[1]).map { $0 / $1 * 100 }
    try report.add(Measurement("chain/syn-flood/throughput-kept", kept, unit: "%"))
    let refused = worker.refusals() - refusalsBefore
    let syns = Double(flooded * repeats) * share / (1 + share)
    try report.add(Measurement("chain/syn-flood/syns-refused", [Double(refused) / syns * 100], unit: "%"))
    // Whatever else was dropped was a connection's.
    try report.add(
      Measurement("chain/syn-flood/packets-dropped", [Double(worker.drops() - dropsBefore - refused)], unit: "packets"))
    report.noteNoise(samples[0])
  }
}
