import CIntrinsics
import FixedContainers
import Wire

/// All flows of one process: their keys, their actors, and their idle timers, in memory set aside at start.
///
/// Both directions of a flow find the same actor. A packet hits with its slot and its direction; the key of
/// the reverse direction is added when it is known, after the chain has rewritten the first packet.
///
///     hash ─▶ FlowTable ─▶ slot * 2 + direction ─▶ | FlowRecord | flow state of the chain |
///                                                  64 bytes: both keys, timer, actor
///
/// A flow's state stands right behind its record, so that the two lines that nearly every packet needs are one
/// place in memory: one page, and to the processor's prefetcher one pair.
///
/// An IPv6 key does not fit into a record; it stands in a smaller slab of its own, and the record has its place. A flow that the
/// chain translates has its IPv6 key, of the client's side, there, and its IPv4 key, of the server's, in the record.
///
/// `Actor` is what the process keeps per flow: a `FlowActor` in a runtime, a `SwitchActor` in a virtual switch.
@safe
public struct FlowStore<Actor: BitwiseCopyable>: ~Copyable {
  @usableFromInline let blocks: UnsafeMutableRawPointer
  /// Bytes from one flow's record to the next one's.
  public let stride: Int
  @usableFromInline let ipv6Keys: UnsafeMutablePointer<IPv6Keys>
  @usableFromInline var table: FlowTable
  @usableFromInline let seed: UInt64
  @usableFromInline var slots: SlotPool
  var ipv6Slots: SlotPool
  @usableFromInline var timers: TimerWheel
  /// Idle timeouts in milliseconds, by class: in place, where an array would be somewhere else and retained.
  let timeouts: InlineArray<8, UInt32>
  let longestTimeout: UInt64
  private var lastAdvance: UInt64
  /// When time last leapt over every timeout, while flows from before are still being cleared up.
  private var leap: UInt64?
  /// Where the search for a flow to give up goes on.
  private var hand: UInt32 = 0
  /// Searches of the present millisecond that found none.
  private var vain: (millisecond: UInt32, searches: UInt32) = (0, 0)
  /// Flows whose timers fired, and then those of them that are idle.
  private let due: UnsafeMutablePointer<UInt32>
  private var idleCount = 0
  /// Slots whose flows have ended, for each of those who have copies of them.
  private var ended: SlotLog
  private var endedForSecond: SlotLog

  /// Timers are armed in steps of 128 ms.
  static var timerShift: UInt64 { 7 }
  /// Slots looked at for a flow to give up.
  static var longestSearch: Int { 256 }
  /// Searches in vain before those of the same millisecond are given up.
  static var mostVainSearches: UInt32 { 4 }
  /// Timers looked at by one call of `advance`, at most.
  public static var longestAdvance: Int { 64 }

  /// - Parameters:
  ///   - capacity: flows, IPv6 ones included.
  ///   - stateSize: bytes of flow state behind each record.
  ///   - seed: keys the hash; unpredictable in production, fixed in tests.
  ///   - timeouts: idle timeout in milliseconds of each timeout class.
  public init(
    capacity: Int, ipv6Capacity: Int, stateSize: Int = 0, seed: UInt64, timeouts: [UInt32], now: Tick, memory: MemorySource
  ) {
    precondition(MemoryLayout<FlowRecord<Actor>>.size <= 64, "a flow record fits into one cache line")
    stride = 64 + (stateSize + 15) / 16 * 16
    unsafe blocks = UnsafeMutableRawPointer(memory.allocate(UInt64.self, count: capacity * stride / 8))
    unsafe ipv6Keys = memory.allocate(IPv6Keys.self, count: ipv6Capacity)
    table = FlowTable(capacity: capacity * 2, memory: memory)
    slots = SlotPool(capacity: capacity, memory: memory)
    ended = SlotLog(capacity: 0, memory: memory)
    endedForSecond = SlotLog(capacity: 0, memory: memory)
    ipv6Slots = SlotPool(capacity: ipv6Capacity, memory: memory)
    timers = TimerWheel(capacity: capacity, horizon: 8_192, start: now.milliseconds >> Self.timerShift, memory: memory)
    unsafe due = memory.allocate(UInt32.self, count: Self.longestAdvance)
    self.seed = seed
    precondition(timeouts.count <= 8, "there are at most eight timeout classes")
    self.timeouts = InlineArray { $0 < timeouts.count ? timeouts[$0] : 0 }
    longestTimeout = timeouts.reduce(0) { max($0, UInt64($1)) }
    lastAdvance = now.milliseconds
  }

