import Glibc
import Synchronization

/// What becomes of the packets that are written from one moment on: for experiments in which something on the way fails at a
/// known moment, and comes back at one that is to be found.
///
///     begin                                    end
///       │ came came lost lost lost lost │ came came came came came ... │
///                  ◀── the outage ────▶  ◀── calm: nothing is lost ──▶
///
/// A packet belongs to the slot of a tenth of a millisecond in which it was written. So it is known for each slot what of it has
/// not come; when it was lost nobody can say. Losses that come after three tenths of a second without any are others.
///
/// Works for traffic whose flows all last for the whole run. Costs two counters of a slot and one of a flow per packet.
final class TrafficWatch {
  private struct Slot {
    var sent: UInt32 = 0
    var received: UInt32 = 0
  }

  static let slotLength: UInt64 = 100_000
  /// Slots without a loss that end an outage.
  static let calm = 3_000
  /// A watch is no longer than this.
  private static let longest = 600_000

  private var slots: [Slot] = Array(repeating: Slot(), count: longest)
  /// Packets of each flow that were written, and those of them that have not come.
  private var missing: [Int32]
  private var hasCome: [Bool]
  private var begun: UInt64 = .max
  private var ended: UInt64 = .max
  private var flowsHeard = 0
  private var lastFirst: UInt64 = 0
  private var sent: UInt64 = 0
  private var received: UInt64 = 0
  private var longestWait: UInt64 = 0
  private var lastSlot = -1

  init(flows: Int) {
    missing = Array(repeating: 0, count: flows)
    hasCome = Array(repeating: false, count: flows)
  }

  var isRunning: Bool { begun != .max && ended == .max }
  /// When it was told to end; what was written before may still come.
  var endedAt: UInt64? { ended == .max ? nil : ended }
  var isComplete: Bool { sent == received }

  func begin(at now: UInt64) {
    for index in 0..<min(slots.count, Int(clamping: lastSlot + 1)) { slots[index] = Slot() }
    for flow in missing.indices { (missing[flow], hasCome[flow]) = (0, false) }
    (flowsHeard, lastFirst, sent, received, longestWait) = (0, 0, 0, 0, 0)
    (begun, ended, lastSlot) = (now, .max, -1)
  }

  func end(at now: UInt64) { ended = now }
  func stop() { (begun, ended) = (.max, .max) }

  /// Packets of these places, in turn, were written in one burst.
  func noteSent(_ count: Int, from place: Int, at time: UInt64) {
    guard let slot = slot(of: time) else { return }
    slots[slot].sent += UInt32(count)
    lastSlot = max(lastSlot, slot)
    sent += UInt64(count)
    var place = place
    for _ in 0..<count {
      missing[place] += 1
      place = place + 1 == missing.count ? 0 : place + 1
    }
  }

  /// A packet has come that was written then; no copy of another.
  func noteReceived(place: Int, written time: UInt64, at now: UInt64) {
    guard let slot = slot(of: time) else { return }
    slots[slot].received += 1
    received += 1
    missing[place] -= 1
    longestWait = max(longestWait, now &- time)
    guard !hasCome[place] else { return }
    hasCome[place] = true
    flowsHeard += 1
    lastFirst = now
  }

  private func slot(of time: UInt64) -> Int? {
    guard time >= begun, time < ended, case let slot = Int((time - begun) / Self.slotLength), slot < Self.longest else { return nil }
    return slot
  }

  /// - Parameter clock: what the system's monotonic clock shows when this one shows 0, in nanoseconds.
  func report(clock: UInt64) -> TrafficOutage {
    var outage = TrafficOutage(begin: clock &+ begun, flows: missing.count)
    outage.sent = sent
    outage.lost = sent - min(sent, received)
    outage.flowsHeard = flowsHeard
    outage.lastFirst = flowsHeard == missing.count ? (lastFirst - begun) / 1_000 : nil
    outage.longestWait = longestWait / 1_000
    for count in missing where count > 0 {
      outage.flowsHit += 1
      outage.mostOfOneFlow = max(outage.mostOfOneFlow, Int(count))
    }
    var last: Int?
    for (index, slot) in slots.prefix(lastSlot + 1).enumerated() where slot.sent > slot.received {
      let lost = UInt64(slot.sent - slot.received)
      if let last, index - last > Self.calm {
        outage.lostLater += lost
        continue
      }
      if last == nil { outage.from = UInt64(index) * Self.slotLength / 1_000 }
      last = index
      outage.until = UInt64(index + 1) * Self.slotLength / 1_000
    }
    return outage
  }
}

/// What a watch has seen. Times are microseconds since its beginning, unless they say otherwise.
public struct TrafficOutage: Codable, Equatable, Sendable {
  /// On the system's monotonic clock, in nanoseconds.
  public var begin: UInt64
  public var flows: Int
  public var sent: UInt64 = 0
  public var lost: UInt64 = 0
  /// When the first and the last packet of the outage were written; nil when none was lost.
  public var from: UInt64?
  public var until: UInt64?
  /// Packets that were lost after the outage, and what they tell of is another's doing.
  public var lostLater: UInt64 = 0
  /// Flows that lost a packet, and the most that one of them lost.
  public var flowsHit = 0
  public var mostOfOneFlow = 0
  /// Flows of which a packet came that was written since; when the last of them was heard of, if they are all.
  public var flowsHeard = 0
  public var lastFirst: UInt64?
  public var longestWait: UInt64 = 0

  public init(begin: UInt64, flows: Int) {
    self.begin = begin
    self.flows = flows
  }
}

/// SIGUSR1, as a number that grows: begins a watch, and ends it.
enum TrafficMark {
  private static let count = Atomic<Int>(0)

  static func listen() {
    _ = count.load(ordering: .relaxed)  // makes it before a handler could want to
    signal(SIGUSR1) { _ in TrafficMark.count.add(1, ordering: .relaxed) }
  }

  static var current: Int { count.load(ordering: .relaxed) }
}
