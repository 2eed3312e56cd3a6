import Foundation
import ModuleGraphs
import NetworkFunctionTesting
import Testing
import Wire

@testable import DPDKPorts

/// Datagrams in fragments, and packets that are too long for a link, through a DPDK port that gives back what it took.
@Suite(.serialized, .enabled(if: TestEnvironment.started != nil, "DPDK cannot be started in this process"))
struct LargePacketTests {
  nonisolated(unsafe) static let pool = try! MbufPool(name: "fragments", count: 2_047)
  nonisolated(unsafe) static let port = try! DPDKPort(PortSpec("ring"), number: 77, pool: pool, large: LargePackets(name: "wholes", pool: pool))

  /// A datagram of which no two bytes in eight are alike.
  static func datagram(_ count: Int, isIPv6: Bool, seed: Int = 0) -> TestPacket {
    let payload = (0..<count).map { UInt8(truncatingIfNeeded: $0 / 8 &* 31 &+ $0 &+ seed) }
    return isIPv6
      ? .udp("[2001:db8::1]:5000", "[2001:db8::2]:53", payload: payload) : .udp("10.0.0.1:5000", "10.0.0.2:53", payload: payload)
  }

  static func parts(_ packet: TestPacket, size: Int) -> [Range<Int>] {
    let end = packet.bytes.count - (packet.bytes[12] == 0x86 ? 54 : 34)
    return stride(from: 0, to: end, by: size).map { $0..<min(end, $0 + size) }
  }

  /// What comes of frames that arrive one after the other: whole packets, and how many were refused.
  func receive(_ packets: [TestPacket]) -> (whole: [TestPacket], refused: Int) {
    let (port, batch, whole) = (Self.port, PacketBatch(), PacketBatch())
    var result: (whole: [TestPacket], refused: Int) = ([], 0)
    for packet in packets {
      #expect(port.makeFrame(in: batch, length: packet.bytes.count, now: .zero))
      packet.bytes.withUnsafeBytes { batch[0].write($0.baseAddress!, count: $0.count) }
      let outcome = port.reassemble(batch, mask: 1, into: whole, now: .zero)
      #expect(outcome.taken == 1)
      result.refused += outcome.refused.nonzeroBitCount
      for index in 0..<whole.count { result.whole.append(TestPacket(bytes: whole[index].withBytes { Array($0) })) }
      port.release(whole, mask: whole.all)
      whole.removeAll()
      batch.removeAll()
    }
    return result
  }

  /// A datagram that has been put together has no "don't fragment".
  static func expected(_ packet: TestPacket, id: UInt16 = 7) -> TestPacket {
    guard packet.bytes[12] == 8 else { return packet }
    var same = packet
    same.bytes.replaceSubrange(18..<22, with: [UInt8(id >> 8), UInt8(id & 255), 0, 0])
    return same.afterHops(0)
  }

  @Test(arguments: [false, true]) func `a datagram comes out of its fragments in whatever order they come`(isIPv6: Bool) {
    var random = SystemRandomNumberGenerator()
    for count in [40, 1_500, 4_000, 8_900] {
      let packet = Self.datagram(count, isIPv6: isIPv6, seed: count)
      for size in [max(16, count / 7 / 8 * 8 + 8), 1_480] {
        let parts = Self.parts(packet, size: size)
        guard (2...8).contains(parts.count) else { continue }
        for _ in 0..<6 {
          let fragments = parts.shuffled(using: &random).map { packet.fragment($0) }
          let result = receive(fragments)
          #expect(result.whole == [Self.expected(packet)] && result.refused == 0, "\(count) bytes in \(parts.count)")
          #expect(result.whole.allSatisfy { $0.checksumsHold })
        }
      }
    }
  }

  @Test func `datagrams that are mixed are told apart`() {
    let packets = (0..<20).map { Self.datagram(3_000, isIPv6: $0 % 2 == 0, seed: $0) }
    let fragments = (0..<3).flatMap { part in
      packets.enumerated().map { $1.fragment(Self.parts($1, size: 1_200)[part], id: UInt16(100 + $0)) }
    }
    let result = receive(fragments)
    #expect(result.refused == 0)
    #expect(Set(result.whole) == Set(packets.enumerated().map { Self.expected($1, id: UInt16(100 + $0)) }))
  }

