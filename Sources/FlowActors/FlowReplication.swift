import FixedContainers
import Wire

/// Replicates a runtime's flows to one other runtime or to two, its *holders*, with output commit: a packet leaves when every
/// holder has the state that it has led to.
///
///     one   chain ─▶ what has changed, and the packet ─▶ first: stores, releases
///     two   chain ─▶ what has changed ─▶ second: stores ─▶ acknowledges
///               └─▶ the packet waits here until then ─▶ what has changed, and the packet ─▶ first: stores, releases
///
/// Each holder has a stream of its own (`ReplicationSource`) with everything in it, and needs no other: when the first one
/// ends, the second releases packets from the next one on. So who of the two is the first is this runtime's business alone.
@safe
public struct FlowReplication: ~Copyable {
  private var first: ReplicationSource
  private var second: ReplicationSource
  private var firstLife = FlowOwner(node: 0, incarnation: 0)
  private var secondLife = FlowOwner(node: 0, incarnation: 0)
  private var waiting: WaitingPackets
  /// Changes when somebody else is the second holder: what a packet waits for is a place in one stream.
  private var epoch: UInt16 = 0

  /// Holders that begin when they have a session with us.
  private var coming: [FlowOwner] = []
  /// The last stream's number: none has the number of another.
  private var lastStream: UInt32 = 0
  /// The assignment whose completion is still to be reported, and how many holders it names.
  private var reported: UInt32?
  private var wanted = 0
  /// Peers that held replicas and are to let them go.
  private var relieved: [UInt8] = []

  /// Packets taken, in all, that have waited; those of them that are at the first holder, or lost; and those that it has released.
  private var taken: UInt64 = 0
  private var forwarded: UInt64 = 0
  private var settled: UInt64 = 0
  private var checkpoints: [(count: UInt64, mark: UInt32)] = []
  private var lost = 0

  private let mostHolders: Int
  private let longestPacket: Int
  private let scratch: UnsafeMutableRawPointer

  private static var mostCheckpoints: Int { 64 }

  /// - Parameters:
  ///   - layout: hash of the chain's layout.
  ///   - capacity: slots of flows.
  ///   - mostHolders: 0 where flows are never replicated, 2 at most: for so many there is memory.
  ///   - longestPacket: bytes of the longest frame that is ever committed.
  public init(
    layout hash: UInt64, stateSize: Int, capacity: Int, mostHolders: Int, longestPacket: Int = 16_384, memory: MemorySource
  ) {
    self.mostHolders = min(2, mostHolders)
    self.longestPacket = longestPacket
    first = ReplicationSource(
      layout: hash, stateSize: stateSize, capacity: mostHolders > 0 ? capacity : 0, longestPacket: longestPacket, memory: memory)
    // Either may be the first in time, and hears of ends as the reader that it is.
    second = ReplicationSource(
      layout: hash, stateSize: stateSize, capacity: mostHolders > 1 ? capacity : 0, reader: .other,
      longestPacket: mostHolders > 1 ? longestPacket : 0, memory: memory)
    waiting = WaitingPackets(bytes: mostHolders > 1 ? max(WaitingPackets.usualBytes, 4 * longestPacket) : 0, memory: memory)
    unsafe scratch = UnsafeMutableRawPointer(memory.allocate(UInt8.self, count: 64))
    checkpoints.reserveCapacity(Self.mostCheckpoints)
  }

  // MARK: How it stands

  /// Whether packets leave by way of a holder.
  public var isOn: Bool { first.isOn }
  /// Whether there is nothing to do in a pass.
  public var isIdle: Bool { !first.isOn && coming.isEmpty && relieved.isEmpty && lost == 0 && reported == nil }
  /// Whether every holder that was asked for has confirmed that it has every flow there was.
  public var isProtected: Bool {
    coming.isEmpty && first.isOn && first.isProtected && (wanted < 2 || second.isOn && second.isProtected)
  }
  /// The lives that have replicas now, at least of some flows.
  public var holders: [FlowOwner] { (first.isOn ? [firstLife] : []) + (second.isOn ? [secondLife] : []) }

  /// Flows that there are and no holder has.
  public func unprotected(of flows: Int) -> Int { first.unprotected(of: flows) }

  /// Whether all holders have every flow; says so once for each assignment.
  public mutating func takeProtected() -> (assignment: UInt32, flows: Int)? {
    guard let assignment = reported, isProtected else { return nil }
    reported = nil
    return (assignment, first.known)
  }

  /// Packets that were lost since this was last asked, because their flows had ended or their holders had.
  public mutating func takeLost() -> Int {
    defer { lost = 0 }
    return lost
  }

  // MARK: Holders

