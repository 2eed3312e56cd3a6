import Dataplane
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

/// Writes into every datagram how many of its flow and direction the flow's state has counted: what left before and what
/// is known after a failure can be compared from outside.
private struct StampingFunction: NetworkFunction {
  struct FlowState: BitwiseCopyable, Sendable {
    var counts: (UInt32, UInt32) = (0, 0)
    /// Which runtime's shared state the flow is booked in, so that hooks called twice or never are seen.
    var isBooked: UInt32 = 0
  }

  final class Books { var flows = 0 }
  let books: Books

  func makeSharedState(for runtime: RuntimeShare) -> Books { books }
  func makeFlowState() -> FlowState { FlowState() }

  func process(_ frame: inout Frame, flow: inout FlowState, shared: inout Books) -> Verdict {
    if flow.isBooked == 0 {
      flow.isBooked = 1
      shared.flows += 1
    }
    let stamp: UInt32
    if frame.direction == .forward {
      flow.counts.0 += 1
      stamp = flow.counts.0
    } else {
      flow.counts.1 += 1
      stamp = flow.counts.1
    }
    frame.withBytes { bytes in
      UnsafeMutableRawPointer(mutating: bytes.baseAddress!).storeBytes(of: stamp, toByteOffset: 50, as: UInt32.self)
    }
    return .forward
  }

  func flowExpires(_ flow: inout FlowState, shared: inout Books, now: Tick) { if flow.isBooked != 0 { shared.flows -= 1 } }
  func flowMigratesOut(_ flow: inout FlowState, shared: inout Books) { shared.flows -= 1 }
  func flowMigratesIn(_ flow: inout FlowState, shared: inout Books) { shared.flows += 1 }
  func flowRecovers(_ flow: inout FlowState, shared: inout Books) { shared.flows += 1 }
}

/// Runtimes that die while their flows' packets keep coming, in the workers that ship: no packet has left whose state is
/// not on the runtime that takes over, and every flow goes on.
@Suite struct WorkerRecoveryTests {
  /// What came out at one side.
  struct Witness {
    var numbers: [Int: UInt32] = [:]
    var stamps: [Int: UInt32] = [:]
    var received = 0
    var faults: [String] = []

    mutating func hear(_ packets: [TestPacket]) {
      for (flow, number) in ClusterOfWorkers.labels(packets) {
        if let last = numbers[flow], number <= last { faults.append("flow \(flow): \(number) came after \(last)") }
        numbers[flow] = number
        received += 1
      }
      for (flow, stamp) in ClusterOfWorkers.stamps(packets) {
        if let last = stamps[flow], stamp <= last {
          faults.append("flow \(flow): state \(stamp) after \(last) had left: its state was lost")
        }
        stamps[flow] = stamp
      }
    }
  }

  final class World {
    let cluster: ClusterOfWorkers
    var random: SeededNumbers
    var outward = Witness()
    var homeward = Witness()
    var next: [Int: UInt32] = [:]
    let flows: Int
    var sent = 0
    /// What each runtime's function has in its books.
    private let books: [StampingFunction.Books]

    /// Flows that the functions of these runtimes take for theirs.
    func booked(at runtimes: [Int]) -> Int { runtimes.reduce(0) { $0 + books[$1].flows } }

    init(seed: UInt64, switches: Int = 1, runtimes: Int = 3, isReplicated: Bool = true, flows: Int = 200, loss: Int = 0, doubling: Int = 0, delay: Int = 50) {
      random = SeededNumbers(seed: seed)
      self.flows = flows
      var books: [StampingFunction.Books] = []
      cluster = ClusterOfWorkers(switches: switches, runtimes: runtimes, seed: seed, isReplicated: isReplicated) {
        books.append(.init())
        return ServiceChain([ServiceStage("stamping", StampingFunction(books: books.last!), share: $0)])
      }
      self.books = books
      (cluster.loss, cluster.doubling, cluster.delay) = (loss, doubling, delay)
    }

    func number() -> UInt32 {
      sent += 1
      return UInt32(sent)
    }

    func traffic(steps: Int) {
      for _ in 0..<steps {
        for _ in 0..<random.below(24) {
          let flow = random.below(flows)
          if random.below(2) == 0 || outward.numbers[flow] == nil {
            cluster.clientSends(flow: flow, number: number())
          } else {
            cluster.serverSends(flow: flow, number: number())
          }
        }
        run(40)
      }
    }

    func run(_ microseconds: UInt64) {
      cluster.run(microseconds: microseconds)
      outward.hear(cluster.takeSent(.server))
      homeward.hear(cluster.takeSent(.client))
    }

    /// One packet of every flow that ever was, each way; all have to come out.
    func probe(_ comment: Comment) {
      let known = outward.numbers.keys.sorted()
      var due: [Int: UInt32] = [:]
      for flow in known {
        due[flow] = number()
        cluster.clientSends(flow: flow, number: due[flow]!)
        cluster.serverSends(flow: flow, number: due[flow]!)
        run(40)
      }
      run(60_000)
      let deaf = known.filter { outward.numbers[$0] != due[$0] || homeward.numbers[$0] != due[$0] }
      #expect(deaf.isEmpty, "\(comment): \(deaf.count) of \(known.count) flows do not go on; switch drops \(cluster.switchDrops), runtimes \((0..<3).map { cluster.drops($0) })")
    }

