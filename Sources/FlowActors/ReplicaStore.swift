import CIntrinsics
import FixedContainers
import Wire

/// What a holder keeps of a replica besides keys and flow state: the actor's word (`ReplicaWord`).
public struct ReplicaActor: BitwiseCopyable, Sendable {
  public var word: UInt64
}

/// The replicas of one life of one other runtime: the holder's half of replication (paper §V-C).
///
/// Messages come over the reliable channel, each once and in order. What they say is stored, then their packet is
/// released. Replicas have no timers here: their owner ends them. When its life is over they are found by their keys, and
/// taken out one by one.
@safe
public struct ReplicaStore: ~Copyable {
  public private(set) var owner: FlowOwner
  public private(set) var stream: UInt32 = 0
  @usableFromInline var flows: FlowStore<ReplicaActor>
  /// By the owner's slot: place + 1, or 0.
  private let places: UnsafeMutablePointer<UInt32>
  public let capacity: Int
  private let layoutHash: UInt64
  private let layout: ReplicaLayout
  /// Whether it is worth looking for flows that may be another runtime's.
  private var mayHaveDoubtful = false
  /// Where taking out goes on.
  private var hand: UInt32 = 0

  /// - Parameters:
  ///   - layout: hash of the chain's layout; a stream of another one is refused.
  ///   - capacity: flows, as the owner's, which has the same chain.
  ///   - seed: of the runtime's own flow store: a frame's hash serves for both.
  public init(
    of owner: FlowOwner, layout hash: UInt64, stateSize: Int, capacity: Int, ipv6Capacity: Int, seed: UInt64, now: Tick,
    memory: MemorySource
  ) {
    self.owner = owner
    self.capacity = capacity
    layoutHash = hash
    layout = ReplicaLayout(stateSize: stateSize)
    flows = FlowStore(
      capacity: capacity, ipv6Capacity: ipv6Capacity, stateSize: stateSize, seed: seed, timeouts: [86_400_000], now: now,
      memory: memory)
    unsafe places = memory.allocate(UInt32.self, count: capacity)
  }

  public var count: Int { flows.count }

  /// Belongs to another life from now on. There must be no replica left.
  public mutating func assign(to owner: FlowOwner) {
    precondition(count == 0, "a store is given to another owner when it is empty")
    self.owner = owner
    stream = 0
  }

  /// Forgets everything.
  public mutating func removeAll() {
    var slot: UInt32 = 0
    while flows.count > 0, Int(slot) < capacity {
      if flows[slot].isUsed { flows.remove(slot) }
      slot += 1
    }
    unsafe places.update(repeating: 0, count: capacity)
    hand = 0
  }

  // MARK: Messages

  public enum Understanding: Equatable, Sendable {
    case understood
    /// The owner wants to know that everything before this was stored.
    case markReached(UInt32)
    /// Replicas of this owner cannot be held: another chain, or more flows than there is room for.
    case refused(UInt32)
    /// The flow may be another node's soon: `noteHandOver`.
    case handedOver(slot: UInt32, node: UInt32)
    /// Nothing was stored, nothing released.
    case malformed
  }

