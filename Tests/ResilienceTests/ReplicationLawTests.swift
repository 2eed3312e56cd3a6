import Simulation
import Testing

/// A witness that notices what replication and recovery must not do. The laws themselves are `SimulationTests`.
@Suite struct ReplicationLawTests {
  @Test(arguments: ReplicationDefect.allCases)
  func `replication with a defect is caught, and not by a single seed`(defect: ReplicationDefect) {
    let harm: ReplicationWorld.Harm = [.acceptsZombies, .recoversUnfenced, .settlesEarly, .keepsOldReplicas].contains(defect) ? .zombies : .deaths
    let replicas = defect.needsTwo ? 2 : 1
    func violates(_ seed: UInt64, _ defect: ReplicationDefect?) -> Bool {
      var world = ReplicationWorld(seed: seed, harm: harm, replicas: replicas, defect: defect)
      return (try? world.play()) == nil
    }
    // Defects of who stands by show only when two end in the right order, a moment apart.
    let seeds: Range<UInt64> = replicas == 2 ? 0..<2_000 : 0..<400
    var caught: [UInt64] = []
    // By what is wrong with the defect and right without it.
    for seed in seeds where caught.count < 5 && violates(seed, defect) && !violates(seed, nil) {
      caught.append(seed)
    }
    #expect(caught.count == 5, "\(caught)")
  }
}