  /// From now on these lives hold the replicas, two at most. Whoever did already goes on; until one can be spoken to, packets
  /// go out without it.
  ///
  /// - Parameter assignment: a number for `takeProtected`.
  public mutating func protect(
    _ assignment: UInt32, by holders: [FlowOwner], flows: inout some ReplicatedFlows & ~Copyable,
    outbox: inout some ReplicationOutbox & ~Copyable
  ) {
    if second.isOn, !holders.contains(secondLife) {
      relieved.append(second.holder)
      stopSecond(&flows)
    }
    if first.isOn, !holders.contains(firstLife) {
      relieved.append(first.holder)
      stopFirst(&flows)
    }
    let present = self.holders
    coming = mostHolders == 0 ? [] : holders.filter { !present.contains($0) }
    wanted = min(2, holders.count)
    reported = holders.isEmpty ? nil : assignment
    beginComing(&flows, &outbox)
  }

  private mutating func beginComing(_ flows: inout some ReplicatedFlows & ~Copyable, _ outbox: inout some ReplicationOutbox & ~Copyable) {
    // Who was relieved would forget what it is told anew.
    guard relieved.isEmpty else { return }
    var absent: [FlowOwner] = []
    for life in coming {
      // Without any holder the one that is named first is waited for: it is believed to know most.
      guard !first.isOn && absent.isEmpty || first.isOn && !second.isOn && mostHolders > 1, let peer = outbox.peer(inSessionWith: life) else {
        absent.append(life)
        continue
      }
      lastStream += 1
      if first.isOn {
        second.begin(stream: lastStream, holder: peer)
        (secondLife, epoch) = (life, epoch &+ 1)
      } else {
        first.begin(stream: lastStream, holder: peer)
        firstLife = life
      }
    }
    coming = absent
  }

  /// A peer's lives up to this one are over.
  public mutating func ended(_ peer: UInt8, through incarnation: UInt64, flows: inout some ReplicatedFlows & ~Copyable) {
    if second.isOn, second.holder == peer, secondLife.incarnation <= incarnation { stopSecond(&flows) }
    if first.isOn, first.holder == peer, firstLife.incarnation <= incarnation { stopFirst(&flows) }
  }

  private mutating func stopSecond(_ flows: inout some ReplicatedFlows & ~Copyable) {
    second.stop(flows: &flows)
    epoch &+= 1
  }

  private mutating func stopFirst(_ flows: inout some ReplicatedFlows & ~Copyable) {
    first.stop(flows: &flows)
    promote()
  }

  /// Without a first holder the second one is it.
  private mutating func promote() {
    guard !first.isOn else { return }
    if second.isOn {
      swap(&first, &second)
      swap(&firstLife, &secondLife)
    } else {
      while !waiting.isEmpty { giveUp() }
    }
    // What was on its way to the first one is lost, as in a queue.
    (settled, epoch) = (forwarded, epoch &+ 1)
    checkpoints.removeAll(keepingCapacity: true)
  }

  private mutating func giveUp() {
    waiting.removeFirst()
    (lost, forwarded) = (lost + 1, forwarded + 1)
  }

  /// Flows have come otherwise than by packets of their own: by a migration or a recovery.
  public mutating func noteArrivals() {
    first.noteArrivals()
    second.noteArrivals()
  }

  // MARK: Packets

  /// Asks for what `commit` will read, some time before.
  @inline(__always)
  public func prefetch(_ slot: UInt32) {
    first.prefetch(slot)
    if second.isOn { second.prefetch(slot) }
  }

  /// Sends what is new about a flow to its holders, and the packet to the one that is to release it, now or when the other one
  /// has confirmed; `false` when there is no room, and the packet is lost.
  ///
  /// - Parameter packet: the frame as it is to be released. It is copied.
  @inline(__always)
  public mutating func commit(
    _ slot: UInt32, packet: UnsafeRawBufferPointer, flows: inout some ReplicatedFlows & ~Copyable,
    outbox: inout some ReplicationOutbox & ~Copyable
  ) -> Bool {
    guard second.phase == .running || !waiting.isEmpty else {
      return unsafe first.commit(slot, packet: packet, flows: &flows, outbox: &outbox)
    }
    return unsafe commitToBoth(slot, packet, &flows, &outbox)
  }

  @inline(never)
  private mutating func commitToBoth(
    _ slot: UInt32, _ packet: UnsafeRawBufferPointer, _ flows: inout some ReplicatedFlows & ~Copyable,
    _ outbox: inout some ReplicationOutbox & ~Copyable
  ) -> Bool {
    guard packet.count <= longestPacket, waiting.hasRoom(for: packet.count) else { return refuse(slot, flows) }
    var entry = WaitingPackets.Entry(slot: slot, birth: flows.birth(of: slot), epoch: epoch)
    if second.phase == .running {
      guard unsafe second.commit(slot, packet: UnsafeRawBufferPointer(start: nil, count: 0), flows: &flows, outbox: &outbox) else {
        return refuse(slot, flows)
      }
      entry.mark = outbox.mark(to: second.holder)
    } else {
      // It waits for those before it only.
      entry.epoch &-= 1
    }
    unsafe waiting.append(entry, packet)
    taken &+= 1
    return true
  }

  /// There may be no other packet of the flow.
  private mutating func refuse(_ slot: UInt32, _ flows: borrowing some ReplicatedFlows & ~Copyable) -> Bool {
    first.missed(slot, flows)
    if second.isOn { second.missed(slot, flows) }
    return false
  }

