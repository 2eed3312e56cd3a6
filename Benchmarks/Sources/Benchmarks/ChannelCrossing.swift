import DPDKPorts
import Foundation
import Glibc
import ModuleGraphs
import Synchronization
import Wire

/// Messages from one worker to another with a core each, in two processes with a vhost-user port between them or in two threads
/// of one, beside frames of the same length over the same port.
struct ChannelCrossing {
  let messageSize: Int

  enum Traffic: String { case channel, raw }

  /// Two threads, millions of messages per second.
  func betweenThreads(_ traffic: Traffic, seconds: Double) -> Double {
    let (left, right) = ThreadPort.pair()
    let isOver = Shared(false)
    let (size, count) = (messageSize, Shared(0))
    let receiver = Thread {
      // DPDK has bound the thread that began all this to processor 0, and others inherit that.
      try? Environment.bindThread(to: 1)
      let end = ChannelEnd(node: 2, peer: 1, port: right, messageSize: size, now: .zero)
      while !isOver.value.load(ordering: .relaxed) {
        for _ in 0..<64 {
          let now = Tick(nanoseconds: monotonicNanoseconds())
          if traffic == .channel { end.receive(now: now) } else { end.receiveRaw(now: now) }
          end.flushIfChannel(traffic, now)
        }
        count.value.store(end.received, ordering: .relaxed)
      }
    }
    receiver.start()
    let end = ChannelEnd(node: 1, peer: 2, port: left, messageSize: size, now: .zero)
    let begin = monotonicNanoseconds()
    var (since, before, now) = (begin, 0, begin)
    while Double(now - begin) < (seconds + 0.2) * 1e9 {
      for _ in 0..<64 {
        now = monotonicNanoseconds()
        if traffic == .channel { end.send(now: Tick(nanoseconds: now)) } else { end.sendRaw(now: Tick(nanoseconds: now)) }
        if traffic == .channel { end.receive(now: Tick(nanoseconds: now)) }
      }
      // Up to speed first.
      if since == begin, Double(now - begin) > 0.2e9 { (since, before) = (now, count.value.load(ordering: .relaxed)) }
    }
    let sum = count.value.load(ordering: .relaxed) - before
    isOver.value.store(true, ordering: .relaxed)
    while !receiver.isFinished { usleep(1_000) }
    return perSecond(sum, traffic, nanoseconds: now - since)
  }

  /// Two processes; the other one is `VhostWorker`, which says how much it has received.
  func betweenProcesses(_ traffic: Traffic, seconds: Double, crossing: VhostCrossing) throws -> Double {
    let end = ChannelEnd(
      node: 1, peer: 2, port: crossing.port, messageSize: messageSize, now: Tick(nanoseconds: monotonicNanoseconds()))
    let begin = monotonicNanoseconds()
    var (now, nextOffer) = (begin, begin)
    while Double(now - begin) < (seconds + 1) * 1e9 {
      now = monotonicNanoseconds()
      let tick = Tick(nanoseconds: now)
      if traffic == .channel {
        end.receive(now: tick)
        end.send(now: tick)
      } else if now >= nextOffer {
        // A full port is not asked at every turn: that would slow the other side down.
        let before = end.isWaiting
        end.sendRaw(now: tick)
        if before, end.isWaiting { nextOffer = now + 5_000 }
      }
    }
    end.close()
    return try crossing.finish() * (traffic == .raw ? Double(ChannelEnd.frame(of: messageSize).messages) : 1) / 1e6
  }

  /// Raw frames count as the messages that a frame of their length carries.
  private func perSecond(_ count: Int, _ traffic: Traffic, nanoseconds: UInt64) -> Double {
    Double(count * (traffic == .raw ? ChannelEnd.frame(of: messageSize).messages : 1)) * 1e3 / Double(nanoseconds)
  }

  private final class Shared<Value: AtomicRepresentable & Sendable>: Sendable {
    let value: Atomic<Value>
    init(_ value: Value) { self.value = Atomic(value) }
  }
}

extension ChannelEnd {
  /// An end that receives only still acknowledges and says that it lives.
  func flushIfChannel(_ traffic: ChannelCrossing.Traffic, _ now: Tick) { if traffic == .channel { flush(now: now) } }
}
