import Configuration
import ControlMessages
import Dataplane
import FixedContainers
import FlowActors
import Foundation
import FunctionCatalog
import Glibc
import ModuleGraphs
import NetworkFunctions
import Wire

/// Nanoseconds per packet of the worker that ships, through a chain, beside receiving and transmitting alone.
///
/// 64-byte TCP frames, both directions mixed, of connections that the benchmark has opened through the chain itself; checksums
/// verified and rewritten, connections tracked, timers and counters running. What is timed is `Worker.pass`.
struct ChainBenchmark {
  let isQuick: Bool

  func run() throws {
    let report = Report(name: "chain")
    let repeats = isQuick ? 7 : 21
    if let profile = ProcessInfo.processInfo.environment["PROFILE"] {
      let parts = profile.split(separator: ",")
      let flows = Int(parts[0])!
      let s = try Self.samples(chain: parts[1] == "none" ? nil : (Self.chainText, parts[1] == "fused"), flows: flows, repeats: Int(parts[2])!)
      print(profile, s.sorted().map { ($0 * 10).rounded() / 10 })
      return
    }
    for flows in isQuick ? [1_000, 64_000] : [1_000, 64_000, 1_000_000] {
      let label = flows >= 1_000_000 ? "1m" : "\(flows / 1_000)k"
      let baseline = try Self.samples(chain: nil, flows: flows, repeats: repeats)
      let floor = baseline.sorted()[repeats / 2]
      try report.add(Measurement("chain/rx-tx-only/\(label)", baseline, unit: "ns/packet", baseline: "itself", of: floor))
      for (name, fusing) in [("fw-nat-lb", true), ("fw-nat-lb-per-function", false)] {
        let samples = try Self.samples(chain: (Self.chainText, fusing), flows: flows, repeats: repeats)
        try report.add(Measurement("chain/\(name)/\(label)", samples, unit: "ns/packet", baseline: "rx-tx-only", of: floor))
      }
    }
  }

  private static let chainText = """
    chain:
      - firewall:
          default: deny
          rules:
            - {action: deny, protocol: tcp, from: 10.9.0.0/16, to: 10.0.0.0/8}
            - {action: deny, protocol: udp, from: 10.0.0.0/8, to: 10.0.0.0/8}
            - {action: allow, protocol: tcp, from: 10.0.0.0/8, to: 10.1.255.100, to-ports: 80}
      - nat:
          pool: 10.2.1.0/26
      - load-balancer:
          services:
            - virtual: 10.1.255.100:80/tcp
              backends: [10.2.0.11:80, 10.2.0.12:80, 10.2.0.13:80, 10.2.0.14:80]
    """

  /// - Parameter chain: nil for receiving and transmitting alone.
  private static func samples(chain: (text: String, fusing: Bool)?, flows: Int, repeats: Int) throws -> [Double] {
    let port = ReplayPort(capacity: flows * 2)
    let runtime = FabricAddress(cluster: 1, node: 2)
    let peer = FabricAddress(cluster: 1, node: 1)
    let pass: (Tick) -> Int
    if let chain {
      let spec = try chainSpec(YAMLFile.settings(text: chain.text, name: "chain"), file: "chain")
      var rules = FlowRules()
      rules.capacity = flows + flows / 8 + 64
      rules.ipv6Capacity = 0
      let worker = Worker.runtime(
        port: port, address: runtime, chain: try Catalog.standard.makeChain(spec: spec, share: .whole, fusing: chain.fusing), rules: rules,
        seed: 42, rings: WorkerRings(), now: .zero, memory: .transparentHugePages)
      pass = { worker.pass(at: $0) }
      try prepare(port, flows: flows, from: peer, to: runtime, pass: pass)
    } else {
      let batch = PacketBatch()
      pass = { now in
        port.receive(into: batch, now: now)
        _ = port.transmit(batch, mask: batch.live)
        port.release(batch, mask: 0)
        defer { batch.removeAll() }
        return batch.count
      }
      for flow in 0..<flows * 2 { port.append(TCPFrame(flow: flow, flags: 0x10, from: peer, to: runtime).bytes) }
    }
    let packets = Int(ProcessInfo.processInfo.environment["PACKETS"] ?? "") ?? max(1_000_000, flows * 2)
    return (0..<repeats).map { index in
      port.remaining = packets
      var now = Tick(milliseconds: UInt64(1_000 + index))
      let before = nanoseconds()
      while port.remaining > 0 {
        now.nanoseconds &+= 2_000
        _ = pass(now)
      }
      return Double(nanoseconds() - before) / Double(packets)
    }
  }

  /// Opens every connection through the chain (SYN, SYN-ACK, ACK), and leaves data packets of both directions in the port.
  private static func prepare(_ port: ReplayPort, flows: Int, from peer: FabricAddress, to runtime: FabricAddress, pass: (Tick) -> Int) throws {
    func play(_ frames: [[UInt8]]) -> [[UInt8]] {
      var out: [[UInt8]] = []
      port.removeAll()
      for frame in frames { port.append(frame) }
      port.sent = { out.append(Array($0)) }
      port.remaining = frames.count
      while port.remaining > 0 { _ = pass(Tick(milliseconds: 1)) }
      port.sent = nil
      return out
    }
    let rewritten = play((0..<flows).map { TCPFrame(flow: $0, flags: 0x02, from: peer, to: runtime).bytes })
    guard rewritten.count == flows else { throw BenchmarkError("only \(rewritten.count) of \(flows) connections could be opened") }
    let answers = rewritten.map { TCPFrame(answering: $0, from: peer, to: runtime) }
    guard play(answers.map { $0.with(flags: 0x12) }).count == flows else { throw BenchmarkError("not every SYN was answered") }
    guard play((0..<flows).map { TCPFrame(flow: $0, flags: 0x10, from: peer, to: runtime).bytes }).count == flows else {
      throw BenchmarkError("not every connection was established")
    }
    port.removeAll()
    // Neighbours in time are not neighbours in memory.
    var order = Array(0..<flows)
    var state: UInt64 = 42
    for index in stride(from: flows - 1, to: 0, by: -1) {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      order.swapAt(index, Int((state >> 33) % UInt64(index + 1)))
    }
    for index in 0..<flows {
      port.append(TCPFrame(flow: order[index], flags: 0x10, from: peer, to: runtime).bytes)
      port.append(answers[order[(index + flows / 2) % flows]].with(flags: 0x10))
    }
  }
}

struct BenchmarkError: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

extension MemorySource {
  /// What a node gets from DPDK's huge pages, here from the kernel's transparent ones.
  static let transparentHugePages = MemorySource { byteCount, alignment in
    let size = (byteCount + 2_097_151) / 2_097_152 * 2_097_152
    guard byteCount >= 2_097_152 else {
      let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: alignment)
      memory.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
      return memory
    }
    let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 2_097_152)
    madvise(memory, size, 14)
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: size)
    return memory
  }
}