  /// The stream that a message begins; `nil` for any other message.
  public static func streamOpened(by bytes: UnsafeRawBufferPointer) -> UInt32? {
    guard let message = unsafe ReplicationMessage(bytes), message.kind == .open, bytes.count == ReplicationMessage.headerLength + 8
    else { return nil }
    return unsafe UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: ReplicationMessage.headerLength, as: UInt32.self))
  }

  /// The flow that a message introduces; `nil` for any other message.
  public static func flowIntroduced(by bytes: UnsafeRawBufferPointer) -> FlowKeyPair? {
    guard let message = unsafe ReplicationMessage(bytes), message.kind == .flow else { return nil }
    var reader = unsafe MigrationReader(bytes)
    reader.offset = ReplicationMessage.headerLength
    return reader.keys()?.keys
  }

  /// Takes a message of the owner, and hands the packet in it, once its state is stored, to `release`.
  @inline(__always)
  public mutating func receive(_ bytes: UnsafeRawBufferPointer, now: Tick, release: (UnsafeRawBufferPointer) -> Void) -> Understanding {
    guard let message = unsafe ReplicationMessage(bytes) else {
      guard let packet = unsafe update(bytes, milliseconds: UInt32(truncatingIfNeeded: now.milliseconds)) else { return .malformed }
      if packet.count > 0 { unsafe release(packet) }
      return .understood
    }
    return unsafe receiveSeldom(message, bytes, now: now, release: release)
  }

  /// Asks for what an update will need: first of several messages the places, then, of all of them, the replicas.
  @inline(__always)
  public func foresee(_ bytes: UnsafeRawBufferPointer, _ step: Foresight) {
    guard let update = unsafe ReplicationUpdate(bytes), Int(update.slot) < capacity else { return }
    let place = unsafe places + Int(update.slot)
    switch step {
    case .buckets: unsafe nfv_prefetch(place)
    case .records: if unsafe place.pointee != 0 { flows.prefetch(unsafe place.pointee - 1) }
    }
  }

  /// Stores what an update says.
  ///
  /// - Returns: its packet, which may leave now, empty if it has none; `nil` when it is no update, or none that can be stored.
  @inline(__always)
  public mutating func update(_ bytes: UnsafeRawBufferPointer, milliseconds: UInt32) -> UnsafeRawBufferPointer? {
    guard let update = unsafe ReplicationUpdate(bytes), Int(update.slot) < capacity, stream != 0,
      let place = place(of: update.slot), let length = layout.length(of: update.changed)
    else { return nil }
    let start = ReplicationUpdate.headerLength &+ length
    guard start <= bytes.count else { return nil }
    unsafe store(update.changed, bytes.baseAddress! + ReplicationUpdate.headerLength, at: place)
    flows[place].lastSeen = milliseconds
    flows[place].phase = .settled
    return unsafe UnsafeRawBufferPointer(start: bytes.baseAddress! + start, count: bytes.count &- start)
  }

  @inline(__always)
  private func place(of slot: UInt32) -> UInt32? {
    let place = unsafe places[Int(slot)]
    return place == 0 ? nil : place &- 1
  }

  @inline(__always)
  private mutating func store(_ changed: UInt32, _ bytes: UnsafeRawPointer, at place: UInt32) {
    var source = unsafe bytes
    if changed & 1 != 0 {
      flows[place].actor.word = unsafe UInt64(littleEndian: source.loadUnaligned(as: UInt64.self))
      unsafe source += 8
    }
    let state = unsafe flows.state(place)
    var rest = changed &>> 1
    while rest != 0 {
      let index = rest.trailingZeroBitCount
      rest &= rest &- 1
      if layout.unit == 4 {
        unsafe state.storeBytes(of: source.loadUnaligned(as: UInt32.self), toByteOffset: index &* 4, as: UInt32.self)
        unsafe source += 4
      } else {
        unsafe (state + index * layout.unit).copyMemory(from: source, byteCount: layout.length(of: index))
        unsafe source += layout.length(of: index)
      }
    }
  }

  @inline(never)
  private mutating func receiveSeldom(
    _ message: ReplicationMessage, _ bytes: UnsafeRawBufferPointer, now: Tick, release: (UnsafeRawBufferPointer) -> Void
  ) -> Understanding {
    switch message.kind {
    case .open:
      guard let stream = unsafe Self.streamOpened(by: bytes) else { return .malformed }
      removeAll()
      self.stream = 0
      guard message.word == layoutHash, Int(message.slot) <= capacity, stream != 0 else { return .refused(stream) }
      self.stream = stream
      return .understood
    case .flow:
      var reader = unsafe MigrationReader(bytes)
      reader.offset = ReplicationMessage.headerLength
      guard Int(message.slot) < capacity, stream != 0, let (keys, _) = reader.keys(),
        bytes.count - reader.offset == layout.stateSize + Int(message.packetLength)
      else { return .malformed }
      guard unsafe insert(keys, message, bytes.baseAddress! + reader.offset, now: now) else { return .refused(stream) }
      if message.packetLength > 0 {
        unsafe release(UnsafeRawBufferPointer(rebasing: bytes[(reader.offset + layout.stateSize)...]))
      }
    case .end:
      guard bytes.count == ReplicationMessage.headerLength, Int(message.slot) < capacity else { return .malformed }
      forget(message.slot)
    case .handOver:
      guard bytes.count == ReplicationMessage.headerLength, Int(message.slot) < capacity else { return .malformed }
      return .handedOver(slot: message.slot, node: UInt32(truncatingIfNeeded: message.word))
    case .mark:
      guard bytes.count == ReplicationMessage.headerLength else { return .malformed }
      return .markReached(message.slot)
    case .update, .marked, .refused, .close, .standBy, .settled:
      return .malformed
    }
    return .understood
  }

  private mutating func insert(_ keys: FlowKeyPair, _ message: ReplicationMessage, _ state: UnsafeRawPointer, now: Tick) -> Bool {
    forget(message.slot)
    // Another slot with one of these keys would be a flow that has ended without a word.
    for key in [keys.forward, keys.reverse] { if let (place, _) = flows.find(key) { forget(flows[place].burstMark) } }
    guard let place = flows.create(keys, actor: ReplicaActor(word: message.word), timeoutClass: 0, now: now) else { return false }
    unsafe flows.state(place).copyMemory(from: state, byteCount: layout.stateSize)
    // Replicas take part in no burst: the mark is the owner's slot.
    flows[place].burstMark = message.slot
    unsafe places[Int(message.slot)] = place + 1
    return true
  }

  private mutating func forget(_ slot: UInt32) {
    guard let place = place(of: slot) else { return }
    unsafe places[Int(slot)] = 0
    flows.remove(place)
  }

  // MARK: Recovery

  /// The replica whose flow a frame belongs to.
  public func find(_ frame: borrowing Frame) -> UInt32? { flows.find(frame)?.slot }
  public func find(_ key: FlowKey) -> UInt32? { flows.find(key)?.slot }

  /// The flow of the owner's slot may be the peer's with this index; who recovers it has to ask first. Until the owner says
  /// something of the flow again.
  public mutating func noteHandOver(_ slot: UInt32, to peer: UInt8) {
    guard let place = place(of: slot) else { return }
    flows[place].phase = MigrationPhase(.handedOver, peer: peer)
    mayHaveDoubtful = true
  }

  /// Some replica of a flow that was its owner's without doubt; `nil` when there is none.
  public mutating func next() -> UInt32? {
    guard flows.count > 0 else { return nil }
    while Int(hand) < capacity {
      if flows[hand].isUsed, flows[hand].phase == .settled { return hand }
      hand += 1
    }
    hand = 0
    return nil
  }

  /// Replicas of flows that may be another runtime's: that of some peer, and up to `limit` of those that may be its.
  public mutating func doubtful(limit: Int) -> (peer: UInt8, places: [UInt32])? {
    guard mayHaveDoubtful, flows.count > 0 else { return nil }
    var (peer, places): (UInt8?, [UInt32]) = (nil, [])
    for place in 0..<UInt32(capacity) where flows[place].isUsed && flows[place].phase.step == .handedOver {
      if peer == nil { peer = flows[place].phase.peer }
      if flows[place].phase.peer == peer { places.append(place) }
      if places.count == limit { break }
    }
    mayHaveDoubtful = peer != nil
    return peer.map { ($0, places) }
  }

  /// What was found out about such a replica: it is its owner's, or to be asked about again.
  public mutating func settleDoubt(_ place: UInt32, _ phase: MigrationPhase) {
    guard flows[place].isUsed else { return }
    flows[place].phase = phase
    if phase.step == .handedOver { mayHaveDoubtful = true }
  }

  /// What is known of a replica: keys, what travels with a flow, and the flow state.
  public func keys(of place: UInt32) -> FlowKeyPair { flows.keys(of: place) }

  public func travelling(_ place: UInt32, now: Tick) -> TravellingFlow {
    let word = flows[place].actor.word
    return TravellingFlow(
      timeoutClass: ReplicaWord.timeoutClass(word),
      idleMilliseconds: UInt32(truncatingIfNeeded: now.milliseconds) &- flows[place].lastSeen, actor: ReplicaWord.actor(word))
  }

  public func state(of place: UInt32) -> UnsafeRawBufferPointer {
    unsafe UnsafeRawBufferPointer(start: flows.state(place), count: layout.stateSize)
  }

  /// The flow is served here now, or is given up.
  public mutating func remove(_ place: UInt32) { forget(flows[place].burstMark) }
}
