import FixedContainers
import FlowActors
import ModuleGraphs
import ReliableChannels
import Wire

/// The three ports of a virtual switch.
public struct SwitchPorts {
  public var client: PacketPort
  public var server: PacketPort
  public var fabric: PacketPort

  public init(client: PacketPort, server: PacketPort, fabric: PacketPort) {
    self.client = client
    self.server = server
    self.fabric = fabric
  }
}

extension Worker {
  /// A virtual switch: the same worker with switch actors instead of flow actors (paper §III-C).
  ///
  /// - Parameters:
  ///   - identity: of a member of a cluster, which runtimes ask to change routes.
  ///   - announces: whether it tells the fabric's bridges where it is.
  public static func virtualSwitch(
    ports: SwitchPorts, address: FabricAddress, identity: FlowOwner? = nil, entrance: ServerSideEntrance = .closed,
    client: UplinkSettings, server: UplinkSettings, rules: FlowRules, isReplicated: Bool = false, seed: UInt64,
    rings: WorkerRings, now: Tick, memory: MemorySource, announces: Bool = false
  ) -> Worker {
    let published = PublishedCounters()
    let state = SwitchState(
      core: SwitchCore(fabric: address, entrance: entrance, rules: rules, seed: seed, now: now, memory: memory),
      client: Uplink(port: ports.client, settings: client), server: Uplink(port: ports.server, settings: server),
      fabric: ports.fabric)
    let routes = identity.map { RouteGraph(state: state, address: address, owner: $0, rings: rings, memory: memory) }
    state.core.runtimes.awaitsRecovery = isReplicated
    // A member waits for the coordinator's word: another switch may have the uplinks.
    if routes == nil { state.takeUplinks(now: now) } else { state.core.admission = .standsBy }
    let announcement = announces ? AnnouncementGraph(port: ports.fabric, address: address) : nil
    let liaison = Liaison(rings: rings) { command, now in
      switch command {
      case .members(let members):
        state.core.runtimes.update(members.entries)
        routes?.update(members, now: now)
      case .recover(let order):
        state.core.runtimes.recover(order.lost, by: order.by)
        routes?.recover(order)
      case .migrate, .cancelMigration, .protect, .errand, .stop: break
      }
    }
    return Worker(
      graphs: [
        UplinkGraph(state: state, side: .client), UplinkGraph(state: state, side: .server),
        FabricGraph(state: state, routes: routes),
      ] + (routes.map { [$0] } ?? []) + (announcement.map { [$0] } ?? []) + [
        TimerGraph { now in
          state.client.keepAnnouncing(now: now)
          state.server.keepAnnouncing(now: now)
          state.serveWaiting(now: now)
          return state.core.expireIdle(now: now, limit: 64)
        }
      ],
      liaison: liaison, published: published,
      publishing: {
        state.core.counters.missed = ports.client.missed &+ ports.server.missed &+ ports.fabric.missed
        routes?.count(into: &state.core.counters)
        published.publish(state.core.counters, drops: state.core.drops)
      },
      accounting: state.account)
  }
}

/// What the graphs of a switch work on together.
final class SwitchState {
  var core: SwitchCore
  let client: Uplink
  let server: Uplink
  let fabric: PacketPort

  init(core: consuming SwitchCore, client: Uplink, server: Uplink, fabric: PacketPort) {
    self.core = core
    self.client = client
    self.server = server
    self.fabric = fabric
  }

  /// The uplinks' addresses are this switch's from now on.
  func takeUplinks(now: Tick) {
    client.take(now: now)
    server.take(now: now)
  }

  /// Another switch has them.
  func leaveUplinks() {
    client.leave()
    server.leave()
    core.admission = .standsBy
  }

  func account(busy: UInt64, total: UInt64, passes: UInt64) {
    core.counters.account(busy: busy, total: total, passes: passes)
  }

  /// Transmits `mask` and counts it; what the port does not take is dropped.
  func transmit(_ batch: PacketBatch, _ mask: UInt64, through port: PacketPort) {
    guard mask != 0 else { return }
    let refused = port.transmit(batch, mask: mask)
    PacketBatch.forEach(in: refused) { batch.drop($0, .transmitQueueFull) }
    core.counters.forward(batch, mask & ~refused)
  }

