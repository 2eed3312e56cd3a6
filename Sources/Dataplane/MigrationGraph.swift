import FixedContainers
import FlowActors
import ModuleGraphs
import NetworkFunctions
import ReliableChannels
import Wire

/// A runtime's part in migrations: its channels to the other nodes, and both halves of the protocol (paper §V-B).
///
///     frames of channels ─▶ Peers ─▶ messages ─▶ MigrationSource, MigrationTarget ─▶ flows of the RuntimeCore
///     packets of flows that are not served here ─▶ held, or sent after the flow
///
/// Messages go out behind the packets that the pass has sent, over the same port.
final class MigrationGraph: ModuleGraph {
  private unowned let runtime: RuntimeGraph
  private let rings: WorkerRings
  private let returns: ReturningPackets
  private let outgoing = PacketBatch()
  private let scratch: UnsafeMutableRawPointer
  private var peers: Peers
  private var source: MigrationSource
  private var target: MigrationTarget
  private var exchange: ShareExchange
  private var nextReport = Tick.zero
  /// Messages that no machine understood.
  private var malformed: UInt64 = 0

  init(runtime: RuntimeGraph, owner: FlowOwner, share: RuntimeShare, capacity: Int, rings: WorkerRings, memory: MemorySource) {
    self.runtime = runtime
    self.rings = rings
    returns = ReturningPackets(port: runtime.port, address: runtime.address)
    unsafe scratch = UnsafeMutableRawPointer(memory.allocate(UInt8.self, count: 65_536))
    peers = Peers(address: runtime.address, node: owner.node, incarnation: owner.incarnation, memory: memory)
    let chain = runtime.core.chain
    let layout = MigrationMessage.layoutHash(chain.layout)
    source = MigrationSource(owner: owner, layout: layout, stateSize: chain.stateSize, memory: memory)
    target = MigrationTarget(owner: owner, layout: layout, stateSize: chain.stateSize, flowCapacity: capacity, memory: memory)
    exchange = ShareExchange(
      share: UInt16(share.index), layout: layout, capacity: min(capacity, 65_536), memory: memory)
    super.init()
    runtime.core.returns = returns
  }

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
      if arrival.isFirst { exchange.met(arrival.peer) }
      if let life = arrival.ended { mourn(arrival.peer, life, isSwitch: peers.known[Int(arrival.peer)].isSwitch, now: now) }
      while let message = unsafe peers.nextMessage(from: arrival.peer) { handle(message.bytes, from: arrival.peer, now: now) }
    }
    while let batch = returns.next() {
      _ = runtime.serve(batch, now: now)
      runtime.port.release(batch, mask: batch.all & ~batch.live)
      batch.removeAll()
    }
  }

  private func handle(_ message: RawSpan, from peer: UInt8, now: Tick) {
    let isUnderstood =
      switch MigrationMessage.kind(message) {
      case .prepare, .install, .latePacket:
        target.receive(message, from: peer, now: now, flows: &runtime.core, outbox: &peers)
      case .prepared, .routeChanged, .installed:
        source.receive(message, from: peer, now: now, flows: &runtime.core, outbox: &peers)
      case .share: exchange.learn(message, from: peer)
      case .returned: exchange.accept(message, chain: runtime.core.chain, isLending: source.isRunning, now: now)
      case .changeRoute, nil: false
      }
    if !isUnderstood { malformed &+= 1 }
  }

  // MARK: Time

  override func run(at now: Tick) -> Int {
    runtime.core.moment = now
    if source.isRunning {
      source.advance(now: now, flows: &runtime.core, outbox: &peers)
      report(now: now)
    }
    exchange.advance(chain: runtime.core.chain, peers: &peers, isLending: source.isRunning, now: now)
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
    case .stop:
      exchange.hurry(chain: runtime.core.chain, peers: &peers, now: now)
      _ = peers.flush(through: runtime.port, batch: outgoing, now: now)
    }
  }

  /// A life of a peer is over, by the first frame of its next one or by the coordinator's word.
  private func mourn(_ peer: UInt8, _ incarnation: UInt64, isSwitch: Bool, now: Tick) {
    if isSwitch {
      source.switchEnded(peer, now: now, flows: &runtime.core)
    } else {
      source.ended(peer, before: incarnation + 1, now: now, flows: &runtime.core)
      target.sourceEnded(peer, now: now, flows: &runtime.core)
    }
  }

  private func refuse(_ order: MigrationOrder, _ reason: String) {
    _ = rings.events.put(.migrationRefused(run: order.run, reason: reason))
  }
}
