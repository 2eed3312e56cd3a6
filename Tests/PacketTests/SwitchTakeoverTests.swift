import Testing
import Wire

/// Switches that die while packets keep coming, in the workers that ship: another one takes the uplinks over, learns from the
/// runtimes whose the flows are, and every flow goes on where it was.
@Suite struct SwitchTakeoverTests {
  private typealias World = WorkerRecoveryTests.World

  private func expectOneOwnerEach(_ world: World, among runtimes: [Int], _ comment: Comment) {
    #expect(world.booked(at: runtimes) == world.outward.numbers.count, "\(comment): no flow has two owners, none has no owner")
  }

  /// Until a new flow is welcome: what links lose of a census is asked again, and nothing is known of their times at first.
  private func waitForAdmission(_ world: World) {
    for flow in 10_000..<10_100 {
      let number = world.number()
      world.cluster.clientSends(flow: flow, number: number)
      world.run(10_000)
      if world.outward.numbers[flow] == number { return }
    }
    Issue.record("no new flow is admitted")
  }

  @Test(arguments: 1...6) func flowsOutliveTheirSwitch(seed: UInt64) {
    let world = World(
      seed: seed, switches: 2, isReplicated: false, loss: seed % 3 == 0 ? 10 : 0, doubling: seed % 3 == 1 ? 10 : 0)
    world.traffic(steps: 150)
    // Flows at all runtimes: new ones go to the first that serves.
    world.cluster.announce(serving: [1, 2])
    world.traffic(steps: 150)
    let first = world.cluster.gateways.client
    world.cluster.killSwitch(0)
    world.traffic(steps: 20)
    world.cluster.giveUplinks(to: 1)
    world.traffic(steps: 100)
    waitForAdmission(world)
    #expect(world.cluster.gateways.client != first, "hosts know the other switch by its announcement")
    world.probe("after a switch has died")
    world.expectNoFaults("after a switch has died")
    expectOneOwnerEach(world, among: [0, 1, 2], "after a switch has died")
    #expect(world.cluster.switchCounters.flowsRecovered > 0)

    // The one that was killed is back, and takes over from the one that took over.
    world.cluster.restartSwitch(0)
    world.cluster.announce(serving: [0, 1, 2])
    world.traffic(steps: 100)
    world.cluster.killSwitch(1)
    world.traffic(steps: 10)
    world.cluster.giveUplinks(to: 0)
    world.traffic(steps: 100)
    waitForAdmission(world)
    world.probe("after both have died")
    world.expectNoFaults("after both have died")
    expectOneOwnerEach(world, among: [0, 1, 2], "after both have died")
  }

  /// Nobody stands by: the switch's next life learns the flows just the same.
  @Test(arguments: 1...3) func aSwitchThatComesBackKnowsTheFlows(seed: UInt64) {
    let world = World(seed: seed, isReplicated: false)
    world.traffic(steps: 200)
    world.cluster.killSwitch(0)
    world.cluster.announce(serving: [0, 1, 2])
    world.traffic(steps: 50)
    world.cluster.restartSwitch(0)
    world.cluster.giveUplinks(to: 0)
    world.traffic(steps: 100)
    world.probe("after the only switch has come back")
    world.expectNoFaults("after the only switch has come back")
    expectOneOwnerEach(world, among: [0, 1, 2], "after the only switch has come back")
  }

  /// Flows are on their way from one runtime to another, in any step, while the switches change.
  @Test(arguments: 1...40) func inTheMiddleOfAMigration(seed: UInt64) {
    let world = World(seed: seed, switches: 2, isReplicated: false, flows: 150, loss: seed % 2 == 0 ? 25 : 0, delay: 30)
    world.traffic(steps: 250)
    world.cluster.migrate(120, from: 0, to: 2, run: 1)
    world.traffic(steps: world.random.below(8))
    world.cluster.killSwitch(0)
    world.traffic(steps: world.random.below(12))
    world.cluster.giveUplinks(to: 1)
    world.traffic(steps: world.random.below(6))
    world.cluster.migrate(60, from: 2, to: 1, run: 2)
    world.traffic(steps: 300)
    waitForAdmission(world)
    world.run(100_000)
    world.probe("seed \(seed)")
    world.expectNoFaults("seed \(seed)")
    expectOneOwnerEach(world, among: [0, 1, 2], "seed \(seed)")
  }

