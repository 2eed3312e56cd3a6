import Simulation
import Testing

/// A witness that notices what replication and recovery must not do. The laws themselves are `SimulationTests`.
@Suite struct ReplicationLawTests {
  @Test(arguments: ReplicationDefect.allCases)
  func `replication with a defect is caught`(defect: ReplicationDefect) {
    let isCaught = (0..<400 as Range<UInt64>).contains { seed in
      let harm: ReplicationWorld.Harm = defect == .acceptsZombies || defect == .recoversUnfenced ? .zombies : .deaths
      func violates(_ defect: ReplicationDefect?) -> Bool {
        var world = ReplicationWorld(seed: seed, harm: harm, defect: defect)
        return (try? world.play()) == nil
      }
      // By what is wrong with the defect and right without it.
      return violates(defect) && !violates(nil)
    }
    #expect(isCaught)
  }
}
