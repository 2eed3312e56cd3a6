import ControlMessages
import Foundation
import NetworkFunctionTesting
import Nodes
import Testing
import Wire

/// `nfvactor process --reassemble`: a capture's fragments, put together as a node's port does it.
@Suite(.serialized, .enabled(if: TestEnvironment.started != nil, "DPDK cannot be started in this process"))
struct CaptureReassemblyTests {
  private static func temporaryFile(_ name: String) -> URL {
    FileManager.default.temporaryDirectory.appending(path: "nfv-\(name)-\(ProcessInfo.processInfo.processIdentifier).pcap")
  }

  private static func capture(_ packets: [TestPacket]) -> Data {
    func word(_ value: Int) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
    return packets.reduce(CaptureBytes.empty) { file, packet in
      file + word(1) + word(0) + word(packet.bytes.count) + word(packet.bytes.count) + packet.bytes
    }
  }

  @Test func `a datagram in fragments goes through the chain as one, and every packet is accounted for`() throws {
    let packet = TestPacket.udp("10.0.0.1:5000", "10.0.0.2:53", payload: (0..<2_000).map { UInt8(truncatingIfNeeded: $0 / 7) })
    let (input, output) = (Self.temporaryFile("fragments"), Self.temporaryFile("whole"))
    defer { for file in [input, output] { try? FileManager.default.removeItem(at: file) } }
    // The last one first, and one of a datagram that stays incomplete.
    let fragments = [packet.fragment(1_504..<2_008), packet.fragment(0..<504, id: 9), packet.fragment(0..<1_504)]
    try Self.capture(fragments).write(to: input)
    let spec = ServiceChainSpec(functions: [.init(kind: "packet-counter", settings: Settings(.map([])))])
    func run(_ reassembly: CaptureReassembly?) throws -> CaptureProcessing.Report {
      try CaptureProcessing(
        spec: spec, input: input.path, output: output.path, checksums: .verify, reassembly: reassembly
      ).run()
    }
    let dropped = try run(nil)
    #expect(dropped.droppedByReason == ["fragment": 3] && dropped.packets.out == 0)
    let report = try run(CaptureReassembly())
    #expect(report.packets.in == 4 && report.packets.out == 1 && report.packets.consumed == 3 && report.packets.dropped == 0)
    let frames = try CaptureBytes(contentsOf: output.path).frames
    #expect(frames.count == 1)
    let whole = TestPacket(bytes: try #require(frames.first))
    #expect(whole.payload == packet.payload && whole.checksumsHold)
  }
}
