import Dataplane
import Testing
import Wire

/// Two replicas of each flow, in the workers that ship: runtimes die in twos, at once or one on top of the other.
@Suite struct TwoReplicasTests {
  typealias World = WorkerRecoveryTests.World

  /// Every runtime has the next two around the ring as its holders.
  private func ring(_ world: World, _ runtimes: Int) {
    for runtime in 0..<runtimes {
      world.cluster.protect(runtime, by: [(runtime + 1) % runtimes, (runtime + 2) % runtimes], stream: UInt32(1 + runtime))
    }
    world.run(2_000)
    world.traffic(steps: 250)
    for _ in 0..<20 where world.cluster.protectedStreams.count < runtimes { world.run(5_000) }
    #expect(world.cluster.protectedStreams == Set((1...runtimes).map(UInt32.init)), "all flows have both replicas")
  }

  private func expectBooks(_ world: World, _ living: [Int]) {
    #expect(world.booked(at: living) == world.outward.numbers.count, "no flow has two owners, none has no owner")
  }

  @Test func bothHoldersHaveEveryFlow() {
    let world = World(seed: 3, runtimes: 4, loss: 5, doubling: 5)
    ring(world, 4)
    let held = (0..<4).reduce(0) { $0 + world.cluster.counters($1).replicasHeld }
    let flows = world.outward.numbers.count
    #expect(flows > 150 && held == 2 * UInt64(flows))
    world.probe("all live")
    world.expectNoFaults("all live")
  }

  @Test(arguments: 1...4) func aRuntimeAndAHolderDieAtOnce(seed: UInt64) {
    let world = World(seed: seed, runtimes: 4, loss: seed % 2 == 0 ? 10 : 0)
    ring(world, 4)
    let (first, second) = (Int(seed % 4), Int(seed % 4 + 1 + seed / 3 % 2) % 4)
    let living = (0..<4).filter { $0 != first && $0 != second }
    world.cluster.kill(first)
    world.cluster.kill(second)
    world.traffic(steps: 20)
    var run: UInt32 = 0
    for lost in [first, second] {
      let heirs = [(lost + 1) % 4, (lost + 2) % 4].filter(living.contains)
      run += 1
      world.cluster.recover(lost, by: heirs[0], standby: heirs.dropFirst().first, run: run)
    }
    world.cluster.announce(serving: living)
    world.traffic(steps: 100)
    for (index, owner) in living.enumerated() { world.cluster.protect(owner, by: [living[1 - index]], stream: UInt32(10 + owner)) }
    world.traffic(steps: 100)
    world.run(50_000)
    #expect(world.cluster.recoveries.map(\.refused) == [0, 0])
    world.probe("two at once")
    world.expectNoFaults("two at once")
    expectBooks(world, living)
  }

  @Test(arguments: 1...4) func theHeirDiesBeforeItsFlowsHaveReplicas(seed: UInt64) {
    let world = World(seed: seed, runtimes: 4, flows: 400, delay: 20 + Int(seed) * 20)
    ring(world, 4)
    world.cluster.kill(0)
    world.cluster.recover(0, by: 1, standby: 2, run: 1)
    world.cluster.announce(serving: [1, 2, 3])
    // Some flows are taken over, and some of those have replicas.
    for _ in 0..<seed { world.run(seed < 3 ? 30 : 60) }
    world.cluster.kill(1)
    world.traffic(steps: 10)
    world.cluster.recover(1, by: 2, standby: 3, run: 2)
    world.cluster.announce(serving: [2, 3])
    world.cluster.protect(2, by: [3], stream: 20)
    world.cluster.protect(3, by: [2], stream: 21)
    world.traffic(steps: 200)
    world.run(50_000)
    world.probe("the heir died")
    world.expectNoFaults("the heir died")
    expectBooks(world, [2, 3])
  }

  @Test func aHoldersEndChangesNothingForItsOwner() {
    let world = World(seed: 9, runtimes: 3)
    ring(world, 3)
    let before = world.outward.received
    world.cluster.kill(1)
    world.cluster.recover(1, by: 2, standby: 0, run: 1)
    world.cluster.announce(serving: [0, 2])
    world.traffic(steps: 100)
    world.run(20_000)
    #expect(world.outward.received > before + 200)
    #expect(world.cluster.counters(0).unprotectedFlows == 0, "the other one releases its packets, without a word of the coordinator's")
    world.cluster.kill(0)
    world.traffic(steps: 10)
    world.cluster.recover(0, by: 2, run: 2)
    world.cluster.announce(serving: [2])
    world.traffic(steps: 100)
    world.run(50_000)
    world.probe("one after the other")
    world.expectNoFaults("one after the other")
    expectBooks(world, [2])
  }

  /// As with one replica, and a holder of the victim's dies with it.
  @Test(arguments: 1...8) func deathsInTheMiddleOfAMigration(seed: UInt64) {
    let world = World(seed: seed, runtimes: 5, flows: 150, delay: 30)
    ring(world, 5)
    world.cluster.migrate(120, from: 0, to: 2, run: 1)
    world.traffic(steps: 1 + world.random.below(12))
    let victim = Int(seed % 5)
    world.cluster.kill(victim)
    world.traffic(steps: 10)
    world.cluster.recover(victim, by: (victim + 1) % 5, standby: (victim + 2) % 5, run: 1)
    let living = (0..<5).filter { $0 != victim }
    world.cluster.announce(serving: living)
    for (index, owner) in living.enumerated() {
      world.cluster.protect(owner, by: [living[(index + 1) % 4], living[(index + 2) % 4]], stream: UInt32(20 + owner))
    }
    world.traffic(steps: 300)
    world.run(100_000)
    world.probe("\(victim) died")
    world.expectNoFaults("\(victim) died")
    expectBooks(world, living)
  }
}
