import ModuleGraphs
import Wire

/// What a bad link does to the frames that arrive over it, as `tc netem` would: for labs on kernels without it.
///
///     af_packet:rt0;loss=0.1%;delay=1ms;jitter=200us
public struct Impairment: Hashable, Sendable {
  /// Parts per million of the frames.
  public var loss: UInt32 = 0
  /// Nanoseconds: each frame takes `delay`, more or less by up to `jitter`; so frames overtake one another where jitter is longer
  /// than the time between two of them.
  public var delay: UInt64 = 0
  public var jitter: UInt64 = 0

  public init() {}

  /// Reads `loss=0.1%;delay=1ms;jitter=200us`; what is wrong with it is thrown as a sentence.
  init(_ words: [Substring]) throws(PortError) {
    for word in words {
      let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard parts.count == 2 else { throw Self.error(word) }
      switch parts[0] {
      case "loss":
        guard parts[1].hasSuffix("%"), let percent = Double(parts[1].dropLast()), (0...100).contains(percent) else {
          throw Self.error(word)
        }
        loss = UInt32(percent * 10_000)
      case "delay": delay = try Self.nanoseconds(parts[1], word)
      case "jitter": jitter = try Self.nanoseconds(parts[1], word)
      default: throw Self.error(word)
      }
    }
    guard jitter <= delay else { throw PortError("jitter is at most the delay", hint: "write delay=1ms;jitter=200us") }
  }

  private static func nanoseconds(_ text: Substring, _ word: Substring) throws(PortError) -> UInt64 {
    for (unit, length) in [("us", 1_000), ("ms", 1_000_000)] as [(String, UInt64)] {
      if text.hasSuffix(unit), let count = UInt64(text.dropLast(unit.count)), count * length <= 1_000_000_000 { return count * length }
    }
    throw error(word)
  }

  private static func error(_ word: Substring) -> PortError {
    PortError("'\(word)' is no impairment", hint: "write loss=0.1%, delay=1ms or jitter=200us, up to a second")
  }
}

/// A port over a link that loses, delays and reorders what arrives. What leaves is not touched: the other end has such a port.
public final class ImpairedPort<Random: RandomNumberGenerator>: PacketPort {
  /// Frames under way at most; more are lost, as in any queue.
  public static var capacity: Int { 4_096 }

  private let inner: PacketPort
  private let impairment: Impairment
  private var random: Random
  private let arriving = PacketBatch()
  /// Frames under way, in the order in which they are due; of equals the one that came first.
  private var due: [(time: UInt64, number: UInt64, place: Int)] = []
  /// Where they are: a batch each of a burst, empty again when all of its frames have gone on.
  private var held: [PacketBatch] = []
  private var left: [Int] = []
  private var number: UInt64 = 0
  /// Frames that were lost here.
  public private(set) var lost: UInt64 = 0

  public init(_ inner: PacketPort, _ impairment: Impairment, random: Random) {
    self.inner = inner
    self.impairment = impairment
    self.random = random
    super.init(name: inner.name, address: inner.address)
  }

  public override func receive(into batch: PacketBatch, now: Tick) {
    inner.receive(into: arriving, now: now)
    if !arriving.isEmpty { takeUp(now) }
    let ripe = due.prefix { $0.time <= now.nanoseconds }.prefix(PacketBatch.capacity)
    guard !ripe.isEmpty else { return }
    for entry in ripe {
      let (burst, place) = (entry.place / PacketBatch.capacity, entry.place % PacketBatch.capacity)
      unsafe batch.append(copyOf: held[burst][place])
      left[burst] -= 1
      if left[burst] == 0 { held[burst].removeAll() }
    }
    due.removeFirst(ripe.count)
  }

  private func takeUp(_ now: Tick) {
    var gone: UInt64 = 0
    let burst = left.firstIndex(of: 0) ?? left.count
    if burst == left.count {
      held.append(PacketBatch())
      left.append(0)
    }
    PacketBatch.forEach(in: arriving.live) { index in
      guard due.count < Self.capacity, UInt32.random(in: 0..<1_000_000, using: &random) >= impairment.loss else {
        gone |= 1 << UInt64(index)
        return
      }
      let shift = impairment.jitter == 0 ? 0 : UInt64.random(in: 0...2 * impairment.jitter, using: &random)
      let time = now.nanoseconds + impairment.delay - impairment.jitter + shift
      number += 1
      let entry = (time: time, number: number, place: burst * PacketBatch.capacity + held[burst].count)
      unsafe held[burst].append(copyOf: arriving[index])
      left[burst] += 1
      due.insert(entry, at: due.lastIndex { $0.time <= time }.map { $0 + 1 } ?? 0)
    }
    lost += UInt64(gone.nonzeroBitCount)
    inner.release(arriving, mask: gone)
    arriving.removeAll()
  }

  /// Gives back what is under way, at the end.
  public func discard() {
    for burst in held.indices where left[burst] > 0 {
      var mask: UInt64 = 0
      for entry in due where entry.place / PacketBatch.capacity == burst { mask |= 1 << UInt64(entry.place % PacketBatch.capacity) }
      inner.release(held[burst], mask: mask)
      held[burst].removeAll()
      left[burst] = 0
    }
    due = []
  }

  public override var missed: UInt64 { inner.missed }
  public override var mtu: Int { inner.mtu }
  public override func transmit(_ batch: PacketBatch, mask: UInt64) -> UInt64 { inner.transmit(batch, mask: mask) }
  public override func release(_ batch: PacketBatch, mask: UInt64) { inner.release(batch, mask: mask) }
  public override func allowResizing() -> Bool { inner.allowResizing() }
  public override func reassemble(
    _ batch: PacketBatch, mask: UInt64, into whole: PacketBatch, now: Tick
  ) -> (taken: UInt64, refused: UInt64) { inner.reassemble(batch, mask: mask, into: whole, now: now) }
  public override func makeFrame(in batch: PacketBatch, length: Int, now: Tick) -> Bool {
    inner.makeFrame(in: batch, length: length, now: now)
  }
  public override func makeFrames(in batch: PacketBatch, lengths: UnsafeBufferPointer<UInt16>, now: Tick) -> Int {
    inner.makeFrames(in: batch, lengths: lengths, now: now)
  }
}

/// A port as a worker gets it, and what is to be done when the worker has ended.
public struct ImpairedWire {
  public let port: PacketPort
  fileprivate let discard: () -> Void

  /// Before the port below is closed.
  public func close() { discard() }
}

extension PortSpec {
  /// The port, behind the impairment that this asks for.
  public func impaired(_ port: PacketPort) -> ImpairedWire {
    guard let impairment else { return ImpairedWire(port: port) {} }
    let impaired = ImpairedPort(port, impairment, random: SystemRandomNumberGenerator())
    return ImpairedWire(port: impaired) { impaired.discard() }
  }
}