  /// Passes on the packets whose state the second holder has.
  private mutating func forward(_ flows: inout some ReplicatedFlows & ~Copyable, _ outbox: inout some ReplicationOutbox & ~Copyable) {
    let before = forwarded
    while let entry = waiting.first {
      guard entry.epoch != epoch || second.phase != .running || outbox.hasArrived(entry.mark, at: second.holder) else { break }
      guard flows.isReplicable(entry.slot), flows.birth(of: entry.slot) == entry.birth else {
        giveUp()
        continue
      }
      guard first.phase == .running, unsafe first.commit(entry.slot, packet: waiting.firstPacket, flows: &flows, outbox: &outbox)
      else { break }
      waiting.removeFirst()
      forwarded &+= 1
    }
    if forwarded != before {
      if checkpoints.count == Self.mostCheckpoints { checkpoints.removeLast() }
      checkpoints.append((forwarded, outbox.mark(to: first.holder)))
    }
    while let checkpoint = checkpoints.first, outbox.hasArrived(checkpoint.mark, at: first.holder) {
      settled = checkpoint.count
      checkpoints.removeFirst()
    }
  }

  /// Sends a flow whole to those holders that do not have it; `false` when there is no room.
  public mutating func introduce(
    _ slot: UInt32, flows: inout some ReplicatedFlows & ~Copyable, outbox: inout some ReplicationOutbox & ~Copyable
  ) -> Bool {
    if second.phase == .running, !second.introduce(slot, flows: &flows, outbox: &outbox) { return false }
    return first.introduce(slot, flows: &flows, outbox: &outbox)
  }

  // MARK: Without packets

  /// Does what can be done now. Called in every pass.
  public mutating func advance(flows: inout some ReplicatedFlows & ~Copyable, outbox: inout some ReplicationOutbox & ~Copyable) {
    while let peer = relieved.first {
      // One that is gone has nothing to let go.
      let isTold = unsafe ReplicationNotice.writeClose(to: scratch) { outbox.send($0, to: peer) }
      guard isTold || !outbox.isAlive(peer) else { break }
      relieved.removeFirst()
    }
    if !coming.isEmpty { beginComing(&flows, &outbox) }
    guard first.isOn else { return }
    if !waiting.isEmpty || !checkpoints.isEmpty { forward(&flows, &outbox) }
    first.advance(flows: &flows, outbox: &outbox)
    if second.isOn { second.advance(flows: &flows, outbox: &outbox) }
  }

  /// Takes a message of kind `marked` or `refused` from the peer with this index. `false` when it is malformed.
  public mutating func receive(_ bytes: UnsafeRawBufferPointer, from peer: UInt8) -> Bool {
    if second.isOn, second.holder == peer {
      let isUnderstood = unsafe second.receive(bytes, from: peer)
      if !second.isOn { epoch &+= 1 }
      return isUnderstood
    }
    let isUnderstood = unsafe first.receive(bytes, from: peer)
    if !first.isOn { promote() }
    return isUnderstood
  }

  // MARK: Marks

  /// What has been sent to the holders, for whoever has to know when it has arrived.
  public var standing: ReplicationStanding {
    ReplicationStanding(
      first: first.isOn ? .init(peer: first.holder, stream: first.stream) : .none,
      second: second.isOn ? .init(peer: second.holder, stream: second.stream) : .none, taken: taken, settled: settled)
  }
}

/// Who the holders are, and how many packets that had to wait have been taken, and are released.
public struct ReplicationStanding: BitwiseCopyable, Equatable, Sendable {
  public struct Holder: BitwiseCopyable, Equatable, Sendable {
    public var peer: UInt8
    public var stream: UInt32
    public static let none = Self(peer: .max, stream: 0)

    public init(peer: UInt8, stream: UInt32) { (self.peer, self.stream) = (peer, stream) }
  }

  public var first = Holder.none
  public var second = Holder.none
  public var taken: UInt64 = 0
  public var settled: UInt64 = 0

  public init(first: Holder = .none, second: Holder = .none, taken: UInt64 = 0, settled: UInt64 = 0) {
    (self.first, self.second, self.taken, self.settled) = (first, second, taken, settled)
  }

  /// Behind all that was committed so far.
  ///
  /// - Parameter mark: behind all that this peer was sent.
  public func commitMark(_ mark: (_ peer: UInt8) -> UInt32) -> CommitMark {
    func place(_ holder: Holder) -> CommitMark.Place {
      CommitMark.Place(holder: holder, sequence: holder == .none ? 0 : mark(holder.peer))
    }
    return CommitMark(first: place(first), second: place(second), taken: taken)
  }

  /// Whether the packets before a mark are released, and the holders have what was sent to them before it; of a holder that is
  /// none any more nothing is waited for.
  public func hasCommitted(_ mark: CommitMark, hasArrived: (_ sequence: UInt32, _ peer: UInt8) -> Bool) -> Bool {
    guard settled >= mark.taken else { return false }
    for place in [mark.first, mark.second] where place.holder != .none {
      guard place.holder == first || place.holder == second else { continue }
      guard hasArrived(place.sequence, place.holder.peer) else { return false }
    }
    return true
  }
}
