/// From the first packet of a flow to its having been processed by its actor: SYNs alone, into a table without flows.
///
/// The paper calls it actor launch time (§VII-A2). It includes receiving and transmitting, which stand beside it.
struct FirstPacketTrial {
  let flows: Int

  func run(_ report: Report, repeats: Int) throws {
    let stage = try ChainStage(.whole, flows: flows)
    try stage.open(flows, staying: 0)
    let opening = stage.openingFrames(0..<flows)
    let contenders = [Contender.bounce()] + stage.contenders
    for contender in contenders { contender.port.insert(opening) }
    var samples = contenders.map { _ in [Sample]() }
    for _ in 0..<repeats {
      for (index, contender) in contenders.enumerated() {
        let (sample, allocations) = contender.time(flows, step: 100)
        samples[index].append(sample)
        if contender === stage.worker { AllocationLedger.add(allocations, packets: flows, "first packets") }
      }
      stage.forgetIdle(flows)
    }
    try report.compare(contenders.map(\.name), samples, label: "chain/first-packet/\(flowCount(flows))")
  }
}
