import Dataplane
import NetworkFunctionTesting
import Testing
import Wire

/// Flows that move between runtimes while their packets keep coming, in the workers that ship.
@Suite struct WorkerMigrationTests {
  /// Everything that went in at one side, by flow: the next number to come out at the other.
  struct Ledger {
    var sent: [Int: UInt32] = [:]
    var expected: [Int: UInt32] = [:]
    var faults: [String] = []

    mutating func nextNumber(_ flow: Int) -> UInt32 {
      defer { sent[flow, default: 0] += 1 }
      return sent[flow, default: 0]
    }

    mutating func hear(_ packets: [TestPacket]) {
      for (flow, number) in ClusterOfWorkers.labels(packets) {
        if number != expected[flow, default: 0] {
          faults.append("flow \(flow): \(number) came, \(expected[flow, default: 0]) was due")
        }
        expected[flow] = number + 1
      }
    }

    var isComplete: Bool { sent == expected }
  }

  struct Traffic {
    var outward = Ledger()
    var homeward = Ledger()
    let flows: Int

    mutating func step(_ cluster: ClusterOfWorkers, _ numbers: inout SeededNumbers) {
      for _ in 0..<numbers.below(24) {
        let flow = numbers.below(flows)
        if numbers.below(2) == 0 || outward.expected[flow] == nil {
          cluster.clientSends(flow: flow, number: outward.nextNumber(flow))
        } else {
          cluster.serverSends(flow: flow, number: homeward.nextNumber(flow))
        }
      }
      cluster.run(microseconds: 40)
      hear(cluster)
    }

    mutating func hear(_ cluster: ClusterOfWorkers) {
      outward.hear(cluster.server.takeSent())
      homeward.hear(cluster.client.takeSent())
    }
  }

  /// - Returns: the cluster after a quiet end.
  func play(seed: UInt64, loss: Int = 0, doubling: Int = 0, delay: Int = 50, runtimes: Int = 2, moves: [(Int, Int)]) -> (
    ClusterOfWorkers, Traffic
  ) {
    var numbers = SeededNumbers(seed: seed)
    let cluster = ClusterOfWorkers(runtimes: runtimes, seed: seed)
    (cluster.loss, cluster.doubling, cluster.delay) = (loss, doubling, delay)
    var traffic = Traffic(flows: 200)
    for _ in 0..<60 { traffic.step(cluster, &numbers) }
    for (index, move) in moves.enumerated() {
      cluster.migrate(150, from: move.0, to: move.1, run: UInt32(index + 1))
      var patience = 4_000
      while cluster.reports.count == index, patience > 0 {
        traffic.step(cluster, &numbers)
        patience -= 1
      }
    }
    for _ in 0..<40 { traffic.step(cluster, &numbers) }
    cluster.run(microseconds: 20_000)
    traffic.hear(cluster)
    return (cluster, traffic)
  }

  @Test(arguments: [1, 2, 3] as [UInt64])
  func `flows move under traffic and no packet is lost, doubled or out of order`(seed: UInt64) {
    let (cluster, traffic) = play(seed: seed, moves: [(0, 1)])
    #expect(cluster.reports.map(\.moved) == [150])
    #expect(traffic.outward.faults == [] && traffic.homeward.faults == [])
    #expect(traffic.outward.isComplete && traffic.homeward.isComplete)
    let (source, target) = (cluster.counters(0), cluster.counters(1))
    #expect(source.flowsMigratedOut == 150 && target.flowsMigratedIn == 150)
    #expect(target.forwarded > 0)
    for counters in [source, target] { #expect(counters.received == counters.forwarded + counters.dropped + counters.consumed) }
    #expect(source.dropped == 0 && target.dropped == 0 && cluster.switchCounters.dropped == 0)
  }

  @Test(arguments: 10...21 as ClosedRange<UInt64>)
  func `there and back again, while a third of the channels' frames is lost or doubled`(seed: UInt64) {
    let (cluster, traffic) = play(
      seed: seed, loss: Int(seed % 3) * 10, doubling: Int(seed % 5) * 5, delay: [0, 50, 400][Int(seed % 3)], runtimes: 3,
      moves: [(0, 1), (1, 2), (2, 0), (0, 1)])
    #expect(cluster.reports.count == 4)
    #expect(traffic.outward.faults == [] && traffic.homeward.faults == [], "seed \(seed)")
    #expect(traffic.outward.isComplete && traffic.homeward.isComplete, "seed \(seed)")
    for runtime in 0..<3 {
      let counters = cluster.counters(runtime)
      #expect(counters.received == counters.forwarded + counters.dropped + counters.consumed)
      #expect(counters.dropped == 0)
    }
  }
}
