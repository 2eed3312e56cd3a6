import Testing

/// Exactly once and in order, whatever the link and the processes do; and a checker that notices when it is not so.
///
/// One seed again: `NFV_SEED=n swift test --filter ChannelLawTests`.
@Suite struct ChannelLawTests {
  @Test(arguments: 0..<8)
  func `messages arrive once and in order through a severe link`(part: Int) throws {
    for seed in Seeds.part(part, of: 8, count: 800) {
      var world = ChannelWorld(seed: seed)
      try world.run(passes: 80, restarts: false)
    }
  }

  @Test(arguments: 0..<8)
  func `sessions end with a life and nothing of one life is heard in another`(part: Int) throws {
    for seed in Seeds.part(part, of: 8, count: 1_600) {
      var world = ChannelWorld(seed: seed)
      try world.run(passes: 80, restarts: true)
    }
  }

  @Test(arguments: Saboteur.allCases)
  func `a channel with a defect is caught`(saboteur: Saboteur) {
    #expect(throws: ChannelWorld.Violation.self) {
      for seed in 0..<200 as Range<UInt64> {
        var world = ChannelWorld(seed: seed, saboteur: saboteur)
        try world.run(passes: 80, restarts: seed % 2 == 0)
      }
    }
  }
}