    func expectNoFaults(_ comment: Comment) {
      #expect(outward.faults.isEmpty, "\(comment): \(outward.faults.prefix(3))")
      #expect(homeward.faults.isEmpty, "\(comment): \(homeward.faults.prefix(3))")
    }
  }

  @Test(arguments: 1...3) func flowsOutliveTheirRuntime(seed: UInt64) {
    let world = World(seed: seed, loss: seed % 3 == 0 ? 10 : 0, doubling: seed % 4 == 0 ? 10 : 0)
    for runtime in 0..<3 { world.cluster.protect(runtime, by: (runtime + 1) % 3, stream: UInt32(1 + runtime)) }
    world.run(2_000)
    world.traffic(steps: 300)
    let lived = world.outward.numbers.count
    #expect(lived > 150)
    #expect(world.cluster.protectedStreams == [1, 2, 3])
    world.cluster.kill(0)
    world.traffic(steps: 20)
    world.cluster.recover(0, by: 1, run: 1)
    world.cluster.announce(serving: [1, 2])
    world.traffic(steps: 200)
    world.run(50_000)
    #expect(world.cluster.recoveries.map(\.run) == [1])
    #expect(world.cluster.recoveries.first?.refused == 0)
    #expect(world.cluster.counters(1).flowsRecovered == world.cluster.recoveries.first?.recovered)
    #expect((world.cluster.recoveries.first?.recovered ?? 0) > 0)
    world.probe("after one death")
    world.expectNoFaults("after one death")

    // The flows that were recovered have replicas again: the next death is outlived too.
    world.run(5_000)
    world.cluster.protect(2, by: 1, stream: 9)
    world.run(30_000)
    world.cluster.kill(1)
    world.traffic(steps: 20)
    world.cluster.recover(1, by: 2, run: 2)
    world.cluster.announce(serving: [2])
    world.traffic(steps: 100)
    world.run(50_000)
    world.probe("after two deaths")
    world.expectNoFaults("after two deaths")
    #expect(world.cluster.counters(2).unprotectedFlows > 0, "nobody is left to hold replicas, and that is said")
  }

  /// Flows are on their way from 0 to 2 when one of the four runtimes dies: their source, its holder, their target, its holder.
  @Test(arguments: 1...8) func deathsInTheMiddleOfAMigration(seed: UInt64) {
    let world = World(seed: seed, runtimes: 4, flows: 150, delay: 30)
    for runtime in 0..<4 { world.cluster.protect(runtime, by: (runtime + 1) % 4, stream: UInt32(1 + runtime)) }
    world.run(2_000)
    world.traffic(steps: 250)
    world.cluster.migrate(120, from: 0, to: 2, run: 1)
    world.traffic(steps: 1 + world.random.below(12))
    let victim = Int(seed % 4)
    let heir = (victim + 1) % 4
    world.cluster.kill(victim)
    world.traffic(steps: 10)
    world.cluster.recover(victim, by: heir, run: 1)
    world.cluster.announce(serving: (0..<4).filter { $0 != victim })
    // Who has lost its holder gets another.
    world.cluster.protect((victim + 3) % 4, by: heir, stream: 9)
    world.traffic(steps: 300)
    world.run(100_000)
    #expect(world.cluster.recoveries.map(\.run) == [1])
    world.probe("\(victim) died")
    world.expectNoFaults("\(victim) died")
    #expect(
      world.booked(at: (0..<4).filter { $0 != victim }) == world.outward.numbers.count,
      "no flow has two owners, none has no owner")
  }

  @Test func aZombieChangesNothing() {
    let world = World(seed: 77)
    for runtime in 0..<3 { world.cluster.protect(runtime, by: (runtime + 1) % 3, stream: UInt32(1 + runtime)) }
    world.traffic(steps: 200)
    world.cluster.kill(0)
    world.traffic(steps: 10)
    world.cluster.recover(0, by: 1, run: 1)
    world.cluster.announce(serving: [1, 2])
    world.traffic(steps: 50)
    let before = world.cluster.counters(1)
    world.cluster.wake(0)
    world.traffic(steps: 300)
    world.run(50_000)
    world.probe("with a zombie")
    world.expectNoFaults("with a zombie")
    #expect(world.cluster.counters(1).flowsRecovered >= before.flowsRecovered)
  }

  @Test func withoutAHolderPacketsGoOutAndItIsSaid() {
    let world = World(seed: 5, runtimes: 1)
    world.traffic(steps: 100)
    world.run(5_000)
    #expect(world.outward.received > 0)
    #expect(world.cluster.counters(0).unprotectedFlows == UInt64(world.outward.numbers.count))
    #expect(world.cluster.counters(0).packetsReplicated == 0)
  }
}
