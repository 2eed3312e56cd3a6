import Dataplane
import Wire

/// The connections of a benchmark and their frames: who talks to whom on either side of the chain.
///
/// Clients are chosen so that each has an address of the NAT's pool to itself and so keeps its ports, whoever else is there:
/// an external endpoint is then the same whenever its flow is opened again, and the answers to it can be prepared.
final class Connections {
  struct Endpoints {
    var source: UInt32
    var destination: UInt32
    var sourcePort: UInt16
    var destinationPort: UInt16
  }

  /// A packet of a connection.
  struct Segment {
    var flags: UInt8
    var sequence: UInt32
    var acknowledgement: UInt32
    var payload = 0
    var isForward = true

    static let clientStart: UInt32 = 1_000
    static let serverStart: UInt32 = 5_000
    static let syn = Segment(flags: 0x02, sequence: clientStart, acknowledgement: 0)
    static let synAck = Segment(flags: 0x12, sequence: serverStart, acknowledgement: clientStart + 1, isForward: false)
  }

  let count: Int
  let payload: Int
  private let peer = FabricAddress(cluster: 1, node: 1)
  let runtime = FabricAddress(cluster: 1, node: 2)
  private let clients: [UInt32]
  /// What payloads are cut from; zeroes if it is empty.
  private let text: [UInt8]
  /// What the server side sees, once it is known.
  private var outside: [Endpoints]

  private static let portsPerClient = 50_000

  /// - Parameter payload: bytes of a data packet's payload; 6 make the smallest frame.
  init(count: Int, payload: Int = 6, text: [UInt8] = []) {
    self.count = count
    self.payload = payload
    self.text = text
    var clients: [UInt32] = []
    var taken = Set<UInt64>()
    var candidate: UInt32 = 0x0a03_0001  // 10.3.0.1
    while clients.count < max(1, (count + Self.portsPerClient - 1) / Self.portsPerClient) {
      // The NAT's pairing of clients with addresses (RFC 4787 REQ-2).
      if taken.insert((UInt64(candidate &* 0x9e37_79b9) * UInt64(ChainUnderTest.externals)) >> 32).inserted {
        clients.append(candidate)
      }
      candidate += 1
    }
    self.clients = clients
    outside = []
    outside.reserveCapacity(count)
  }

  func inside(_ flow: Int) -> Endpoints {
    Endpoints(
      source: clients[flow / Self.portsPerClient],
      destination: ChainUnderTest.firstVirtual + UInt32(flow) % ChainUnderTest.services,
      sourcePort: UInt16(1_024 + flow % Self.portsPerClient), destinationPort: ChainUnderTest.port)
  }

  /// Notes what has become of the next flow's SYN: answers go to where that came from.
  func learn(from frame: UnsafeRawPointer) {
    func half(_ at: Int) -> UInt16 { UInt16(bigEndian: frame.loadUnaligned(fromByteOffset: at, as: UInt16.self)) }
    func word(_ at: Int) -> UInt32 { UInt32(bigEndian: frame.loadUnaligned(fromByteOffset: at, as: UInt32.self)) }
    outside.append(Endpoints(source: word(30), destination: word(26), sourcePort: half(36), destinationPort: half(34)))
  }

  /// Writes a whole frame, its checksums right, to zeroed memory.
  func write(_ flow: Int, _ segment: Segment, to frame: UnsafeMutableRawPointer) {
    let side: Side = segment.isForward ? .client : .server
    let endpoints = segment.isForward ? inside(flow) : outside[flow]
    func store16(_ value: UInt16, _ at: Int) { frame.storeBytes(of: value.bigEndian, toByteOffset: at, as: UInt16.self) }
    func store32(_ value: UInt32, _ at: Int) { frame.storeBytes(of: value.bigEndian, toByteOffset: at, as: UInt32.self) }
    for (at, address) in [(0, runtime.address(of: side).value), (6, peer.address(of: side).value)] {
      store16(UInt16(truncatingIfNeeded: address >> 32), at)
      store32(UInt32(truncatingIfNeeded: address), at + 2)
    }
    store16(0x0800, 12)
    store16(0x4500, 14)
    store16(UInt16(40 + segment.payload), 16)
    store16(0x4000, 20)
    store16(0x4006, 22)  // 64 hops, TCP
    store32(endpoints.source, 26)
    store32(endpoints.destination, 30)
    store16(endpoints.sourcePort, 34)
    store16(endpoints.destinationPort, 36)
    store32(segment.sequence, 38)
    store32(segment.acknowledgement, 42)
    store16(0x5000 | UInt16(segment.flags), 46)
    store16(65_535, 48)
    if !text.isEmpty, segment.payload > 0 {
      let place = flow &* 7_919 % (text.count - segment.payload)
      text.withUnsafeBytes { (frame + 54).copyMemory(from: $0.baseAddress! + place, byteCount: segment.payload) }
    }
    let pseudo = Checksum.pseudoHeader(addresses: frame + 26, protocolNumber: 6, length: 20 + segment.payload)
    // Sums are in memory order already.
    frame.storeBytes(of: ~Checksum.fold(Checksum.sum(frame + 14, count: 20)), toByteOffset: 24, as: UInt16.self)
    frame.storeBytes(
      of: ~Checksum.fold(Checksum.sum(frame + 34, count: 20 + segment.payload, initial: pseudo)), toByteOffset: 50,
      as: UInt16.self)
  }
}
