import DPDKPorts
import Dataplane
import Foundation
import Glibc
import ModuleGraphs
import Wire

/// The chain benchmark through a vhost-user port, its packets made and taken by another core: what it costs that they cross
/// the boundary of a process, beside the same packets in memory.
///
///     this process, core 0                        VhostWorker, core 1
///     frames of the chain benchmark ──virtio──▶ vhost ─▶ Worker.pass, or bouncing alone
///                      counted      ◀──virtio── vhost ◀─┘
///
/// Two figures: what a packet costs the worker, and how many came back in a second, which depends on both processes.
struct VhostBenchmark {
  let isQuick: Bool

  func run() throws {
    let report = Report(name: "vhost")
    signal(SIGPIPE, SIG_IGN)  // the other end may have gone when DPDK says goodbye to it
    let (rounds, seconds) = isQuick ? (3, 1.0) : (7, 2.0)
    let dpdk = try VhostWorker.startEnvironment(name: "bench-vhost", processor: 0)
    defer { dpdk.stop() }
    let pool = try MbufPool(name: "packets", count: 8_192)
    var number = 0
    for flows in isQuick ? [64_000] : [1_000, 64_000, 1_000_000] {
      let mix = TrafficMix.steady(flows)
      let stage = try ChainStage(.whole, flows: flows, timeouts: FlowRules().timeouts)
      let cycle = try stage.prepare(mix)
      let opening = [stage.openingFrames(0..<flows)] + stage.establishingFrames(0..<flows)
      var values: [String: [Double]] = [:]
      for _ in 0..<rounds {
        values["memory", default: []].append(stage.worker.time(960_000, step: mix.step).sample.nanoseconds)
        for work in [VhostWorker.Work.bounce, .chain] {
          let crossing = try VhostCrossing(work, size: flows, pool: pool, number: number)
          number += 1
          defer { crossing.close() }
          if work == .chain { for frames in opening { try crossing.exchange(frames) } }
          values["\(work) rate", default: []].append(try crossing.saturate(with: cycle, seconds: seconds))
          values["\(work)", default: []].append(try crossing.finish())
        }
      }
      let (count, memory) = (flowCount(flows), values["memory"]!)
      try report.add(Measurement("vhost/in-memory/fw-nat-lb/\(count)", memory, unit: "ns/packet"))
      try report.add(Measurement("vhost/rx-tx-only/\(count)", values["bounce"]!, unit: "ns/packet"))
      try report.add(
        Measurement("vhost/fw-nat-lb/\(count)", values["chain"]!, unit: "ns/packet", baseline: "in-memory", memory))
      try report.add(Measurement("vhost/rx-tx-only/\(count)/throughput", values["bounce rate"]!, unit: "M packets/s"))
      try report.add(Measurement("vhost/fw-nat-lb/\(count)/throughput", values["chain rate"]!, unit: "M packets/s"))
    }
  }
}
