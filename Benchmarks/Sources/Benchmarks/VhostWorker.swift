import DPDKPorts
import Dataplane
import FixedContainers
import Foundation
import Glibc
import ModuleGraphs
import Wire

/// The other process of `VhostBenchmark`: a worker on a vhost-user port and a core of its own, until it is ended by a signal.
enum VhostWorker {
  enum Work: String { case chain, bounce }

  /// Starts this program again as a worker; `end` it by the id that is returned.
  static func start(_ work: Work, socket: String, flows: Int) throws -> pid_t {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    process.environment = ProcessInfo.processInfo.environment.merging(
      ["BENCH": "vhost-worker", "BENCH_WORK": work.rawValue, "BENCH_SOCKET": socket, "BENCH_FLOWS": "\(flows)"]) { $1 }
    process.standardOutput = FileHandle.nullDevice
    try process.run()
    return process.processIdentifier
  }

  static func end(_ process: pid_t) {
    kill(process, SIGKILL)
    var status: Int32 = 0
    waitpid(process, &status, 0)
  }

  static func run() throws {
    let environment = ProcessInfo.processInfo.environment
    guard let work = environment["BENCH_WORK"].flatMap(Work.init), let socket = environment["BENCH_SOCKET"],
      let flows = environment["BENCH_FLOWS"].flatMap({ Int($0) })
    else { throw BenchmarkError("this is a part of 'make bench BENCH=vhost'") }
    let dpdk = try startEnvironment(name: "bench-worker", processor: 1)
    defer { dpdk.stop() }
    let port = try DPDKPort(PortSpec("vhost:\(socket)"), number: 0, pool: MbufPool(name: "packets", count: 8_192))
    switch work {
    case .bounce: bounce(port)
    case .chain: try process(port, flows: flows)
    }
  }

  /// A process's share of DPDK, on one core.
  static func startEnvironment(name: String, processor: Int) throws(PortError) -> Environment {
    let hasHugePages = Environment.freeHugePageMegabytes() >= 128
    return try Environment(
      name: name, processors: [processor], memory: hasHugePages ? .hugePages : .ordinaryPages(megabytes: 64))
  }

  /// Runs `pass` until whoever started this process is gone.
  private static func loop(_ pass: () -> Void) {
    let parent = getppid()
    while getppid() == parent {
      for _ in 0..<1_000_000 { pass() }
    }
  }

  private static func bounce(_ port: DPDKPort) {
    let batch = PacketBatch()
    loop {
      port.receive(into: batch, now: .zero)
      if batch.isEmpty { return }
      let refused = port.transmit(batch, mask: batch.live)
      port.release(batch, mask: refused | (batch.all & ~batch.live))
      batch.removeAll()
    }
  }

  private static func process(_ port: DPDKPort, flows: Int) throws {
    var rules = FlowRules()
    rules.capacity = flows + flows / 8 + 64
    rules.ipv6Capacity = 0
    let worker = Worker.runtime(
      port: port, address: FabricAddress(cluster: 1, node: 2), chain: try ChainUnderTest.whole.makeChain(mappings: rules.capacity),
      rules: rules, seed: 42, rings: WorkerRings(), now: .zero, memory: MeasuredMemory().source)
    let start = monotonicNanoseconds()
    loop { _ = worker.pass(at: Tick(nanoseconds: monotonicNanoseconds() - start)) }
  }
}

func monotonicNanoseconds() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
