import CMeasuring

/// A fixed number of packets through the worker, or through the C loop, and nothing else, for `scripts/instructions-per-packet.sh`: instruction counts
/// are the same in every run, whatever else the machine does.
struct InstructionTrial {
  static let packets = 64_000
  static let flows = 1_000

  func run(_ mix: TrafficMix, inC: Bool = false) throws {
    let stage = try ChainStage(.whole, flows: mix.flows)
    let contender = inC ? stage.contenders[0] : stage.worker
    contender.port.insert(try stage.prepare(mix))
    final class Work {
      let body: () -> Void
      init(_ body: @escaping () -> Void) { self.body = body }
    }
    let work = Work { contender.play(Self.packets, step: mix.step) }
    withExtendedLifetime(work) {
      measuring_section(
        { Unmanaged<Work>.fromOpaque($0!).takeUnretainedValue().body() }, Unmanaged.passUnretained(work).toOpaque())
    }
    print("packets: \(Self.packets)")
  }
}
