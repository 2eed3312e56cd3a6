import CMeasuring

/// A fixed number of packets through the worker, or through the C loop, and nothing else, for `scripts/instructions-per-packet.sh`: instruction counts
/// are the same in every run, whatever else the machine does.
///
/// Flows that come and go are so many that the worker's clock goes about ten times as fast as the real one: with fewer, what is done
/// once per millisecond would be counted with every burst.
struct InstructionTrial {
  static let packets = 64_000
  static let flows = 1_000
  static let comingAndGoing = 32_000
  static let movingFlows = 20_000

  func run(_ mix: TrafficMix, inC: Bool = false) throws {
    let stage = try ChainStage(.whole, flows: mix.flows)
    let contender = inC ? stage.contenders[0] : stage.worker
    contender.port.insert(try stage.prepare(mix))
    Self.measure { contender.play(Self.packets, step: mix.step) }
    print("packets: \(Self.packets)")
  }

  /// Flows that move from a runtime to another, without traffic: instructions of all three workers.
  func runMigration() throws {
    let cluster = try MigrationCluster(flows: Self.movingFlows)
    // There and back once before, until every list has grown as far as it will.
    for _ in 0..<2 { _ = try cluster.migrate(packetsPerSecond: 0) }
    var outcome: Result<Void, Error> = .success(())
    Self.measure { outcome = Result { _ = try cluster.migrate(packetsPerSecond: 0) } }
    try outcome.get()
    print("flows: \(Self.movingFlows)")
  }

  private static func measure(_ body: @escaping () -> Void) {
    final class Work {
      let body: () -> Void
      init(_ body: @escaping () -> Void) { self.body = body }
    }
    let work = Work(body)
    withExtendedLifetime(work) {
      measuring_section(
        { Unmanaged<Work>.fromOpaque($0!).takeUnretainedValue().body() }, Unmanaged.passUnretained(work).toOpaque())
    }
  }
}