  public var count: Int { slots.used }
  public var capacity: Int { slots.capacity }

  /// The record of a slot in use.
  @inlinable
  public subscript(slot: UInt32) -> FlowRecord<Actor> {
    @inline(__always) unsafeAddress { unsafe UnsafePointer(record(slot)) }
    @inline(__always) nonmutating unsafeMutableAddress { unsafe record(slot) }
  }

  @inlinable @inline(__always)
  func record(_ slot: UInt32) -> UnsafeMutablePointer<FlowRecord<Actor>> {
    unsafe (blocks + Int(slot) &* stride).assumingMemoryBound(to: FlowRecord<Actor>.self)
  }

  /// Where the flow states are: that of a slot begins at `slot * stride`.
  @inlinable @unsafe
  public var states: UnsafeMutableRawPointer { unsafe blocks + 64 }

  @inlinable @unsafe
  public func state(_ slot: UInt32) -> UnsafeMutableRawPointer { unsafe states + Int(slot) &* stride }

  // MARK: Finding

  @inlinable @inline(__always)
  public func hash(_ frame: borrowing Frame) -> UInt64 {
    frame.family == .ipv6 ? frame.ipv6FiveTuple.hash(seed: seed) : frame.fiveTuple.hash(seed: seed)
  }

  @inlinable @inline(__always)
  public func prefetchBucket(_ hash: UInt64) { table.prefetch(hash) }

  @inlinable @inline(__always)
  func prefetch(_ slot: UInt32) {
    let block = unsafe blocks + Int(slot) &* stride
    unsafe nfv_prefetch(block)
    unsafe nfv_prefetch(block + 64)
  }

  /// Asks for everything about a flow in use: its record, state and timer.
  public func foresee(_ slot: UInt32) {
    prefetch(slot)
    timers.prefetch(slot)
  }

  /// A slot that is probably the frame's, and the direction, without looking at its key; asks for its record and state.
  @inlinable @inline(__always)
  public func prefetchCandidate(_ hash: UInt64) -> (slot: UInt32, direction: Direction)? {
    guard let value = table.find(hash, where: { _ in true }) else { return nil }
    prefetch(value >> 1)
    return (value >> 1, value & 1 == 0 ? .forward : .reverse)
  }

  /// Asks for what a new flow will need that is made after `ahead` others.
  @inline(__always)
  public func prefetchVacancy(_ ahead: Int) {
    guard let slot = slots.upcoming(ahead) else { return }
    prefetch(slot)
    timers.prefetch(slot)
  }

  /// Whether the frame travels in this direction of this slot's flow.
  @inlinable @inline(__always)
  public func holds(_ frame: borrowing Frame, _ slot: UInt32, _ direction: Direction) -> Bool {
    if frame.family == .ipv6 { return ipv6Key(at: slot << 1 | UInt32(direction.rawValue)) == frame.ipv6FiveTuple }
    let record = record(slot)
    return unsafe (direction == .forward ? record.pointee.forward : record.pointee.reverse) == frame.fiveTuple
  }

  /// The flow the frame belongs to and the direction it travels in, by the frame's `hash`.
  @inlinable @inline(__always)
  public func find(_ frame: borrowing Frame) -> (slot: UInt32, direction: Direction)? {
    let value = frame.family == .ipv6 ? find(frame.ipv6FiveTuple, frame.hash) : find(frame.fiveTuple, frame.hash)
    guard let value else { return nil }
    return (value >> 1, value & 1 == 0 ? .forward : .reverse)
  }

