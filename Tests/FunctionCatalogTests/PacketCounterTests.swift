import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

@testable import FunctionCatalog

@Suite struct PacketCounterTests {
  let runtime = TestRuntime(PacketCounter())

  /// Ten bytes at a sequence number.
  func segment(_ seq: UInt32, _ flags: TCPFlags = .ack, bytes: Int = 10) -> TestPacket {
    .tcp("10.0.0.1:1", "10.0.0.2:2", flags, seq: seq, payload: Array(repeating: 7, count: bytes))
  }

  var count: PacketCounter.DirectionCount { runtime.state(ofFlowOf: segment(0), as: PacketCounter.FlowState.self)!.forward }

  @Test func `packets and bytes are counted per direction`() {
    let packet = TestPacket.udp("10.0.0.1:1", "10.0.0.2:2", payload: [1, 2])
    for _ in 0..<3 { #expect(runtime.send(packet) == .forwarded(packet)) }
    runtime.send(packet.answered(payload: []))
    let state = runtime.state(ofFlowOf: packet, as: PacketCounter.FlowState.self)!
    #expect(state.forward.packets == 3 && state.forward.bytes == 90)
    #expect(state.reverse.packets == 1 && state.reverse.bytes == 28)
    #expect(runtime.observed("counter.forward.bytes") == 90 && runtime.observed("counter.reverse.packets") == 1)
  }

  @Test func `a lossless connection shows nothing`() {
    _ = runtime.send(segment(100, .syn, bytes: 0))
    for seq in stride(from: UInt32(101), to: 201, by: 10) { _ = runtime.send(segment(seq)) }
    _ = runtime.send(segment(201, bytes: 0))
    _ = runtime.send(segment(201, [.fin, .ack], bytes: 0))
    #expect(count.gaps == 0 && count.duplicates == 0 && count.reordered == 0 && count.missing == 0)
  }

  @Test func `a lost segment is a gap, and when it comes late it was reordered`() {
    for seq in [UInt32(0), 10, 30, 40] { _ = runtime.send(segment(seq)) }
    #expect(count.gaps == 1 && count.missing == 10 && count.reordered == 0)
    _ = runtime.send(segment(20))
    #expect(count.gaps == 1 && count.missing == 0 && count.reordered == 1 && count.duplicates == 0)
    _ = runtime.send(segment(20))
    #expect(count.duplicates == 1)
  }

  @Test func `what was seen before is a duplicate, also across the wrap of sequence numbers`() {
    for seq: UInt32 in [0xffff_fff1, 0xffff_fffb, 5, 0xffff_fffb, 15] { _ = runtime.send(segment(seq)) }
    #expect(count.duplicates == 1 && count.gaps == 0)
    #expect(runtime.observed("counter.tcp.duplicates") == 1)
  }

  @Test func `a hole is filled from either end`() {
    for seq in [UInt32(0), 50, 40, 10, 30, 20] { _ = runtime.send(segment(seq)) }
    #expect(count.gaps == 1 && count.reordered == 4 && count.missing == 0 && count.duplicates == 0)
  }

  @Test func `counts travel with the flow`() {
    for seq in [UInt32(0), 10] { _ = runtime.send(segment(seq)) }
    let other = TestRuntime(PacketCounter())
    runtime.migrate(flowOf: segment(0), to: other)
    _ = other.send(segment(20))
    let state = other.state(ofFlowOf: segment(0), as: PacketCounter.FlowState.self)!
    #expect(state.forward.packets == 3 && state.forward.gaps == 0 && state.forward.duplicates == 0)
  }

  @Test func `a new connection on the same ports is no gap`() {
    _ = runtime.send(segment(100, .syn, bytes: 0))
    _ = runtime.send(segment(101))
    _ = runtime.send(segment(900_000, .syn, bytes: 0))
    _ = runtime.send(segment(900_001))
    #expect(count.gaps == 0 && count.duplicates == 0)
    _ = runtime.send(segment(900_011, .rst, bytes: 0))
    #expect(count.packets == 5)
  }
}
