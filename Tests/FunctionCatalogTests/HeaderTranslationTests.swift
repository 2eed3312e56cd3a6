import NetworkFunctionTesting
import Testing
import Wire

@testable import FunctionCatalog

/// IPv6 packets that become IPv4 packets and back, clause by clause of RFC 7915. Checksums are judged by the test kit, which
/// computes them in full and by other code.
@Suite struct HeaderTranslationTests {
  static let client: Endpoint = "[2001:db8::7]:5000"
  static let server: Endpoint = "[64:ff9b::808:808]:80"
  static let external: Endpoint = "203.0.113.1:1024"
  static let server4: Endpoint = "8.8.8.8:80"

  static func toIPv4(_ packet: TestPacket, id: UInt16 = 77, class keeps: Bool = true) -> TestPacket? {
    var packet = packet
    let isTranslated = packet.withFrame { frame in
      #expect(frame.parse(checksums: .verify) == nil)
      let done = frame.translateToIPv4(
        source: external.address.ipv4!, sourcePort: external.port, destination: server4.address.ipv4!, identification: id,
        keepsTrafficClass: keeps)
      if done { expectSoundFrame(&frame) }
      return done
    }
    return isTranslated ? packet : nil
  }

  static func toIPv6(_ packet: TestPacket, class keeps: Bool = true) -> TestPacket? {
    var packet = packet
    let isTranslated = packet.withFrame { frame in
      #expect(frame.parse(checksums: .verify) == nil)
      let done = frame.translateToIPv6(
        source: server.address, destination: client.address, destinationPort: client.port, keepsTrafficClass: keeps)
      if done { expectSoundFrame(&frame) }
      return done
    }
    return isTranslated ? packet : nil
  }

  /// What the frame says of itself is what a parser finds in its bytes.
  static func expectSoundFrame(_ frame: inout Frame) {
    let before = (
      frame.family, frame.fiveTuple.transport, frame.sourceAddress, frame.destinationAddress, frame.networkLength,
      frame.payloadLength, frame.tcpFlags)
    #expect(frame.parse(checksums: .verify) == nil)
    #expect(frame.family == before.0 && frame.fiveTuple.transport == before.1)
    #expect(frame.sourceAddress == before.2 && frame.destinationAddress == before.3)
    #expect(frame.networkLength == before.4 && frame.payloadLength == before.5 && frame.tcpFlags == before.6)
  }

  /// The expected packet with the other's identification and flags.
  static func like(_ other: TestPacket, _ packet: TestPacket) -> TestPacket {
    var copy = packet
    copy.bytes.replaceSubrange(18..<22, with: other.bytes[18..<22])
    return copy.afterHops(0)
  }

  @Test func `a segment keeps all but its addresses and its port (§5.1, §4.1)`() throws {
    let syn = TestPacket.tcp(Self.client, Self.server, [.syn], seq: 9, window: 77, options: [2, 4, 5, 180], payload: [1, 2, 3], ttl: 61)
    let out = try #require(Self.toIPv4(syn))
    let expected = TestPacket.tcp(
      Self.external, Self.server4, [.syn], seq: 9, window: 77, options: [2, 4, 5, 180], payload: [1, 2, 3], ttl: 61)
    #expect(out == Self.like(out, expected) && out.checksumsHold)
    #expect(Array(out.bytes[18..<22]) == [0, 77, 0, 0], "an identification, and it may be cut")
    let back = try #require(Self.toIPv6(.tcp(Self.server4, Self.external, [.syn, .ack], seq: 5, ack: 10, payload: [9], ttl: 50)))
    #expect(back == .tcp(Self.server, Self.client, [.syn, .ack], seq: 5, ack: 10, payload: [9], ttl: 50))
  }

