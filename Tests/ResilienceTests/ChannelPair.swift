import FixedContainers
import Wire

@testable import ReliableChannels

/// Two ends of a channel, told step by step: every frame passes through the test's hands.
final class ChannelPair {
  final class End {
    var channel: ReliableChannel
    var delivered: [[UInt8]] = []
    private let buffer = UnsafeMutableRawPointer.allocate(byteCount: 10_000, alignment: 8)

    init(_ local: UInt32, _ peer: UInt32, incarnation: UInt64, settings: ChannelSettings, now: Tick) {
      channel = ReliableChannel(
        from: local, incarnation: incarnation, to: peer,
        link: ChannelLink(destination: MACAddress(UInt64(peer)), source: MACAddress(UInt64(local))), settings: settings, now: now,
        memory: .plain)
    }

    deinit { buffer.deallocate() }

    var counters: ChannelCounters { channel.counters }
    var unacknowledged: Int { channel.unacknowledged }
    var isPeerSilent: Bool { channel.isPeerSilent }
    var isEstablished: Bool { channel.isEstablished }
    var peerIncarnation: UInt64 { channel.peerIncarnation }

    func send(_ message: [UInt8]) -> Bool { channel.send(message.span.bytes) }

    /// All frames that this end has to send now.
    func frames(_ now: Tick) -> [[UInt8]] {
      var frames: [[UInt8]] = []
      while case let length = channel.fill(buffer, now: now), length > 0 {
        frames.append(Array(UnsafeRawBufferPointer(start: buffer, count: length)))
      }
      return frames
    }

    @discardableResult
    func receive(_ frame: [UInt8], _ now: Tick) -> ReliableChannel.Reception {
      frame.withUnsafeBytes { bytes in
        channel.receive(bytes, now: now) { message in delivered.append(message.withUnsafeBytes { Array($0) }) }
      }
    }
  }

  var settings = ChannelSettings()
  var now = Tick(milliseconds: 1)
  var a: End
  var b: End

  init(_ change: (inout ChannelSettings) -> Void = { _ in }) {
    change(&settings)
    a = End(1, 2, incarnation: 7, settings: settings, now: now)
    b = End(2, 1, incarnation: 3, settings: settings, now: now)
  }

  func restartB(incarnation: UInt64) { b = End(2, 1, incarnation: incarnation, settings: settings, now: now) }

  func wait(microseconds: UInt64) {
    now = Tick(nanoseconds: now.nanoseconds + microseconds * 1_000)
    _ = a.channel.poll(now: now)
    _ = b.channel.poll(now: now)
  }

  /// Passes everything on until nobody has anything to say.
  func settle() {
    for _ in 0..<100 {
      let (fromA, fromB) = (a.frames(now), b.frames(now))
      if fromA.isEmpty, fromB.isEmpty { return }
      for frame in fromA { b.receive(frame, now) }
      for frame in fromB { a.receive(frame, now) }
    }
  }

  static func header(_ frame: [UInt8]) -> ChannelHeader? {
    guard case .header(let header, _) = frame.withUnsafeBytes({ ChannelFrame.read($0, key: nil) }) else { return nil }
    return header
  }
}
