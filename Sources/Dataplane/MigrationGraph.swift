import FixedContainers
import FlowActors
import ModuleGraphs
import NetworkFunctions
import ReliableChannels
import Wire

/// A runtime's part in migrations and in replication: its channels to the other nodes, and both halves of either protocol
/// (paper §V-B, §V-C).
///
///     frames of channels ─▶ Peers ─▶ messages ─▶ MigrationSource, MigrationTarget ─▶ flows of the RuntimeCore
///                                             └▶ HeldReplicas ─▶ packets of other runtimes' flows, released
///     packets of flows that are not served here ─▶ held, or sent after the flow
///     packets that the chain has passed ─▶ FlowReplication ─▶ the holder, who sends them on
///
/// Messages go out behind the packets that the pass has sent, over the same port.
final class MigrationGraph: ModuleGraph {
  /// Lives as long as the worker, as this does.
  unowned(unsafe) let runtime: RuntimeGraph
  let rings: WorkerRings
  let returns: ReturningPackets
  private let outgoing = PacketBatch()
  let scratch: UnsafeMutableRawPointer
  /// Messages of a frame.
  private let messages = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: PacketBatch.capacity)
  var peers: Peers
  var source: MigrationSource
  var target: MigrationTarget
  private var exchange: ShareExchange
  /// Switches that ask which flows are this runtime's.
  private var telling: RouteTelling
  var replication: FlowReplication
  let released: ReleasedPackets
  let owner: FlowOwner
  private var nextReport = Tick.zero
  /// Messages that no machine understood.
  var malformed: UInt64 = 0
  /// Who has recovered the flows of lives that are over; `nil` when nobody has.
  var heirs: [FlowOwner: FlowOwner?] = [:]
  /// Recoveries that begin when those who stand by have been told.
  var orders: [RecoveryOrder] = []
  /// Lives whose flows are here, and those who stand by until they all have replicas again.
  var unsettled: [(lost: FlowOwner, standby: FlowOwner)] = []
  /// Flows that have arrived and whose source is to hear of it when they have replicas.
  var arrivals: [PendingArrival] = []
  /// Replicas about which another runtime was asked whether it has their flows.
  var claims: [UInt32: PendingClaim] = [:]
  var lastClaim: UInt32 = 0
  /// What owners of replicas held here are still to be told.
  var answers: [(peer: UInt8, stream: UInt32, isHeld: Bool)] = []

  /// - Parameter replicas: how many replicas this runtime's flows may have, two at most; they take memory.
  init(
    runtime: RuntimeGraph, owner: FlowOwner, capacity: Int, replicas: Int, rings: WorkerRings,
    memory: MemorySource
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
    exchange = ShareExchange(layout: layout, capacity: min(capacity, 65_536), memory: memory)
    telling = RouteTelling(memory: memory)
    replication = FlowReplication(layout: layout, stateSize: chain.stateSize, capacity: capacity, mostHolders: replicas, memory: memory)
    super.init()
    runtime.core.returns = returns
    runtime.core.replicas.mostLives = 3 * replicas
    if replicas > 0 { runtime.core.flows.logEnds(for: .one, memory: memory) }
    if replicas > 1 { runtime.core.flows.logEnds(for: .other, memory: memory) }
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
          batch[index].withBytes { follow($0, side: side, slot, phase, now: now) }
        }
      runtime.core.flows[slot].lastSeen = UInt32(truncatingIfNeeded: now.milliseconds)
      if isDone { done |= 1 << UInt64(index) } else { batch.drop(index, .flowMigrating) }
    }
    return done
  }

  /// Sends a packet after its flow, to whom it has gone or to who has that one's flows now.
  private func follow(_ frame: UnsafeRawBufferPointer, side: UInt8, _ slot: UInt32, _ phase: MigrationPhase, now: Tick) -> Bool {
    let isTargetAlive = peers.known[Int(phase.peer)].isAlive
    // A target that died before it confirmed: whether it had the flow is being found out.
    if !isTargetAlive, phase.step == .handedOver { return false }
    switch isTargetAlive ? .peer(phase.peer) : heir(ofPeer: phase.peer) {
    case .peer(let peer): return MigrationTarget.forward(frame, side: side, to: peer, scratch: scratch, outbox: &peers)
    case .own:
      runtime.core.discard(slot)
      unsafe returns.put(frame, side: side, now: now)
      return true
    case .unknown, .nobody: return false
    }
  }

  // MARK: Messages

  /// Takes the frames of channels in a batch.
  func hear(_ batch: PacketBatch, _ frames: UInt64, now: Tick) {
    runtime.core.moment = now
    PacketBatch.forEach(in: frames) { index in
      guard let arrival = batch[index].withBytes({ peers.receive($0, now: now) }) else { return }
      if let life = arrival.ended { mourn(arrival.peer, life, now: now) }
      while case let count = unsafe peers.nextMessages(from: arrival.peer, into: messages), count > 0 {
        unsafe take(UnsafeBufferPointer(rebasing: messages[..<count]), from: arrival.peer, now: now)
        // Before their bytes go.
        released.copy(now: now)
      }
    }
    // Before the acknowledgements: who hears one knows that the packets have left.
    released.flush(counters: &runtime.core.counters)
    serveReturns(now: now)
  }

  /// Packets that come in a second time.
  private func serveReturns(now: Tick) {
    while let batch = returns.next() {
      _ = runtime.serve(batch, now: now)
      runtime.port.release(batch, mask: batch.all & ~batch.live)
      batch.removeAll()
    }
  }

  func handle(_ message: RawSpan, from peer: UInt8, now: Tick) {
    let isUnderstood =
      switch MigrationMessage.kind(message) {
      case .prepare, .latePacket:
        target.receive(message, from: peer, now: now, flows: &runtime.core, outbox: &peers)
      case .install: install(message, from: peer, now: now)
      case .claim: answerClaim(message, from: peer, now: now)
      case .claimed where isOwnClaim(message): settleClaim(message, from: peer)
      case .prepared, .routeChanged, .installed, .claimed:
        source.receive(message, from: peer, now: now, flows: &runtime.core, outbox: &peers)
      case .returned: exchange.accept(message, chain: runtime.core.chain, isLending: source.isRunning, now: now)
      case .census: telling.receive(message, from: peer, source: &source)
      case .changeRoute, .counted, .routes, nil: false
      }
    if !isUnderstood { malformed &+= 1 }
  }

  // MARK: Time

  override func run(at now: Tick) -> Int {
    runtime.core.moment = now
    advanceReplication(now: now)
    serveReturns(now: now)
    if source.isRunning {
      source.advance(now: now, flows: &runtime.core, outbox: &peers)
      report(now: now)
    }
    exchange.advance(chain: runtime.core.chain, peers: &peers, isLending: source.isRunning, now: now)
    if !telling.isIdle {
      telling.advance(
        flows: runtime.core, source: source, isRecovering: runtime.core.replicas.isRecovering, knowsEnd: { heirs[$0] != nil },
        outbox: &peers)
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
      runtime.fencedSwitches = members.peers.filter { $0.isSwitch && !$0.isAlive }.map(\.node)
      exchange.update(members.entries, peers)
      for (index, peer) in over {
        let life = FlowOwner(node: peer.node, incarnation: peer.incarnation)
        // Whoever was to recover its flows would have been named before.
        if heirs[life] == nil { heirs[life] = .some(nil) }
        mourn(index, peer.incarnation, now: now)
      }
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
    case .stop:
      exchange.hurry(chain: runtime.core.chain, peers: &peers, now: now)
      _ = peers.flush(through: runtime.port, batch: outgoing, now: now)
    case .protect(let assignment, let holders): protect(assignment, holders)
    case .recover(let order): recover(order, now: now)
    case .errand: break
    }
    // What waited for a flow that does not come goes on before the packets of the next burst.
    serveReturns(now: now)
  }

  /// A life of a peer is over, by the first frame of its next one or by the coordinator's word.
  func mourn(_ peer: UInt8, _ incarnation: UInt64, now: Tick) {
    guard !peers.known[Int(peer)].isSwitch else {
      telling.ended(peer)
      return source.switchEnded(peer, now: now, flows: &runtime.core)
    }
    // Until another holder is named, packets go out unprotected rather than nowhere.
    replication.ended(peer, through: incarnation, flows: &runtime.core)
    noteReplication()
    let heir = heir(of: FlowOwner(node: peers.known[Int(peer)].node, incarnation: incarnation))
    source.ended(peer, before: incarnation + 1, heir: heir, now: now, flows: &runtime.core)
    if heir == .unknown { return }
    if case .peer(let heir) = heir { runtime.core.heirOfSource = heir }
    target.sourceEnded(peer, now: now, flows: &runtime.core)
    runtime.core.heirOfSource = nil
  }

  private func refuse(_ order: MigrationOrder, _ reason: String) {
    _ = rings.events.put(.migrationRefused(run: order.run, reason: reason))
  }
}
