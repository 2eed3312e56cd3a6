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
/// A figure is the time of the run over the packets that came back. As long as this process is the faster one (its port
/// refuses packets), that is what a packet costs the worker.
struct VhostBenchmark {
  let isQuick: Bool

  func run() throws {
    let report = Report(name: "vhost")
    let (rounds, seconds) = isQuick ? (3, 1.0) : (7, 2.0)
    let dpdk = try VhostWorker.startEnvironment(name: "bench-vhost", processor: 0)
    defer { dpdk.stop() }
    let pool = try MbufPool(name: "packets", count: 8_192)
    for flows in isQuick ? [64_000] : [1_000, 64_000, 1_000_000] {
      let mix = TrafficMix.steady(flows)
      let stage = try ChainStage(.whole, flows: flows, timeouts: FlowRules().timeouts)
      let cycle = try stage.prepare(mix)
      let opening = [stage.openingFrames(0..<flows)] + stage.establishingFrames(0..<flows)
      var values: [String: [Double]] = [:]
      for round in 0..<rounds {
        values["memory", default: []].append(stage.worker.time(960_000, step: mix.step).sample.nanoseconds)
        for work in [VhostWorker.Work.bounce, .chain] {
          let crossing = try VhostCrossing(work, flows: flows, pool: pool, number: round * 2 + (work == .chain ? 1 : 0))
          defer { crossing.close() }
          if work == .chain { for frames in opening { try crossing.exchange(frames) } }
          values[work.rawValue, default: []].append(try crossing.saturate(with: cycle, seconds: seconds))
        }
      }
      let label = "fw-nat-lb/\(flowCount(flows))"
      let (memory, bounce, chain) = (values["memory"]!, values["bounce"]!, values["chain"]!)
      try report.add(Measurement("vhost/in-memory/\(label)", memory, unit: "ns/packet"))
      try report.add(Measurement("vhost/rx-tx-only/\(flowCount(flows))", bounce, unit: "ns/packet"))
      try report.add(Measurement("vhost/\(label)", chain, unit: "ns/packet", baseline: "in-memory", memory))
    }
  }
}

/// A worker in a process of its own, and the port that leads to it.
private final class VhostCrossing {
  private let socket: String
  private let worker: pid_t
  private let port: DPDKPort
  private let outgoing = PacketBatch()
  private let incoming = PacketBatch()
  private var received = 0
  private var next = 0
  private let lengths: UnsafeMutableBufferPointer<UInt16>

  init(_ work: VhostWorker.Work, flows: Int, pool: MbufPool, number: Int) throws {
    socket = "\(NSTemporaryDirectory())/nfv-bench-\(getpid())-\(number).sock"
    worker = try VhostWorker.start(work, socket: socket, flows: flows)
    do {
      port = try DPDKPort(PortSpec("virtio:\(socket)"), number: number, pool: pool)
    } catch {
      VhostWorker.end(worker)
      throw error
    }
    lengths = .allocate(capacity: 32)
  }

  /// The port first, while the other end can still say goodbye.
  func close() {
    port.release(outgoing, mask: outgoing.all)
    port.close()
    VhostWorker.end(worker)
    unlink(socket)
    lengths.deallocate()
  }

  /// Sends every frame once, no more than a burst at a time on the way; all must come back.
  func exchange(_ frames: PreparedFrames) throws {
    next = 0
    var deadline = monotonicNanoseconds() + 5_000_000_000  // the worker is still starting
    for first in stride(from: 0, to: frames.count, by: 32) {
      fill(from: frames, count: min(32, frames.count - first))
      let target = received + outgoing.count
      while received < target {
        offer()
        receive()
        guard monotonicNanoseconds() < deadline else { throw BenchmarkError("a packet did not come back through the vhost port") }
      }
      deadline = monotonicNanoseconds() + 1_000_000_000
    }
  }

  /// Keeps the port full and returns nanoseconds per packet that came back.
  func saturate(with frames: PreparedFrames, seconds: Double) throws -> Double {
    next = 0
    // Up to speed first: the worker may still be starting.
    try keepFull(frames, nanoseconds: .max, packets: 1_000_000)
    let (begin, before) = (monotonicNanoseconds(), received)
    try keepFull(frames, nanoseconds: UInt64(seconds * 1e9), packets: .max)
    return Double(monotonicNanoseconds() - begin) / Double(received - before)
  }

  private func keepFull(_ frames: PreparedFrames, nanoseconds: UInt64, packets: Int) throws {
    let (begin, before) = (monotonicNanoseconds(), received)
    var (now, nextOffer) = (begin, begin)
    while now - begin < nanoseconds, received - before < packets {
      now = monotonicNanoseconds()
      if outgoing.isEmpty { fill(from: frames, count: 32) }
      // A full port is not asked at every turn: that would slow the other side down.
      if now >= nextOffer, !offer() { nextOffer = now + 5_000 }
      receive()
      guard received > before || now - begin < 10_000_000_000 else { throw BenchmarkError("nothing comes back through the vhost port") }
    }
  }

  private func fill(from frames: PreparedFrames, count: Int) {
    for index in 0..<count { lengths[index] = UInt16(frames.length) }
    let made = port.makeFrames(in: outgoing, lengths: UnsafeBufferPointer(rebasing: lengths[..<count]), now: .zero)
    for index in 0..<made {
      outgoing[index].withBytes {
        UnsafeMutableRawPointer(mutating: $0.baseAddress!).copyMemory(from: frames.base + next * frames.stride, byteCount: frames.length)
      }
      next = next + 1 == frames.count ? 0 : next + 1
    }
  }

  /// Whether the port took everything.
  @discardableResult
  private func offer() -> Bool {
    guard !outgoing.isEmpty else { return true }
    outgoing.keep(port.transmit(outgoing, mask: outgoing.all))
    return outgoing.isEmpty
  }

  private func receive() {
    port.receive(into: incoming, now: .zero)
    received += incoming.count
    port.release(incoming, mask: incoming.all)
    incoming.removeAll()
  }
}
