import CIntrinsics
import Simulation
import Testing
import Wire

@testable import ReliableChannels

/// Frames as bytes: what stands where, and that nothing but a right frame is taken.
@Suite struct ChannelFrameTests {
  @Test func `version 1 keeps its bytes`() throws {
    let pair = ChannelPair()
    pair.settle()
    #expect(pair.a.send([0xab, 0xcd]))
    let frame = pair.a.frames(pair.now)[0]
    let text = frame.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    #expect(
      text == """
        00000000000200000000000188b5\
        01020400\(text.dropFirst(36).prefix(8))0100000002000000\
        07000000000000000300000000000000\
        0000000000000000000000000000000000010000000000000000000000000000\
        0200abcd
        """)
  }

  @Test func `checksum and keyed hash are those of the books`() {
    let digits = Array("123456789".utf8)
    #expect(~nfv_crc32c(0xffff_ffff, digits, 9) == 0xe306_9283, "RFC 3720 appendix B.4's check value")
    let key = ChannelKey(low: 0x0706_0504_0302_0100, high: 0x0f0e_0d0c_0b0a_0908)
    #expect(SipHash.hash(UnsafeRawBufferPointer(start: nil, count: 0), key: key) == 0x726f_db47_dd0e_0e31)
    let message = (0..<15).map { UInt8($0) }
    #expect(message.withUnsafeBytes { SipHash.hash($0, key: key) } == 0xa129_ca61_49be_45e5, "appendix A of the paper")
  }

  @Test func `every changed bit and every missing byte is refused and counted`() {
    for key in [nil, ChannelKey(low: 1, high: 2)] {
      let pair = ChannelPair { $0.key = key }
      pair.settle()
      #expect(pair.a.send([1, 2, 3, 4]))
      let frame = pair.a.frames(pair.now)[0]
      for bit in (14 * 8)..<(frame.count * 8) {
        var damaged = frame
        damaged[bit / 8] ^= 1 << UInt8(bit % 8)
        guard case .refused = pair.b.receive(damaged, pair.now) else {
          Issue.record("bit \(bit) may be changed")
          return
        }
      }
      for count in 0..<frame.count { #expect(pair.b.receive(Array(frame.prefix(count)), pair.now) == .refused(.length)) }
      #expect(pair.b.receive(frame + [0, 0, 0], pair.now) == .taken, "padding")
      #expect(pair.b.delivered == [[1, 2, 3, 4]])
      let counters = pair.b.counters
      #expect(FrameRefusal.allCases.reduce(0) { $0 + counters[$1] } == UInt64((frame.count - 14) * 8 + frame.count))
    }
  }

  @Test func `refusals have their reasons`() throws {
    let pair = ChannelPair()
    pair.settle()
    #expect(pair.a.send([1]))
    let frame = pair.a.frames(pair.now)[0]
    let good = try #require(ChannelPair.header(frame))
    func refusal(_ change: (inout ChannelHeader) -> Void, body: [UInt8] = [1, 0, 1], key: ChannelKey? = nil)
      -> ReliableChannel.Reception
    {
      var (header, bytes) = (good, Array(frame.prefix(78)) + body)
      header.bodyLength = UInt16(body.count)
      change(&header)
      bytes.withUnsafeMutableBytes { ChannelFrame.write(header, to: $0.baseAddress! + 14, key: key) }
      return pair.b.receive(bytes, pair.now)
    }
    #expect(refusal({ $0.sourceNode = 9 }) == .refused(.node))
    #expect(refusal({ $0.destinationIncarnation = 2 }) == .refused(.session))
    #expect(refusal({ $0.sourceIncarnation = 6 }) == .refused(.session))
    #expect(refusal({ $0.acknowledged = SequenceNumber(1) }) == .refused(.window))
    #expect(refusal({ $0.sequence = SequenceNumber(5_000) }) == .refused(.window))
    #expect(refusal({ $0.kind = .acknowledgement }) == .refused(.malformed))
    #expect(refusal({ _ in }, body: [2, 0, 1]) == .refused(.malformed))
    #expect(refusal({ _ in }, body: []) == .refused(.malformed))
    #expect(refusal({ _ in }, key: ChannelKey(low: 1, high: 1)) == .refused(.authentication))
    #expect(pair.b.receive([UInt8](repeating: 0, count: 90), pair.now) == .refused(.length))
    #expect(pair.b.delivered == [] && refusal({ _ in }) == .taken && pair.b.delivered == [[1]])
  }

  @Test func `a channel with a key takes nothing from one without`() {
    let open = ChannelPair()
    let locked = ChannelPair { $0.key = ChannelKey(low: 1, high: 2) }
    #expect(locked.b.receive(open.a.frames(open.now)[0], open.now) == .refused(.authentication))
    #expect(open.b.receive(locked.a.frames(open.now)[0], open.now) == .refused(.authentication))
    locked.settle()
    #expect(locked.a.isEstablished && locked.b.isEstablished)
  }

  @Test func `any bytes are a refusal at most`() {
    var chance = Chance(seed: 11)
    let pair = ChannelPair()
    pair.settle()
    #expect(pair.a.send([UInt8](repeating: 3, count: 300)))
    let frame = pair.a.frames(pair.now)[0]
    for _ in 0..<20_000 {
      var bytes = Array(frame.prefix(chance.below(frame.count + 1)))
      for _ in 0..<chance.below(6) where !bytes.isEmpty { bytes[chance.below(bytes.count)] = UInt8(chance.below(256)) }
      // Half of them with a right checksum, so that what lies behind it is reached.
      if chance.happens(500), bytes.count >= 78 {
        bytes.withUnsafeMutableBytes { raw in
          let start = raw.baseAddress! + 14
          guard let kind = ChannelHeader.Kind(rawValue: raw[15]) else { return }
          var header = ChannelFrame.fields(start, kind: kind)
          header.bodyLength = UInt16(raw.count - 78)
          ChannelFrame.write(header, to: start, key: nil)
        }
      }
      pair.b.receive(bytes, pair.now)
    }
    #expect(pair.b.counters.refused[Int(FrameRefusal.window.rawValue)] > 0, "the checks behind the checksum were reached")
  }

  @Test func `numbers follow each other in a circle`() {
    for start in [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ff00, 0xffff_ffff] as [UInt32] {
      let sequence = SequenceNumber(start)
      for distance in [1, 64, 1_000, 0x7fff_fffe] {
        #expect(sequence < sequence.advanced(by: distance) && !(sequence.advanced(by: distance) < sequence))
        #expect(sequence.advanced(by: distance).since(sequence) == distance)
        #expect(sequence.since(sequence.advanced(by: distance)) == -distance)
      }
    }
  }
}
