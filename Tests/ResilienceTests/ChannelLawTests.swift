import Simulation
import Testing

/// A checker that notices when a channel does not deliver once and in order. The laws themselves are `SimulationTests`.
@Suite struct ChannelLawTests {
  @Test(arguments: Saboteur.allCases)
  func `a channel with a defect is caught`(saboteur: Saboteur) {
    #expect(throws: ChannelWorld.Violation.self) {
      for seed in 0..<200 as Range<UInt64> {
        var world = ChannelWorld(seed: seed) { saboteur.lets(&$0, to: $1, key: $2) }
        try world.run(passes: 80, restarts: seed % 2 == 0)
      }
    }
  }
}