  /// The same for a frame that stays where it is. Changes nothing: what is lent for reading, a store or a frame, is copied where
  /// the call is not inlined.
  @inline(never)
  @unsafe
  public mutating func find(at frame: UnsafePointer<Frame>) -> (slot: UInt32, direction: Direction)? {
    unsafe find(frame.pointee)
  }

  /// The flow whose key is that of the answers to `frame`.
  @inlinable @inline(__always)
  public func findReversed(_ frame: borrowing Frame) -> UInt32? { findReversed(frame, hash: reversedHash(frame)) }

  /// The same by the `reversedHash` of the frame.
  @inlinable @inline(__always)
  public func findReversed(_ frame: borrowing Frame, hash: UInt64) -> UInt32? {
    let value = frame.family == .ipv6 ? find(frame.ipv6FiveTuple.reversed, hash) : find(frame.fiveTuple.reversed, hash)
    return value.map { $0 >> 1 }
  }

  @inlinable @inline(__always)
  public func reversedHash(_ frame: borrowing Frame) -> UInt64 {
    frame.family == .ipv6 ? frame.ipv6FiveTuple.reversed.hash(seed: seed) : frame.fiveTuple.reversed.hash(seed: seed)
  }

  /// Value (slot and direction) of a key.
  @inlinable @inline(__always)
  func find(_ key: IPv4FiveTuple, _ hash: UInt64) -> UInt32? {
    table.find(hash) { value in
      let record = record(value >> 1)
      return unsafe (value & 1 == 0 ? record.pointee.forward : record.pointee.reverse) == key
    }
  }

  // Inlined like the other, cold as it is: a store and a frame that are lent to what is not inlined are copied.
  @inlinable @inline(__always)
  func find(_ key: IPv6FiveTuple, _ hash: UInt64) -> UInt32? {
    table.find(hash) { ipv6Key(at: $0) == key }
  }

  @inlinable @inline(__always)
  func ipv6Key(at value: UInt32) -> IPv6FiveTuple? {
    let record = record(value >> 1)
    guard unsafe record.pointee.isIPv6 else { return nil }
    let keys = unsafe ipv6Keys + Int(record.pointee.ipv6Slot)
    return unsafe value & 1 == 0 ? keys.pointee.forward : keys.pointee.reverse
  }

  /// The flow with this key, and the direction the key is of.
  public func find(_ key: FlowKey) -> (slot: UInt32, direction: Direction)? {
    let value =
      switch key {
      case .ipv4(let key): find(key, key.hash(seed: seed))
      case .ipv6(let key): find(key, key.hash(seed: seed))
      }
    return value.map { ($0 >> 1, $0 & 1 == 0 ? .forward : .reverse) }
  }

  /// Asks for what looking both keys up will read: with a batch of keys, first all buckets, then all records.
  public func foresee(_ keys: FlowKeyPair, _ step: Foresight) {
    let hashes: (UInt64, UInt64) =
      switch keys {
      case .ipv4(let forward, let reverse): (forward.hash(seed: seed), reverse.hash(seed: seed))
      case .ipv6(let forward, let reverse): (forward.hash(seed: seed), reverse.hash(seed: seed))
      case .translated(let forward, let reverse): (forward.hash(seed: seed), reverse.hash(seed: seed))
      }
    switch step {
    case .buckets:
      table.prefetch(hashes.0)
      table.prefetch(hashes.1)
    case .records:
      _ = prefetchCandidate(hashes.0)
      _ = prefetchCandidate(hashes.1)
    }
  }

  /// Both keys of a flow whose reverse key is known.
  public func keys(of slot: UInt32) -> FlowKeyPair {
    let record = unsafe record(slot).pointee
    guard record.isIPv6 else { return .ipv4(forward: record.forward, reverse: record.reverse) }
    let keys = unsafe ipv6Keys[Int(record.ipv6Slot)]
    if record.isTranslated { return .translated(forward: keys.forward, reverse: record.reverse) }
    return .ipv6(forward: keys.forward, reverse: keys.reverse)
  }

  // MARK: Coming and going