  func serveWaiting(now: Tick) {
    for uplink in [client, server] {
      let served = uplink.serveWaiting(now: now)
      core.counters.forwarded &+= UInt64(served.sent)
      core.counters.forwardedBytes &+= UInt64(served.bytes)
      for _ in 0..<served.expired {
        core.counters.dropped &+= 1
        core.drops.add(.unresolvedNextHop)
      }
      uplink.flush()
    }
  }
}

/// From an uplink to the runtimes.
final class UplinkGraph: ModuleGraph {
  private let state: SwitchState
  private let uplink: Uplink
  private let side: Side
  private let batch = PacketBatch()
  private let reassembly = Reassembly()

  init(state: SwitchState, side: Side) {
    self.state = state
    self.side = side
    uplink = side == .client ? state.client : state.server
  }

  override func run(at now: Tick) -> Int {
    uplink.port.receive(into: batch, now: now)
    guard !batch.isEmpty else { return 0 }
    let count = batch.count
    dispatch(batch, now: now)
    if !reassembly.whole.isEmpty { dispatch(reassembly.whole, now: now) }
    // ARP packets have come in: answers go out, and packets may have waited for them.
    state.serveWaiting(now: now)
    return count
  }

  private func dispatch(_ batch: PacketBatch, now: Tick) {
    let isWhole = batch === reassembly.whole
    state.core.processOutside(batch, uplink: uplink, side: side, egress: egress, isReassembled: isWhole, now: now)
    state.transmit(batch, batch.live, through: state.fabric)
    var fragments: (taken: UInt64, consumed: UInt64) = (0, 0)
    let lost = batch.all & ~batch.live
    if lost != 0, !isWhole {
      // What went past on the link is not for us to put together.
      var ours: UInt64 = 0
      PacketBatch.forEach(in: lost) { if batch[$0].destinationMAC == uplink.port.address { ours |= 1 << UInt64($0) } }
      fragments = reassembly.take(batch, ours, from: uplink.port, now: now)
    }
    state.core.settle(batch, held: 0, control: fragments.consumed)
    uplink.port.release(batch, mask: batch.all & ~batch.live & ~fragments.taken)
    batch.removeAll()
  }

  /// The side that most packets leave at.
  private var egress: Uplink { side == .client ? state.server : state.client }
}

/// From the runtimes to the uplinks.
final class FabricGraph: ModuleGraph {
  private let state: SwitchState
  private let routes: RouteGraph?
  private let batch = PacketBatch()
  private let reassembly = Reassembly()

  init(state: SwitchState, routes: RouteGraph?) {
    self.state = state
    self.routes = routes
  }

  override func run(at now: Tick) -> Int {
    state.fabric.receive(into: batch, now: now)
    guard !batch.isEmpty else { return 0 }
    let count = batch.count
    let control = routes?.sort(batch) ?? 0
    send(batch, control: control, now: now)
    if !reassembly.whole.isEmpty { send(reassembly.whole, control: 0, now: now) }
    state.client.flush()
    state.server.flush()
    return count
  }

  private func send(_ batch: PacketBatch, control: UInt64, now: Tick) {
    let sides = state.core.processFabric(batch, client: state.client, server: state.server, now: now)
    state.transmit(batch, sides.client, through: state.client.port)
    state.transmit(batch, sides.server, through: state.server.port)
    state.transmit(batch, sides.turned, through: state.fabric)
    var fragments: (taken: UInt64, consumed: UInt64) = (0, 0)
    let lost = batch.all & ~batch.live & ~sides.held & ~control
    if lost != 0, batch !== reassembly.whole { fragments = reassembly.take(batch, lost, from: state.fabric, now: now) }
    state.core.settle(batch, held: sides.held, control: control | fragments.consumed)
    if control != 0 { routes?.hear(batch, control, now: now) }
    state.fabric.release(batch, mask: batch.all & ~batch.live & ~sides.held & ~fragments.taken)
    batch.removeAll()
  }
}

/// A switch's part in migrations, and in taking over from another switch: its channels to the other nodes, the routes they ask
/// it to change, and those that they tell it.
///
/// Its answer to a change goes out over the fabric port, behind the packets that were dispatched before the change.
final class RouteGraph: ModuleGraph {
  private let state: SwitchState
  private let address: FabricAddress
  private let outgoing = PacketBatch()
  private let rings: WorkerRings
  private var peers: Peers
  private var migration: MigrationSwitch
  private let owner: FlowOwner
  private var holdsUplinks = false
  /// Who had the uplinks before; a node's life before this one, as long as nothing else is known.
  private var former: FlowOwner?
  private var census = RouteCensus()
  private var report: RecoveryReport?
  /// Messages that were none for a switch.
  private var malformed: UInt64 = 0

