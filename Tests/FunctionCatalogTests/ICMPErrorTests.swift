import ControlMessages
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

@testable import FunctionCatalog

/// ICMP errors through firewall, NAT and load balancer, both ways, judged by the reader of the test kit.
@Suite struct ICMPErrorTests {
  static let nat = try! NAT(reader: SettingsReader(text: Example.nat))
  static let firewall = try! Firewall(
    reader: SettingsReader(text: "default: allow"))
  static let balancer = try! LoadBalancer(reader: SettingsReader(text: Example.loadBalancer))

  let runtime = TestRuntime(firewall.then(nat.then(balancer)), relaysErrors: true)

  /// Checksums of the error and of what it quotes; the quoted transport's only where all of it is quoted.
  static func holds(_ error: TestPacket, wholeQuotation: Bool) -> Bool {
    guard error.checksumsHold, let quoted = error.quotedPacket else { return false }
    return wholeQuotation ? quoted.checksumsHold : TestPacket.checksum(quoted.bytes[14..<34]) == 0
  }

  @Test(arguments: [Int.max, 28, 40, 48])
  func `an error about a client's packet comes back as about the packet that the client sent`(
    quoting: Int
  ) throws {
    let packets: [TestPacket] = [
      .udp("10.0.0.1:1100", "192.0.2.1:53", payload: Array(1...30)),
      .udpWithoutChecksum("10.0.0.2:1100", "192.0.2.1:53", payload: Array(1...30)),
      .tcp("10.0.0.1:1100", "10.1.0.100:80", .syn, seq: 100, payload: Array(1...30)),
      .icmpEchoRequest("10.0.0.1", "192.0.2.1", id: 9, payload: Array(1...30)),
    ]
    for packet in packets {
      let sent = try #require(runtime.send(packet).packet)
      for reporter: Endpoint in ["198.51.100.7", Endpoint(sent.destination.address)] {
        let error = TestPacket.icmpError(from: reporter, about: sent, quoting: quoting)
        #expect(Self.holds(error, wholeQuotation: quoting == .max))
        let relayed = try #require(runtime.send(error, from: .reverse).packet, "\(packet)")
        let quoted = try #require(relayed.quotedPacket)
        #expect(relayed.destination.address == packet.source.address)
        #expect(quoted.source == packet.source && quoted.destination == packet.destination)
        #expect(Self.holds(relayed, wholeQuotation: quoting == .max), "\(packet)")
        if quoting == .max { #expect(quoted.bytes[14...] == packet.bytes[14...], "the quotation is what the client sent") }
        let isBalanced = sent.destination != packet.destination
        #expect(relayed.source.address == (isBalanced ? packet.destination.address : reporter.address))
      }
    }
  }

  @Test(arguments: [Int.max, 28]) func `an error about a server's packet leaves as from the client's external address`(
    quoting: Int
  ) throws {
    for packet: TestPacket in [
      .udp("10.0.0.1:1100", "192.0.2.1:53"), .tcp("10.0.0.1:1101", "10.1.0.100:80", .syn, seq: 100),
    ] {
      let sent = try #require(runtime.send(packet).packet)
      let answer = sent.answered([.syn, .ack], seq: 7, payload: [1, 2, 3, 4, 5])
      let delivered = try #require(runtime.send(answer).packet)
      // From the client itself, and from a router on its side.
      for reporter: Endpoint in [Endpoint(packet.source.address), "10.0.0.254"] {
        let relayed = try #require(
          runtime.send(.icmpError(from: reporter, about: delivered, quoting: quoting)).packet, "\(delivered)")
        #expect(relayed.source.address == sent.source.address && relayed.destination.address == answer.source.address)
        let quoted = try #require(relayed.quotedPacket)
        #expect(quoted.source == answer.source && quoted.destination == answer.destination)
        #expect(Self.holds(relayed, wholeQuotation: quoting == .max))
        if quoting == .max { #expect(quoted.bytes[14...] == answer.bytes[14...]) }
      }
    }
  }

  @Test func `an error changes nothing about its flow`() throws {
    let syn = TestPacket.tcp("10.0.0.1:1100", "10.1.0.100:80", .syn, seq: 100)
    let sent = try #require(runtime.send(syn).packet)
    let before = try #require(runtime.state(ofFlowOf: syn, as: Firewall.FlowState.self))
    #expect(runtime.send(.icmpError(from: "198.51.100.7", about: sent)).packet != nil)
    let after = try #require(runtime.state(ofFlowOf: syn, as: Firewall.FlowState.self))
    #expect(before.connection == after.connection && runtime.flowCount == 1)
    #expect(runtime.send(sent.answered([.syn, .ack], seq: 5)).packet != nil)
  }

  @Test func `an error that quotes what nobody sent is dropped`() throws {
    let syn = TestPacket.tcp("10.0.0.1:1100", "10.1.0.100:80", .syn, seq: 100)
    let sent = try #require(runtime.send(syn).packet)
    let forged = TestPacket.tcp(sent.source, sent.destination, .ack, seq: 5_000_000)
    #expect(runtime.send(.icmpError(from: "198.51.100.7", about: forged)) == .dropped("icmp-error-unrelated"))
    let stranger = TestPacket.udp("10.2.0.200:1100", "192.0.2.99:53")
    #expect(runtime.send(.icmpError(from: "198.51.100.7", about: stranger)) == .dropped("no-flow"))
    // The quoted header's own checksum is wrong (RFC 5508 REQ-3b): found by nobody, changed by nobody.
    let broken = sent.breaking(.ipv4Checksum)
    #expect(runtime.send(.icmpError(from: "198.51.100.7", about: broken)).reason?.hasSuffix("icmp-error-unrelated") == true)
  }

  @Test func `IPv6 errors pass the firewall with their flow`() throws {
    let runtime = TestRuntime(Self.firewall, relaysErrors: true)
    let packet = TestPacket.tcp("[2001:db8::1]:1000", "[2001:db8::2]:80", .syn, seq: 100)
    #expect(runtime.send(packet).packet != nil)
    let tooBig = TestPacket.icmpError(from: "2001:db8::ff", about: packet, type: 2, code: 0)
    #expect(runtime.send(tooBig) == .forwarded(tooBig))
    let forged = TestPacket.tcp("[2001:db8::1]:1000", "[2001:db8::2]:80", .syn, seq: 100_000)
    #expect(runtime.send(.icmpError(from: "2001:db8::ff", about: forged, type: 3)) == .dropped("icmp-error-unrelated"))
  }

  @Test func `the key that finds the flow is the answer's`() throws {
    for packet: TestPacket in [
      .udp("10.0.0.1:1100", "192.0.2.1:53"), .icmpEchoRequest("10.0.0.1", "192.0.2.1", id: 9),
      .icmpEchoReply("192.0.2.1", "10.0.0.1", id: 9), .tcp("[2001:db8::1]:1000", "[2001:db8::2]:80", .syn),
    ] {
      let isIPv6 = packet.source.address.ipv4 == nil
      var copy = packet
      var error = TestPacket.icmpError(from: isIPv6 ? "2001:db8::ff" : "198.51.100.7", about: packet)
      let (plain, plain6) = copy.withFrame { frame in
        _ = frame.parse(checksums: .verify)
        return (frame.fiveTuple, frame.ipv6FiveTuple)
      }
      error.withFrame { frame in
        #expect(frame.parse(checksums: .verify) == nil)
        guard let error = ICMPError(frame) else {
          Issue.record("no error in \(packet)")
          return
        }
        if isIPv6 { #expect(error.ipv6AnswerKey == plain6.reversed) } else { #expect(error.answerKey == plain.reversed) }
      }
    }
  }

  @Test(arguments: 0..<4) func `no bytes, however odd, are read beyond or changed without need`(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    var understood = 0
    for step in 0..<5000 {
      let inner = TestPacket.udp("203.0.113.1:1000", "192.0.2.1:53", payload: [1, 2, 3, 4, 5, 6, 7, 8])
      var error = TestPacket.icmpError(
        from: "198.51.100.7", about: inner, type: [3, 11, 12, 4, 5, 8].randomElement(using: &random)!,
        quoting: .random(in: 0...44, using: &random))
      for _ in 0..<Int.random(in: 0...3, using: &random) {
        let offset = Int.random(in: 34..<error.bytes.count, using: &random)
        error.bytes[offset] = .random(in: 0...255, using: &random)
      }
      let before = error
      error.withFrame { frame in
        guard frame.parse(checksums: .trust) == nil, let error = ICMPError(frame), !error.isIPv6 else { return }
        understood += 1
        let (source, port) = (error.source.ipv4!, error.sourcePort)
        error.rewriteSource("10.0.0.1", port: 77)
        error.rewriteSource(source, port: port)
      }
      // What was rewritten and rewritten back is what it was, up to the two forms of zero in checksums.
      let differing = zip(before.bytes, error.bytes).enumerated().filter { $0.element.0 != $0.element.1 }.map(\.offset)
      let isForms = differing.allSatisfy { [before.bytes[$0], error.bytes[$0]].allSatisfy { $0 == 0 || $0 == 255 } }
      #expect(isForms, "seed \(seed) step \(step): \(differing)")
    }
    #expect(understood > 300)
  }
}
