import Wire

/// What arrives, as a cycle that is played again and again: flows that stay, and flows that are opened, used, closed and
/// forgotten once in every cycle.
///
///     cycle     0 ─────────────────────────────────────────▶ 1 s of the worker's clock
///     stays     ···d··u········d·····u··········d····u·····d·    packets spread evenly, both directions
///     passes        syn synack d  u  fin fin ack │ idle timeout │ may come again
///
/// The clock is as fast as it must be for flows to be forgotten within a cycle: at a million flows about as fast as
/// reality, with a thousand some hundred times faster (timers and counters then cost more than they really would).
struct TrafficMix {
  let name: String
  /// Flows that stay, and the packets each has in a cycle.
  let staying: Int
  let packetsPerStaying: Int
  /// Flows that come and go, and the packets each has.
  let passing: Int
  let packetsPerPassing: Int

  /// No flow comes or goes.
  static func steady(_ flows: Int) -> TrafficMix {
    TrafficMix(name: "", staying: flows, packetsPerStaying: 2, passing: 0, packetsPerPassing: 0)
  }

  /// One packet of ten opens a flow.
  static func opening(_ flows: Int) -> TrafficMix {
    TrafficMix(name: "10%-new", staying: flows / 2, packetsPerStaying: 4, passing: flows / 2, packetsPerPassing: 6)
  }

  /// Paper §VII-B: half of the packets belong to flows of 1 s, half to flows of 10 s, each with 10 packets per second. A
  /// tenth of the long flows begins and ends within any second: those are the same each time here, and have 10 packets.
  static func paper(_ flows: Int) -> TrafficMix {
    TrafficMix(
      name: "paper-mix", staying: flows * 45 / 100, packetsPerStaying: 10, passing: flows * 55 / 100, packetsPerPassing: 10)
  }

  var flows: Int { staying + passing }
  var packets: Int { staying * packetsPerStaying + passing * packetsPerPassing }
  /// The worker's clock from burst to burst, in nanoseconds.
  var step: UInt64 { passing == 0 ? 3_200 : UInt64(1_000_000_000 * 32 / packets) }

  /// Idle timeouts in milliseconds, by `TimeoutClass`: a flow of half a second is forgotten in time for the next cycle.
  static let timeouts: [UInt32] = [250, 7_440_000, 300_000, 60_000, 60_000]
  static let life = 0.5

  /// The cycle's frames.
  func frames(_ connections: Connections) -> PreparedFrames {
    // Place in the cycle (28 bits), flow (24 bits), packet of the flow (12 bits): to be sorted.
    var events: [UInt64] = []
    events.reserveCapacity(packets)
    var random = Random(seed: 42)
    func add(_ flow: Int, _ packet: Int, at place: Double) {
      events.append(UInt64((place - place.rounded(.down)) * Double(1 << 28)) << 36 | UInt64(flow) << 12 | UInt64(packet))
    }
    for flow in 0..<flows {
      let begin = random.next()
      let (count, length) = flow < staying ? (packetsPerStaying, 1.0) : (packetsPerPassing, Self.life)
      for packet in 0..<count { add(flow, packet, at: begin + length * Double(packet) / Double(count)) }
    }
    events.sort()
    let frames = PreparedFrames(capacity: events.count, length: 54 + connections.payload)
    for event in events {
      let flow = Int(event >> 12 & 0xff_ffff)
      connections.write(flow, segment(flow, Int(event & 0xfff), connections.payload), to: frames.append())
    }
    return frames
  }

  private func segment(_ flow: Int, _ packet: Int, _ payload: Int) -> Connections.Segment {
    typealias Segment = Connections.Segment
    let (client, server, data) = (Segment.clientStart + 1, Segment.serverStart + 1, UInt32(payload))
    func forward(_ flags: UInt8, _ sequence: UInt32, _ acknowledgement: UInt32, _ payload: Int = 0) -> Segment {
      Segment(flags: flags, sequence: sequence, acknowledgement: acknowledgement, payload: payload)
    }
    func reverse(_ flags: UInt8, _ sequence: UInt32, _ acknowledgement: UInt32, _ payload: Int = 0) -> Segment {
      Segment(flags: flags, sequence: sequence, acknowledgement: acknowledgement, payload: payload, isForward: false)
    }
    if flow < staying { return packet % 2 == 0 ? forward(0x10, client, server, payload) : reverse(0x10, server, client, payload) }
    // Data goes to and fro; whatever is sent again is the same.
    let hasAnswer = packetsPerPassing > 6
    let sent = server + (hasAnswer ? data : 0)
    switch packet {
    case 0: return .syn
    case 1: return .synAck
    case packetsPerPassing - 3: return forward(0x11, client + data, sent)
    case packetsPerPassing - 2: return reverse(0x11, sent, client + data + 1)
    case packetsPerPassing - 1: return forward(0x10, client + data + 1, sent + 1)
    default: return packet % 2 == 0 ? forward(0x10, client, server, payload) : reverse(0x10, server, client + data, payload)
    }
  }
}

/// Seeded, so that every run has the same traffic.
struct Random {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  /// 0 up to 1.
  mutating func next() -> Double {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return Double(state >> 11) / Double(1 << 53)
  }
}
