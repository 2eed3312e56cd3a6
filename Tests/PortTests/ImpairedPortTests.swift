import DPDKPorts
import ModuleGraphs
import NetworkFunctionTesting
import Simulation
import Testing
import Wire

/// A bad link: what it is asked to do it does, and it keeps no frame for itself.
@Suite struct ImpairedPortTests {
  private static func impairment(_ clauses: String) throws -> Impairment { try #require(try PortSpec("null;\(clauses)").impairment) }

  /// Numbered datagrams, one every ten microseconds, and when each has arrived.
  private func send(_ count: Int, over clauses: String, seed: UInt64) throws -> (arrivals: [(number: Int, time: UInt64)], lost: UInt64) {
    let memory = WireMemory()
    let wire = WirePort("wire", MACAddress(0x02_00_00_00_00_01), memory: memory)
    let port = ImpairedPort(wire, try Self.impairment(clauses), random: Chance(seed: seed))
    let batch = PacketBatch()
    var arrivals: [(Int, UInt64)] = []
    for step in 0..<(count + 1_000) {
      if step < count { wire.incoming.append(.udp("10.1.0.9:1", "10.2.0.9:2", payload: [UInt8(step >> 8), UInt8(step & 255)])) }
      let now = UInt64(step) * 10_000
      port.receive(into: batch, now: Tick(nanoseconds: now))
      PacketBatch.forEach(in: batch.live) { index in
        let number = batch[index].withBytes { Int($0[42]) << 8 | Int($0[43]) }
        arrivals.append((number, now - UInt64(number) * 10_000))
      }
      port.release(batch, mask: batch.all)
      batch.removeAll()
    }
    port.discard()
    #expect(memory.framesInUse == 0, "seed \(seed): every frame is given back")
    return (arrivals, port.lost)
  }

  @Test func `without a word about it nothing happens to a frame`() throws {
    #expect(try PortSpec("null").impairment == nil)
    let (arrivals, lost) = try send(500, over: "loss=0%", seed: 1)
    #expect(arrivals.map(\.number) == Array(0..<500) && arrivals.allSatisfy { $0.time == 0 } && lost == 0)
  }

  @Test(arguments: 1...4 as ClosedRange<UInt64>) func `frames are lost, late and out of order, each once at most`(seed: UInt64) throws {
    let (arrivals, lost) = try send(2_000, over: "loss=10%;delay=1ms;jitter=200us", seed: seed)
    #expect((120...280).contains(lost), "seed \(seed)")
    #expect(Set(arrivals.map(\.number)).count == arrivals.count && arrivals.count + Int(lost) == 2_000, "seed \(seed)")
    #expect(arrivals.allSatisfy { (800_000...1_210_000).contains($0.time) }, "seed \(seed)")
    #expect(zip(arrivals, arrivals.dropFirst()).contains { $0.number > $1.number }, "seed \(seed)")
  }

  @Test func `a delay that does not vary keeps the order`() throws {
    let (arrivals, _) = try send(500, over: "delay=300us", seed: 3)
    #expect(arrivals.map(\.number) == Array(0..<500) && arrivals.allSatisfy { $0.time == 300_000 })
  }

  @Test func `what is under way when it ends is given back`() throws {
    let memory = WireMemory()
    let wire = WirePort("wire", MACAddress(0x02_00_00_00_00_01), memory: memory)
    let port = ImpairedPort(wire, try Self.impairment("delay=1ms"), random: Chance(seed: 1))
    wire.incoming = (0..<100).map { _ in .udp("10.1.0.9:1", "10.2.0.9:2") }
    let batch = PacketBatch()
    for step in 0..<4 { port.receive(into: batch, now: Tick(nanoseconds: UInt64(step))) }
    #expect(batch.isEmpty && memory.framesInUse == 100)
    port.discard()
    #expect(memory.framesInUse == 0)
  }

  @Test(arguments: ["loss=1", "loss=101%", "loss=-1%", "delay=1", "delay=2000ms", "jitter=1us", "delay=1us;jitter=2us", "", "x=1%"])
  func `what is no impairment is refused with a hint`(_ clauses: String) throws {
    let error = try #require(throws: PortError.self) { try PortSpec("af_packet:rt0;\(clauses)") }
    #expect(!error.hint.isEmpty)
  }
}