  /// Makes a flow of which both keys are known; `nil` when there is no room. Neither key may be known here.
  public mutating func create(_ keys: FlowKeyPair, actor: Actor, timeoutClass: UInt8, now: Tick) -> UInt32? {
    guard let slot = create(keys.forward, hash: keys.forward.hash(seed: seed), actor: actor, timeoutClass: timeoutClass, now: now)
    else { return nil }
    guard table.insert(keys.reverse.hash(seed: seed), slot << 1 | 1) else {
      remove(slot)
      return nil
    }
    switch keys {
    case .ipv4(_, let reverse): unsafe record(slot).pointee.reverse = reverse
    case .ipv6(_, let reverse): unsafe ipv6Keys[Int(record(slot).pointee.ipv6Slot)].reverse = reverse
    case .translated(_, let reverse): setIPv4Reverse(reverse, of: slot)
    }
    unsafe record(slot).pointee.knowsReverse = true
    return slot
  }

  /// The answers to an IPv6 flow are IPv4; none of its IPv6 keys is that of answers.
  private func setIPv4Reverse(_ key: IPv4FiveTuple, of slot: UInt32) {
    let record = record(slot)
    unsafe record.pointee.reverse = key
    unsafe ipv6Keys[Int(record.pointee.ipv6Slot)].reverse = .none
  }

  /// Makes a flow whose forward key is the frame's; `nil` when there is no room.
  @inline(__always)
  public mutating func create(_ frame: borrowing Frame, actor: Actor, timeoutClass: UInt8, now: Tick) -> UInt32? {
    if frame.family == .ipv6 {
      return create(.ipv6(frame.ipv6FiveTuple), hash: frame.hash, actor: actor, timeoutClass: timeoutClass, now: now)
    }
    return create(frame.fiveTuple, hash: frame.hash, actor: actor, timeoutClass: timeoutClass, now: now)
  }

  /// Makes a flow whose forward key is that of the answers to `frame`.
  public mutating func createReversed(_ frame: borrowing Frame, actor: Actor, timeoutClass: UInt8, now: Tick) -> UInt32? {
    let key: FlowKey = frame.family == .ipv6 ? .ipv6(frame.ipv6FiveTuple.reversed) : .ipv4(frame.fiveTuple.reversed)
    return create(key, hash: reversedHash(frame), actor: actor, timeoutClass: timeoutClass, now: now)
  }

  /// Makes a flow whose reverse key is the frame's. Its forward key is that of the answers to the frame as it stands,
  /// until `learnForward` says otherwise; none of them may be known here.
  public mutating func createFromServerSide(
    _ frame: borrowing Frame, actor: Actor, timeoutClass: UInt8, now: Tick
  ) -> UInt32? {
    let keys: FlowKeyPair =
      frame.family == .ipv6
      ? .ipv6(forward: frame.ipv6FiveTuple.reversed, reverse: frame.ipv6FiveTuple)
      : .ipv4(forward: frame.fiveTuple.reversed, reverse: frame.fiveTuple)
    return create(keys, actor: actor, timeoutClass: timeoutClass, now: now)
  }

  /// Makes a flow of which this key alone is known; `nil` when there is no room. It may not be known here.
  public mutating func create(_ key: FlowKey, actor: Actor, timeoutClass: UInt8, now: Tick) -> UInt32? {
    create(key, hash: key.hash(seed: seed), actor: actor, timeoutClass: timeoutClass, now: now)
  }

  private mutating func create(_ key: FlowKey, hash: UInt64, actor: Actor, timeoutClass: UInt8, now: Tick) -> UInt32? {
    switch key {
    case .ipv4(let key): return create(key, hash: hash, actor: actor, timeoutClass: timeoutClass, now: now)
    case .ipv6(let key):
      guard let ipv6Slot = ipv6Slots.take() else { return nil }
      guard let slot = create(IPv4FiveTuple.none, hash: hash, actor: actor, timeoutClass: timeoutClass, now: now) else {
        ipv6Slots.put(ipv6Slot)
        return nil
      }
      unsafe record(slot).pointee.ipv6Slot = ipv6Slot
      unsafe ipv6Keys[Int(ipv6Slot)] = IPv6Keys(forward: key, reverse: key)
      return slot
    }
  }

