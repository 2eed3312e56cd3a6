import DPDKPorts
import Foundation
import Glibc
import ModuleGraphs
import Wire

/// A worker in a process of its own, and the port that leads to it.
final class VhostCrossing {
  private let socket: String
  private let worker = Process()
  private let output = Pipe()
  let port: DPDKPort
  private let outgoing = PacketBatch()
  private let incoming = PacketBatch()
  private var received = 0
  private var next = 0
  private let lengths: UnsafeMutableBufferPointer<UInt16>

  /// - Parameter size: what the work needs to know: flows of a chain, bytes of a message.
  init(_ work: VhostWorker.Work, size: Int, pool: MbufPool, number: Int) throws {
    socket = "\(NSTemporaryDirectory())/nfv-bench-\(getpid())-\(number).sock"
    lengths = .allocate(capacity: 32)
    worker.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    worker.environment = ProcessInfo.processInfo.environment.merging(
      ["BENCH": "vhost-worker", "BENCH_WORK": work.rawValue, "BENCH_SOCKET": socket, "BENCH_SIZE": "\(size)"]) { $1 }
    worker.standardOutput = output
    try worker.run()
    do {
      port = try DPDKPort(PortSpec("virtio:\(socket)"), number: number, pool: pool)
    } catch {
      kill(worker.processIdentifier, SIGKILL)
      throw error
    }
  }

  /// Ends the worker and returns the nanoseconds that a packet of a full burst has cost it.
  func finish() throws -> Double {
    // The port first, while the other end can still say goodbye.
    closePort()
    worker.terminate()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    // The last line: the first is the program's heading.
    guard let cost = text.split(separator: "\n").last.flatMap({ Double($0) }), cost > 0 else {
      throw BenchmarkError("the worker of the vhost benchmark did not say what a packet cost")
    }
    return cost
  }

  private func closePort() {
    port.release(outgoing, mask: outgoing.all)
    outgoing.removeAll()
    port.close()
  }

  func close() {
    closePort()
    if worker.isRunning { kill(worker.processIdentifier, SIGKILL) }
    worker.waitUntilExit()
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

  /// Keeps the port full and returns how many millions of packets came back in a second.
  func saturate(with frames: PreparedFrames, seconds: Double) throws -> Double {
    next = 0
    // Up to speed first: the worker may still be starting.
    try keepFull(frames, nanoseconds: .max, packets: 1_000_000)
    let (begin, before) = (monotonicNanoseconds(), received)
    try keepFull(frames, nanoseconds: UInt64(seconds * 1e9), packets: .max)
    return Double(received - before) * 1e3 / Double(monotonicNanoseconds() - begin)
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
      guard received > before || now - begin < 10_000_000_000 else {
        throw BenchmarkError("nothing comes back through the vhost port")
      }
    }
  }

  private func fill(from frames: PreparedFrames, count: Int) {
    for index in 0..<count { lengths[index] = UInt16(frames.length) }
    let made = port.makeFrames(in: outgoing, lengths: UnsafeBufferPointer(rebasing: lengths[..<count]), now: .zero)
    for index in 0..<made {
      outgoing[index].withBytes {
        UnsafeMutableRawPointer(mutating: $0.baseAddress!).copyMemory(
          from: frames.base + next * frames.stride, byteCount: frames.length)
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
