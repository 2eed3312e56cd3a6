import NetworkFunctionTesting
import Testing
import Wire

@Suite struct WireParsingTests {
  /// One of every kind that is parsed.
  static let good: [TestPacket] = [
    .tcp("10.0.0.1:1234", "10.0.0.2:80", .syn, seq: 7, options: [2, 4, 5, 0xb4, 1, 3, 3, 7], payload: [1, 2, 3]),
    .udp("10.0.0.1:53", "10.0.0.2:53", payload: [1, 2, 3, 4, 5]),
    .udpWithoutChecksum("10.0.0.1:53", "10.0.0.2:53", payload: [9]),
    .icmpEchoRequest("10.0.0.1", "10.0.0.2", id: 77, payload: [1]),
    .icmpEchoReply("10.0.0.1", "10.0.0.2", id: 77),
    .tcp("[2001:db8::1]:1234", "[2001:db8::2]:80", [.syn, .ack], payload: [8]),
    .udp("[2001:db8::1]:1", "[2001:db8::2]:2", payload: [1, 2]),
    .icmpEchoRequest("2001:db8::1", "2001:db8::2", id: 5),
    TestPacket.tcp("10.0.0.1:1", "10.0.0.2:2", .ack).vlan(100),
    TestPacket.udp("10.0.0.1:1", "10.0.0.2:2", payload: [3]).vlan(7).vlan(3, etherType: 0x88a8),
    // Hop-by-hop and destination options before the datagram.
    TestPacket.ip("2001:db8::1", "2001:db8::2", 0, [60, 0, 1, 4, 0, 0, 0, 0] + [59, 0, 1, 4, 0, 0, 0, 0], checksumAt: nil),
    .ip("10.0.0.1", "10.0.0.2", 47, [0, 0, 8, 0, 1, 2, 3], checksumAt: nil),
  ]

  @Test func `what is built is what is read`() {
    for packet in Self.good {
      #expect(packet.parsed() == nil, "\(packet)")
      #expect(packet.checksumsHold)
    }
    var packet = TestPacket.tcp(
      "10.0.0.1:1234", "10.0.0.2:80", [.syn], seq: 7, ack: 9, window: 512, options: [3, 3, 7], payload: [1, 2, 3]
    ).vlan(42)
    packet.withFrame { frame in
      #expect(frame.parse(checksums: .verify) == nil)
      #expect(frame.family == .ipv4 && frame.protocolNumber == IPProtocol.tcp)
      #expect(frame.fiveTuple.description == "6 10.0.0.1:1234 > 10.0.0.2:80")
      #expect(frame.fiveTuple.transport.vlan == 42)
      #expect(frame.tcpFlags == .syn && frame.tcpSequence == 7 && frame.tcpAcknowledgement == 9 && frame.tcpWindow == 512)
      #expect(frame.tcpWindowScale == 7)
      #expect(frame.payloadLength == 3 && frame.withPayload { $0.byteCount } == 3)
      #expect(frame.networkLength == 47)
      #expect(frame.fiveTuple.reversed.reversed == frame.fiveTuple)
    }
    var echo = TestPacket.icmpEchoRequest("10.0.0.1", "10.0.0.2", id: 77)
    echo.withFrame { frame in
      #expect(frame.parse(checksums: .verify) == nil)
      #expect(frame.sourcePort == 77 && frame.destinationPort == 0 && frame.isICMPEchoRequest && !frame.isICMPEchoReply)
    }
  }

