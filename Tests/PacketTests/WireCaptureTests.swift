import Foundation
import NetworkFunctionTesting
import Testing
import Wire

/// Traffic that others recorded, with what they say is right and wrong with it.
///
/// The captures are not part of this repository: the environment variable `NFV_TEST_DATA` names their folder,
/// or it lies beside the project. Without it these tests are skipped.
@Suite(.enabled(if: CaptureFolder.path != nil, "needs captures: NFV_TEST_DATA, or ../shared/data beside the project"))
struct WireCaptureTests {
  @Test func `captures with good checksums parse`() throws {
    let names = try CaptureFolder.names { $0.contains("-good-") }
    try #require(names.count >= 10)
    for name in names {
      for (index, packet) in try CaptureFolder.packets(name).enumerated() {
        #expect(packet.parsed() == nil, "\(name), packet \(index + 1)")
      }
    }
  }

  @Test func `captures with bad checksums are told apart`() throws {
    let names = try CaptureFolder.names { $0.contains("-bad-") }
    try #require(names.count >= 10)
    for name in names {
      let expected: DropReason = name == "ip4-bad-chksum.pcap" ? .badIPv4Checksum : .badTransportChecksum
      let reasons = try CaptureFolder.packets(name).map { $0.parsed() }
      #expect(reasons.contains(expected), "\(name): \(reasons)")
      #expect(reasons.allSatisfy { $0 == nil || $0 == expected }, "\(name): \(reasons)")
    }
  }

  @Test func `tagged captures have their inner VLAN in the key`() throws {
    for (name, tags) in [("http-vlan-0.pcap", 1), ("http-qinq-0.pcap", 2)] {
      for packet in try CaptureFolder.packets(name) {
        var copy = packet
        copy.withFrame { frame in
          #expect(frame.parse(checksums: .trust) == nil, "\(name)")
          let at = 14 + 4 * (tags - 1)
          #expect(
            frame.fiveTuple.transport.vlan == (UInt16(packet.bytes[at]) << 8 | UInt16(packet.bytes[at + 1])) & 0xfff, "\(name)")
        }
      }
    }
  }

  @Test func `every packet of every capture is judged without harm, whole and cut`() throws {
    var count = 0
    for name in try CaptureFolder.names(where: { _ in true }) {
      for packet in try CaptureFolder.packets(name).prefix(300) {
        _ = packet.parsed()
        for length in stride(from: 0, to: min(packet.bytes.count, 120), by: 7) { _ = packet.truncated(to: length).parsed() }
        count += 1
      }
    }
    #expect(count > 100)
  }
}

/// A reader of classic pcap files with Ethernet frames, enough for tests.
enum CaptureFolder {
  static let path: String? = {
    let project = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let folder =
      ProcessInfo.processInfo.environment["NFV_TEST_DATA"].map { URL(filePath: $0) }
      ?? project.deletingLastPathComponent().appending(path: "shared/data")
    let zeek = folder.appending(path: "pcap/zeek").path
    return FileManager.default.fileExists(atPath: zeek) ? zeek : nil
  }()

  static func names(where isWanted: (String) -> Bool) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: path ?? "").filter { $0.hasSuffix(".pcap") && isWanted($0) }.sorted()
  }

  struct NotACapture: Error { var name: String }

  static func packets(_ name: String) throws -> [TestPacket] {
    let data = [UInt8](try Data(contentsOf: URL(filePath: (path ?? "") + "/" + name)))
    func long(_ offset: Int, isSwapped: Bool) -> Int {
      let bytes = data[offset..<offset + 4]
      return (isSwapped ? Array(bytes) : bytes.reversed()).reduce(0) { $0 << 8 | Int($1) }
    }
    guard data.count >= 24 else { throw NotACapture(name: name) }
    let isSwapped = long(0, isSwapped: false) == 0xd4c3_b2a1 || long(0, isSwapped: false) == 0x4d3c_b2a1
    guard isSwapped || [0xa1b2_c3d4, 0xa1b2_3c4d].contains(long(0, isSwapped: false)),
      long(20, isSwapped: isSwapped) & 0xffff == 1
    else {
      throw NotACapture(name: name)
    }
    var packets: [TestPacket] = []
    var offset = 24
    while offset + 16 <= data.count {
      let length = long(offset + 8, isSwapped: isSwapped)
      guard offset + 16 + length <= data.count else { break }
      packets.append(TestPacket(bytes: Array(data[offset + 16..<offset + 16 + length])))
      offset += 16 + length
    }
    return packets
  }
}