  @inline(__always)
  private mutating func create(_ key: IPv4FiveTuple, hash: UInt64, actor: Actor, timeoutClass: UInt8, now: Tick) -> UInt32? {
    guard let slot = slots.take() else { return nil }
    guard table.insert(hash, slot << 1) else {
      slots.put(slot)
      return nil
    }
    let milliseconds = now.milliseconds
    unsafe record(slot).pointee.begin(
      key, actor: actor, timeoutClass: timeoutClass, seen: UInt32(truncatingIfNeeded: milliseconds))
    timers.arm(slot, at: (milliseconds &+ UInt64(timeouts[Int(timeoutClass)])) >> Self.timerShift)
    return slot
  }

  /// The hash of the key of the answers to `frame`; asks for what `learnReverse` will read.
  @inlinable @inline(__always)
  public func prefetchReverse(_ frame: borrowing Frame) -> UInt64 {
    let hash = reversedHash(frame)
    table.prefetch(hash)
    return hash
  }

  /// Adds the key of the answers to `frame`, as it stands now, to its flow; `false` when another flow has it.
  ///
  /// - Parameter hash: what `prefetchReverse` returned.
  @inline(__always)
  public mutating func learnReverse(_ frame: borrowing Frame, hash: UInt64, slot: UInt32) -> Bool {
    if frame.family == .ipv6 {
      let key = frame.ipv6FiveTuple.reversed
      // An IPv4 packet does not become an IPv6 packet on its way from the client.
      guard unsafe record(slot).pointee.isIPv6 else { return false }
      guard find(key, hash) == nil, table.insert(hash, slot << 1 | 1) else { return false }
      unsafe ipv6Keys[Int(record(slot).pointee.ipv6Slot)].reverse = key
    } else {
      let key = frame.fiveTuple.reversed
      guard find(key, hash) == nil, table.insert(hash, slot << 1 | 1) else { return false }
      if unsafe record(slot).pointee.isIPv6 { setIPv4Reverse(key, of: slot) } else { unsafe record(slot).pointee.reverse = key }
    }
    unsafe record(slot).pointee.knowsReverse = true
    return true
  }

  /// Gives a flow another forward key: that of the answers to `frame` as it stands now. `false`, and no change, when
  /// another flow has it or there is no room for it.
  public mutating func learnForward(_ frame: borrowing Frame, slot: UInt32) -> Bool {
    let old = forwardKey(of: slot)
    let new: FlowKey = frame.family == .ipv6 ? .ipv6(frame.ipv6FiveTuple.reversed) : .ipv4(frame.fiveTuple.reversed)
    if new == old { return true }
    guard find(new) == nil, let place = placeOfKey(new, slot) else { return false }
    guard table.insert(new.hash(seed: seed), slot << 1) else {
      if place != record(slot).pointee.ipv6Slot { ipv6Slots.put(place) }
      return false
    }
    table.remove(old.hash(seed: seed), slot << 1)
    let record = record(slot)
    switch new {
    case .ipv4(let key): unsafe record.pointee.forward = key
    case .ipv6(let key) where unsafe record.pointee.isIPv6: unsafe ipv6Keys[Int(place)].forward = key
    case .ipv6(let key):
      // What came as IPv4 left as IPv6.
      unsafe ipv6Keys[Int(place)] = IPv6Keys(forward: key, reverse: .none)
      unsafe record.pointee.ipv6Slot = place
      unsafe record.pointee.forward = .none
    }
    return true
  }

  /// Where the forward key of a flow would stand if it were this one, `.max` for in its record; `nil` where it cannot be.
  private mutating func placeOfKey(_ key: FlowKey, _ slot: UInt32) -> UInt32? {
    let place = unsafe record(slot).pointee.ipv6Slot
    switch key {
    case .ipv4: return place == .max ? place : nil
    case .ipv6: return place == .max ? ipv6Slots.take() : place
    }
  }

