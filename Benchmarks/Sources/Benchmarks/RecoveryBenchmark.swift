import FlowActors

/// A runtime dies under traffic and its holder is told to take its flows over: when is every flow served again, what is lost, what
/// is late?
///
///     traffic ─▶ the owner dies ─▶ (nobody has been told) ─▶ recover ─▶ first packet of every flow ─▶ all taken over
///
/// Before the command packets are lost: those are counted, and so is the time. After it every packet must come out; the wait of
/// each flow's first one is what its recovery costs, beside the wait of packets before the death. Then a new life takes the
/// place of the dead one and holds the replicas of the next to die. Switch, holder and traffic share one core; times are of that
/// core. Detection and decision are not in it: they are in `RecoveryOfProcesses`, which comes behind it.
struct RecoveryBenchmark {
  let isQuick: Bool

  private static let packetsPerSecond = 500_000.0
  /// From the death to the command, in nanoseconds: as long as detection may take on a good day.
  private static let silence: UInt64 = 20_000_000

  func run() throws {
    let report = Report(name: "recovery")
    try runInProcess(report)
    try RecoveryOfProcesses(isQuick: isQuick).run(report)
  }

  private func runInProcess(_ report: Report) throws {
    print("  switch, holder and traffic share one core; times are of that core")
    for flows in isQuick ? [10_000, 100_000] : [10_000, 100_000, 300_000] {
      let cluster = try ReplicatedCluster(flows: flows, replicas: 1)
      cluster.payloads = [RecoveryBook.labelLength]
      let book = RecoveryBook(flows: flows)
      cluster.hearPackets { book.note($0, isForward: $1) }
      let kills = isQuick ? 5 : 20
      var (firsts, waits, usual, lost, takenOver, mostLost) = (
        [Double](), [Double](), [Double](), [Double](), [Double](), 0
      )
      for kill in 1...kills {
        book.begin()
        try play(cluster, book, nanoseconds: 50_000_000) { $0 }
        try settle(cluster, book, "before the death")
        usual += book.times
        book.begin()
        cluster.kill()
        try play(cluster, book, nanoseconds: Self.silence) { $0 }
        let (gone, most) = book.giveUp()
        lost.append(Double(gone) / Double(flows))
        mostLost = max(mostLost, most)
        let outcome = try recover(cluster, book, run: UInt32(kill))
        firsts.append(outcome.first)
        takenOver.append(outcome.all)
        waits += outcome.waits
        try cluster.replace()
      }
      let label = "recovery/\(flowCount(flows))"
      for (what, values) in [("first-packet", firsts), ("all-taken-over", takenOver)] {
        try report.add(Measurement("\(label)/\(what)", values, unit: "ms"))
        try report.add(Measurement("\(label)/\(what)-max", [values.max()!], unit: "ms"))
      }
      for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1)] {
        try report.add(
          Measurement(
            "\(label)/wait-of-first-packets-\(name)", [waits.percentile(share)], unit: "us", baseline: "before the death",
            [usual.percentile(share)]))
      }
      try report.add(Measurement("\(label)/lost-per-flow", lost, unit: "packets"))
      try report.add(Measurement("\(label)/lost-of-one-flow", [Double(mostLost)], unit: "packets"))
    }
  }

  /// Lets traffic come for a while of the core's time.
  private func play(
    _ cluster: ReplicatedCluster, _ book: RecoveryBook, nanoseconds: UInt64, until isDone: (Bool) -> Bool
  ) throws {
    let start = Stopwatch.processorTime()
    var sent = 0
    while case let time = Stopwatch.processorTime() - start, !isDone(time >= nanoseconds) {
      let due = Int(Double(time) * Self.packetsPerSecond / 1e9)
      book.now = Stopwatch.processorTime()
      let count = min(64, due - sent)
      if count > 0 {
        _ = cluster.inject(count) { book.label($0, flow: $1, isForward: $2) }
        sent += count
      }
      cluster.turn()
      book.close(at: Stopwatch.processorTime())
    }
  }

  private func settle(_ cluster: ReplicatedCluster, _ book: RecoveryBook, _ when: String) throws {
    for _ in 0..<100_000 where book.underWay > 0 {
      cluster.turn()
      book.close(at: Stopwatch.processorTime())
    }
    guard book.underWay == 0, book.disordered == 0 else {
      throw BenchmarkError("\(when) \(book.underWay) packets were lost and \(book.disordered) out of order\(cluster.drops())")
    }
  }

  private func recover(
    _ cluster: ReplicatedCluster, _ book: RecoveryBook, run: UInt32
  ) throws -> (first: Double, all: Double, waits: [Double]) {
    book.begin()
    let start = Stopwatch.processorTime()
    cluster.recover(run: run)
    var first: UInt64?
    // Until every flow has had a packet, and no replica is left.
    let deadline = start + 60_000_000_000
    try play(cluster, book, nanoseconds: 0) { _ in
      if first == nil, book.receivedCount > 0 { first = Stopwatch.processorTime() }
      let isOver = cluster.recoveries.contains { $0.run == run && $0.finished != nil }
      return isOver && book.firsts == cluster.flows || Stopwatch.processorTime() > deadline
    }
    try settle(cluster, book, "after the recovery")
    guard let report = cluster.recoveries.last(where: { $0.run == run }), let end = report.finished else {
      throw BenchmarkError("the recovery has not ended\(cluster.drops())")
    }
    guard report.recovered == cluster.flows, report.refused == 0 else {
      throw BenchmarkError("of \(cluster.flows) flows \(report.recovered) were recovered and \(report.refused) refused")
    }
    return (Double(first! - start) / 1e6, Double(end.nanoseconds - start) / 1e6, book.waits)
  }
}

