import CaptureFiles
import Foundation
import ModuleGraphs
import NetworkFunctionTesting
import Testing
import Wire

/// What comes from outside besides packets of flows: quotations in ICMP errors, ARP, neighbour discovery, capture files.
@Suite struct HostileBytesTests {
  /// How often each seed breaks something; `NFV_LONG` makes it many more.
  static let rounds = ProcessInfo.processInfo.environment["NFV_LONG"] == nil ? 5_000 : 500_000

  private static let quoted: [TestPacket] = [
    .tcp("10.0.0.1:1234", "192.0.2.1:80", [.ack, .psh], seq: 7, payload: [1, 2, 3]), .udp("10.0.0.1:53", "192.0.2.1:53"),
    .icmpEchoRequest("10.0.0.1", "192.0.2.1", id: 7), .tcp("[2001:db8::1]:1234", "[2001:db8::2]:80", .syn),
    .udp("[2001:db8::1]:53", "[2001:db8::2]:53", payload: [9]), .icmpEchoReply("2001:db8::1", "2001:db8::2", id: 9),
    .ip(
      "2001:db8::1", "2001:db8::2", 0, [60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0] + Array(repeating: 0, count: 8),
      checksumAt: nil),
  ]

  private static func mutated(_ packet: TestPacket, from start: Int, _ random: inout SeededNumbers) -> TestPacket {
    var packet = packet
    for _ in 0..<1 + random.below(4) where packet.bytes.count > start {
      let offset = start + random.below(packet.bytes.count - start)
      switch random.below(4) {
      case 0: packet.bytes[offset] = UInt8(random.below(256))
      case 1: packet.bytes[offset] ^= 1 << UInt8(random.below(8))
      case 2: packet.bytes[offset] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)]
      default: packet.bytes.removeLast(random.below(packet.bytes.count - start))
      }
    }
    return packet
  }

  @Test(arguments: 0..<4) func `a quotation, however broken, is read within its error and rewritten in place`(seed: Int) {
    var random = SeededNumbers(seed: UInt64(seed))
    var found = 0
    for round in 0..<Self.rounds {
      let original = Self.quoted[random.below(Self.quoted.count)]
      let reporter: Endpoint = original.bytes[12] == 8 ? "198.51.100.7" : "[2001:db8::7]"
      let error = TestPacket.icmpError(from: reporter, about: original, quoting: [28, 48, 60, .max][random.below(4)])
      // The error itself stays as it is, so that its quotation is what is broken.
      var packet = Self.mutated(error, from: original.bytes[12] == 8 ? 42 : 62, &random)
      let length = packet.bytes.count
      // What lies behind the frame in memory is neither read nor written.
      packet.bytes += [UInt8](repeating: 0xa5, count: 64)
      packet.bytes.withUnsafeMutableBytes { memory in
        var frame = Frame(bytes: memory.baseAddress!, length: length, buffer: nil, arrival: .zero)
        guard frame.parse(checksums: .trust) == nil, let quotation = ICMPError(frame) else { return }
        found += 1
        _ = (quotation.source, quotation.destination, quotation.sourcePort, quotation.destinationPort, quotation.tcpSequence)
        _ = (quotation.answerKey, quotation.ipv6AnswerKey)
        guard !quotation.isIPv6 else { return }
        quotation.rewriteSource(IPv4Address(0x0102_0304), port: 9)
        quotation.rewriteDestination(IPv4Address(0x0506_0708), port: 10)
      }
      #expect(packet.bytes.suffix(64).allSatisfy { $0 == 0xa5 }, "seed \(seed), round \(round)")
    }
    #expect(found > Self.rounds / 20, "seed \(seed)")
  }

  @Test(arguments: 0..<4) func `ARP and neighbour discovery are read, or are none`(seed: Int) {
    var random = SeededNumbers(seed: UInt64(seed))
    let station = MACAddress(0x0200_0000_0001)
    var arp = TestPacket(bytes: [UInt8](repeating: 0, count: ARPPacket.frameLength))
    arp.withFrame { frame in
      ARPPacket(
        operation: .request, senderMAC: station, sender: IPv4Address(0x0a00_0001), targetMAC: station,
        target: IPv4Address(0x0a00_0002)
      )
      .write(to: frame, destination: station)
    }
    var neighbour = TestPacket(bytes: [UInt8](repeating: 0, count: NeighborMessage.frameLength))
    let (asked, asker) = (IPAddress(high: 1, low: 2), IPAddress(high: 1, low: 3))
    neighbour.withFrame { frame in
      NeighborMessage(kind: .solicitation, source: asker, target: asked, linkAddress: station)
        .write(to: frame, from: station, to: NeighborMessage.solicitedNode(asked))
    }
    var found = [0, 0]
    for _ in 0..<Self.rounds {
      for (index, whole) in [arp, neighbour].enumerated() {
        var packet = Self.mutated(whole, from: 12, &random)
        packet.withFrame { frame in
          guard frame.parse(checksums: .trust) == nil else { return }
          let isRead = index == 0 ? ARPPacket(frame) != nil : NeighborMessage(frame) != nil
          if isRead { found[index] += 1 }
        }
      }
    }
    #expect(found[0] > Self.rounds / 20, "seed \(seed)")
    // Nearly every change breaks its checksum, so it is no message any more.
    #expect(found[1] < Self.rounds / 2, "seed \(seed)")
  }

  @Test(arguments: 0..<2) func `a capture file, however broken, is read up to its fault`(seed: Int) throws {
    var random = SeededNumbers(seed: UInt64(seed))
    let path = FileManager.default.temporaryDirectory.appending(
      path: "nfv-hostile-\(ProcessInfo.processInfo.processIdentifier)-\(seed).pcap"
    ).path
    defer { try? FileManager.default.removeItem(atPath: path) }
    func words(_ values: UInt32...) -> [UInt8] {
      values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
    }
    // The classic format, little-endian, of each kind of link that is read.
    func file(link: UInt32) -> [UInt8] {
      var bytes = words(0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, link)
      for (index, packet) in Self.quoted.enumerated() {
        let body = link == 101 ? Array(packet.bytes.dropFirst(14)) : packet.bytes
        bytes += words(UInt32(index), 0, UInt32(body.count), UInt32(body.count)) + body
      }
      return bytes
    }
    var (read, refused, faults) = (0, 0, 0)
    for round in 0..<max(300, Self.rounds / 20) {
      var bytes = file(link: [1, 101, 113, 0][round % 4])
      if round > 3 {
        for _ in 0..<1 + random.below(5) {
          // Often in the file's header or the first packet's.
          bytes[random.below(random.oneIn(2) ? 40 : bytes.count)] =
            [0, 1, 0x7f, 0x80, 0xff, UInt8(random.below(256))][random.below(6)]
        }
        if random.oneIn(4) { bytes.removeLast(random.below(bytes.count)) }
      }
      try Data(bytes).write(to: URL(filePath: path))
      do {
        let reader = try CaptureReader(path: path)
        let batch = PacketBatch()
        while reader.read(into: batch) != nil {
          for index in 0..<batch.count {
            read += 1
            _ = batch[index].parse(checksums: .verify)
          }
          batch.removeAll()
        }
        if reader.fault != nil { faults += 1 }
      } catch {
        refused += 1
      }
    }
    #expect(
      read > 1_000 && refused > 0 && faults > 0, "seed \(seed): \(read) packets, \(refused) files refused, \(faults) faults")
  }
}