  private func forwardKey(of slot: UInt32) -> FlowKey {
    let record = unsafe record(slot).pointee
    return record.isIPv6 ? unsafe .ipv6(ipv6Keys[Int(record.ipv6Slot)].forward) : .ipv4(record.forward)
  }

  /// Forgets a flow: its keys, its timer, its slot.
  public mutating func remove(_ slot: UInt32) {
    let record = record(slot)
    if unsafe record.pointee.isIPv6 {
      let keys = unsafe ipv6Keys + Int(record.pointee.ipv6Slot)
      unsafe table.remove(keys.pointee.forward.hash(seed: seed), slot << 1)
      if unsafe record.pointee.isTranslated {
        unsafe table.remove(record.pointee.reverse.hash(seed: seed), slot << 1 | 1)
      } else if unsafe record.pointee.knowsReverse {
        unsafe table.remove(keys.pointee.reverse.hash(seed: seed), slot << 1 | 1)
      }
      unsafe ipv6Slots.put(record.pointee.ipv6Slot)
    } else {
      unsafe table.remove(record.pointee.forward.hash(seed: seed), slot << 1)
      if unsafe record.pointee.knowsReverse { unsafe table.remove(record.pointee.reverse.hash(seed: seed), slot << 1 | 1) }
    }
    noteEnd(of: slot)
    timers.cancel(slot)
    unsafe record.pointee.forward = .none
    unsafe record.pointee.reverse = .none
    unsafe record.pointee.isUsed = false
    slots.put(slot)
  }

  // MARK: Ends, for replication

  /// From now on the slots of flows that end are kept for this reader until it passes them over.
  public mutating func logEnds(for reader: EndsReader, memory: MemorySource) {
    switch reader {
    case .one: ended = SlotLog(capacity: capacity, memory: memory)
    case .other: endedForSecond = SlotLog(capacity: capacity, memory: memory)
    }
  }

  public var logsEnds: Bool { ended.isKept }

  @inline(__always)
  public func firstEnded(_ reader: EndsReader) -> UInt32? { reader == .one ? ended.first : endedForSecond.first }

  public mutating func passOverEnded(_ reader: EndsReader) {
    if reader == .one { ended.removeFirst() } else { endedForSecond.removeFirst() }
  }

  /// The flow is somebody else's, though its record stays.
  public mutating func noteEnd(of slot: UInt32) {
    ended.append(slot)
    endedForSecond.append(slot)
  }

  /// Both keys of a flow, for people; the reverse key is `nil` until it is known.
  public func describe(_ slot: UInt32) -> (forward: String, reverse: String?) {
    let record = unsafe record(slot).pointee
    if record.isIPv6 {
      let keys = unsafe ipv6Keys[Int(record.ipv6Slot)]
      let reverse = record.isTranslated ? record.reverse.description : keys.reverse.description
      return (keys.forward.description, record.knowsReverse ? reverse : nil)
    }
    return (record.forward.description, record.knowsReverse ? record.reverse.description : nil)
  }

  // MARK: Time

  /// Puts a flow into another timeout class. A shorter timeout takes effect at once, a longer one when the
  /// present timer fires.
  public mutating func setTimeoutClass(_ slot: UInt32, _ timeoutClass: UInt8, now: Tick) {
    let old = unsafe record(slot).pointee.timeoutClass
    unsafe record(slot).pointee.timeoutClass = timeoutClass
    guard timeouts[Int(timeoutClass)] < timeouts[Int(old)] else { return }
    timers.cancel(slot)
    timers.arm(slot, at: deadline(of: slot, now: now) >> Self.timerShift)
  }

  /// Arms the timer of a flow anew that fired and was left alone.
  public mutating func postpone(_ slot: UInt32, now: Tick) {
    timers.arm(slot, at: (now.milliseconds + UInt64(timeouts[Int(record(slot).pointee.timeoutClass)])) >> Self.timerShift)
  }

