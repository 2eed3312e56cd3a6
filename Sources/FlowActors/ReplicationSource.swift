import CIntrinsics
import FixedContainers
import Wire

/// What replication asks of the flows of its runtime.
public protocol ReplicatedFlows: ~Copyable {
  /// Slots are below this.
  var slotCount: Int { get }
  /// Whether there is a flow in this slot that is served here and both of whose keys are known.
  func isReplicable(_ slot: UInt32) -> Bool
  func keys(of slot: UInt32) -> FlowKeyPair
  /// The actor's word and the timeout class: `ReplicaWord`.
  func replicaWord(of slot: UInt32) -> UInt64
  /// The flow state of the chain.
  func state(of slot: UInt32) -> UnsafeRawBufferPointer
  /// Tells the flow that a slot has from those that it had before.
  func birth(of slot: UInt32) -> UInt16
  /// The slot of a flow that has ended, oldest first, until this reader passes it over.
  func firstEnded(_ reader: EndsReader) -> UInt32?
  mutating func passOverEnded(_ reader: EndsReader)
}

/// What replication asks of the channels.
public protocol ReplicationOutbox: MigrationOutbox, ~Copyable {
  /// Takes a message of `count` bytes to the peer with this index, which is written to where this points before anything
  /// else is sent; `nil` when it does not fit into a frame of its channel, or there is no room now.
  @unsafe
  mutating func reserve(_ count: Int, to peer: UInt8) -> UnsafeMutableRawPointer?
  /// Whether messages to this peer that can wait leave room for those that cannot.
  func hasRoomToSpare(to peer: UInt8) -> Bool
  /// The peer that this very life has a session as: what is sent to it now reaches that life or nobody.
  func peer(inSessionWith life: FlowOwner) -> UInt8?
  func isAlive(_ peer: UInt8) -> Bool
  /// Behind all that this peer was sent so far.
  func mark(to peer: UInt8) -> UInt32
  /// Whether the peer has taken and seen to everything before this mark of its present session.
  func hasArrived(_ mark: UInt32, at peer: UInt8) -> Bool
}

/// A flow's actor (56 bits) and timeout class in one word.
public enum ReplicaWord {
  @inline(__always)
  public static func make(actor: UInt64, timeoutClass: UInt8) -> UInt64 { actor & 0xff_ffff_ffff_ffff | UInt64(timeoutClass) << 56 }
  @inline(__always)
  public static func actor(_ word: UInt64) -> UInt64 { word & 0xff_ffff_ffff_ffff }
  @inline(__always)
  public static func timeoutClass(_ word: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: word >> 56) }
}

/// Replicates the flows of a runtime to one other runtime, its *holder*, with output commit (paper §V-C): a packet goes
/// to the holder behind the state it has led to, and only the holder sends it on.
///
///     chain ─▶ commit: what has changed of the flow, and the packet ─▶ holder: stores, then releases
///
/// Of every flow the source keeps what the holder has (its *shadow*); so only what differs is sent, whatever changed it
/// and however many packets the channel had no room for in between. A packet that the channel does not take is lost, as
/// in a full queue; what it has done to the flow goes with the next one.
///
///     stream n:  open ─▶ flow, update, end ... ─▶ mark ─▶ (marked) every flow there was is on the holder
///
/// A new holder is a new stream: flows without a shadow of this stream are sent whole, with their next packet or when the
/// sweep comes by.
@safe
public struct ReplicationSource: ~Copyable {
  private struct Shadow: BitwiseCopyable {
    /// The stream this is of; 0 and older ones: the holder does not know the flow.
    var stream: UInt32
    var unused: UInt32
    var word: UInt64
  }

  public enum Phase: Equatable, Sendable {
    /// Nobody holds replicas: packets leave directly.
    case off
    /// The holder is being told that a stream begins.
    case opening
    case running
  }

  private let reader: EndsReader
  private let layoutHash: UInt64
  private let layout: ReplicaLayout
  private let capacity: Int
  private let shadows: UnsafeMutableRawPointer
  private let stride: Int
  private let scratch: UnsafeMutableRawPointer
  private let longestPacket: Int

  public private(set) var phase = Phase.off
  public private(set) var holder: UInt8 = 0
  public private(set) var stream: UInt32 = 0
  /// Flows that the holder has.
  public private(set) var known = 0
  /// Where the sweep goes on; at `capacity` it has ended. Another one is due when flows have come otherwise than by packets.
  private var sweep = 0
  private var isSweepDue = false
  private var isMarkDue = false
  /// Whether the holder has confirmed that it has every flow there was.
  public private(set) var isProtected = false
  private var isNewlyProtected = false
  /// The holder has said that it cannot.
  public private(set) var isRefused = false