  @Test func `a window scale is found among other options, and not beyond them`() {
    func scale(_ options: [UInt8], _ flags: TCPFlags = .syn) -> UInt8? {
      var packet = TestPacket.tcp("10.0.0.1:1", "10.0.0.2:2", flags, options: options)
      return packet.withFrame { frame in
        #expect(frame.parse(checksums: .verify) == nil)
        return frame.tcpWindowScale
      }
    }
    #expect(scale([2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 9]) == 9)
    #expect(scale([3, 3, 200]) == 14)
    #expect(scale([]) == nil && scale([0, 3, 3, 7]) == nil && scale([3, 3, 7], .ack) == nil)
    // Lengths of zero, of one, and beyond the header end the search.
    #expect(
      scale([9, 0, 3, 3, 7]) == nil && scale([9, 1, 3, 3, 7]) == nil && scale([9, 40, 3, 3]) == nil && scale([1, 1, 1, 3]) == nil)
  }

  @Test func `broken checksums are found, and trusted when told to`() {
    for packet in Self.good where packet.transportChecksum != nil && packet.transportChecksum != 0 {
      #expect(packet.breaking(.transportChecksum).parsed() == .badTransportChecksum, "\(packet)")
      #expect(packet.breaking(.transportChecksum).parsed(checksums: .trust) == nil)
      if packet.source.address.ipv4 != nil { #expect(packet.breaking(.ipv4Checksum).parsed() == .badIPv4Checksum) }
    }
  }

  @Test func `padding behind the packet is no part of it`() {
    for packet in Self.good {
      #expect(packet.padded(to: 100).parsed() == nil)
    }
  }

  @Test func `headers that contradict themselves are refused`() {
    let packet = TestPacket.tcp("10.0.0.1:1", "10.0.0.2:2", .ack, payload: [1, 2])
    #expect(packet.setting(14) { _ in 0x55 }.parsed() == .malformedIPv4)
    #expect(packet.setting(14) { _ in 0x44 }.parsed() == .malformedIPv4)
    #expect(packet.setting(16) { _ in 0xff }.parsed() == .truncated)
    #expect(packet.setting(17) { _ in 19 }.parsed() == .malformedIPv4)
    #expect(packet.setting(12) { _ in 0x12 }.parsed() == .unknownEtherType)
    #expect(packet.setting(20) { _ in 0x20 }.parsed(checksums: .trust) == .fragment)
    #expect(packet.setting(46) { _ in 0x40 }.parsed(checksums: .trust) == .malformedTransport)
    #expect(packet.setting(46) { _ in 0xf0 }.parsed(checksums: .trust) == .malformedTransport)
    #expect(packet.vlan(1).vlan(2).vlan(3).parsed() == .unknownEtherType)
    let datagram = TestPacket.udp("10.0.0.1:1", "10.0.0.2:2", payload: [1, 2])
    #expect(datagram.setting(39) { _ in 7 }.parsed() == .malformedTransport)
    #expect(datagram.setting(39) { _ in 11 }.parsed() == .malformedTransport)
    let ipv6 = TestPacket.udp("[2001:db8::1]:1", "[2001:db8::2]:2")
    #expect(ipv6.setting(14) { _ in 0x40 }.parsed() == .malformedIPv6)
    #expect(ipv6.setting(20) { _ in 44 }.parsed() == .fragment)
    // UDP over IPv6 has to have a checksum.
    #expect(ipv6.setting(60) { _ in 0 }.setting(61) { _ in 0 }.parsed() == .badTransportChecksum)
    let nineHeaders = Array(repeating: [60, 0, 1, 4, 0, 0, 0, 0] as [UInt8], count: 9).flatMap { $0 }
    #expect(TestPacket.ip("2001:db8::1", "2001:db8::2", 60, nineHeaders, checksumAt: nil).parsed() == .tooManyExtensionHeaders)
  }

  @Test func `no good packet can be cut short without being noticed, and nothing behind the cut is read`() {
    for packet in Self.good {
      let end = packet.bytes.count
      for length in 0..<end {
        #expect(packet.truncated(to: length).parsed() != nil, "\(packet) cut to \(length)")
        #expect(
          readings(packet, length: length, poison: 0x00) == readings(packet, length: length, poison: 0xff),
          "\(packet) cut to \(length)")
      }
    }
  }

  /// What parsing says about the first `length` bytes when others lie behind them.
  private func readings(_ packet: TestPacket, length: Int, poison: UInt8) -> [UInt64] {
    var bytes = Array(packet.bytes.prefix(length)) + [UInt8](repeating: poison, count: 200)
    return bytes.withUnsafeMutableBytes { memory in
      var frame = Frame(bytes: memory.baseAddress!, length: length, buffer: nil, arrival: .zero)
      let reason = frame.parse(checksums: .verify)
      return [UInt64(reason?.code ?? 0)] + fields(frame)
    }
  }

  private func fields(_ frame: borrowing Frame) -> [UInt64] {
    [frame.fiveTuple.addresses, frame.fiveTuple.transport.word, UInt64(frame.family.rawValue), UInt64(frame.tcpFlags.rawValue)]
  }

  @Test(arguments: 0..<10) func `ten thousand mutated packets are judged without harm`(seed: Int) {
    var random = SeededNumbers(seed: UInt64(seed))
    var verdicts: [UInt8: Int] = [:]
    for round in 0..<10_000 {
      var packet = Self.good.randomElement(using: &random)!
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        // Mostly where headers are.
        let offset = Int.random(in: 0..<packet.bytes.count, using: &random)
        switch Int.random(in: 0..<4, using: &random) {
        case 0: packet.bytes[offset] = .random(in: 0...255, using: &random)
        case 1: packet.bytes[offset] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 2: packet.bytes[offset] = [0, 1, 0x7f, 0x80, 0xff].randomElement(using: &random)!
        default: packet.bytes.removeLast(min(packet.bytes.count - 1, Int.random(in: 0..<3, using: &random)))
        }
      }
      let policy: ChecksumPolicy = round.isMultiple(of: 2) ? .trust : .verify
      let length = packet.bytes.count
      let reason = packet.withFrame { frame -> DropReason? in
        let reason = frame.parse(checksums: policy)
        guard reason == nil else { return reason }
        // Everything an accessor can reach is inside the frame.
        #expect(
          frame.payloadLength >= 0 && frame.networkLength >= 0 && frame.networkLength <= length, "seed \(seed) round \(round)")
        #expect(frame.withPayload { $0.byteCount } <= length)
        _ = (
          frame.tcpWindowScale, frame.tcpSequence, frame.icmpType, frame.sourceAddress, frame.destinationAddress,
          frame.ipv6FiveTuple
        )
        frame.rewriteSource(IPv4Address(0x0102_0304), port: 9)
        frame.rewriteDestination(IPv4Address(0x0506_0708), port: 10)
        return nil
      }
      #expect(packet.bytes.count == length)
      if policy == .verify, reason == nil {
        #expect(packet.parsed() == nil, "seed \(seed) round \(round): rewriting keeps checksums")
      }
      verdicts[reason?.code ?? 0, default: 0] += 1
    }
    #expect(verdicts.count > 6, "\(verdicts)")
  }
}