  /// When the flow will have been idle for its timeout, in milliseconds.
  private func deadline(of slot: UInt32, now: Tick) -> UInt64 {
    let record = record(slot)
    let idle = unsafe UInt32(truncatingIfNeeded: now.milliseconds) &- record.pointee.lastSeen
    return unsafe now.milliseconds &- min(UInt64(idle), now.milliseconds) &+ UInt64(timeouts[Int(record.pointee.timeoutClass)])
  }

  /// Looks at flows whose timers are due, at most `limit`, which is 64 or less. A flow that was used since its timer was
  /// armed gets a new one; those that are idle are handed out by `nextIdle`, to be removed or postponed before the next call.
  ///
  /// All timers first, so that all records can be asked for before the first is read.
  ///
  /// - Returns: how many timers fired.
  public mutating func advance(to now: Tick, limit: Int) -> Int {
    let milliseconds = now.milliseconds
    // A record has only the low 32 bits of its time. In a capture time can leap by years: nothing from before
    // survives that, and it may take several calls until all of it is gone.
    if milliseconds &- lastAdvance > longestTimeout { leap = milliseconds }
    lastAdvance = milliseconds
    let sinceLeap = leap.map { milliseconds - $0 } ?? .max
    precondition(limit <= Self.longestAdvance, "timers are looked at 64 at a time")
    let (blocks, stride) = unsafe (blocks, stride)
    let fired = unsafe timers.advance(
      to: milliseconds >> Self.timerShift, into: UnsafeMutableBufferPointer(start: due, count: limit)
    ) {
      let block = unsafe blocks + Int($0) &* stride
      unsafe nfv_prefetch(block)
      unsafe nfv_prefetch(block + 64)
    }
    idleCount = 0
    for index in 0..<fired {
      let slot = unsafe due[index]
      let record = record(slot)
      let unused = unsafe UInt64(UInt32(truncatingIfNeeded: milliseconds) &- record.pointee.lastSeen)
      let timeout = unsafe UInt64(timeouts[Int(record.pointee.timeoutClass)])
      if unused >= timeout || unused > sinceLeap {
        if unsafe !record.pointee.isIPv6 {
          unsafe table.prefetch(record.pointee.forward.hash(seed: seed))
          unsafe table.prefetch(record.pointee.reverse.hash(seed: seed))
        }
        unsafe due[idleCount] = slot
        idleCount &+= 1
      } else {
        // Not into a list that is not empty yet: its other members are to have their turn.
        timers.arm(slot, at: max((milliseconds &+ timeout &- unused) >> Self.timerShift, milliseconds >> Self.timerShift &+ 1))
      }
    }
    if fired < limit { leap = nil }
    return fired
  }

  /// Shows the flows that the last `advance` found idle.
  @inline(__always)
  public func forEachIdle(_ body: (UInt32) -> Void) {
    for index in 0..<idleCount { unsafe body(due[index]) }
  }

  /// One more of the flows that the last `advance` found idle.
  @inline(__always)
  public mutating func nextIdle() -> UInt32? {
    guard idleCount > 0 else { return nil }
    idleCount &-= 1
    return unsafe due[idleCount]
  }

  // MARK: Room

  /// A flow of this timeout class whose removal makes room for a flow of the frame's; `nil` when a bounded
  /// search finds none.
  ///
  /// A hand goes round the slots. The slot given up is the next one taken, so under a flood the hand meets
  /// flows in the order they came, and each has had a whole round's time to get into another class.
  ///
  /// A few searches that find nothing are all that there are in a millisecond: under a flood of flows that may not be given up
  /// yet, the next one is refused without a look.
  ///
  /// - Parameters:
  ///   - run: flows with this number in their `burstMark` are in use and stay.
  ///   - may: whether a flow of this actor, idle for so many milliseconds, may be given up.
  public mutating func victim(
    for frame: borrowing Frame, timeoutClass: UInt8, sparing run: UInt32 = .max, now: Tick,
    _ may: (_ actor: Actor, _ idle: UInt32) -> Bool = { _, _ in true }
  ) -> UInt32? {
    let milliseconds = UInt32(truncatingIfNeeded: now.milliseconds)
    if milliseconds != vain.millisecond { vain = (milliseconds, 0) }
    guard vain.searches < Self.mostVainSearches else { return nil }
    let needsIPv6Key = frame.family == .ipv6 && ipv6Slots.used == ipv6Slots.capacity
    for _ in 0..<min(capacity, Self.longestSearch) {
      let slot = hand
      hand = Int(hand) + 1 < capacity ? hand + 1 : 0
      let record = record(slot)
      if unsafe record.pointee.isUsed, unsafe record.pointee.timeoutClass == timeoutClass,
        unsafe record.pointee.burstMark >> 1 != run, unsafe !record.pointee.phase.isPinned,
        unsafe !needsIPv6Key || record.pointee.isIPv6, unsafe may(record.pointee.actor, milliseconds &- record.pointee.lastSeen)
      {
        return slot
      }
    }
    vain.searches &+= 1
    return nil
  }
}

