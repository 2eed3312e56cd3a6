import FlowActors
import ModuleGraphs
import ReliableChannels
import Wire

// Replication and recovery in a runtime: packets to the holder, packets released for others, and what becomes of flows
// when runtimes die, in particular of those that were on their way from one to another.

/// An acknowledgement of flows that have arrived, and those of them that have no replica yet.
struct PendingArrival {
  let peer: UInt8
  let message: [UInt8]
  var slots: [UInt32]
  /// What the holder has to have first.
  var mark: CommitMark?
}

/// Replicas of flows that may have reached another runtime before their owner died.
struct PendingClaim {
  let store: Int
  let places: [UInt32]
  let peer: UInt8
}

extension MigrationGraph {
  // MARK: Packets

  /// Sends the packets of `mask`, addressed to their switches, to the holder behind what is new about their flows.
  ///
  /// - Returns: those that the channel took. The others are dropped with a reason.
  func commit(_ batch: PacketBatch, _ mask: UInt64, now: Tick) -> UInt64 {
    let refused = Self.commit(Burst(batch), mask, &replication, &runtime.core, &peers)
    PacketBatch.forEach(in: refused) { batch.drop($0, .replicationBusy) }
    let committed = mask & ~refused
    runtime.core.counters.packetsReplicated &+= UInt64(committed.nonzeroBitCount)
    return committed
  }

  /// Asks for what `commit` will read of these frames' flows.
  func foresee(_ batch: PacketBatch, _ mask: UInt64) { Self.foresee(Burst(batch), mask, replication) }

  private static func foresee(_ burst: Burst, _ mask: UInt64, _ replication: borrowing ReplicationSource) {
    PacketBatch.forEach(in: mask) { replication.prefetch(burst[$0].slot) }
  }

  /// - Returns: frames that the channel had no room for.
  private static func commit(
    _ burst: Burst, _ mask: UInt64, _ replication: inout ReplicationSource, _ core: inout RuntimeCore, _ peers: inout Peers
  ) -> UInt64 {
    var refused: UInt64 = 0
    PacketBatch.forEach(in: mask) { burst[$0].markReleased() }
    PacketBatch.forEach(in: mask) { index in
      let isSent = burst[index].withBytes {
        unsafe replication.commit(burst[index].slot, packet: $0, flows: &core, outbox: &peers)
      }
      if !isSent { refused |= 1 << UInt64(truncatingIfNeeded: index) }
    }
    return refused
  }

  /// Takes messages of a peer, in order.
  func take(_ messages: UnsafeBufferPointer<UnsafeRawBufferPointer>, from peer: UInt8, now: Tick) {
    var rest = unsafe messages
    while !rest.isEmpty {
      // Updates of replicas first, which nearly all are, and then one message of another kind.
      let stored = unsafe Self.store(rest, from: peer, life: peers.life(of: peer), &runtime.core.replicas, released, now: now)
      guard stored < rest.count else { return }
      let message = unsafe rest[stored]
      if unsafe ReplicationMessage.isOne(message) {
        unsafe replicate(message, from: peer, now: now)
      } else {
        handle(message.bytes, from: peer, now: now)
      }
      unsafe rest = UnsafeBufferPointer(rebasing: rest[(stored + 1)...])
    }
  }

  /// Stores the updates that messages begin with, and lets their packets go.
  ///
  /// - Returns: how many there were. The next message is another, or one that makes no sense.
  private static func store(
    _ messages: UnsafeBufferPointer<UnsafeRawBufferPointer>, from peer: UInt8, life: FlowOwner, _ replicas: inout HeldReplicas,
    _ released: ReleasedPackets, now: Tick
  ) -> Int {
    guard let index = replicas.holding(peer, life) else { return 0 }
    unsafe replicas.foresee(messages, in: index)
    let milliseconds = UInt32(truncatingIfNeeded: now.milliseconds)
    var stored = 0
    while stored < messages.count,
      let packet = unsafe replicas.update(messages[stored], in: index, milliseconds: milliseconds)
    {
      if packet.count > 0 { unsafe released.put(packet, now: now) }
      stored &+= 1
    }
    return stored
  }

  func replicate(_ message: UnsafeRawBufferPointer, from peer: UInt8, now: Tick) {
    let kind = unsafe ReplicationMessage.kind(message)
    if kind == .close { return runtime.core.replicas.drop(peers.life(of: peer)) }
    if kind == .marked || kind == .refused {
      if unsafe !replication.receive(message, from: peer) { malformed &+= 1 }
      if replication.takeProtected() {
        _ = rings.events.put(.protected(stream: replication.stream, flows: UInt64(replication.known)))
      }
      return
    }
    let understanding = unsafe runtime.core.replicas.receive(message, from: peer, life: peers.life(of: peer), now: now) {
      unsafe released.put($0, now: now)
    }
    switch understanding {
    case .understood: break
    case .malformed: malformed &+= 1
    case .markReached(let stream): answers.append((peer, stream, true))
    case .refused(let stream): answers.append((peer, stream, false))
    case .handedOver(let slot, let node):
      if let target = peers.index(ofNode: node) { runtime.core.replicas.noteHandOver(slot, from: peer, to: target) }
    }
  }

