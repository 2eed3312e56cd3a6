import FixedContainers
import ModuleGraphs
import ReliableChannels
import Wire

/// One end of a channel on a port, as a worker's `Peers` drive it; or, for comparison, the same port with frames of the same
/// length that nobody reads.
final class ChannelEnd {
  private var channel: ReliableChannel
  private let port: PacketPort
  private let incoming = PacketBatch()
  private let outgoing = PacketBatch()
  private let buffer: UnsafeMutableRawPointer
  private let message: [UInt8]
  private let lengths: UnsafeMutableBufferPointer<UInt16>
  /// Messages, or raw frames, that came.
  private(set) var received = 0
  private var sum: UInt64 = 0

  static let settings = ChannelSettings()

  /// Bytes of a frame that is full of messages of this size, and how many they are.
  static func frame(of messageSize: Int) -> (length: Int, messages: Int) {
    let messages = settings.bodySize / (messageSize + 2)
    return (14 + ChannelFrame.headerLength + messages * (messageSize + 2), messages)
  }

  init(node: UInt32, peer: UInt32, port: PacketPort, messageSize: Int, now: Tick) {
    self.port = port
    let link = ChannelLink(
      destination: MACAddress(0x02_00_00_00_00_00 | UInt64(peer)), source: MACAddress(0x02_00_00_00_00_00 | UInt64(node)))
    channel = ReliableChannel(from: node, incarnation: 1, to: peer, link: link, settings: Self.settings, now: now, memory: .plain)
    buffer = .allocate(byteCount: 2_048, alignment: 64)
    buffer.initializeMemory(as: UInt8.self, repeating: 0, count: 2_048)
    message = [UInt8](repeating: 7, count: messageSize)
    lengths = .allocate(capacity: 32)
    lengths.initialize(repeating: UInt16(Self.frame(of: messageSize).length))
  }

  deinit {
    buffer.deallocate()
    lengths.deallocate()
  }

  /// Gives back what no port has taken. Before the port is closed.
  func close() {
    port.release(outgoing, mask: outgoing.all)
    outgoing.removeAll()
  }

  /// Frames that the port did not take yet.
  var isWaiting: Bool { !outgoing.isEmpty }

  /// Sends messages until the queue is full, and what the channel has to send.
  func send(now: Tick) {
    let message = message
    while channel.send(message.span.bytes) {}
    flush(now: now)
  }

  func flush(now: Tick) {
    guard offer() else { return }
    _ = channel.poll(now: now)
    while outgoing.count < 32 {
      let length = channel.fill(buffer, now: now)
      if length == 0 { break }
      // Without a buffer the frame is lost, and sent again.
      guard port.makeFrame(in: outgoing, length: max(60, length), now: now) else { continue }
      outgoing[outgoing.count - 1].write(buffer, count: length)
    }
    _ = offer()
  }

  /// Takes a burst and answers it.
  func receive(now: Tick) {
    port.receive(into: incoming, now: now)
    guard !incoming.isEmpty else { return }
    for index in 0..<incoming.count {
      incoming[index].withBytes { bytes in
        _ = channel.receive(bytes, now: now) { message in
          sum &+= unsafe message.unsafeLoadUnaligned(as: UInt64.self)
          received += 1
        }
      }
    }
    port.release(incoming, mask: incoming.all)
    incoming.removeAll()
    flush(now: now)
  }

  // MARK: Frames alone

  /// Sends a burst of frames of the same length with the same bytes in them.
  func sendRaw(now: Tick) {
    guard offer() else { return }
    let made = port.makeFrames(in: outgoing, lengths: UnsafeBufferPointer(lengths), now: now)
    for index in 0..<made { outgoing[index].write(buffer, count: Int(lengths[0])) }
    _ = offer()
  }

  func receiveRaw(now: Tick) {
    port.receive(into: incoming, now: now)
    received += incoming.count
    port.release(incoming, mask: incoming.all)
    incoming.removeAll()
  }

  /// Whether the port took everything.
  private func offer() -> Bool {
    guard !outgoing.isEmpty else { return true }
    outgoing.keep(port.transmit(outgoing, mask: outgoing.all))
    return outgoing.isEmpty
  }
}
