import FixedContainers
import FlowActors
import ModuleGraphs
import ReliableChannels
import Wire

/// A runtime's part in migrations and in replication: its channels to the other nodes, and both halves of either protocol
/// (paper §V-B, §V-C).
///
///     frames of channels ─▶ Peers ─▶ messages ─▶ MigrationSource, MigrationTarget ─▶ flows of the RuntimeCore
///                                             └▶ HeldReplicas ─▶ packets of other runtimes' flows, released
///     packets of flows that are not served here ─▶ held, or sent after the flow
///     packets that the chain has passed ─▶ ReplicationSource ─▶ the holder, who sends them on
///
/// Messages go out behind the packets that the pass has sent, over the same port.
final class MigrationGraph: ModuleGraph {
  /// Lives as long as the worker, as this does.
  private unowned(unsafe) let runtime: RuntimeGraph
  private let rings: WorkerRings
  private let returns: ReturningPackets
  private let outgoing = PacketBatch()
  private let scratch: UnsafeMutableRawPointer
  /// Messages of a frame.
  private let messages = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: PacketBatch.capacity)
  private var peers: Peers
  private var source: MigrationSource
  private var target: MigrationTarget
  private var replication: ReplicationSource
  private let released: ReleasedPackets
  private let owner: FlowOwner
  private var nextReport = Tick.zero
  /// Messages that no machine understood.
  private var malformed: UInt64 = 0
  /// What owners of replicas held here are still to be told.
  private var answers: [(peer: UInt8, stream: UInt32, isHeld: Bool)] = []

  /// - Parameter isReplicated: whether this runtime's flows may be replicated; that takes memory.
  init(
    runtime: RuntimeGraph, owner: FlowOwner, capacity: Int, isReplicated: Bool, rings: WorkerRings, memory: MemorySource
  ) {
    self.runtime = runtime
    self.rings = rings
    self.owner = owner
    released = ReleasedPackets(port: runtime.port)
    returns = ReturningPackets(port: runtime.port, address: runtime.address)
    unsafe scratch = UnsafeMutableRawPointer(memory.allocate(UInt8.self, count: 65_536))
    peers = Peers(address: runtime.address, node: owner.node, incarnation: owner.incarnation, memory: memory)
    let chain = runtime.core.chain
    let layout = MigrationMessage.layoutHash(chain.layout)
    source = MigrationSource(owner: owner, layout: layout, stateSize: chain.stateSize, memory: memory)
    target = MigrationTarget(owner: owner, layout: layout, stateSize: chain.stateSize, flowCapacity: capacity, memory: memory)
    replication = ReplicationSource(layout: layout, stateSize: chain.stateSize, capacity: isReplicated ? capacity : 0, memory: memory)
    super.init()
    runtime.core.returns = returns
    if isReplicated { runtime.core.flows.logEnds(memory: memory) }
  }

  deinit { unsafe messages.deallocate() }

  // MARK: Packets

  /// Holds packets of flows on their way here, and sends packets of flows that have left after them.
  ///
  /// - Returns: the frames that were seen to; the others are dropped with a reason.
  func detour(_ batch: PacketBatch, _ frames: UInt64, now: Tick) -> UInt64 {
    var done: UInt64 = 0
    PacketBatch.forEach(in: frames) { index in
      let slot = batch[index].slot
      let phase = runtime.core.flows[slot].phase
      let side = batch[index].direction.rawValue
      let isDone =
        if phase.step == .arriving {
          batch[index].withBytes { target.hold(slot, $0, side: side, now: now) }
        } else {
          batch[index].withBytes { MigrationTarget.forward($0, side: side, to: phase.peer, scratch: scratch, outbox: &peers) }
        }
      runtime.core.flows[slot].lastSeen = UInt32(truncatingIfNeeded: now.milliseconds)
      if isDone { done |= 1 << UInt64(index) } else { batch.drop(index, .flowMigrating) }
    }
    return done
  }

  // MARK: Messages

  /// Takes the frames of channels in a batch.
  func hear(_ batch: PacketBatch, _ frames: UInt64, now: Tick) {
    runtime.core.moment = now
    PacketBatch.forEach(in: frames) { index in
      guard let arrival = batch[index].withBytes({ peers.receive($0, now: now) }) else { return }
      if let life = arrival.ended { mourn(arrival.peer, life, isSwitch: peers.known[Int(arrival.peer)].isSwitch, now: now) }
      while case let count = unsafe peers.nextMessages(from: arrival.peer, into: messages), count > 0 {
        unsafe take(UnsafeBufferPointer(rebasing: messages[..<count]), from: arrival.peer, now: now)
        // Before their bytes go.
        released.copy(now: now)
      }
    }
    // Before the acknowledgements: who hears one knows that the packets have left.
    released.flush(counters: &runtime.core.counters)
    while let batch = returns.next() {
      _ = runtime.serve(batch, now: now)
      runtime.port.release(batch, mask: batch.all & ~batch.live)
      batch.removeAll()
    }
  }

  private func take(_ messages: UnsafeBufferPointer<UnsafeRawBufferPointer>, from peer: UInt8, now: Tick) {
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

  private func handle(_ message: RawSpan, from peer: UInt8, now: Tick) {
    let isUnderstood =
      switch MigrationMessage.kind(message) {
      case .prepare, .install, .latePacket:
        target.receive(message, from: peer, now: now, flows: &runtime.core, outbox: &peers)
      case .prepared, .routeChanged, .installed:
        source.receive(message, from: peer, now: now, flows: &runtime.core, outbox: &peers)
      case .changeRoute, nil: false
      }
    if !isUnderstood { malformed &+= 1 }
  }

  // MARK: Replication

  /// Whether packets leave by way of another runtime.
  var isReplicating: Bool { replication.isOn }

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
  func foresee(_ batch: PacketBatch, _ mask: UInt64) {
    Self.foresee(Burst(batch), mask, replication)
  }

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

  private func replicate(_ message: UnsafeRawBufferPointer, from peer: UInt8, now: Tick) {
    let kind = unsafe ReplicationMessage.kind(message)
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
    }
  }

  /// Replicas held here, and flows of this runtime that nobody has a replica of, where there should be one.
  var replicaCounts: (held: Int, unprotected: Int) {
    let flows = runtime.core.flows.count
    return (runtime.core.replicas.count, runtime.core.flows.logsEnds ? replication.unprotected(of: flows) : 0)
  }

  /// Tells owners how their streams fare, where the channel has room.
  private func answerOwners() {
    while let (peer, stream, isHeld) = answers.first {
      let sent = ReplicationAnswer.write(stream: stream, isHeld: isHeld, to: scratch) { peers.send($0, to: peer) }
      guard sent || !peers.known[Int(peer)].isAlive else { return }
      answers.removeFirst()
    }
  }

  private func protect(_ stream: UInt32, _ holder: FlowOwner?, now: Tick) {
    guard let holder else { return replication.stop(flows: &runtime.core) }
    guard let peer = peers.index(ofNode: holder.node), peers.known[Int(peer)].incarnation == holder.incarnation,
      peers.known[Int(peer)].isAlive, runtime.core.flows.logsEnds
    else { return replication.stop(flows: &runtime.core) }
    replication.begin(stream: stream, holder: peer)
  }

  private func recover(_ order: RecoveryOrder, now: Tick) {
    if let peer = peers.fence(order.lost) { mourn(peer, order.lost.incarnation, isSwitch: false, now: now) }
    guard order.by == owner else { return runtime.core.replicas.drop(order.lost) }
    guard let report = runtime.core.replicas.beginRecovery(order, now: now) else { return }
    _ = rings.events.put(.recovery(report))
  }

  /// Goes on with what no packet has asked for.
  private func goOnRecovering(now: Tick) {
    _ = runtime.core.recoverSome(limit: 32, now: now)
    while let report = runtime.core.replicas.takeFinished(now: now) {
      replication.noteArrivals()
      _ = rings.events.put(.recovery(report))
    }
  }

  // MARK: Time

  override func run(at now: Tick) -> Int {
    runtime.core.moment = now
    if runtime.core.replicas.isRecovering { goOnRecovering(now: now) }
    if replication.isOn { replication.advance(flows: &runtime.core, outbox: &peers) }
    if !answers.isEmpty { answerOwners() }
    for life in peers.takeSilent() { _ = rings.events.put(.peerSilent(life)) }
    if source.isRunning {
      source.advance(now: now, flows: &runtime.core, outbox: &peers)
      report(now: now)
    }
    return peers.flush(through: runtime.port, batch: outgoing, now: now)
  }

  /// Tells the control thread how far a run has come: ten times a second, and when it has ended.
  private func report(now: Tick) {
    guard let report = source.report, report.finished != nil || now >= nextReport else { return }
    nextReport = now.advanced(byMilliseconds: 100)
    _ = rings.events.put(.migration(report))
  }

  // MARK: Commands

  func obey(_ command: WorkerCommand, now: Tick) {
    runtime.core.moment = now
    switch command {
    case .members(let members):
      var over: [(UInt8, Peer)] = []
      peers.update(members.peers, now: now) { over.append(($0, $1)) }
      for (index, peer) in over { mourn(index, peer.incarnation, isSwitch: peer.isSwitch, now: now) }
    case .migrate(let order):
      guard let peer = peers.index(ofNode: order.target.node), peers.known[Int(peer)].incarnation == order.target.incarnation,
        peers.known[Int(peer)].isAlive
      else { return refuse(order, "this runtime does not know the target") }
      guard
        source.begin(run: order.run, flows: order.flows, to: order.target, peer: peer, switches: peers.switches, now: now)
      else { return refuse(order, "another migration is going on") }
      nextReport = now.advanced(byMilliseconds: 100)
    case .cancelMigration(let run):
      if source.report?.run == run { source.cancel(flows: &runtime.core) }
    case .protect(let stream, let holder): protect(stream, holder, now: now)
    case .recover(let order): recover(order, now: now)
    case .errand, .stop: break
    }
  }

  /// A life of a peer is over, by the first frame of its next one or by the coordinator's word.
  private func mourn(_ peer: UInt8, _ incarnation: UInt64, isSwitch: Bool, now: Tick) {
    if isSwitch {
      source.switchEnded(peer, now: now, flows: &runtime.core)
    } else {
      // Until another holder is named, packets go out unprotected rather than nowhere.
      if replication.isOn, replication.holder == peer { replication.stop(flows: &runtime.core) }
      source.ended(peer, before: incarnation + 1, now: now, flows: &runtime.core)
      target.sourceEnded(peer, now: now, flows: &runtime.core)
    }
  }

  private func refuse(_ order: MigrationOrder, _ reason: String) {
    _ = rings.events.put(.migrationRefused(run: order.run, reason: reason))
  }
}
