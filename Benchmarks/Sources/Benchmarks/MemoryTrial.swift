import CMeasuring
import Dataplane
import FixedContainers
import Glibc
import ModuleGraphs
import Wire

/// Bytes per flow with everything, and whether sixteen million flows fit into four gigabytes.
///
/// Counted is what a worker of FW -> NAT -> LB asks for while it is made, from its memory source and from the allocator alike.
struct MemoryTrial {
  func run(_ report: Report) throws {
    for flows in [1_000_000, 1 << 20] {
      let bytes = try Self.bytes(flows: flows)
      try report.add(Measurement("chain/memory/bytes-per-flow/\(flows)", [Double(bytes) / Double(flows)], unit: "bytes"))
    }
    let gigabytes = Double(try Self.bytes(flows: 1 << 24)) / Double(1 << 30)
    try report.add(Measurement("chain/memory/16m-flows", [gigabytes], unit: "GB"))
    print("  sixteen million flows \(gigabytes <= 4 ? "fit" : "do not fit") into 4 GB")
  }

  private static func bytes(flows: Int) throws -> UInt64 {
    var rules = FlowRules()
    rules.capacity = flows
    rules.ipv6Capacity = 0
    var mapped: [UnsafeMutableRawBufferPointer] = []
    defer { for memory in mapped { munmap(memory.baseAddress, memory.count) } }
    // Not touched, so that this works on a machine that has no such memory to spare.
    let source = MemorySource { byteCount, _ in
      let memory = mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)!
      mapped.append(UnsafeMutableRawBufferPointer(start: memory, count: byteCount))
      return memory
    }
    let before = measuring_read_allocations().bytes
    let worker = Worker.runtime(
      port: ReplayPort(), address: FabricAddress(cluster: 1, node: 2),
      chain: try ChainUnderTest.whole.makeChain(mappings: flows), rules: rules, seed: 42, rings: WorkerRings(), now: .zero,
      memory: source)
    defer { withExtendedLifetime(worker) {} }
    return measuring_read_allocations().bytes - before + mapped.reduce(0) { $0 + UInt64($1.count) }
  }
}