  /// What the channels and the machines behind them have counted.
  func count(into counters: inout Counters) {
    peers.count(into: &counters)
    counters.messagesMalformed = malformed
  }

  /// Replicas held here, and flows of this runtime that nobody has a replica of, where there should be one.
  var replicaCounts: (held: Int, unprotected: Int) {
    let flows = runtime.core.flows.count
    return (runtime.core.replicas.count, runtime.core.flows.logsEnds ? replication.unprotected(of: flows) : 0)
  }

  // MARK: The holder of this runtime's replicas

  /// From now on `holder` holds the replicas, or nobody. Until it can be spoken to, packets go out unprotected: what were
  /// queued for it could reach a later life of its node.
  func protect(_ stream: UInt32, _ holder: FlowOwner?) {
    stopReplicating()
    guard let holder, runtime.core.flows.logsEnds, stream != 0 else { return }
    comingStream = (stream, holder)
    beginStream()
  }

  private func beginStream() {
    guard relieved.isEmpty, let (stream, holder) = comingStream, peers.hasSession(with: holder), let peer = peers.index(ofNode: holder.node) else { return }
    comingStream = nil
    replication.begin(stream: stream, holder: peer)
    runtime.isReplicating = true
    (peers.holder, peers.stream) = (peer, stream)
  }

  /// Tells a former holder that it is none any more. One that is gone has nothing to let go.
  private func relieve() {
    while let peer = relieved.first {
      let isTold = ReplicationNotice.writeClose(to: scratch) { peers.send($0, to: peer) }
      guard isTold || !peers.known[Int(peer)].isAlive else { return }
      relieved.removeFirst()
    }
  }

  func stopReplicating() {
    if replication.isOn { relieved.append(replication.holder) }
    replication.stop(flows: &runtime.core)
    runtime.isReplicating = false
    peers.holder = .max
    comingStream = nil
  }

  /// Does what is due in a pass.
  func advanceReplication(now: Tick) {
    if !relieved.isEmpty { relieve() }
    if comingStream != nil { beginStream() }
    if runtime.core.replicas.isRecovering { goOnRecovering(now: now) }
    if replication.isOn { replication.advance(flows: &runtime.core, outbox: &peers) }
    if !answers.isEmpty { answerOwners() }
    if !arrivals.isEmpty { acknowledgeArrivals() }
    for life in peers.takeSilent() { _ = rings.events.put(.peerSilent(life)) }
  }

  /// Tells owners how their streams fare, where the channel has room.
  private func answerOwners() {
    while let (peer, stream, isHeld) = answers.first {
      let sent = ReplicationAnswer.write(stream: stream, isHeld: isHeld, to: scratch) { peers.send($0, to: peer) }
      guard sent || !peers.known[Int(peer)].isAlive else { return }
      answers.removeFirst()
    }
  }

  // MARK: Flows that arrive

  /// Takes flows over from their source, which hears of it when they have replicas of their own: it lets its own replicas
  /// go then.
  func install(_ message: RawSpan, from peer: UInt8, now: Tick) -> Bool {
    peers.holdsArrivalsBack = replication.isOn
    let isUnderstood = target.receive(message, from: peer, now: now, flows: &runtime.core, outbox: &peers)
    peers.holdsArrivalsBack = false
    for (peer, message) in peers.takeArrivals() {
      arrivals.append(PendingArrival(peer: peer, message: message, slots: runtime.core.arrived))
    }
    runtime.core.arrived.removeAll(keepingCapacity: true)
    if !arrivals.isEmpty { acknowledgeArrivals() }
    return isUnderstood
  }

  private func acknowledgeArrivals() {
    for index in arrivals.indices {
      while let slot = arrivals[index].slots.last, replication.isOn {
        guard replication.introduce(slot, flows: &runtime.core, outbox: &peers) else { return }
        arrivals[index].slots.removeLast()
      }
      if arrivals[index].mark == nil { arrivals[index].mark = peers.commitMark }
    }
    while let arrival = arrivals.first, let mark = arrival.mark, peers.hasCommitted(mark) {
      let isSent = arrival.message.withUnsafeBytes { peers.send($0.bytes, to: arrival.peer) }
      guard isSent || !peers.known[Int(arrival.peer)].isAlive else { return }
      arrivals.removeFirst()
    }
  }

  // MARK: Deaths

