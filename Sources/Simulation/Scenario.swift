/// The worlds that are played, by the names people give them; a seed decides everything else.
public enum Scenario: String, CaseIterable, Sendable {
  /// A channel on a link that loses a fifth of its frames, and doubles, damages and reorders others.
  case channelLoss = "channel-loss"
  /// A channel whose ends die and come back.
  case channelRestarts = "channel-restarts"
  /// Migrations while the network loses, doubles, delays and damages frames and nodes pause.
  case migrationNetwork = "migration-network"
  /// The same, and packets overtake each other.
  case migrationReordering = "migration-reordering"
  /// The same, and runtimes and switches die.
  case migrationDeaths = "migration-deaths"
  /// Replication with output commit while the network does harm and nodes pause.
  case replicationNetwork = "replication-network"
  /// The same, and runtimes die, one after another.
  case replicationDeaths = "replication-deaths"
  /// The same, and often a runtime and its holder die at once.
  case replicationPairs = "replication-pairs"
  /// The same, and some that live are taken for dead.
  case replicationZombies = "replication-zombies"
  /// The first three of these with two replicas of each flow.
  case twoReplicasNetwork = "two-replicas-network"
  case twoReplicasDeaths = "two-replicas-deaths"
  case twoReplicasPairs = "two-replicas-pairs"
  /// The workers that ship, with a NAT whose endpoints travel.
  case workers

  /// Seeds of a usual run: more where one takes less time.
  public var usualSeeds: Int {
    switch self {
    case .channelLoss, .channelRestarts: 2_500
    case .migrationNetwork, .migrationReordering, .migrationDeaths: 2_000
    case .replicationNetwork, .replicationDeaths, .replicationPairs, .replicationZombies: 1_500
    case .twoReplicasNetwork, .twoReplicasDeaths, .twoReplicasPairs: 1_500
    case .workers: 100
    }
  }

  /// What happened in some worlds, by name.
  public typealias Tally = [String: Int]

  /// Plays one world.
  ///
  /// - Parameter defect: what shall go wrong: a `MigrationDefect`, `ReplicationDefect` or `ReturnDefect` by name.
  /// - Throws: what went against the rules.
  public func play(seed: UInt64, defect: String? = nil) throws -> Tally {
    switch self {
    case .channelLoss, .channelRestarts:
      var world = ChannelWorld(seed: seed)
      try world.run(passes: 80, restarts: self == .channelRestarts)
      return ["messages": world.delivered]
    case .migrationNetwork: return try migrate(seed, .network, defect)
    case .migrationReordering: return try migrate(seed, .reordering, defect)
    case .migrationDeaths: return try migrate(seed, .deaths, defect)
    case .replicationNetwork: return try replicate(seed, .network, defect)
    case .replicationDeaths: return try replicate(seed, .deaths, defect)
    case .replicationPairs: return try replicate(seed, .pairs, defect)
    case .replicationZombies: return try replicate(seed, .zombies, defect)
    case .twoReplicasNetwork: return try replicate(seed, .network, replicas: 2, defect)
    case .twoReplicasDeaths: return try replicate(seed, .deaths, replicas: 2, defect)
    case .twoReplicasPairs: return try replicate(seed, .pairs, replicas: 2, defect)
    case .workers:
      var world = WorkerWorld(seed: seed, defect: defect.flatMap(ReturnDefect.init))
      try world.play()
      return ["runs": world.summary.runs, "moved": world.summary.moved, "returned": world.summary.returned]
    }
  }

  private func migrate(_ seed: UInt64, _ harm: MigrationWorld.Harm, _ defect: String?) throws -> Tally {
    var world = MigrationWorld(seed: seed, harm: harm, defect: defect.flatMap(MigrationDefect.init))
    try world.play()
    let summary = world.summary
    return ["runs": summary.runs, "moved": summary.moved, "held": summary.held, "late": summary.late, "deaths": summary.deaths]
  }

  private func replicate(_ seed: UInt64, _ harm: ReplicationWorld.Harm, replicas: Int = 1, _ defect: String?) throws -> Tally {
    var world = ReplicationWorld(seed: seed, harm: harm, replicas: replicas, defect: defect.flatMap(ReplicationDefect.init))
    try world.play()
    let summary = world.summary
    return [
      "outputs": summary.outputs, "unprotected": summary.unprotected, "deaths": summary.deaths, "taken over": summary.takenOver,
      "lost": summary.lost, "zombies": summary.zombies, "ended": summary.ends,
    ]
  }

  /// The defects that this scenario's worlds can have, by name.
  public var defects: [String] {
    switch self {
    case .channelLoss, .channelRestarts: []
    case .migrationNetwork, .migrationReordering, .migrationDeaths: MigrationDefect.allCases.map(\.rawValue)
    case .replicationNetwork, .replicationDeaths, .replicationPairs, .replicationZombies:
      ReplicationDefect.allCases.filter { !$0.needsTwo }.map(\.rawValue)
    case .twoReplicasNetwork, .twoReplicasDeaths, .twoReplicasPairs: ReplicationDefect.allCases.map(\.rawValue)
    case .workers: ReturnDefect.allCases.map(\.rawValue)
    }
  }

  /// What should have happened in some worlds and did not; `nil` when nothing is missing. A run in which nothing happened
  /// proves nothing.
  public func lacks(_ tally: Tally) -> String? {
    let wanted =
      switch self {
      case .channelLoss, .channelRestarts: ["messages"]
      case .migrationNetwork: ["moved", "held"]
      case .migrationReordering: ["moved", "held", "late"]
      case .migrationDeaths: ["moved", "held", "deaths"]
      case .replicationNetwork, .twoReplicasNetwork: ["outputs", "ended"]
      case .replicationDeaths, .twoReplicasDeaths, .twoReplicasPairs: ["outputs", "ended", "deaths", "taken over"]
      case .replicationPairs: ["outputs", "deaths", "taken over", "lost"]
      case .replicationZombies: ["outputs", "deaths", "taken over", "zombies"]
      case .workers: ["moved", "returned"]
      }
    return wanted.first { tally[$0, default: 0] == 0 }
  }
}
