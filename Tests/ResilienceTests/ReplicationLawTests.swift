import Simulation
import Testing

/// A witness that notices what replication and recovery must not do. The laws themselves are `SimulationTests`.
@Suite struct ReplicationLawTests {
  @Test(arguments: ReplicationDefect.allCases)
  func `replication with a defect is caught, and not by a single seed`(defect: ReplicationDefect) {
    let harm: ReplicationWorld.Harm = defect == .acceptsZombies || defect == .recoversUnfenced ? .zombies : .deaths
    func violates(_ seed: UInt64, _ defect: ReplicationDefect?) -> Bool {
      var world = ReplicationWorld(seed: seed, harm: harm, defect: defect)
      return (try? world.play()) == nil
    }
    var caught: [UInt64] = []
    // By what is wrong with the defect and right without it.
    for seed in 0..<400 as Range<UInt64> where caught.count < 5 && violates(seed, defect) && !violates(seed, nil) { caught.append(seed) }
    #expect(caught.count == 5, "\(caught)")
  }
}