  /// Flows sent whole in a pass without a packet's asking for it.
  private static var sweptPerPass: Int { 32 }

  /// - Parameters:
  ///   - layout: hash of the chain's layout.
  ///   - reader: as whom it hears of ends.
  ///   - longestPacket: bytes of the longest frame that is ever committed.
  public init(
    layout hash: UInt64, stateSize: Int, capacity: Int, reader: EndsReader = .one, longestPacket: Int = 16_384, memory: MemorySource
  ) {
    self.reader = reader
    layoutHash = hash
    layout = ReplicaLayout(stateSize: stateSize)
    self.capacity = capacity
    self.longestPacket = longestPacket
    stride = 16 + (stateSize + 15) / 16 * 16
    unsafe shadows = UnsafeMutableRawPointer(memory.allocate(UInt64.self, count: capacity * stride / 8))
    unsafe scratch = UnsafeMutableRawPointer(
      memory.allocate(UInt8.self, count: ReplicationMessage.headerLength + 96 + 8 + stateSize + longestPacket))
  }

  public var isOn: Bool { phase != .off }

  /// Flows that there are and the holder does not have.
  public func unprotected(of flows: Int) -> Int { max(0, flows - (isOn ? known : 0)) }

  // MARK: Streams

  /// From now on the peer with this index holds the replicas.
  public mutating func begin(stream: UInt32, holder: UInt8) {
    precondition(stream != 0, "0 is no stream")
    self.stream = stream
    self.holder = holder
    phase = .opening
    (known, sweep, isSweepDue, isMarkDue) = (0, 0, false, false)
    (isProtected, isNewlyProtected, isRefused) = (false, false, false)
  }

  /// Nobody holds replicas any more: the holder's life is over, or it was taken off its duty.
  public mutating func stop(flows: inout some ReplicatedFlows & ~Copyable) {
    phase = .off
    (known, isProtected, isNewlyProtected) = (0, false, false)
    while flows.firstEnded(reader) != nil { flows.passOverEnded(reader) }
  }

  /// Flows have come otherwise than by packets of their own: by a migration or a recovery.
  public mutating func noteArrivals() {
    if sweep == capacity { sweep = 0 } else { isSweepDue = true }
    isProtected = false
  }

  /// Whether the holder has just confirmed that every flow is there; says so once.
  public mutating func takeProtected() -> Bool {
    defer { isNewlyProtected = false }
    return isNewlyProtected
  }

  // MARK: Packets

  @inline(__always)
  private func shadow(_ slot: UInt32) -> UnsafeMutableRawPointer { unsafe shadows + Int(slot) &* stride }

  /// Asks for what `commit` will read, some time before.
  @inline(__always)
  public func prefetch(_ slot: UInt32) {
    guard Int(slot) < capacity else { return }
    let shadow = unsafe shadow(slot)
    unsafe nfv_prefetch(shadow)
    unsafe nfv_prefetch(shadow + 64)
  }

  /// Sends a packet and what is new about its flow to the holder; `false` when there is no room, and the packet is lost.
  ///
  /// - Parameter packet: the frame as the holder is to release it.
  @inline(__always)
  public mutating func commit(
    _ slot: UInt32, packet: UnsafeRawBufferPointer, flows: inout some ReplicatedFlows & ~Copyable,
    outbox: inout some ReplicationOutbox & ~Copyable
  ) -> Bool {
    guard phase == .running, flows.firstEnded(reader) == nil || tellEnds(&flows, &outbox), packet.count <= longestPacket,
      unsafe put(slot, packet, flows, &outbox)
    else {
      missed(slot, flows)
      return false
    }
    return true
  }

  /// A packet was lost. If the holder does not know its flow, there may be no other packet of it: the sweep comes by once more.
  @inline(never)
  mutating func missed(_ slot: UInt32, _ flows: borrowing some ReplicatedFlows & ~Copyable) {
    // What is known of the slot may be of the flow before.
    guard phase == .running, unsafe flows.firstEnded(reader) != nil || shadow(slot).load(as: Shadow.self).stream != stream else { return }
    if sweep == capacity { sweep = 0 } else { isSweepDue = true }
  }