  @Test(arguments: [false, true]) func `overlapping, tiny and contradictory fragments come to nothing`(isIPv6: Bool) {
    let packet = Self.datagram(1_000, isIPv6: isIPv6)
    let end = Self.parts(packet, size: 65_535)[0].upperBound
    func of(_ parts: [Range<Int>], id: UInt16) -> [TestPacket] { parts.map { packet.fragment($0, id: id) } }
    let cases: [(String, [TestPacket])] = [
      ("an overlap at the end", of([0..<504, 496..<end], id: 1)),
      ("an overlap in the middle", of([0..<400, 800..<end, 392..<808], id: 2)),
      ("one twice", of([0..<400, 400..<800, 400..<800, 800..<end], id: 3)),
      ("two ends", of([0..<400], id: 4) + [packet.fragment(408..<800, id: 4, isLast: true)] + of([800..<end], id: 4)),
      ("a length that no other can follow", [packet.fragment(0..<404, id: 6), packet.fragment(408..<end, id: 6)]),
      ("nine", of(stride(from: 0, to: end, by: 120).map { $0..<min(end, $0 + 120) }, id: 8)),
    ]
    for (name, fragments) in cases {
      let result = receive(fragments)
      #expect(result.whole == [] && result.refused > 0, "\(name)")
    }
    // TCP's flags must be in the first fragment (RFC 1858), and nothing may come in their place (RFC 3128).
    let segment = TestPacket.tcp("10.0.0.1:5000", "10.0.0.2:80", .ack, payload: Array(repeating: 1, count: 100))
    for part in [0..<16, 8..<64, 16..<64] { #expect(receive([segment.fragment(part, id: 9)]).refused == 1, "\(part)") }
    // After all that, a sound one goes through.
    #expect(receive(of([0..<504, 504..<end], id: 10)).whole.count == 1)
  }

  @Test func `a fragment that is the whole packet, and bytes that are none`() {
    let packet = Self.datagram(100, isIPv6: true)
    #expect(receive([packet.fragment(0..<108)]).whole == [packet], "RFC 6946")
    var generator = SystemRandomNumberGenerator()
    for size in 1..<400 {
      var bytes = (0..<size).map { _ in UInt8.random(in: 0...255, using: &generator) }
      if size >= 60, size % 3 > 0 { bytes.replaceSubrange(12..<15, with: size % 3 == 1 ? [8, 0, 0x45] : [0x86, 0xdd, 0x60]) }
      if size >= 60, size % 3 == 2 { bytes[20] = 44 }
      #expect(receive([TestPacket(bytes: bytes)]).whole == [])
    }
  }

  @Test func `fragments that stay alone do not use up the memory`() {
    for id in 0..<5_000 as Range<UInt16> {
      _ = receive([Self.datagram(1_000, isIPv6: id % 2 == 0).fragment(0..<504, id: id)])
    }
    let batch = PacketBatch()
    var lengths: [UInt16] = Array(repeating: 60, count: 64)
    let made = lengths.withUnsafeBufferPointer { Self.port.makeFrames(in: batch, lengths: $0, now: .zero) }
    lengths = []
    #expect(made == 64)
    Self.port.release(batch, mask: batch.all)
    // A second later they are forgotten.
    usleep(1_100_000)
    let packet = Self.datagram(1_000, isIPv6: false)
    #expect(receive([0..<504, 504..<1_008].map { packet.fragment($0) }).whole == [Self.expected(packet)])
  }

  @Test(arguments: [false, true]) func `what is too long for the link leaves in fragments, and comes together again`(isIPv6: Bool) throws {
    let port = Self.port
    let packet = Self.datagram(5_000, isIPv6: isIPv6)
    let whole = PacketBatch()
    let batch = PacketBatch()
    for part in Self.parts(packet, size: 1_400) {
      let piece = packet.fragment(part)
      #expect(port.makeFrame(in: batch, length: piece.bytes.count, now: .zero))
      piece.bytes.withUnsafeBytes { batch[batch.count - 1].write($0.baseAddress!, count: $0.count) }
    }
    #expect(port.reassemble(batch, mask: batch.all, into: whole, now: .zero).taken == batch.all)
    batch.removeAll()
    try #require(whole.count == 1)
    #expect(whole[0].parse(checksums: .verify) == nil)
    #expect(port.transmit(whole, mask: 1) == 0)
    whole.removeAll()
    port.receive(into: batch, now: .zero)
    #expect(batch.count == 4)
    let pieces = (0..<batch.count).map { TestPacket(bytes: batch[$0].withBytes { Array($0) }) }
    port.release(batch, mask: batch.all)
    #expect(pieces.allSatisfy { $0.bytes.count <= 1_514 })
    #expect(receive(pieces.reversed()).whole == [Self.expected(packet)])
  }
}
