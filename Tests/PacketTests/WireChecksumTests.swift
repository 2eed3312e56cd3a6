import NetworkFunctionTesting
import Testing
import Wire

@Suite struct WireChecksumTests {
  @Test func `the sum is that of RFC 1071, at every length and place in memory`() {
    var random = SeededNumbers(seed: 2)
    let bytes = (0..<2100).map { _ in UInt8.random(in: 0...255, using: &random) }
    bytes.withUnsafeBytes { memory in
      for length in Array(0..<100) + [1499, 1500, 2000] {
        for offset in 0..<9 {
          let sum = Checksum.fold(Checksum.sum(memory.baseAddress! + offset, count: length))
          #expect(~sum.bigEndian == TestPacket.checksum(bytes[offset..<offset + length]), "\(length) bytes at \(offset)")
        }
      }
    }
  }

  @Test func `sums of nothing but ones carry over`() {
    let ones = [UInt8](repeating: 255, count: 4096)
    ones.withUnsafeBytes { memory in
      for length in [2, 8, 64, 4096] { #expect(Checksum.fold(Checksum.sum(memory.baseAddress!, count: length)) == 0xffff) }
    }
  }

  @Test func `an update by RFC 1624 gives what a full computation gives`() {
    var random = SeededNumbers(seed: 3)
    for round in 0..<20_000 {
      // Corner values often: the classic mistakes are about 0x0000 and 0xffff.
      func word() -> UInt16 { [0, 0xffff, 1, 0xfffe, .random(in: 0 ... .max, using: &random)].randomElement(using: &random)! }
      var words = (0..<6).map { _ in word() }
      if words.allSatisfy({ $0 == 0 }) { words[5] = 1 }
      let before = TestPacket.checksum(words.flatMap { [UInt8($0 >> 8), UInt8($0 & 255)] })
      let old = UInt32(words[0]) << 16 | UInt32(words[1])
      let new = UInt32(word()) << 16 | UInt32(word())
      let port = words[2]
      (words[0], words[1], words[2]) = (UInt16(new >> 16), UInt16(new & 0xffff), word())
      if words.allSatisfy({ $0 == 0 }) { continue }
      let updated = Checksum.update(
        before, removing: Checksum.removed(old) + UInt64(~port), adding: Checksum.added(new) + UInt64(words[2]))
      #expect(updated == TestPacket.checksum(words.flatMap { [UInt8($0 >> 8), UInt8($0 & 255)] }), "round \(round)")
    }
  }

  @Test func `rewriting leaves the bytes that a packet made that way would have`() {
    var random = SeededNumbers(seed: 4)
    for _ in 0..<5000 {
      func endpoint() -> Endpoint {
        Endpoint(IPv4Address(.random(in: 1 ... .max, using: &random)), port: .random(in: 0 ... .max, using: &random))
      }
      let (a, b, c, d) = (endpoint(), endpoint(), endpoint(), endpoint())
      let payload = (0..<Int.random(in: 0..<50, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
      let make: (Endpoint, Endpoint) -> TestPacket =
        switch Int.random(in: 0..<4, using: &random) {
        case 0: { .tcp($0, $1, .ack, seq: 5, payload: payload) }
        case 1: { .udp($0, $1, payload: payload) }
        case 2: { .udpWithoutChecksum($0, $1, payload: payload) }
        default: { .icmpEchoRequest($0, $1, id: $0.port, payload: payload) }
        }
      var packet = make(a, b)
      packet.withFrame { frame in
        #expect(frame.parse(checksums: .verify) == nil)
        frame.rewriteSource(c.address.ipv4!, port: c.port)
        frame.rewriteDestination(d.address.ipv4!, port: d.port)
        #expect(frame.fiveTuple.source == c.address.ipv4 && frame.sourcePort == c.port)
        #expect(frame.fiveTuple.destination == d.address.ipv4)
      }
      #expect(packet == make(c, d))
      #expect(packet.checksumsHold && packet.parsed() == nil)
    }
  }
}