  @inline(__always)
  private mutating func put(
    _ slot: UInt32, _ packet: UnsafeRawBufferPointer, _ flows: borrowing some ReplicatedFlows & ~Copyable,
    _ outbox: inout some ReplicationOutbox & ~Copyable
  ) -> Bool {
    let shadow = unsafe shadow(slot)
    let word = flows.replicaWord(of: slot)
    let state = unsafe flows.state(of: slot).baseAddress!
    guard unsafe shadow.load(as: UInt32.self) == stream else {
      return unsafe introduce(slot, word, state, packet, flows, &outbox)
    }
    var changed = unsafe layout.difference(state, shadow + 16) &<< 1
    if unsafe shadow.load(fromByteOffset: 8, as: UInt64.self) != word { changed |= 1 }
    guard let length = layout.length(of: changed) else { return false }
    let count = ReplicationUpdate.headerLength &+ length &+ packet.count
    guard let place = unsafe outbox.reserve(count, to: holder) else {
      return unsafe putElsewhere(slot, changed, word, state, packet, &outbox)
    }
    unsafe write(slot, changed, word, state, packet, to: place)
    if changed != 0 { unsafe note(changed, word, state, in: shadow) }
    return true
  }

  /// A message that does not fit into one frame; or there is no room at all.
  @inline(never)
  private mutating func putElsewhere(
    _ slot: UInt32, _ changed: UInt32, _ word: UInt64, _ state: UnsafeRawPointer, _ packet: UnsafeRawBufferPointer,
    _ outbox: inout some ReplicationOutbox & ~Copyable
  ) -> Bool {
    let count = unsafe write(slot, changed, word, state, packet, to: scratch)
    guard unsafe outbox.send(UnsafeRawBufferPointer(start: scratch, count: count).bytes, to: holder) else { return false }
    unsafe note(changed, word, state, in: shadow(slot))
    return true
  }

  /// Writes an update and its packet; returns its length.
  @discardableResult @inline(__always)
  private func write(
    _ slot: UInt32, _ changed: UInt32, _ word: UInt64, _ state: UnsafeRawPointer, _ packet: UnsafeRawBufferPointer,
    to bytes: UnsafeMutableRawPointer
  ) -> Int {
    unsafe ReplicationUpdate(changed: changed, slot: slot).write(to: bytes)
    var length = ReplicationUpdate.headerLength
    if changed & 1 != 0 {
      unsafe bytes.storeBytes(of: word.littleEndian, toByteOffset: length, as: UInt64.self)
      length &+= 8
    }
    var rest = changed &>> 1
    while rest != 0 {
      let index = rest.trailingZeroBitCount
      rest &= rest &- 1
      if layout.unit == 4 {
        unsafe bytes.storeBytes(of: state.load(fromByteOffset: index &* 4, as: UInt32.self), toByteOffset: length, as: UInt32.self)
        length &+= 4
      } else {
        unsafe (bytes + length).copyMemory(from: state + index * layout.unit, byteCount: layout.length(of: index))
        length &+= layout.length(of: index)
      }
    }
    if let base = packet.baseAddress { unsafe (bytes + length).copyMemory(from: base, byteCount: packet.count) }
    return length &+ packet.count
  }

  /// The holder will have this.
  @inline(__always)
  private func note(_ changed: UInt32, _ word: UInt64, _ state: UnsafeRawPointer, in shadow: UnsafeMutableRawPointer) {
    unsafe shadow.storeBytes(of: word, toByteOffset: 8, as: UInt64.self)
    guard layout.unit == 4 else { return unsafe (shadow + 16).copyMemory(from: state, byteCount: layout.stateSize) }
    var rest = changed &>> 1
    while rest != 0 {
      let offset = rest.trailingZeroBitCount &* 4
      rest &= rest &- 1
      unsafe shadow.storeBytes(of: state.load(fromByteOffset: offset, as: UInt32.self), toByteOffset: 16 &+ offset, as: UInt32.self)
    }
  }

  /// Sends a flow whole.
  @inline(never)
  private mutating func introduce(
    _ slot: UInt32, _ word: UInt64, _ state: UnsafeRawPointer, _ packet: UnsafeRawBufferPointer,
    _ flows: borrowing some ReplicatedFlows & ~Copyable, _ outbox: inout some ReplicationOutbox & ~Copyable
  ) -> Bool {
    unsafe ReplicationMessage(.flow, slot: slot, word: word, packetLength: packet.count).write(to: scratch)
    var writer = unsafe MigrationWriter(into: scratch, behind: ReplicationMessage.headerLength)
    writer.put(flows.keys(of: slot), timeoutClass: ReplicaWord.timeoutClass(word))
    unsafe writer.put(UnsafeRawBufferPointer(start: state, count: layout.stateSize))
    guard unsafe sendScratch(writer.count, packet, &outbox) else { return false }
    let shadow = unsafe shadow(slot)
    unsafe shadow.storeBytes(of: Shadow(stream: stream, unused: 0, word: word), as: Shadow.self)
    unsafe (shadow + 16).copyMemory(from: state, byteCount: layout.stateSize)
    known += 1
    return true
  }