  /// A runtime dies with the switch, before or after it, and its heir is told before or after the switch's.
  @Test(arguments: 1...12) func togetherWithARuntime(seed: UInt64) {
    let world = World(seed: seed, switches: 2, flows: 150)
    for runtime in 0..<3 { world.cluster.protect(runtime, by: (runtime + 1) % 3, stream: UInt32(1 + runtime)) }
    world.run(2_000)
    world.traffic(steps: 250)
    let switchFirst = seed % 2 == 0
    if switchFirst { world.cluster.killSwitch(0) } else { world.cluster.kill(0) }
    world.traffic(steps: world.random.below(10))
    if switchFirst { world.cluster.kill(0) } else { world.cluster.killSwitch(0) }
    world.traffic(steps: world.random.below(10))
    if seed % 4 < 2 { world.cluster.giveUplinks(to: 1) }
    world.run(UInt64(world.random.below(300)))
    world.cluster.recover(0, by: 1, run: 1)
    world.run(UInt64(world.random.below(300)))
    if seed % 4 >= 2 { world.cluster.giveUplinks(to: 1) }
    world.cluster.announce(serving: [1, 2])
    world.traffic(steps: 200)
    world.run(50_000)
    world.probe("seed \(seed)")
    world.expectNoFaults("seed \(seed)")
    expectOneOwnerEach(world, among: [1, 2], "seed \(seed)")
  }

  /// It was only thought to be dead, and speaks up again before it has heard that it is.
  @Test(arguments: 1...4) func aZombieSwitchChangesNothing(seed: UInt64) {
    let world = World(seed: seed, switches: 2, isReplicated: false)
    world.traffic(steps: 150)
    world.cluster.killSwitch(0)
    world.traffic(steps: 5)
    world.cluster.giveUplinks(to: 1)
    world.traffic(steps: 100)
    let before = world.booked(at: [0, 1, 2])
    let holder = world.cluster.gateways.client
    world.cluster.wakeSwitch(0)
    // Packets that it has had since, of flows that it has never seen.
    for flow in 1_000..<1_050 { world.cluster.slip(flow: flow, number: 1, into: 0) }
    world.run(20_000)
    // What runtimes had sent it before comes out late, as from any link that was held up.
    (world.outward.faults, world.homeward.faults) = ([], [])
    #expect(world.booked(at: [0, 1, 2]) == before, "runtimes take no packet from it")
    #expect((0..<3).contains { world.cluster.drops($0).contains { $0.code == DropReason.fenced.code } })
    #expect(world.cluster.gateways.client == holder)
    world.probe("with a zombie")
    world.expectNoFaults("with a zombie")
  }

  /// A runtime that never answers: after two seconds new flows are welcome all the same.
  @Test func aRuntimeThatDoesNotAnswerIsNotWaitedForForEver() {
    let world = World(seed: 9, switches: 2, isReplicated: false)
    world.cluster.announce(serving: [1, 2])
    world.traffic(steps: 100)
    world.cluster.kill(0)
    world.cluster.killSwitch(0)
    world.run(1_000)
    world.cluster.giveUplinks(to: 1)
    world.run(1_500_000)
    world.cluster.clientSends(flow: 5_000, number: 1)
    world.run(2_000)
    #expect(world.cluster.switchDrops.contains { $0.code == DropReason.awaitsRecovery.code })
    world.run(600_000)
    world.cluster.clientSends(flow: 5_001, number: 1)
    world.run(2_000)
    #expect(world.outward.numbers[5_001] == 1)
  }
}
