import Histogram
import ModuleGraphs
import Wire

/// Knows the packets of a generator again, and says what the way did to them.
///
/// Per flow it keeps the next number it expects and which of the 64 before it have come:
///
///     ┄┄ 1 1 0 1 1 1 1 │ next        ahead of next: in order, what lies between is missing so far
///                 ◀ 64 │             behind: reordered (RFC 4737 §3.4) if its bit is clear, a duplicate if set
///
/// Packets that are more than 64 behind, or of a flow whose place another has taken, are counted as reordered and
/// cannot be told from duplicates.
@safe
struct TrafficSink: ~Copyable {
  struct Counts: Equatable, Sendable {
    /// Packets of this run, duplicates not among them.
    var received: UInt64 = 0
    /// Their bytes, check sequences included.
    var bytes: UInt64 = 0
    var duplicates: UInt64 = 0
    var reordered: UInt64 = 0
    /// Frames that do not parse, or whose checksums are wrong.
    var damaged: UInt64 = 0
    /// Frames of others, or of an earlier run.
    var foreign: UInt64 = 0
  }

  private struct Seen {
    var flow: UInt32
    var next: UInt32 = 0
    var window: UInt64 = 0
  }

  private let plan: TrafficPlan
  private let run: UInt16
  private let seen: UnsafeMutablePointer<Seen>
  private(set) var counts = Counts()
  /// Nanoseconds from writing to reading.
  private(set) var latency = Histogram<UInt64>(highestTrackableValue: 600_000_000_000, numberOfSignificantValueDigits: .three)
  /// Packets of one burst that were written in one burst took the same time: one entry for all.
  private var sameLatency: UInt64 = 0
  private var withSameLatency: UInt64 = 0
  private(set) var hasBeenGreeted = false
  private(set) var firstArrival: UInt64?
  private(set) var lastArrival: UInt64 = 0
  private let watch: TrafficWatch?

  init(plan: TrafficPlan, run: UInt16, watch: TrafficWatch? = nil) {
    self.plan = plan
    self.run = run
    self.watch = watch
    unsafe seen = .allocate(capacity: plan.flows)
    for place in 0..<plan.flows { unsafe (seen + place).initialize(to: Seen(flow: UInt32(place))) }
  }

  deinit { unsafe seen.deallocate() }

  /// Accounts for all frames of a batch, once per burst so that this value is opened once.
  ///
  /// - Returns: the places of our SYNs over IPv4, which a server would answer.
  mutating func look(at batch: PacketBatch, flowsBegun: UInt32, now: Tick) -> UInt64 {
    var openings: UInt64 = 0
    counts.damaged &+= UInt64((batch.all & ~batch.live).nonzeroBitCount)
    var rest = batch.live
    while rest != 0 {
      let index = rest.trailingZeroBitCount
      rest &= rest &- 1
      guard batch[index].parse(checksums: .verify) == nil else {
        counts.damaged &+= 1
        continue
      }
      let record = batch[index].withPayload { TrafficRecord($0) }
      account(record, length: Int(batch[index].length), flowsBegun: flowsBegun, now: now)
      let isOpening =
        batch[index].family == .ipv4 && batch[index].protocolNumber == IPProtocol.tcp && batch[index].tcpFlags == .syn
      if isOpening, record?.run == run { openings |= 1 << UInt64(index) }
    }
    noteLatencies()
    return openings
  }

  /// Accounts for one frame that has been parsed.
  ///
  /// - Parameter flowsBegun: what the generator has used of flow numbers; anything above was forged.
  mutating func accept(_ record: TrafficRecord?, length: Int, flowsBegun: UInt32, now: Tick) {
    account(record, length: length, flowsBegun: flowsBegun, now: now)
    noteLatencies()
  }

  private mutating func noteLatencies() {
    if withSameLatency > 0 { latency.record(sameLatency, count: withSameLatency) }
    withSameLatency = 0
  }

  @inline(__always)
  private mutating func account(_ record: TrafficRecord?, length: Int, flowsBegun: UInt32, now: Tick) {
    guard let record, record.run == run else {
      counts.foreign &+= 1
      return
    }
    guard record.flow < flowsBegun else {
      if record.flow == TrafficRecord.greeting { hasBeenGreeted = true } else { counts.foreign &+= 1 }
      return
    }
    switch place(record) {
    case .duplicate:
      counts.duplicates &+= 1
      return
    case .late: counts.reordered &+= 1
    case .inOrder: break
    }
    counts.received &+= 1
    counts.bytes &+= UInt64(length + 4)
    let age = (now.nanoseconds &- record.time) & 0xffff_ffff_ffff
    if age != sameLatency { noteLatencies() }
    sameLatency = age
    withSameLatency &+= 1
    if firstArrival == nil { firstArrival = now.nanoseconds }
    lastArrival = now.nanoseconds
    if let watch { watch.noteReceived(place: plan.place(of: record.flow), written: record.time, at: now.nanoseconds) }
  }

  private enum Order { case inOrder, late, duplicate }

  @inline(__always)
  private mutating func place(_ record: TrafficRecord) -> Order {
    let flow = unsafe seen + plan.place(of: record.flow)
    if unsafe record.flow != flow.pointee.flow {
      guard unsafe record.flow > flow.pointee.flow else { return .late }
      unsafe flow.pointee = Seen(flow: record.flow)
    }
    let ahead = unsafe Int32(bitPattern: record.sequence &- flow.pointee.next)
    if ahead >= 0 {
      unsafe flow.pointee.window = (ahead < 63 ? flow.pointee.window << UInt64(ahead + 1) : 0) | 1
      unsafe flow.pointee.next = record.sequence &+ 1
      return .inOrder
    }
    let age = Int(~ahead)  // 0 for the one before `next`
    guard age < 64 else { return .late }
    let bit = UInt64(1) << UInt64(age)
    if unsafe flow.pointee.window & bit != 0 { return .duplicate }
    unsafe flow.pointee.window |= bit
    return .late
  }
}