  @inline(__always)
  private func sendScratch(
    _ length: Int, _ packet: UnsafeRawBufferPointer, _ outbox: inout some ReplicationOutbox & ~Copyable
  ) -> Bool {
    if let base = packet.baseAddress { unsafe (scratch + length).copyMemory(from: base, byteCount: packet.count) }
    return unsafe outbox.send(UnsafeRawBufferPointer(start: scratch, count: length + packet.count).bytes, to: holder)
  }

  private func send(_ message: ReplicationMessage, _ outbox: inout some ReplicationOutbox & ~Copyable) -> Bool {
    unsafe message.write(to: scratch)
    return unsafe outbox.send(UnsafeRawBufferPointer(start: scratch, count: ReplicationMessage.headerLength).bytes, to: holder)
  }

  /// Sends a flow whole, unless the holder has it; `false` when there is no room.
  public mutating func introduce(
    _ slot: UInt32, flows: inout some ReplicatedFlows & ~Copyable, outbox: inout some ReplicationOutbox & ~Copyable
  ) -> Bool {
    guard phase == .running, tellEnds(&flows, &outbox) else { return false }
    guard flows.isReplicable(slot), unsafe shadow(slot).load(as: Shadow.self).stream != stream else { return true }
    return unsafe put(slot, UnsafeRawBufferPointer(start: nil, count: 0), flows, &outbox)
  }

  // MARK: Without packets

  /// Tells the holder which flows have ended; `false` when the channel has no room for all of it.
  private mutating func tellEnds(
    _ flows: inout some ReplicatedFlows & ~Copyable, _ outbox: inout some ReplicationOutbox & ~Copyable
  ) -> Bool {
    while let slot = flows.firstEnded(reader) {
      let shadow = unsafe shadow(slot)
      if unsafe shadow.load(as: Shadow.self).stream == stream {
        guard send(ReplicationMessage(.end, slot: slot), &outbox) else { return false }
        unsafe shadow.storeBytes(of: 0, as: UInt32.self)
        known -= 1
      }
      flows.passOverEnded(reader)
    }
    return true
  }

  /// Does what can be done now: opens the stream, tells which flows have ended, sends flows that wait for it whole.
  /// Called in every pass.
  public mutating func advance(flows: inout some ReplicatedFlows & ~Copyable, outbox: inout some ReplicationOutbox & ~Copyable) {
    if phase == .opening {
      unsafe ReplicationMessage(.open, slot: UInt32(capacity), word: layoutHash).write(to: scratch)
      unsafe scratch.storeBytes(of: UInt64(stream).littleEndian, toByteOffset: ReplicationMessage.headerLength, as: UInt64.self)
      guard unsafe outbox.send(
        UnsafeRawBufferPointer(start: scratch, count: ReplicationMessage.headerLength + 8).bytes, to: holder)
      else { return }
      while flows.firstEnded(reader) != nil { flows.passOverEnded(reader) }
      phase = .running
    }
    guard phase == .running, tellEnds(&flows, &outbox) else { return }
    guard sweep < capacity else {
      if isMarkDue, send(ReplicationMessage(.mark, slot: stream), &outbox) { isMarkDue = false }
      return
    }
    var (sent, looked) = (0, 0)
    while sweep < capacity, sent < Self.sweptPerPass, looked < 2_048 {
      let slot = UInt32(sweep)
      if flows.isReplicable(slot), unsafe shadow(slot).load(as: Shadow.self).stream != stream {
        // Packets go first: one that the channel has no room for is lost, and a flow that nothing comes of can wait.
        guard outbox.hasRoomToSpare(to: holder), unsafe put(slot, UnsafeRawBufferPointer(start: nil, count: 0), flows, &outbox) else { return }
        sent += 1
      }
      sweep += 1
      looked += 1
    }
    guard sweep == capacity else { return }
    if isSweepDue { (sweep, isSweepDue) = (0, false) } else { isMarkDue = true }
  }

  /// Takes a message of kind `marked` or `refused` from the peer with this index. `false` when it is malformed.
  public mutating func receive(_ bytes: UnsafeRawBufferPointer, from peer: UInt8) -> Bool {
    guard let message = unsafe ReplicationMessage(bytes), bytes.count == ReplicationMessage.headerLength else { return false }
    guard isOn, peer == holder, message.slot == stream else { return true }
    switch message.kind {
    case .marked:
      // What has come since waits for a mark of its own.
      if sweep == capacity, !isMarkDue { (isProtected, isNewlyProtected) = (true, true) }
    case .refused: (phase, isRefused, known, isProtected) = (.off, true, 0, false)
    case .open, .flow, .update, .end, .handOver, .mark, .close, .standBy, .settled: return false
    }
    return true
  }
}
