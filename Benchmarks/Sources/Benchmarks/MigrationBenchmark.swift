/// How fast flows move from one runtime to another, and what packets see of it.
///
/// All flows of a runtime move to the other and, in the next repeat, back: connections that were opened through firewall, NAT
/// and load balancer. Under traffic every packet is numbered; one that is lost or overtaken ends the benchmark with an error,
/// and after every move a packet of every flow must pass in either direction. The pause of a flow is the longest time that one
/// of its packets took from uplink to uplink while flows moved; beside it is the same without a migration.
///
/// A virtual switch, both runtimes and the traffic share one core, so what is measured is the work of all of them.
struct MigrationBenchmark {
  let isQuick: Bool

  /// Ten packets per second and flow, as far as one core takes them.
  private static let mostPacketsPerSecond = 1_000_000.0
  private static let dense = 300_000.0

  func run() throws {
    let report = Report(name: "migration")
    print("  switch, source, target and traffic share one core; times are of that core")
    for flows in isQuick ? [1_000, 100_000] : [500, 1_000, 100_000, 600_000, 1_000_000] {
      let cluster = try MigrationCluster(flows: flows)
      try cluster.settle()
      let repeats = isQuick ? 5 : flows < 100_000 ? 41 : flows == 100_000 ? 11 : 5
      try measure(cluster, packetsPerSecond: 0, "idle", repeats, report)
      let rate = min(Self.mostPacketsPerSecond, Double(flows) * 10)
      try measure(cluster, packetsPerSecond: rate, Self.name(rate), repeats, report)
      // A move of so few is over before most of them have a packet.
      if flows <= 1_000 { try measure(cluster, packetsPerSecond: Self.dense, Self.name(Self.dense), repeats, report) }
    }
    // Several pairs at once share the same core: together they move as many flows as one pair, if nothing is in the way.
    for pairs in isQuick ? [3] : [2, 3] {
      let flows = isQuick ? 30_000 : 600_000
      let cluster = try MigrationCluster(flows: flows, pairs: pairs)
      try cluster.settle()
      try measure(cluster, packetsPerSecond: 0, "\(pairs)-pairs/idle", isQuick ? 5 : 7, report)
      try measure(
        cluster, packetsPerSecond: Self.mostPacketsPerSecond, "\(pairs)-pairs/1000kpps", isQuick ? 5 : 7, report)
    }
  }

  private static func name(_ packetsPerSecond: Double) -> String { "\(Int(packetsPerSecond / 1_000))kpps" }

  private func measure(
    _ cluster: MigrationCluster, packetsPerSecond: Double, _ traffic: String, _ repeats: Int, _ report: Report
  ) throws {
    let flows = Double(cluster.flows)
    var (times, rates, states, frames, pauses, usual, missed) = (
      [Double](), [Double](), [Double](), [Double](), [Double](), [Double](), 0
    )
    var (ofSwitch, ofSource, ofTarget): ([Double], [Double], [Double]) = ([], [], [])
    for _ in 0..<repeats {
      if packetsPerSecond > 0 {
        cluster.book.forgetTimes()
        let end = Stopwatch.processorTime() + 20_000_000
        cluster.play(packetsPerSecond) { Stopwatch.processorTime() >= end }
        try cluster.settle(checkingAll: false)
        usual += cluster.times
      }
      let move = try cluster.migrate(packetsPerSecond: packetsPerSecond)
      let time = Double(move.nanoseconds)
      ofSwitch.append(Double(cluster.busy.switches) / flows)
      ofSource.append(Double(cluster.busy.sources) / flows)
      ofTarget.append(Double(cluster.busy.targets) / flows)
      times.append(time / 1e6)
      rates.append(flows / time * 1e6)
      states.append(Double(move.stateBytes) / flows)
      frames.append(Double(move.channelBytes) / flows)
      missed += move.missedDeadlines
      if packetsPerSecond > 0 {
        try cluster.settle(checkingAll: false)
        pauses += cluster.times
      }
      try cluster.settle(checkingAll: true)
    }
    let label = "migration/\(flowCount(cluster.flows))/\(traffic)"
    try report.add(Measurement("\(label)/time", times, unit: "ms"))
    try report.add(Measurement("\(label)/rate", rates, unit: "k flows/s"))
    try report.add(Measurement("\(label)/state", states, unit: "bytes/flow"))
    try report.add(Measurement("\(label)/all-messages", frames, unit: "bytes/flow"))
    // What each would need with a core of its own: the slowest says how fast a pair could be.
    for (who, values) in [("switch", ofSwitch), ("sources", ofSource), ("targets", ofTarget)] {
      try report.add(Measurement("\(label)/work-of-\(who)", values, unit: "ns/flow"))
    }
    for (what, values) in [("pause", pauses), ("no-migration", usual)] where !values.isEmpty {
      for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1)] {
        try report.add(Measurement("\(label)/\(what)-\(name)", [values.percentile(share)], unit: "us"))
      }
    }
    if missed > 0 { print("  \(missed) steps missed their deadline and were asked for again") }
    try report.add(Measurement("\(label)/lost", [Double(cluster.book.underWay)], unit: "packets"))
    try report.add(Measurement("\(label)/out-of-order", [Double(cluster.book.disordered)], unit: "packets"))
  }
}