/// What was sent and what came out, by flow and direction, while a runtime dies.
final class RecoveryBook {
  static let labelLength = PacketBook.labelLength
  private var sent: [UInt32]
  private var received: [UInt32]
  /// How long the first packet of each flow has taken since `begin`, in nanoseconds; 0 if there was none.
  private var first: [UInt32]
  private(set) var times: [Double] = []
  private var arrivals: [(place: Int, number: UInt32, sent: UInt64)] = []
  private(set) var firsts = 0
  private(set) var sentCount = 0
  private(set) var receivedCount = 0
  private(set) var disordered = 0
  var now: UInt64 = 0

  init(flows: Int) {
    sent = Array(repeating: 0, count: flows * 2)
    received = sent
    first = Array(repeating: 0, count: flows)
  }

  var underWay: Int { sentCount - receivedCount }
  /// Microseconds that the first packet of each flow has taken.
  var waits: [Double] { first.lazy.filter { $0 > 0 }.map { Double($0) / 1_000 } }

  func begin() {
    for flow in first.indices { first[flow] = 0 }
    (times, firsts, sentCount, receivedCount) = ([], 0, 0, 0)
  }

  /// Packets that are under way will not come any more: how many there are, and of one flow and direction at most.
  func giveUp() -> (all: Int, most: Int) {
    var most = 0
    for place in sent.indices {
      most = max(most, Int(sent[place] &- received[place]))
      received[place] = sent[place]
    }
    defer { receivedCount = sentCount }
    return (underWay, most)
  }

  /// Each word beside its complement, as `PacketBook` does it.
  func label(_ payload: UnsafeMutableRawPointer, flow: Int, isForward: Bool) {
    let place = flow * 2 + (isForward ? 0 : 1)
    func put(_ word: UInt32, _ at: Int) {
      payload.storeBytes(of: word, toByteOffset: at, as: UInt32.self)
      payload.storeBytes(of: ~word, toByteOffset: at + 4, as: UInt32.self)
    }
    put(UInt32(flow), 0)
    put(sent[place], 8)
    put(UInt32(truncatingIfNeeded: now), 16)
    put(UInt32(truncatingIfNeeded: now >> 32), 24)
    sent[place] += 1
    sentCount += 1
  }

  func note(_ payload: UnsafeRawPointer, isForward: Bool) {
    func word(_ index: Int) -> UInt32 { payload.loadUnaligned(fromByteOffset: index * 8, as: UInt32.self) }
    arrivals.append((Int(word(0)) * 2 + (isForward ? 0 : 1), word(1), UInt64(word(3)) << 32 | UInt64(word(2))))
  }

  /// What has come out since this was called last has done so by now.
  func close(at now: UInt64) {
    for (place, number, sent) in arrivals {
      if number != received[place] { disordered += 1 }
      received[place] = number + 1
      receivedCount += 1
      let time = UInt32(clamping: now - sent)
      times.append(Double(time) / 1_000)
      guard first[place / 2] == 0 else { continue }
      first[place / 2] = max(1, time)
      firsts += 1
    }
    arrivals.removeAll(keepingCapacity: true)
  }
}