  init(state: SwitchState, address: FabricAddress, owner: FlowOwner, rings: WorkerRings, memory: MemorySource) {
    self.rings = rings
    if owner.incarnation > 1 { former = FlowOwner(node: owner.node, incarnation: owner.incarnation - 1) }
    self.state = state
    self.address = address
    self.owner = owner
    peers = Peers(address: address, node: owner.node, incarnation: owner.incarnation, memory: memory)
    migration = MigrationSwitch(answers: 4_096, memory: memory)
  }

  // MARK: Who there is

  func update(_ members: WorkerCommand.Members, now: Tick) {
    peers.update(members.peers, now: now) { peer, _ in census.ended(peer) }
    let isOurs =
      switch members.uplinks {
      case .unassigned: !members.peers.contains { $0.isSwitch && $0.isAlive && $0.node < owner.node }
      case .only(let holder): holder == owner
      }
    if case .only(let holder?) = members.uplinks, holder != owner { former = holder }
    guard isOurs != holdsUplinks else { return }
    holdsUplinks = isOurs
    guard isOurs else { return state.leaveUplinks() }
    state.takeUplinks(now: now)
    // Flows may have begun before this switch had the uplinks, or before it lived.
    report = former.map { RecoveryReport(run: UInt32(truncatingIfNeeded: members.version), lost: $0, started: now) }
    census.begin(peers.runtimes, now: now)
    state.core.admission = .takesCensus
  }

  func recover(_ order: RecoveryOrder) {
    if let peer = peers.fence(order.lost) { census.ended(peer) }
    if let heir = order.by, let peer = peers.index(ofNode: heir.node), peers.known[Int(peer)].isAlive {
      census.inherits(peer, order.lost)
    }
  }

  /// All flows are known: new ones are welcome.
  private func finishCensus(now: Tick) {
    guard holdsUplinks, state.core.admission == .takesCensus else { return }
    state.core.admission = .open
    guard var report else { return }
    self.report = nil
    report.recovered = census.told
    report.finished = now
    _ = rings.events.put(.tookOver(report))
  }

  func count(into counters: inout Counters) {
    peers.count(into: &counters)
    counters.messagesMalformed = malformed
  }

  /// The frames of channels in a batch; they are not live any more.
  func sort(_ batch: PacketBatch) -> UInt64 {
    var burst = Burst(batch)
    var control: UInt64 = 0
    PacketBatch.forEach(in: burst.live) { index in
      if burst[index].destinationMAC == address.control, burst[index].isOfType(ChannelFrame.etherType) {
        control |= 1 << UInt64(index)
      }
    }
    burst.live &= ~control
    batch.live = burst.live
    return control
  }

  func hear(_ batch: PacketBatch, _ frames: UInt64, now: Tick) {
    PacketBatch.forEach(in: frames) { index in
      guard let arrival = batch[index].withBytes({ peers.receive($0, now: now) }) else { return }
      if arrival.ended != nil { census.ended(arrival.peer) }
      while let message = unsafe peers.nextMessage(from: arrival.peer) {
        let isUnderstood = unsafe withUnsafeMutablePointer(to: &state.core) { core in
          var changes = unsafe RouteChanges(core: core, now: now)
          return switch MigrationMessage.kind(message.bytes) {
          case .changeRoute: migration.receive(message.bytes, from: arrival.peer, routes: &changes)
          case .counted, .routes:
            census.receive(message.bytes, from: arrival.peer, owner: peers.life(of: arrival.peer), routes: &changes)
          default: false
          }
        }
        if !isUnderstood { malformed &+= 1 }
      }
    }
  }

  override func run(at now: Tick) -> Int {
    census.advance(now: now, outbox: &peers)
    if !census.isRunning { finishCensus(now: now) }
    migration.flush(outbox: &peers)
    // A switch is a witness like any runtime: without it two of three runtimes would be no majority against the third.
    for life in peers.takeSilent() { _ = rings.events.put(.peerSilent(life)) }
    return peers.flush(through: state.fabric, batch: outgoing, now: now)
  }
}