  @Test func `datagrams and echoes, too`() throws {
    let out = try #require(Self.toIPv4(.udp(Self.client, Self.server, payload: [1, 2, 3, 4, 5])))
    #expect(out == Self.like(out, .udp(Self.external, Self.server4, payload: [1, 2, 3, 4, 5])))
    #expect(Self.toIPv6(.udp(Self.server4, Self.external, payload: [7])) == .udp(Self.server, Self.client, payload: [7]))
    for identifier in [UInt16(0), 4, 0xffff] {
      let echo = try #require(Self.toIPv4(.icmpEchoRequest(Self.client, Self.server, id: identifier, seq: 3, payload: [6, 6])))
      #expect(echo == Self.like(echo, .icmpEchoRequest(Self.external, Self.server4, id: 1024, seq: 3, payload: [6, 6])))
      #expect(
        Self.toIPv6(.icmpEchoReply(Self.server4, Self.external, id: identifier, seq: 3, payload: [6]))
          == .icmpEchoReply(Self.server, Self.client, id: 5000, seq: 3, payload: [6]))
    }
    #expect(Self.toIPv4(.icmp(Self.client, Self.server, type: 130)) == nil, "multicast listeners stay on their link (§5.2)")
    #expect(Self.toIPv6(.icmp(Self.server4, Self.external, type: 13, body: Array(repeating: 0, count: 16))) == nil, "as do clocks (§4.2)")
    #expect(Self.toIPv4(.ip(Self.client, Self.server, 50, [1, 2, 3, 4, 5, 6, 7, 8], checksumAt: nil)) == nil)
  }

  @Test(arguments: [(1_231, false), (1_232, false), (1_233, true), (1_400, true)])
  func `what is longer than 1260 bytes may not be cut (§5.1)`(payload: Int, mayNotBeCut: Bool) throws {
    // 1,260 are 20 and 8 and 1,232.
    let out = try #require(Self.toIPv4(.udp(Self.client, Self.server, payload: Array(repeating: 5, count: payload))))
    #expect(out.bytes[20] == (mayNotBeCut ? 0x40 : 0))
  }

  @Test func `the traffic class is copied or zero, and the flow label is zero`() throws {
    // ECN and DSCP bits, and a flow label.
    var packet = TestPacket.udp(Self.client, Self.server).setting(14) { _ in 0x6b }
    packet = packet.setting(15) { _ in 0x9c }.setting(16) { _ in 0xab }
    #expect(Self.toIPv4(packet)?.bytes[15] == 0xb9)
    #expect(Self.toIPv4(packet, class: false)?.bytes[15] == 0)
    let answer = TestPacket.udp(Self.server4, Self.external).setting(15) { _ in 0xb9 }.afterHops(0)
    #expect(Self.toIPv6(answer).map { Array($0.bytes[14..<18]) } == [0x6b, 0x90, 0, 0])
    #expect(Self.toIPv6(answer, class: false).map { Array($0.bytes[14..<18]) } == [0x60, 0, 0, 0])
  }

  @Test func `extension headers are left out, unless somebody else is to see the packet first (§5.1)`() throws {
    func behind(_ kind: UInt8, _ header: [UInt8]) -> TestPacket {
      let plain = TestPacket.tcp(Self.client, Self.server, .syn, seq: 1)
      return .ip(Self.client, Self.server, kind, header + plain.bytes[54...], checksumAt: nil)
    }
    let padding: [UInt8] = [IPProtocol.tcp, 0, 1, 4, 0, 0, 0, 0]
    let expected = TestPacket.tcp(Self.external, Self.server4, .syn, seq: 1)
    for kind: UInt8 in [0, 60] {
      let out = try #require(Self.toIPv4(behind(kind, padding)))
      #expect(out == Self.like(out, expected))
    }
    let both = try #require(Self.toIPv4(behind(0, [60, 0, 1, 4, 0, 0, 0, 0] + padding)))
    #expect(both == Self.like(both, expected))
    let route: [UInt8] = [IPProtocol.tcp, 2, 4, 0, 0, 0, 0, 0] + Array(repeating: 3, count: 16)
    let arrived = try #require(Self.toIPv4(behind(43, route)))
    #expect(arrived == Self.like(arrived, expected))
    var underWay = route
    underWay[3] = 1
    #expect(Self.toIPv4(behind(43, underWay)) == nil)
    // An authentication header, whose length counts in words of four (RFC 4302 §2.2).
    #expect(Self.toIPv4(behind(51, [IPProtocol.tcp, 4, 0, 0] + Array(repeating: 1, count: 20))) == nil)
  }

  @Test func `IPv4 options are left out, unless they prescribe a route (§4.1)`() throws {
    func with(_ options: [UInt8]) -> TestPacket {
      var packet = TestPacket.udp(Self.server4, Self.external, payload: [1])
      packet.bytes.insert(contentsOf: options, at: 34)
      packet.bytes[14] = 0x45 + UInt8(options.count / 4)
      packet.bytes[17] += UInt8(options.count)
      return packet.afterHops(0)
    }
    let expected = TestPacket.udp(Self.server, Self.client, payload: [1])
    #expect(Self.toIPv6(with([7, 7, 4, 0, 0, 0, 0, 0])) == expected, "a record of the route")
    #expect(Self.toIPv6(with([1, 131, 7, 8, 1, 2, 3, 4])) == expected, "a route at its end")
    #expect(Self.toIPv6(with([1, 131, 7, 4, 1, 2, 3, 4])) == nil)
    #expect(Self.toIPv6(with([1, 137, 7, 4, 1, 2, 3, 4])) == nil)
    #expect(Self.toIPv6(with(Array(repeating: 1, count: 40))) == expected, "the header shrinks")
  }

  @Test func `UDP without a checksum gets one (§4.5), and none is ever zero`() throws {
    for size in [0, 1, 7, 500, 1_471] {
      let bytes = (0..<size).map { UInt8(truncatingIfNeeded: $0 * 7) }
      let back = try #require(Self.toIPv6(.udpWithoutChecksum(Self.server4, Self.external, payload: bytes)))
      #expect(back == .udp(Self.server, Self.client, payload: bytes))
    }
    // A word that makes the sum all ones, and so the checksum zero, which is sent as all ones.
    let plain = try #require(Self.toIPv4(.udp(Self.client, Self.server, payload: [0, 0])))
    let word = try #require(plain.transportChecksum)
    let zero = try #require(Self.toIPv4(.udp(Self.client, Self.server, payload: [UInt8(word >> 8), UInt8(word & 255)])))
    #expect(zero.transportChecksum == 0xffff && zero.checksumsHold)
    let plain6 = try #require(Self.toIPv6(.udp(Self.server4, Self.external, payload: [0, 0])))
    let word6 = try #require(plain6.transportChecksum)
    for packet in [
      TestPacket.udp(Self.server4, Self.external, payload: [UInt8(word6 >> 8), UInt8(word6 & 255)]),
      .udpWithoutChecksum(Self.server4, Self.external, payload: [UInt8(word6 >> 8), UInt8(word6 & 255)]),
    ] {
      let zero = try #require(Self.toIPv6(packet))
      #expect(zero.transportChecksum == 0xffff && zero.checksumsHold)
    }
  }

  @Test(arguments: 0..<8) func `there and back is the same packet, tagged and padded or not`(seed: Int) throws {
    var random = SeededGenerator(seed: UInt64(seed))
    for _ in 0..<200 {
      let payload = (0..<Int.random(in: 0..<1_300, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
      var out: TestPacket
      var back: TestPacket
      switch Int.random(in: 0..<3, using: &random) {
      case 0:
        let flags = TCPFlags(rawValue: .random(in: 0..<64, using: &random))
        out = .tcp(Self.client, Self.server, flags, seq: .random(in: 0 ... .max, using: &random), payload: payload)
        back = .tcp(Self.server4, Self.external, flags, seq: .random(in: 0 ... .max, using: &random), payload: payload)
      case 1:
        out = .udp(Self.client, Self.server, payload: payload)
        back = .udp(Self.server4, Self.external, payload: payload)
      default:
        out = .icmpEchoRequest(Self.client, Self.server, id: 5000, payload: payload)
        back = .icmpEchoReply(Self.server4, Self.external, id: 1024, payload: payload)
      }
      for _ in 0..<Int.random(in: 0..<3, using: &random) { (out, back) = (out.vlan(7), back.vlan(7)) }
      if Bool.random(using: &random) { (out, back) = (out.padded(to: out.bytes.count + 9), back.padded(to: back.bytes.count + 9)) }
      let translated = try #require(Self.toIPv4(out))
      let answer = try #require(Self.toIPv6(back))
      #expect(translated.checksumsHold && answer.checksumsHold, "seed \(seed)")
      #expect(translated.source == Self.external && translated.payload == payload, "seed \(seed)")
      #expect(answer.destination.address == Self.client.address && answer.payload == payload, "seed \(seed)")
      #expect(translated.bytes.count == out.bytes.count - 20 && answer.bytes.count == back.bytes.count + 20, "seed \(seed)")
      #expect(translated.bytes.prefix(12) == out.bytes.prefix(12) && answer.bytes.prefix(12) == back.bytes.prefix(12))
    }
  }

  // MARK: ICMP errors

  static var toClient: Frame.ErrorEnds<IPAddress> {
    .init(
      source: IPAddress("64:ff9b::c000:221")!, destination: client.address, quotedSource: client.address,
      quotedDestination: server.address, port: client.port)
  }
  static var toServer: Frame.ErrorEnds<IPv4Address> {
    .init(
      source: external.address.ipv4!, destination: server4.address.ipv4!, quotedSource: server4.address.ipv4!,
      quotedDestination: external.address.ipv4!, port: external.port)
  }

  static func errorToIPv6(_ packet: TestPacket) -> TestPacket? {
    var packet = packet
    let done = packet.withFrame { frame in
      #expect(frame.parse(checksums: .verify) == nil)
      let done = frame.translateErrorToIPv6(toClient, keepsTrafficClass: true)
      if done { expectSoundFrame(&frame) }
      return done
    }
    return done ? packet : nil
  }

  static func errorToIPv4(_ packet: TestPacket) -> TestPacket? {
    var packet = packet
    let done = packet.withFrame { frame in
      #expect(frame.parse(checksums: .verify) == nil)
      let done = frame.translateErrorToIPv4(toServer, identification: 3, keepsTrafficClass: true)
      if done { expectSoundFrame(&frame) }
      return done
    }
    return done ? packet : nil
  }

  static func about4(_ type: UInt8, _ code: UInt8, word: [UInt8] = [0, 0, 0, 0], of packet: TestPacket? = nil) -> TestPacket {
    let packet = packet ?? .udp(external, server4, payload: [1, 2, 3, 4])
    return .icmp("192.0.2.33:0", external, type: type, code: code, body: word + packet.bytes[14...])
  }

  static func about6(_ type: UInt8, _ code: UInt8, word: [UInt8] = [0, 0, 0, 0], of packet: TestPacket? = nil) -> TestPacket {
    let packet = packet ?? .udp(server, client, payload: [1, 2, 3, 4])
    return .icmp("[2001:db8::1]:0", server, type: type, code: code, body: word + packet.bytes[14...])
  }

  @Test func `errors of IPv4 say the same over IPv6 (§4.2)`() {
    let unreachable: [UInt8: [UInt8]?] = [
      0: [1, 0], 1: [1, 0], 2: [4, 1], 3: [1, 4], 4: [2, 0], 5: [1, 0], 6: [1, 0], 7: [1, 0], 8: [1, 0], 9: [1, 1], 10: [1, 1],
      11: [1, 0], 12: [1, 0], 13: [1, 1], 14: nil, 15: [1, 1], 16: nil,
    ]
    for (code, expected) in unreachable { #expect(Self.errorToIPv6(Self.about4(3, code))?.icmpTypeAndCode == expected, "code \(code)") }
    #expect(Array(Self.errorToIPv6(Self.about4(3, 2))!.bytes[58..<62]) == [0, 0, 0, 6], "the next header is meant")
    for code in UInt8(0)...1 { #expect(Self.errorToIPv6(Self.about4(11, code))?.icmpTypeAndCode == [3, code]) }
    for type: UInt8 in [4, 5, 6] { #expect(Self.errorToIPv6(Self.about4(type, 0)) == nil, "type \(type)") }
    let pointers: [UInt8: UInt8] = [0: 0, 1: 1, 2: 4, 3: 4, 8: 7, 9: 6, 12: 8, 15: 8, 16: 24, 19: 24]
    for pointer in UInt8(0)..<24 {
      for code: UInt8 in [0, 2] {
        let out = Self.errorToIPv6(Self.about4(12, code, word: [pointer, 0, 0, 0]))
        #expect(out?.icmpTypeAndCode == (pointer == 13 || pointer == 14 || pointer == 17 || pointer == 18 || pointers[pointer] != nil ? [4, 0] : nil))
        if let expected = pointers[pointer] { #expect(out?.bytes[61] == expected, "pointer \(pointer)") }
      }
    }
    #expect(Self.errorToIPv6(Self.about4(12, 1)) == nil)
  }

  @Test func `errors of IPv6 say the same over IPv4 (§5.2)`() {
    let unreachable: [UInt8: [UInt8]?] = [0: [3, 1], 1: [3, 10], 2: [3, 1], 3: [3, 1], 4: [3, 3], 5: nil, 6: nil]
    for (code, expected) in unreachable { #expect(Self.errorToIPv4(Self.about6(1, code))?.icmpTypeAndCode == expected, "code \(code)") }
    for code in UInt8(0)...1 { #expect(Self.errorToIPv4(Self.about6(3, code))?.icmpTypeAndCode == [11, code]) }
    #expect(Self.errorToIPv4(Self.about6(4, 1))?.icmpTypeAndCode == [3, 2])
    #expect(Self.errorToIPv4(Self.about6(4, 2)) == nil)
    let pointers: [UInt8: UInt8] = [0: 0, 1: 1, 4: 2, 5: 2, 6: 9, 7: 8, 8: 12, 23: 12, 24: 16, 39: 16]
    for pointer: UInt8 in [0, 1, 2, 3, 4, 5, 6, 7, 8, 23, 24, 39, 40, 200] {
      let out = Self.errorToIPv4(Self.about6(4, 0, word: [0, 0, 0, pointer]))
      #expect(out?.icmpTypeAndCode == (pointers[pointer] == nil ? nil : [12, 0]), "pointer \(pointer)")
      if let expected = pointers[pointer] { #expect(out?.bytes[38] == expected, "pointer \(pointer)") }
    }
  }

  @Test func `what is quoted is translated with its checksums, over either family (§4.3, §5.3)`() throws {
    let quotable: [(TestPacket, TestPacket)] = [
      (.udp(Self.external, Self.server4, payload: [1, 2, 3]), .udp(Self.client, Self.server, payload: [1, 2, 3])),
      (.tcp(Self.external, Self.server4, .ack, seq: 7, payload: [5]), .tcp(Self.client, Self.server, .ack, seq: 7, payload: [5])),
      (.icmpEchoRequest(Self.external, Self.server4, id: 1024, payload: [8]), .icmpEchoRequest(Self.client, Self.server, id: 5000, payload: [8])),
    ]
    for (quoted, expected) in quotable {
      let out = try #require(Self.errorToIPv6(Self.about4(3, 1, of: quoted)))
      #expect(out.checksumsHold && out.source.address == Self.toClient.source && out.destination.address == Self.client.address)
      let inner = try #require(out.quotedPacket)
      #expect(inner.bytes.dropFirst(12) == expected.bytes.dropFirst(12) && inner.checksumsHold)
    }
    let back: [(TestPacket, TestPacket)] = [
      (.udp(Self.server, Self.client, payload: [1, 2, 3]), .udp(Self.server4, Self.external, payload: [1, 2, 3])),
      (.tcp(Self.server, Self.client, .ack, seq: 7, payload: [5]), .tcp(Self.server4, Self.external, .ack, seq: 7, payload: [5])),
      (.icmpEchoReply(Self.server, Self.client, id: 5000, payload: [8]), .icmpEchoReply(Self.server4, Self.external, id: 1024, payload: [8])),
    ]
    for (quoted, expected) in back {
      let out = try #require(Self.errorToIPv4(Self.about6(1, 4, of: quoted)))
      #expect(out.checksumsHold && out.source.address == Self.external.address && out.destination.address == Self.server4.address)
      let inner = try #require(out.quotedPacket)
      #expect(inner == Self.like(inner, TestPacket(bytes: Array(inner.bytes[0..<12] + expected.bytes[12...]))) && inner.checksumsHold)
    }
  }

  @Test func `sizes in errors allow for the longer header, and none is below what IPv6 always carries`() throws {
    func mtu6(_ said: Int, quoting size: Int = 1_500) throws -> Int {
      let packet = TestPacket.udp(Self.external, Self.server4, payload: Array(repeating: 1, count: size - 28))
      let short = TestPacket(bytes: Array(packet.bytes.prefix(14 + 28)))
      let out = try #require(Self.errorToIPv6(Self.about4(3, 4, word: [0, 0, UInt8(said >> 8), UInt8(said & 255)], of: short)))
      #expect(out.checksumsHold)
      return Int(out.bytes[60]) << 8 | Int(out.bytes[61])
    }
    #expect(try mtu6(1_400) == 1_420)
    #expect(try mtu6(1_260) == 1_280)
    #expect(try mtu6(576) == 1_280)
    #expect(try mtu6(0) == 1_512, "a router that does not say: the plateau below (RFC 1191 §7)")
    #expect(try mtu6(0, quoting: 1_400) == 1_300)
    func mtu4(_ said: Int) throws -> Int {
      let out = try #require(Self.errorToIPv4(Self.about6(2, 0, word: [0, 0, UInt8(said >> 8), UInt8(said & 255)])))
      #expect(out.icmpTypeAndCode == [3, 4] && out.checksumsHold)
      return Int(out.bytes[40]) << 8 | Int(out.bytes[41])
    }
    #expect(try mtu4(1_400) == 1_380)
    #expect(try mtu4(1_280) == 1_260)
  }

  @Test func `a long quotation is cut where IPv6 ends an error, and an extension is left out`() throws {
    let long = TestPacket.udp(Self.external, Self.server4, payload: Array(repeating: 9, count: 1_300))
    let out = try #require(Self.errorToIPv6(Self.about4(11, 0, of: long)))
    #expect(out.bytes.count == 14 + 1_280 && out.checksumsHold)
    // RFC 4884: 32 words of quotation, then an extension.
    let short = TestPacket.udp(Self.external, Self.server4, payload: Array(repeating: 9, count: 72))
    let padded = TestPacket(bytes: short.bytes + Array(repeating: 0, count: 128 - 100))
    let extended = TestPacket(bytes: padded.bytes + [0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0, 0, 1])
    let plain = try #require(Self.errorToIPv6(Self.about4(11, 0, of: short)))
    let cut = try #require(Self.errorToIPv6(Self.about4(11, 0, word: [0, 32, 0, 0], of: extended)))
    #expect(plain == cut)
  }

  @Test(arguments: 0..<4) func `hostile bytes are refused or make a sound packet`(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed) &+ 500)
    var translated = 0
    let samples: [TestPacket] = [
      .tcp(Self.client, Self.server, .syn), .udp(Self.server4, Self.external, payload: [1, 2, 3]),
      .icmpEchoRequest(Self.client, Self.server, id: 1), .icmpEchoReply(Self.server4, Self.external, id: 1),
      Self.about4(3, 1), Self.about6(1, 4), Self.about4(12, 0), Self.about6(2, 0),
    ]
    for _ in 0..<3_000 {
      var packet = samples.randomElement(using: &random)!
      for _ in 0..<Int.random(in: 1..<5, using: &random) {
        packet.bytes[Int.random(in: 12..<packet.bytes.count, using: &random)] = .random(in: 0...255, using: &random)
      }
      packet = packet.truncated(to: .random(in: 0...packet.bytes.count, using: &random)).padded(to: .random(in: 0..<80, using: &random))
      let isTranslated: Bool = packet.withFrame { frame in
        guard frame.parse(checksums: .trust) == nil else { return false }
        let done: Bool
        switch (frame.family, ICMPError(frame) != nil) {
        case (.ipv6, true): done = frame.translateErrorToIPv4(Self.toServer, identification: 1, keepsTrafficClass: true)
        case (.ipv4, true): done = frame.translateErrorToIPv6(Self.toClient, keepsTrafficClass: true)
        case (.ipv6, false):
          done = frame.translateToIPv4(
            source: Self.external.address.ipv4!, sourcePort: 1024, destination: Self.server4.address.ipv4!, identification: 1,
            keepsTrafficClass: true)
        default:
          done = frame.translateToIPv6(
            source: Self.server.address, destination: Self.client.address, destinationPort: 5000, keepsTrafficClass: true)
        }
        if done {
          let before = (frame.fiveTuple.transport, frame.networkLength)
          #expect(frame.parse(checksums: .trust) == nil, "seed \(seed)")
          #expect(frame.fiveTuple.transport == before.0 && frame.networkLength == before.1, "seed \(seed)")
        }
        return done
      }
      if isTranslated { translated += 1 }
    }
    #expect(translated > 40, "some bytes do not matter")
  }
}
