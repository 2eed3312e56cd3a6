import Simulation
import Testing

/// A witness that notices what a migration must not do. The laws themselves are `SimulationTests`.
@Suite struct MigrationLawTests {
  @Test(arguments: MigrationDefect.allCases)
  func `a migration with a defect is caught`(defect: MigrationDefect) {
    #expect(throws: MigrationWorld.Violation.self) {
      for seed in 0..<200 as Range<UInt64> {
        var world = MigrationWorld(seed: seed, harm: seed % 2 == 0 ? .network : .reordering, defect: defect)
        try world.play()
      }
    }
  }
}