/// One flow: both keys, when it was last seen, and its actor. One cache line.
public struct FlowRecord<Actor: BitwiseCopyable>: BitwiseCopyable {
  /// Keys of an IPv4 flow, or `none`.
  @usableFromInline var forward: IPv4FiveTuple
  @usableFromInline var reverse: IPv4FiveTuple
  /// Place of an IPv6 flow's keys, or `.max`.
  @usableFromInline var ipv6Slot: UInt32
  /// Low 32 bits of the tick in milliseconds.
  public var lastSeen: UInt32
  /// The burst the flow last appeared in, and its direction there: what keeps bursts in order.
  public var burstMark: UInt32
  public internal(set) var timeoutClass: UInt8
  public internal(set) var knowsReverse: Bool
  public internal(set) var isUsed: Bool
  /// Where the flow is in its migration.
  public var phase: MigrationPhase
  /// How many flows have had this record, modulo 65,536: tells one from the next.
  public private(set) var birth: UInt16
  public var actor: Actor

  /// A new flow takes this record.
  @inline(__always)
  mutating func begin(_ key: IPv4FiveTuple, actor: Actor, timeoutClass: UInt8, seen: UInt32) {
    forward = key
    reverse = .none
    ipv6Slot = .max
    lastSeen = seen
    burstMark = 0
    self.timeoutClass = timeoutClass
    knowsReverse = false
    isUsed = true
    phase = .settled
    birth &+= 1
    self.actor = actor
  }

  @inlinable var isIPv6: Bool { ipv6Slot != .max }
  /// IPv6 on the client's side, IPv4 on the server's.
  var isTranslated: Bool { isIPv6 && reverse != .none }
}

/// The key of one direction.
public enum FlowKey: BitwiseCopyable, Equatable, Sendable {
  case ipv4(IPv4FiveTuple)
  case ipv6(IPv6FiveTuple)

  func hash(seed: UInt64) -> UInt64 {
    switch self {
    case .ipv4(let key): key.hash(seed: seed)
    case .ipv6(let key): key.hash(seed: seed)
    }
  }
}

extension ICMPError {
  /// The key of an answer to the packet that the error quotes.
  public var answerFlowKey: FlowKey { isIPv6 ? .ipv6(ipv6AnswerKey) : .ipv4(answerKey) }
}

extension FlowKeyPair {
  public var forward: FlowKey {
    switch self {
    case .ipv4(let forward, _): .ipv4(forward)
    case .ipv6(let forward, _): .ipv6(forward)
    case .translated(let forward, _): .ipv6(forward)
    }
  }

  public var reverse: FlowKey {
    switch self {
    case .ipv4(_, let reverse): .ipv4(reverse)
    case .ipv6(_, let reverse): .ipv6(reverse)
    case .translated(_, let reverse): .ipv4(reverse)
    }
  }

  public var protocolNumber: UInt8 {
    switch self {
    case .ipv4(let forward, _): forward.transport.protocolNumber
    case .ipv6(let forward, _), .translated(let forward, _): forward.transport.protocolNumber
    }
  }
}

@usableFromInline
struct IPv6Keys: BitwiseCopyable {
  @usableFromInline var forward: IPv6FiveTuple
  @usableFromInline var reverse: IPv6FiveTuple
}
