import DPDKPorts
import Dataplane
import FixedContainers
import Foundation
import Glibc
import ModuleGraphs
import Wire

/// The other process of `VhostBenchmark`: a worker on a vhost-user port and a core of its own, until it is told to end.
///
/// It notes how long each full burst took it. The median of that is what a packet costs the worker, whether or not the
/// generator keeps up, and whatever else runs on the machine.
enum VhostWorker {
  enum Work: String { case chain, bounce, channel, raw }

  nonisolated(unsafe) private static var isTold = false

  static func run() throws {
    let environment = ProcessInfo.processInfo.environment
    guard let work = environment["BENCH_WORK"].flatMap(Work.init), let socket = environment["BENCH_SOCKET"],
      let size = environment["BENCH_SIZE"].flatMap({ Int($0) })
    else { throw BenchmarkError("this is a part of other benchmarks") }
    signal(SIGTERM) { _ in VhostWorker.isTold = true }
    let dpdk = try startEnvironment(name: "bench-worker", processor: 1)
    defer { dpdk.stop() }
    let port = try DPDKPort(PortSpec("vhost:\(socket)"), number: 0, pool: MbufPool(name: "packets", count: 8_192))
    defer { port.close() }
    switch work {
    case .bounce: bounce(port)
    case .chain: try process(port, flows: size)
    case .channel: count(port, .channel, messageSize: size)
    case .raw: count(port, .raw, messageSize: size)
    }
  }

  /// A process's share of DPDK, on one core.
  static func startEnvironment(name: String, processor: Int) throws(PortError) -> Environment {
    let hasHugePages = Environment.freeHugePageMegabytes() >= 128
    return try Environment(
      name: name, processors: [processor], memory: hasHugePages ? .hugePages : .ordinaryPages(megabytes: 64))
  }

  private static func bounce(_ port: DPDKPort) {
    let batch = PacketBatch()
    loop { _ in
      port.receive(into: batch, now: .zero)
      guard !batch.isEmpty else { return 0 }
      let refused = port.transmit(batch, mask: batch.live)
      port.release(batch, mask: refused | (batch.all & ~batch.live))
      defer { batch.removeAll() }
      return batch.count
    }
  }

  /// Receives messages or frames, and prints how many came in a second of a tenth of one: the median.
  private static func count(_ port: DPDKPort, _ traffic: ChannelCrossing.Traffic, messageSize: Int) {
    let parent = getppid()
    let end = ChannelEnd(node: 2, peer: 1, port: port, messageSize: messageSize, now: Tick(nanoseconds: monotonicNanoseconds()))
    var rates: [Double] = []
    var (since, before) = (monotonicNanoseconds(), 0)
    while !isTold, getppid() == parent {
      for _ in 0..<256 {
        let now = Tick(nanoseconds: monotonicNanoseconds())
        if traffic == .channel { end.receive(now: now) } else { end.receiveRaw(now: now) }
        end.flushIfChannel(traffic, now)
      }
      let now = monotonicNanoseconds()
      guard now - since >= 100_000_000 else { continue }
      if end.received > before { rates.append(Double(end.received - before) * 1e9 / Double(now - since)) }
      (since, before) = (now, end.received)
    }
    end.close()
    print(rates.percentile(0.5))
  }

  private static func process(_ port: DPDKPort, flows: Int) throws {
    var rules = FlowRules()
    rules.capacity = flows + flows / 8 + 64
    rules.ipv6Capacity = 0
    let worker = Worker.runtime(
      port: port, address: FabricAddress(cluster: 1, node: 2),
      chain: try ChainUnderTest.whole.makeChain(mappings: rules.capacity),
      rules: rules, seed: 42, rings: WorkerRings(), now: .zero, memory: MeasuredMemory().source)
    let start = monotonicNanoseconds()
    loop { worker.pass(at: Tick(nanoseconds: $0 - start)) }
  }

  /// Runs `pass` until it is told to end, or whoever started this process is gone; then prints what a packet cost.
  private static func loop(_ pass: (UInt64) -> Int) {
    let parent = getppid()
    // Full bursts by their duration, in steps of 10 ns.
    var bursts = [UInt64](repeating: 0, count: 4_096)
    var before = monotonicNanoseconds()
    while !isTold, getppid() == parent {
      for _ in 0..<100_000 where !isTold {
        let count = pass(before)
        let after = monotonicNanoseconds()
        if count == 32 { bursts[min(Int(after - before) / 10, bursts.count - 1)] += 1 }
        before = after
      }
    }
    var rest = bursts.reduce(0, +) / 2
    let median = bursts.firstIndex { count in
      defer { rest -= min(rest, count) }
      return count > rest
    }
    print(Double(median ?? 0) * 10 / 32)
  }
}

func monotonicNanoseconds() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