  /// Who has the flows of a life that is over, as far as it is known here.
  func heir(of life: FlowOwner) -> FlowHeir {
    guard let heir = heirs[life] else { return runtime.core.flows.logsEnds ? .unknown : .nobody }
    guard let heir else { return .nobody }
    if heir == owner { return .own }
    return peers.index(ofNode: heir.node).map(FlowHeir.peer) ?? .nobody
  }

  /// The same for the present life of a peer.
  func heir(ofPeer peer: UInt8) -> FlowHeir {
    heir(of: FlowOwner(node: peers.known[Int(peer)].node, incarnation: peers.known[Int(peer)].incarnation))
  }

  /// The coordinator's word: a life is over, and its flows are somebody's or nobody's.
  func recover(_ order: RecoveryOrder, now: Tick) {
    if heirs.count >= 64 { heirs.removeAll() }
    heirs[order.lost] = .some(order.by)
    _ = peers.fence(order.lost)
    if order.by == owner {
      if let report = runtime.core.replicas.beginRecovery(order, now: now) { _ = rings.events.put(.recovery(report)) }
    } else {
      runtime.core.replicas.drop(order.lost)
    }
    guard let peer = peers.index(ofNode: order.lost.node) else { return }
    mourn(peer, order.lost.incarnation, now: now)
    // Whoever was asked whether it has some flows is gone; its heir is asked, or nobody has them.
    for (number, claim) in claims where claim.peer == peer { reopen(number, claim) }
  }

  /// Goes on with what no packet has asked for.
  private func goOnRecovering(now: Tick) {
    _ = runtime.core.recoverSome(limit: 32, now: now)
    if runtime.core.recoverSome(limit: 0, now: now) == 0 { claim() }
    while let report = runtime.core.replicas.takeFinished(now: now) {
      replication.noteArrivals()
      _ = rings.events.put(.recovery(report))
    }
  }

  // MARK: Claims

  /// Asks whoever was to get them whether it has flows that were on their way when their owner died.
  private func claim() {
    guard let (store, peer, places) = runtime.core.replicas.doubtful(limit: MigrationMessage.mostFlows) else { return }
    let target: UInt8
    switch peers.known[Int(peer)].isAlive ? .peer(peer) : heir(ofPeer: peer) {
    case .peer(let alive): target = alive
    case .unknown: return
    case .own, .nobody: return runtime.core.replicas.settleDoubt(store, places, .settled)
    }
    lastClaim &+= 1
    let lost = runtime.core.replicas[store].owner
    let isSent = MigrationClaim.write(
      number: lastClaim, lost: lost, count: places.count, to: scratch, keys: { runtime.core.replicas[store].keys(of: places[$0]) }
    ) { peers.send($0, to: target) }
    guard isSent else { return }
    runtime.core.replicas.settleDoubt(store, places, MigrationPhase(.departed, peer: target))
    claims[lastClaim] = PendingClaim(store: store, places: places, peer: target)
  }

  private func reopen(_ number: UInt32, _ claim: PendingClaim) {
    claims[number] = nil
    runtime.core.replicas.settleDoubt(claim.store, claim.places, MigrationPhase(.handedOver, peer: claim.peer))
  }

  func isOwnClaim(_ message: RawSpan) -> Bool { MigrationClaim.number(message).map { claims[$0] != nil } ?? false }

  /// Flows that the other runtime has are its; the others are to be recovered.
  func settleClaim(_ message: RawSpan, from peer: UInt8) -> Bool {
    guard let number = MigrationClaim.number(message), let claim = claims[number], claim.peer == peer else { return false }
    claims[number] = nil
    let taken = MigrationClaim.flows(message)
    for (index, place) in claim.places.enumerated() {
      if taken & 1 << UInt32(index) != 0 {
        runtime.core.replicas.discard(claim.store, place)
      } else {
        runtime.core.replicas.settleDoubt(claim.store, [place], .settled)
      }
    }
    return true
  }

  /// Says which of some flows of a dead runtime are here, served or as replicas of that life.
  func answerClaim(_ message: RawSpan, from peer: UInt8, now: Tick) -> Bool {
    guard let lost = MigrationClaim.lost(message), lost != owner else { return false }
    // What that life may still have under way comes too late from here on: the answer must stay true.
    if let gone = peers.fence(lost) {
      if heirs[lost] == nil { heirs[lost] = .some(FlowOwner(node: peers.known[Int(peer)].node, incarnation: peers.known[Int(peer)].incarnation)) }
      mourn(gone, lost.incarnation, now: now)
    }
    return MigrationClaim.answer(message, to: scratch) { keys in
      if let (slot, _) = runtime.core.flows.find(keys.forward), runtime.core.flows[slot].phase.isServing { return true }
      return runtime.core.replicas.has(keys, of: lost)
    } send: { peers.send($0, to: peer) }
  }
}
