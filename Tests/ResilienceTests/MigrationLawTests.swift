import Simulation
import Testing

/// Flows move back and forth under traffic and harm; whatever happens, a witness finds nothing lost, doubled or overtaken,
/// no flow with two owners, and every hook called once.
///
/// One seed again: `NFV_SEED=n swift test --filter MigrationLawTests`.
@Suite struct MigrationLawTests {
  @Test(arguments: MigrationWorld.Harm.allCases, 0..<4)
  func `a migration loses, doubles and reorders nothing and leaves every flow one owner`(harm: MigrationWorld.Harm, part: Int)
    throws
  {
    var summary = (runs: 0, moved: 0, held: 0, late: 0, deaths: 0)
    for seed in Seeds.part(part, of: 4, count: 400) {
      var world = MigrationWorld(seed: seed, harm: harm)
      try world.play()
      summary.runs += world.summary.runs
      summary.moved += world.summary.moved
      summary.held += world.summary.held
      summary.late += world.summary.late
      summary.deaths += world.summary.deaths
    }
    guard Seeds.isWholeRun else { return }
    // A run in which nothing happens proves nothing.
    #expect(summary.moved > 500 && summary.held > 100, "\(summary)")
    #expect(summary.late > 0 || harm != .reordering, "\(summary)")
    #expect(summary.deaths > 10 || harm != .deaths, "\(summary)")
  }

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
