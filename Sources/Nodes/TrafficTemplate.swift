import Wire

/// All that a generator's frames of one size have in common: their first 60 bytes, checksums zero, and the sums of what
/// checksums cover.
@safe
struct TrafficTemplate {
  /// Of the frame, without its check sequence.
  let length: UInt16
  /// Behind the transport header, the record included.
  let payload: UInt32
  /// 16-bit words of the IPv4 header without its addresses, in host order.
  let networkSum: UInt64
  /// The same of pseudo header, transport header and record, as far as they do not depend on the flow.
  let transportSum: UInt64
  /// Bytes 0 up to 32 and 28 up to 60: the shortest frame in two stores.
  private let head: (SIMD32<UInt8>, SIMD32<UInt8>)

  init(plan: TrafficPlan, run: UInt16, length: Int, source: MACAddress, destination: MACAddress) {
    self.length = UInt16(length)
    payload = UInt32(length - plan.payloadOffset)
    var bytes = SIMD64<UInt8>()
    func put(_ value: UInt64, _ count: Int, at offset: Int) {
      for index in 0..<count { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - index))) }
    }
    put(destination.value, 6, at: 0)
    put(source.value, 6, at: 6)
    put(0x0800, 2, at: 12)
    put(0x4500, 2, at: 14)
    put(UInt64(length - 14), 2, at: 16)
    put(0x4000, 2, at: 20)  // do not fragment
    put(64, 1, at: 22)
    put(UInt64(plan.protocolNumber), 1, at: 23)
    switch plan.transport {
    case .udp: put(UInt64(length - 34), 2, at: 38)
    case .tcp:
      put(0x50, 1, at: 46)
      put(65_535, 2, at: 48)
    }
    func sum(_ range: Range<Int>) -> UInt64 {
      stride(from: range.lowerBound, to: range.upperBound, by: 2).reduce(0) {
        $0 + UInt64(bytes[$1]) << 8 + UInt64(bytes[$1 + 1])
      }
    }
    networkSum = sum(14..<34)
    transportSum =
      sum(34..<plan.payloadOffset) + UInt64(plan.protocolNumber) + UInt64(length - 34) + TrafficRecord.constantSum(run: run)
    head = (SIMD32(bytes.indices.prefix(32).map { bytes[$0] }), SIMD32(bytes.indices[28..<60].map { bytes[$0] }))
  }

  /// Writes a whole frame but for what differs between packets.
  @unsafe @inline(__always)
  func write(to bytes: UnsafeMutableRawPointer) {
    unsafe bytes.storeBytes(of: head.0, as: SIMD32<UInt8>.self)
    unsafe bytes.storeBytes(of: head.1, toByteOffset: 28, as: SIMD32<UInt8>.self)
    if length > 60 { unsafe (bytes + 60).initializeMemory(as: UInt8.self, repeating: 0, count: Int(length) - 60) }
  }
}

extension TrafficPlan {
  var protocolNumber: UInt8 { transport == .tcp ? IPProtocol.tcp : IPProtocol.udp }
}

/// One flow of a generator: who talks to whom, and how far it is. 48 bytes.
struct TrafficFlow {
  enum Phase: UInt8 { case new, opening, open }

  var number: UInt32
  var sequence: UInt32 = 0
  var tcpSequence: UInt32 = 0
  var phase = Phase.new
  /// When the last SYN was sent.
  var asked: UInt64 = 0
  /// As they stand in the packet.
  private let addresses: UInt64
  private let ports: UInt32
  let addressSum: UInt64
  /// Addresses, ports and number.
  let transportSum: UInt64

  init(_ number: UInt32, _ plan: TrafficPlan) {
    self.number = number
    let endpoints = plan.endpoints(of: number)
    addresses = (UInt64(endpoints.source) << 32 | UInt64(endpoints.destination)).bigEndian
    ports = (UInt32(endpoints.sourcePort) << 16 | UInt32(endpoints.destinationPort)).bigEndian
    addressSum = words(endpoints.source) + words(endpoints.destination)
    transportSum = addressSum + UInt64(endpoints.sourcePort) + UInt64(endpoints.destinationPort) + words(number)
  }

  @unsafe @inline(__always)
  func writeEndpoints(to bytes: UnsafeMutableRawPointer) {
    unsafe bytes.storeBytes(of: addresses, toByteOffset: 26, as: UInt64.self)
    unsafe bytes.storeBytes(of: ports, toByteOffset: 34, as: UInt32.self)
  }
}
