import DPDKPorts
import FixedContainers
import Glibc
import ModuleGraphs
import ReliableChannels
import Wire

/// Messages per second through a reliable channel: between two processes and two threads (`ChannelCrossing`), and with both ends
/// in one thread, beside copying the same frames.
///
/// A pass is what a worker does: send until the queue is full, fill frames, receive them at the other end, send the
/// acknowledgements back. The baseline moves frames of the same length through the same buffers and does nothing else:
/// one copy into the port's memory and one look at every message.
struct ChannelBenchmark {
  let isQuick: Bool

  private static let burst = 32
  private static let bufferSize = 10_240

  func run() throws {
    let report = Report(name: "channel")
    try cross(report)
    for (mtu, sizes) in [(1_500, [64, 128, 256, 512, 1_024]), (9_000, [64, 1_024])] {
      for size in sizes {
        let (channel, copy) = measure(messageSize: size, mtu: mtu)
        let name = "\(size) B messages, MTU \(mtu)"
        try report.add(Measurement(name, channel, unit: "M messages/s", baseline: "copying frames", copy))
        let bits = Double(size) * 8 / 1_000
        try report.add(
          Measurement(
            "  on the wire", channel.map { $0 * bits }, unit: "Gbit/s", baseline: "copying frames", copy.map { $0 * bits }))
      }
    }
  }

  /// Between workers with a core each.
  private func cross(_ report: Report) throws {
    signal(SIGPIPE, SIG_IGN)  // the other end may have gone when DPDK says goodbye to it
    let (rounds, seconds) = isQuick ? (3, 0.5) : (7, 2.0)
    let dpdk = try VhostWorker.startEnvironment(name: "bench-channel", processor: 0)
    defer { dpdk.stop() }
    let pool = try MbufPool(name: "packets", count: 8_192)
    var number = 0
    for size in isQuick ? [64, 1_024] : [64, 128, 256, 512, 1_024] {
      let crossing = ChannelCrossing(messageSize: size)
      var (threads, rawThreads, processes, rawProcesses): ([Double], [Double], [Double], [Double]) = ([], [], [], [])
      for _ in 0..<rounds {
        threads.append(crossing.betweenThreads(.channel, seconds: seconds))
        rawThreads.append(crossing.betweenThreads(.raw, seconds: seconds))
        for traffic in [ChannelCrossing.Traffic.channel, .raw] {
          let other = try VhostCrossing(traffic == .channel ? .channel : .raw, size: size, pool: pool, number: number)
          number += 1
          defer { other.close() }
          let rate = try crossing.betweenProcesses(traffic, seconds: seconds, crossing: other)
          if traffic == .channel { processes.append(rate) } else { rawProcesses.append(rate) }
        }
      }
      try report.add(
        Measurement("channel/vhost/\(size)B", processes, unit: "M messages/s", baseline: "frames alone", rawProcesses))
      try report.add(
        Measurement("channel/threads/\(size)B", threads, unit: "M messages/s", baseline: "frames alone", rawThreads))
    }
  }

  private func measure(messageSize: Int, mtu: Int) -> (channel: [Double], copy: [Double]) {
    let buffers = UnsafeMutableRawPointer.allocate(byteCount: Self.burst * Self.bufferSize, alignment: 64)
    defer { buffers.deallocate() }
    var settings = ChannelSettings()
    settings.mtu = mtu
    var pair = ChannelPair(settings: settings, buffers: buffers, bufferSize: Self.bufferSize, burst: Self.burst)
    let message = [UInt8](repeating: 7, count: messageSize)
    let perFrame = settings.bodySize / (messageSize + 2)
    let count = (isQuick ? 400_000 : 4_000_000) / max(1, messageSize / 64)
    pair.run(message, count: count / 10)
    var channel: [Double] = []
    var copy: [Double] = []
    for _ in 0..<(isQuick ? 5 : 11) {
      let start = Stopwatch.processorTime()
      pair.run(message, count: count)
      let middle = Stopwatch.processorTime()
      copyFrames(buffers, count: count / perFrame, messageSize: messageSize, perFrame: perFrame)
      let end = Stopwatch.processorTime()
      channel.append(Double(count) / Double(middle - start) * 1_000)
      copy.append(Double(count) / Double(end - middle) * 1_000)
    }
    return (channel, copy)
  }

  private func copyFrames(_ buffers: UnsafeMutableRawPointer, count: Int, messageSize: Int, perFrame: Int) {
    let length = perFrame * (messageSize + 2) + ChannelFrame.headerLength + 14
    let source = UnsafeMutableRawPointer.allocate(byteCount: 256 * length, alignment: 64)
    source.initializeMemory(as: UInt8.self, repeating: 1, count: 256 * length)
    defer { source.deallocate() }
    var sum: UInt64 = 0
    for frame in 0..<count {
      let buffer = buffers + (frame & (Self.burst - 1)) * Self.bufferSize
      buffer.copyMemory(from: source + (frame & 255) * length, byteCount: length)
      for message in 0..<perFrame {
        sum &+= buffer.loadUnaligned(fromByteOffset: 78 + message * (messageSize + 2), as: UInt64.self)
      }
    }
    precondition(sum != 0)
  }
}

/// Two channels and the frames between them.
private struct ChannelPair: ~Copyable {
  private var source: ReliableChannel
  private var target: ReliableChannel
  private let buffers: UnsafeMutableRawPointer
  private let bufferSize: Int
  private let burst: Int
  private var now = Tick(milliseconds: 1)
  private var sum: UInt64 = 0

  init(settings: ChannelSettings, buffers: UnsafeMutableRawPointer, bufferSize: Int, burst: Int) {
    func end(_ local: UInt32, _ peer: UInt32, now: Tick) -> ReliableChannel {
      ReliableChannel(
        from: local, incarnation: 1, to: peer,
        link: ChannelLink(destination: MACAddress(UInt64(peer)), source: MACAddress(UInt64(local))), settings: settings, now: now,
        memory: .plain)
    }
    source = end(1, 2, now: now)
    target = end(2, 1, now: now)
    self.buffers = buffers
    self.bufferSize = bufferSize
    self.burst = burst
  }

  /// Delivers `count` messages.
  mutating func run(_ message: [UInt8], count: Int) {
    var accepted = 0
    var delivered = 0
    var sum = self.sum
    let bytes = message.span.bytes
    while delivered < count {
      now = Tick(nanoseconds: now.nanoseconds + 1_000)
      while accepted < count, accepted - delivered < 1_024, source.send(bytes) { accepted += 1 }
      var frames = 0
      var lengths = InlineArray<32, Int>(repeating: 0)
      while frames < burst, case let length = source.fill(buffers + frames * bufferSize, now: now), length > 0 {
        lengths[frames] = length
        frames += 1
      }
      for frame in 0..<frames {
        let view = UnsafeRawBufferPointer(start: buffers + frame * bufferSize, count: lengths[frame])
        _ = target.receive(view, now: now) { message in
          sum &+= unsafe message.unsafeLoadUnaligned(as: UInt64.self)
          delivered += 1
        }
      }
      let length = target.fill(buffers, now: now)
      if length > 0 { _ = source.receive(UnsafeRawBufferPointer(start: buffers, count: length), now: now) { _ in } }
      _ = source.poll(now: now)
      _ = target.poll(now: now)
    }
    self.sum = sum
    precondition(source.counters.timeouts == 0 && target.counters.messagesDelivered == source.counters.messagesSent)
  }
}
