/// What output commit costs: packets per second of the owner's core, what the holder and the switch have of it, bytes on the wire
/// beyond the packets, and how much later a packet leaves; with one replica and with two, beside the same chain without replication
/// in the same run.
///
/// Every packet carries new data of its TCP connection and so changes its flow's state; both directions are mixed. Owner, holder
/// and switch share one core and each has its own account. The latency is that of packets that come in by themselves: the work of
/// all workers one after another.
struct ReplicationBenchmark {
  let isQuick: Bool

  /// Bytes of payload: frames of 64, 594 and 1,518 bytes with their check sequence, 7 : 4 : 1 (the simple IMIX).
  private static let mixes: [(name: String, payloads: [Int])] = [
    ("64-bytes", [6]), ("imix", [6, 536, 6, 6, 536, 6, 1_460, 6, 536, 6, 536, 6]),
  ]

  func run() throws {
    let report = Report(name: "replication")
    for flows in isQuick ? [1_000, 64_000] : [1_000, 64_000, 1_000_000] {
      let clusters = try (0...2).map { try ReplicatedCluster(flows: flows, replicas: $0) }
      for mix in Self.mixes {
        for cluster in clusters { cluster.payloads = mix.payloads }
        try measure(clusters, mix.name, report)
      }
      try measureLatency(clusters, report)
    }
  }

  private func measure(_ clusters: [ReplicatedCluster], _ mix: String, _ report: Report) throws {
    let flows = clusters[0].flows
    let packets = isQuick ? 128_000 : max(256_000, flows / 2)
    // Every flow both ways, so that nothing is as it was when it was opened.
    for cluster in clusters { _ = try cluster.play(min(2 * flows, 400_000)) }
    var costs: [[ReplicatedCluster.Cost]] = [[], [], []]
    for _ in 0..<(isQuick ? 7 : 15) {
      for (index, cluster) in clusters.enumerated() { costs[index].append(try cluster.play(packets)) }
    }
    let label = "replication/\(flowCount(flows))/\(mix)"
    let plain = costs[0]
    try report.add(Measurement("\(label)/unreplicated", plain.map(\.owner), unit: "ns/packet"))
    for (name, replicated) in [(label, costs[1]), ("\(label)/two", costs[2])] {
      try report.add(
        Measurement("\(name)/owner", replicated.map(\.owner), unit: "ns/packet", baseline: "unreplicated", plain.map(\.owner)))
      try report.add(
        Measurement(
          "\(name)/owner-rate", replicated.map { 1_000 / $0.owner }, unit: "M packets/s", baseline: "unreplicated",
          plain.map { 1_000 / $0.owner }))
      try report.add(Measurement("\(name)/holder", replicated.map(\.holder), unit: "ns/packet"))
      if replicated[0].second > 0 { try report.add(Measurement("\(name)/second", replicated.map(\.second), unit: "ns/packet")) }
      try report.add(
        Measurement("\(name)/switch", replicated.map(\.network), unit: "ns/packet", baseline: "unreplicated", plain.map(\.network)))
      try report.add(Measurement("\(name)/header-and-state", replicated.map(\.bytes), unit: "bytes/packet"))
      try report.add(Measurement("\(name)/frames", replicated.map { $0.frames * 1_000 }, unit: "frames/1,000 packets"))
    }
  }

  private func measureLatency(_ clusters: [ReplicatedCluster], _ report: Report) throws {
    var times: [[Double]] = [[], [], []]
    for cluster in clusters { cluster.payloads = [6] }
    for _ in 0..<(isQuick ? 20_000 : 200_000) {
      for (index, cluster) in clusters.enumerated() {
        let (target, start) = (cluster.received + 1, Stopwatch.processorTime())
        _ = cluster.inject(1)
        for _ in 0..<1_000 where cluster.received < target { cluster.turn() }
        guard cluster.received == target else { throw BenchmarkError("a packet was lost\(cluster.drops())") }
        times[index].append(Double(Stopwatch.processorTime() - start) / 1_000)
      }
    }
    let label = "replication/\(flowCount(clusters[0].flows))/one-packet"
    for (replicas, kind) in [(1, ""), (2, "two/")] {
      for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1)] {
        try report.add(
          Measurement(
            "\(label)/\(kind)\(name)", [times[replicas].percentile(share)], unit: "us", baseline: "unreplicated",
            [times[0].percentile(share)]))
      }
    }
  }
}
