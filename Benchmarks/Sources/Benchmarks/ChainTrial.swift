import Wire

/// One chain under one kind of traffic: set up, compared, then measured, all contenders in turn in every repeat.
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
    [chain.name, flowCount(mix.flows), mix.name, payload > 6 ? "\(payload)-bytes" : ""].filter { !$0.isEmpty }.joined(
      separator: "/")
  }

  func run(_ report: Report, repeats: Int, packets: Int) throws {
    guard chain.missing.isEmpty else {
      print("chain/\(label): left out, the catalog has no '\(chain.missing.joined(separator: "', '"))'")
      return
    }
    let stage = try ChainStage(chain, flows: mix.flows, payload: payload)
    let cycle = try stage.prepare(mix)
    // What was sent before is not read again: then a repeat is one round of the cycle, and the next goes on behind it.
    let packets = chain.readsPayloads ? cycle.count : packets
    let bounce = Contender.bounce()
    bounce.port.insert(cycle)
    let contenders = [bounce] + stage.contenders
    for contender in contenders { _ = contender.time(packets, step: mix.step) }
    let dropsBefore = stage.contenders.map { $0.drops() }
    var samples = contenders.map { _ in [Sample]() }
    for _ in 0..<repeats {
      if chain.readsPayloads { cycle.goOn(UInt32(payload)) }
      for (index, contender) in contenders.enumerated() {
        let (sample, allocations) = contender.time(packets, step: mix.step)
        samples[index].append(sample)
        if contender === stage.worker { AllocationLedger.add(allocations, packets: packets, "chain/\(label)") }
      }
    }
    for contender in stage.contenders { contender.rest(milliseconds: 2) }
    guard stage.contenders.map({ $0.drops() }) == dropsBefore else { throw BenchmarkError("\(label): packets were dropped") }
    try report.compare(contenders.map(\.name), samples, label: "chain/\(label)")
  }
}

func flowCount(_ flows: Int) -> String {
  flows >= 1_000_000 ? "\(flows / 1_000_000)m" : flows >= 1_000 ? "\(flows / 1_000)k" : "\(flows)"
}

extension Report {
  /// The last contender, which is the worker, beside the others: the first is receiving and transmitting alone, and between
  /// them may be the C loop.
  func compare(_ names: [String], _ samples: [[Sample]], label: String) throws {
    let values = samples.map { $0.map(\.nanoseconds) }
    let worker = names.count - 1
    for index in 0..<worker {
      let name = label.split(separator: "/", maxSplits: 1).map(String.init)
      try add(
        Measurement("\(name[0])/\(names[index])/\(name[1])", values[index], unit: "ns/packet", baseline: names[0], values[0]))
    }
    try add(Measurement(label, values[worker], unit: "ns/packet", baseline: names[worker - 1], values[worker - 1]))
    noteNoise(samples[0])
  }
}
