import Dataplane
import Glibc
import Wire

/// The worker and the C loop side by side, with the same flows.
///
/// Everything that happens to one happens to the other, burst for burst, and what leaves must be the same.
struct ChainStage {
  let connections: Connections
  let worker: Contender
  /// The worker, and the C loop if it has the chain.
  let contenders: [Contender]
  private let label: String

  /// - Parameters:
  ///   - flows: connections that there can be.
  ///   - capacity: flows that the tables hold; an eighth more if not given.
  init(
    _ chain: ChainUnderTest, flows: Int, payload: Int = 6, capacity: Int? = nil, timeouts: [UInt32] = TrafficMix.timeouts
  ) throws {
    connections = Connections(count: flows, payload: payload, text: chain.readsPayloads ? IntrusionRules.text : [])
    var rules = FlowRules()
    rules.capacity = capacity ?? flows + flows / 8 + 64
    rules.ipv6Capacity = 0
    rules.timeouts = timeouts
    worker = try .worker(chain, rules: rules, address: connections.runtime)
    contenders = [.cLoop(chain, rules: rules, address: connections.runtime), worker].compactMap { $0 }
    label = chain.name
  }

  /// A SYN of each connection.
  func openingFrames(_ flows: Range<Int>) -> PreparedFrames { frames(flows, .syn) }

  /// The SYN-ACK and the ACK of each connection, once what answers look like is known.
  func establishingFrames(_ flows: Range<Int>) -> [PreparedFrames] {
    [.synAck, .init(flags: 0x10, sequence: 1_001, acknowledgement: 5_001)].map { frames(flows, $0) }
  }

  private func frames(_ flows: Range<Int>, _ segment: Connections.Segment) -> PreparedFrames {
    let frames = PreparedFrames(capacity: flows.count, length: 54 + connections.payload)
    for flow in flows { connections.write(flow, segment, to: frames.append()) }
    return frames
  }

  /// Opens connections through the chain: what it makes of a SYN tells what the answers look like. Only the `staying` first
  /// are established; the others are forgotten.
  func open(_ flows: Int, staying: Int) throws {
    try play(openingFrames(0..<flows), step: 100) { connections.learn(from: $0) }
    for frames in establishingFrames(0..<staying) { try play(frames, step: 100) }
    if staying < flows { forgetIdle(flows - staying) }
  }

  /// Lets time go by until so many flows that nobody uses are forgotten.
  func forgetIdle(_ flows: Int) {
    for contender in contenders { contender.rest(milliseconds: 500 + flows / 64) }
  }

  /// Opens the flows of a mix, makes its frames and plays them until everything is as it will be in every round.
  func prepare(_ mix: TrafficMix) throws -> PreparedFrames {
    try open(mix.flows, staying: mix.staying)
    let cycle = mix.frames(connections)
    for contender in contenders {
      contender.port.insert(cycle)
      // In the first round some connections come in the middle of their lives.
      if mix.passing > 0 { contender.play(cycle.count, step: mix.step) }
    }
    let compared = min(cycle.count, 3_200_000)
    try play(cycle, step: mix.step, most: compared)
    for contender in contenders { contender.play(cycle.count - compared, step: mix.step) }
    return cycle
  }

  /// Plays `frames` once (or the first `most` of them) through all, a burst at a time. Every frame must come out, the same
  /// from all, with checksums that hold.
  func play(_ frames: PreparedFrames, step: UInt64, most: Int = .max, sent: (UnsafeRawPointer) -> Void = { _ in }) throws {
    let buffers = contenders.map { _ in UnsafeMutableRawPointer.allocate(byteCount: 32 * frames.length, alignment: 64) }
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
