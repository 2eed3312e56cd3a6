import FlowActors

/// A switch takes the uplinks over and knows no flow: when has it been told of all of them?
///
///     the coordinator's table ─▶ sessions with the runtimes ─▶ census ─▶ every flow's two routes are there, new flows are welcome
///
/// Then a packet of every flow, each way in turn, has to come out. Switch and runtimes share one core; times are of that core, and the
/// work of each is what a core of its own would have to do. Detection and decision are not in it.
struct TakeoverBenchmark {
  let isQuick: Bool

  func run() throws {
    let report = Report(name: "takeover")
    print("  switch and runtimes share one core; times are of that core")
    for flows in isQuick ? [10_000, 100_000] : [10_000, 100_000, 300_000, 1_000_000] {
      let cluster = try ReplicatedCluster(flows: flows, replicas: 0)
      var (known, ofSwitch, ofRuntime) = ([Double](), [Double](), [Double]())
      for _ in 0..<(isQuick ? 5 : 20) {
        _ = try cluster.play(flows)
        let runtime = cluster.runtimes[cluster.owner]!
        let before = (cluster.takeovers.count, cluster.switchTime, runtime.time)
        cluster.replaceSwitch()
        let start = cluster.now().nanoseconds
        for _ in 0..<10_000_000 where cluster.takeovers.count == before.0 { cluster.turn() }
        guard let end = cluster.takeovers.last, cluster.takeovers.count > before.0, end.recovered == UInt64(flows) else {
          throw BenchmarkError("the switch was told of \(cluster.takeovers.last?.recovered ?? 0) of \(flows) flows\(cluster.drops())")
        }
        known.append(Double(end.finished!.nanoseconds - start) / 1e6)
        ofSwitch.append(Double(cluster.switchTime - before.1) / Double(flows))
        ofRuntime.append(Double(runtime.time - before.2) / Double(flows))
      }
      _ = try cluster.play(flows)
      let label = "takeover/\(flowCount(flows))"
      try report.add(Measurement("\(label)/all-flows-known", known, unit: "ms"))
      try report.add(Measurement("\(label)/all-flows-known-max", [known.max()!], unit: "ms"))
      try report.add(Measurement("\(label)/work-of-switch", ofSwitch, unit: "ns/flow"))
      try report.add(Measurement("\(label)/work-of-runtime", ofRuntime, unit: "ns/flow"))
    }
  }
}
