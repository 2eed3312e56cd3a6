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
    state.client.announce(now: now)
    state.server.announce(now: now)
    let announcement = announces ? AnnouncementGraph(port: ports.fabric, address: address) : nil
    let liaison = Liaison(rings: rings) { command, now in
      switch command {
      case .members(let members):
        state.core.runtimes.update(members.entries)
        routes?.update(members.peers, now: now)
      case .recover(let order):
        state.core.runtimes.recover(order.lost, by: order.by)
        routes?.fence(order.lost)
      case .migrate, .cancelMigration, .protect, .errand, .stop: break
      }
    }
    return Worker(
      graphs: [
        UplinkGraph(state: state, side: .client), UplinkGraph(state: state, side: .server),
        FabricGraph(state: state, routes: routes),
      ] + (routes.map { [$0] } ?? []) + (announcement.map { [$0] } ?? []) + [
        TimerGraph { now in
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

/// A switch's part in migrations: its channels to the other nodes, and the routes they ask it to change.
///
/// Its answer to a change goes out over the fabric port, behind the packets that were dispatched before the change.
final class RouteGraph: ModuleGraph {
  private let state: SwitchState
  private let address: FabricAddress
  private let outgoing = PacketBatch()
  private let rings: WorkerRings
  private var peers: Peers
  private var migration: MigrationSwitch

  init(state: SwitchState, address: FabricAddress, owner: FlowOwner, rings: WorkerRings, memory: MemorySource) {
    self.state = state
    self.address = address
    self.rings = rings
    peers = Peers(address: address, node: owner.node, incarnation: owner.incarnation, memory: memory)
    migration = MigrationSwitch(answers: 4_096, memory: memory)
  }

  func fence(_ life: FlowOwner) { _ = peers.fence(life) }
  func update(_ members: [Peer], now: Tick) { peers.update(members, now: now) { _, _ in } }

  func count(into counters: inout Counters) { peers.count(into: &counters) }

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
      guard let peer = batch[index].withBytes({ peers.receive($0, now: now) })?.peer else { return }
      while let message = unsafe peers.nextMessage(from: peer) {
        guard MigrationMessage.kind(message.bytes) == .changeRoute else { continue }
        unsafe withUnsafeMutablePointer(to: &state.core) { core in
          var changes = unsafe RouteChanges(core: core, now: now)
          _ = migration.receive(message.bytes, from: peer, routes: &changes)
        }
      }
    }
  }

  override func run(at now: Tick) -> Int {
    migration.flush(outbox: &peers)
    // A switch is a witness like any runtime: without it two of three runtimes would be no majority against the third.
    for life in peers.takeSilent() { _ = rings.events.put(.peerSilent(life)) }
    return peers.flush(through: state.fabric, batch: outgoing, now: now)
  }
}
