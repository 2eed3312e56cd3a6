import Dataplane
import Glibc
import Wire

/// The worker and the C loop with the same flows open in both, ready to be measured.
///
/// Everything that happens to one happens to the other, burst for burst, and what leaves must be the same.
struct ChainStage {
  let worker: Contender
  let contenders: [Contender]
  let cycle: PreparedFrames
  private let label: String

  init(_ chain: ChainUnderTest, _ mix: TrafficMix, payload: Int = 6, spare: Int? = nil) throws {
    let connections = Connections(count: mix.flows, payload: payload)
    var rules = FlowRules()
    rules.capacity = mix.flows + (spare ?? mix.flows / 8 + 64)
    rules.ipv6Capacity = 0
    rules.timeouts = TrafficMix.timeouts
    worker = try .worker(chain, rules: rules, flows: rules.capacity, address: connections.runtime)
    contenders = [.cLoop(chain, rules: rules, flows: rules.capacity, address: connections.runtime), worker].compactMap { $0 }
    label = chain.name

    // Opened through the chain: what it makes of a SYN tells what the answers look like.
    let length = 54 + payload
    let opening = PreparedFrames(capacity: mix.flows, length: length)
    for flow in 0..<mix.flows { connections.write(flow, .syn, to: opening.append()) }
    try Self.play(opening, contenders, step: 100, label: label) { connections.learn(from: $0) }
    for segment in [Connections.Segment.synAck, .init(flags: 0x10, sequence: 1_001, acknowledgement: 5_001)] where mix.staying > 0 {
      let frames = PreparedFrames(capacity: mix.staying, length: length)
      for flow in 0..<mix.staying { connections.write(flow, segment, to: frames.append()) }
      try Self.play(frames, contenders, step: 100, label: label)
    }
    // The others are forgotten, and come in the cycle; in its first round some come in the middle of their lives.
    if mix.passing > 0 { for contender in contenders { contender.rest(milliseconds: 1_000 + mix.passing / 64) } }
    cycle = mix.frames(connections)
    for contender in contenders {
      contender.port.insert(cycle)
      if mix.passing > 0 { contender.play(cycle.count, step: mix.step) }
    }
    try Self.play(cycle, contenders, step: mix.step, most: 3_200_000, label: label)
    for contender in contenders { contender.play(cycle.count - min(cycle.count, 3_200_000), step: mix.step) }
  }

  /// Plays `frames` once (or the first `most` of them) through all, a burst at a time. Every frame must come out, the same
  /// from all, with checksums that hold.
  static func play(
    _ frames: PreparedFrames, _ contenders: [Contender], step: UInt64, most: Int = .max, label: String,
    sent: (UnsafeRawPointer) -> Void = { _ in }
  ) throws {
    let room = 32 * frames.length
    let buffers = contenders.map { _ in UnsafeMutableRawPointer.allocate(byteCount: room, alignment: 64) }
    defer { for buffer in buffers { buffer.deallocate() } }
    for contender in contenders { contender.port.insert(frames) }
    var rest = min(most, frames.count)
    while rest > 0 {
      let count = min(32, rest)
      rest -= count
      for (contender, buffer) in zip(contenders, buffers) {
        let bytes = contender.playBurst(count, step: step, into: buffer)
        guard bytes == count * frames.length else {
          throw BenchmarkError("\(label): of \(count) packets \(bytes / frames.length) came out of \(contender.name)")
        }
        guard memcmp(buffers[0], buffer, bytes) == 0 else {
          throw BenchmarkError("\(label): \(contenders[0].name) and \(contender.name) do not send the same")
        }
      }
      for index in 0..<count {
        let bytes = buffers[0] + index * frames.length
        let frame = Frame(bytes: bytes, length: frames.length, buffer: nil, arrival: .zero)
        guard frame.checksumsHold() else { throw BenchmarkError("\(label): a packet came out with a wrong checksum") }
        sent(bytes)
      }
    }
  }
}
