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
    peers.replication = replication.standing
    PacketBatch.forEach(in: refused) { batch.drop($0, .replicationBusy) }
    let committed = mask & ~refused
    runtime.core.counters.packetsReplicated &+= UInt64(committed.nonzeroBitCount)
    return committed
  }

  /// Asks for what `commit` will read of these frames' flows.
  func foresee(_ batch: PacketBatch, _ mask: UInt64) { Self.foresee(Burst(batch), mask, replication) }

  private static func foresee(_ burst: Burst, _ mask: UInt64, _ replication: borrowing FlowReplication) {
    PacketBatch.forEach(in: mask) { replication.prefetch(burst[$0].slot) }
  }

  /// - Returns: frames that the channel had no room for.
  private static func commit(
    _ burst: Burst, _ mask: UInt64, _ replication: inout FlowReplication, _ core: inout RuntimeCore, _ peers: inout Peers
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
      return noteReplication()
    }
    if let (lost, isSettled) = unsafe ReplicationNotice.inheritance(message) {
      let heir = peers.life(of: peer)
      if isSettled { return runtime.core.replicas.settle(lost, by: heir) }
      learnEnd(of: lost, heir: heir, now: now)
      return runtime.core.replicas.standBy(lost, heir: heir)
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

  // MARK: The holders of this runtime's replicas

  /// From now on these hold the replicas, or nobody. Until one can be spoken to, packets go out unprotected: what were queued for
  /// it could reach a later life of its node.
  func protect(_ assignment: UInt32, _ holders: [FlowOwner]) {
    replication.protect(assignment, by: runtime.core.flows.logsEnds ? holders : [], flows: &runtime.core, outbox: &peers)
    noteReplication()
  }

  /// What follows for others from how replication stands now.
  func noteReplication() {
    runtime.isReplicating = replication.isOn
    peers.replication = replication.standing
    if let (assignment, flows) = replication.takeProtected() {
      _ = rings.events.put(.protected(assignment: assignment, flows: UInt64(flows)))
    }
  }

  /// Does what is due in a pass.
  func advanceReplication(now: Tick) {
    if !orders.isEmpty { beginRecoveries(now: now) }
    if runtime.core.replicas.isRecovering { goOnRecovering(now: now) }
    if !replication.isIdle { advanceStreams() }
    if !unsettled.isEmpty, orders.isEmpty, replication.isProtected { tellStandbys() }
    if !answers.isEmpty { answerOwners() }
    if !arrivals.isEmpty { acknowledgeArrivals() }
    for life in peers.takeSilent() { _ = rings.events.put(.peerSilent(life)) }
  }

  private func advanceStreams() {
    replication.advance(flows: &runtime.core, outbox: &peers)
    // They were counted as sent on when they were taken.
    for _ in 0..<replication.takeLost() {
      runtime.core.drops.add(.replicationBusy)
      runtime.core.counters.dropped &+= 1
      runtime.core.counters.forwarded &-= 1
    }
    noteReplication()
  }

  /// All flows have replicas: nobody need stand by any more for the lives that they were of.
  private func tellStandbys() {
    while let (lost, standby) = unsettled.first, !runtime.core.replicas.isRecovering {
      if let peer = peers.peer(inSessionWith: standby) {
        let isTold = unsafe ReplicationNotice.writeInheritance(of: lost, isSettled: true, to: scratch) { peers.send($0, to: peer) }
        guard isTold else { return }
      }
      unsettled.removeFirst()
    }
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
      orders.append(order)
      beginRecoveries(now: now)
    } else if let heir = order.by, order.standby == owner {
      runtime.core.replicas.standBy(order.lost, heir: heir)
    } else {
      runtime.core.replicas.drop(order.lost)
    }
    guard let peer = peers.index(ofNode: order.lost.node) else { return }
    mourn(peer, order.lost.incarnation, now: now)
    // Whoever was asked whether it has some flows is gone; its heir is asked, or nobody has them.
    for (number, claim) in claims where claim.peer == peer { reopen(number, claim) }
  }

  /// Takes over flows of lives that are over. Who stands by hears of it in front of everything that is sent about those flows.
  private func beginRecoveries(now: Tick) {
    while let order = orders.first {
      if let standby = order.standby, let peer = peers.peer(inSessionWith: standby) {
        let isTold = unsafe ReplicationNotice.writeInheritance(of: order.lost, isSettled: false, to: scratch) { peers.send($0, to: peer) }
        guard isTold else { return }
        unsettled.append((order.lost, standby))
      }
      orders.removeFirst()
      if let report = runtime.core.replicas.beginRecovery(order, now: now) { _ = rings.events.put(.recovery(report)) }
    }
  }

  /// Another node has heard from the coordinator that a life is over. What that may still have under way comes too late from here on.
  private func learnEnd(of lost: FlowOwner, heir: FlowOwner, now: Tick) {
    guard lost != owner, let gone = peers.fence(lost) else { return }
    if heirs[lost] == nil { heirs[lost] = .some(heir) }
    mourn(gone, lost.incarnation, now: now)
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
    // The answer must stay true.
    learnEnd(of: lost, heir: peers.life(of: peer), now: now)
    return MigrationClaim.answer(message, to: scratch) { keys in
      if let (slot, _) = runtime.core.flows.find(keys.forward), runtime.core.flows[slot].phase.isServing { return true }
      // Whoever recovers that life's flows asks for those that had left it: replicas of it here say nothing about them.
      if MigrationClaim.number(message) != nil { return runtime.core.replicas.find(keys.forward) != nil }
      return runtime.core.replicas.has(keys, of: lost)
    } send: { peers.send($0, to: peer) }
  }
}
