import FixedContainers
import FlowActors
import ModuleGraphs
import Wire

/// A virtual switch's packet path: finds or chooses the runtime of every packet from outside, and the way out
/// for every packet that comes back from a runtime (paper §III-C).
///
///     client uplink ─┐                        ┌─▶ runtime's input       (client-side packets)
///                    ├─▶ route by five-tuple ─┤
///     server uplink ─┘                        └─▶ runtime's output      (server-side packets)
///
///     fabric ─▶ known runtime? ─▶ learn the way its answers will come ─▶ next hop ─▶ uplink
///
/// Runtimes tell the two directions apart by the address the switch used for them, and the switch by the address
/// the runtime answered to: `FabricAddress` has both.
@safe
struct SwitchCore: ~Copyable {
  private(set) var routes: FlowStore<SwitchActor>
  var counters = Counters()
  var drops = DropCounters()
  var runtimes = RuntimeTable()
  private let fabric: FabricAddress

  init(fabric: FabricAddress, rules: FlowRules, seed: UInt64, now: Tick, memory: MemorySource) {
    self.fabric = fabric
    routes = FlowStore(
      capacity: rules.capacity, ipv6Capacity: rules.ipv6Capacity, seed: seed, timeouts: rules.timeouts, now: now, memory: memory)
  }

  /// Dispatches what came from outside; live frames afterwards go to the fabric port.
  mutating func processOutside(_ batch: PacketBatch, uplink: Uplink, side: Side, now: Tick) {
    PacketBatch.forEach(in: batch.live) { index in
      // Checksums are the runtime's business; the switch needs the key only.
      if let reason = batch[index].parse(checksums: .trust) {
        batch.drop(index, reason)
      } else if batch[index].family == .arp {
        let heard = uplink.hear(batch[index], now: now)
        batch.drop(index, heard ? .handledARP : .unexpectedARP)
      } else if batch[index].destinationMAC != uplink.port.address {
        batch.drop(index, .notForThisNode)
      } else {
        batch[index].hash = routes.hash(batch[index])
        routes.prefetchBucket(batch[index].hash)
      }
    }
    PacketBatch.forEach(in: batch.live) { index in _ = routes.prefetchCandidate(batch[index].hash) }
    PacketBatch.forEach(in: batch.live) { index in
      guard let owner = route(batch, index, side: side, now: now) else { return }
      let runtime = runtimes.entries[Int(owner)]
      batch[index].destinationMAC = side == .client ? runtime.input : runtime.output
      batch[index].sourceMAC = fabric.address(of: side)
    }
  }

  private mutating func route(_ batch: PacketBatch, _ index: Int, side: Side, now: Tick) -> UInt16? {
    if let (slot, _) = routes.find(batch[index]) {
      touch(slot, batch[index], now: now)
      let owner = routes[slot].actor.owner
      guard runtimes.entries[Int(owner)].isAlive else {
        // Its runtime is gone, and with it the flow: whoever has a replica will be asked here, later.
        routes.remove(slot)
        batch.drop(index, .noRuntime)
        return nil
      }
      return owner
    }
    // An ICMP error goes to the runtime that has the flow of the packet it quotes.
    if let error = ICMPError(batch[index]) {
      guard let (slot, _) = routes.find(error.answerFlowKey), runtimes.entries[Int(routes[slot].actor.owner)].isServing else {
        batch.drop(index, .icmpErrorWithoutFlow)
        return nil
      }
      return routes[slot].actor.owner
    }
    guard side == .client else {
      batch.drop(index, .noFlow)
      return nil
    }
    guard let owner = runtimes.leastLoaded() else {
      batch.drop(index, .noRuntime)
      return nil
    }
    guard remember(batch[index], owner: owner, now: now) else {
      batch.drop(index, .flowTableFull)
      return nil
    }
    runtimes.assign(to: owner)
    return owner
  }

  /// Sends what runtimes have processed on its way; live frames afterwards go to the uplink of their side.
  ///
  /// - Returns: the frames of the client's side and of the server's.
  mutating func processFabric(
    _ batch: PacketBatch, client: Uplink, server: Uplink, now: Tick
  ) -> (client: UInt64, server: UInt64, held: UInt64) {
    var sides = (client: UInt64(0), server: UInt64(0), held: UInt64(0))
    PacketBatch.forEach(in: batch.live) { index in
      if let reason = batch[index].parse(checksums: .trust) {
        batch.drop(index, reason)
        return
      }
      guard let side = fabric.side(of: batch[index].destinationMAC) else {
        batch.drop(index, .notForThisNode)
        return
      }
      guard batch[index].family != .arp, let owner = runtimes.index(of: batch[index].sourceMAC) else {
        batch.drop(index, .unknownSource)
        return
      }
      // An error is nothing that can be answered.
      if ICMPError(batch[index]) == nil { learn(batch[index], owner: owner, now: now) }
      switch (side == .client ? client : server).address(batch[index], now: now) {
      case .ready:
        if side == .client { sides.client |= 1 << UInt64(index) } else { sides.server |= 1 << UInt64(index) }
      case .held:
        sides.held |= 1 << UInt64(index)
        batch.live &= ~(1 << UInt64(index))
      case .dropped(let reason):
        batch.drop(index, reason)
      }
    }
    return sides
  }

  /// The answers to this frame go to the runtime it came from.
  private mutating func learn(_ frame: borrowing Frame, owner: UInt16, now: Tick) {
    if let slot = routes.findReversed(frame) {
      touch(slot, frame, now: now)
      routes[slot].actor.hear(owner, now: now)
      return
    }
    let actor = SwitchActor(owner: owner)
    let timeoutClass = timeoutClass(of: frame)
    var slot = routes.createReversed(frame, actor: actor, timeoutClass: timeoutClass, now: now)
    if slot == nil, evict(for: frame) {
      slot = routes.createReversed(frame, actor: actor, timeoutClass: timeoutClass, now: now)
    }
    count(slot)
  }

  /// Makes room: the route of a connection that is half open or closing has to go.
  private mutating func evict(for frame: borrowing Frame) -> Bool {
    guard let slot = routes.victim(for: frame, timeoutClass: TimeoutClass.tcpTransitory) else { return false }
    counters.flowsEvicted &+= 1
    routes.remove(slot)
    return true
  }

  private mutating func remember(_ frame: borrowing Frame, owner: UInt16, now: Tick) -> Bool {
    let actor = SwitchActor(owner: owner)
    let timeoutClass = timeoutClass(of: frame)
    var slot = routes.create(frame, actor: actor, timeoutClass: timeoutClass, now: now)
    if slot == nil, evict(for: frame) {
      slot = routes.create(frame, actor: actor, timeoutClass: timeoutClass, now: now)
    }
    count(slot)
    return slot != nil
  }

  private mutating func count(_ made: UInt32?) {
    if made == nil { counters.flowsRefused &+= 1 } else { counters.flowsCreated &+= 1 }
  }

  private func timeoutClass(of frame: borrowing Frame) -> UInt8 {
    TimeoutClass.of(frame.protocolNumber, frame.tcpFlags.isDisjoint(with: [.syn, .fin, .rst]) ? .established : .opening)
  }

  private mutating func touch(_ slot: UInt32, _ frame: borrowing Frame, now: Tick) {
    routes[slot].lastSeen = UInt32(truncatingIfNeeded: now.milliseconds)
    let timeoutClass = timeoutClass(of: frame)
    // A FIN or RST shortens the life of a TCP route, data after a SYN lengthens it.
    if routes[slot].timeoutClass != timeoutClass { routes.setTimeoutClass(slot, timeoutClass, now: now) }
  }

  /// Counts the batch and what became of it; held packets are counted when they leave.
  mutating func settle(_ batch: PacketBatch, held: UInt64, control: UInt64 = 0) {
    counters.receive(batch)
    counters.consumed &+= UInt64(control.nonzeroBitCount)
    PacketBatch.forEach(in: batch.all & ~batch.live & ~held & ~control) { index in
      if batch[index].dropReason == .handledARP {
        counters.consumed &+= 1
      } else {
        counters.dropped &+= 1
        drops.add(batch[index].dropReason)
      }
    }
  }

  mutating func expireIdle(now: Tick, limit: Int) -> Int {
    var expired: UInt64 = 0
    let fired = routes.advance(to: now, limit: limit)
    while let slot = routes.nextIdle() {
      routes.remove(slot)
      expired += 1
    }
    counters.flowsExpired &+= expired
    counters.activeFlows = UInt64(routes.count)
    return fired
  }
}

/// The side of the cluster a packet comes from or goes to.
public enum Side: UInt8, Sendable {
  case client, server

  public var opposite: Side { self == .client ? .server : .client }
}

/// The addresses of a node on the fabric: one per role, alike but for the last byte.
///
///     02:4e : cluster : node : node : role        locally administered; role 1 client side, 2 server side, 3 control
///
/// The paper's three ports of a runtime (input, output, control) are these three roles on one device.
public struct FabricAddress: Hashable, Sendable {
  /// The address of role 0.
  private let base: UInt64

  public init(cluster: UInt16, node: UInt32) {
    precondition(node <= 0xffff, "a cluster has at most 65,535 nodes")
    base = 0x02_4e_00_00_00_00 | UInt64(cluster & 0xff) << 24 | UInt64(node) << 8
  }

  /// Where another node of the cluster takes frames of channels.
  func controlAddress(ofNode node: UInt32) -> MACAddress { MACAddress(base & ~0xffff_ff | UInt64(node & 0xffff) << 8 | 3) }

  public func address(of side: Side) -> MACAddress { MACAddress(base | (side == .client ? 1 : 2)) }
  public var control: MACAddress { MACAddress(base | 3) }

  @inline(__always)
  public func side(of address: MACAddress) -> Side? {
    let role = address.value ^ base
    return role == 1 ? .client : role == 2 ? .server : nil
  }

  /// Whether an address is that of a node of the same cluster, in a role that carries packets.
  @inline(__always)
  public func isPeer(_ address: MACAddress) -> Bool {
    let role = address.value & 0xff
    return (address.value ^ base) >> 24 == 0 && (role == 1 || role == 2)
  }

  /// What the last bytes of a node's two addresses differ by.
  static var roleFlip: UInt8 { 3 }

}

/// The routes of a switch while a migration changes some of them.
///
/// Both keys of a flow go from one owner to another or neither does. A switch that knows only one has had no packet of
/// the other direction yet; it is asked about both, and one is enough.
struct RouteChanges: MigratingRoutes, ~Copyable {
  let state: SwitchState
  let now: Tick

  func foresee(_ keys: FlowKeyPair, _ step: Foresight) { state.core.routes.foresee(keys, step) }

  mutating func change(_ keys: FlowKeyPair, from: FlowOwner, to: FlowOwner) -> RouteChange {
    state.core.change(keys, from: from, to: to, now: now)
  }
}

extension SwitchCore {
  mutating func change(_ keys: FlowKeyPair, from: FlowOwner, to: FlowOwner, now: Tick) -> RouteChange {
    guard let old = runtimes.index(of: from), let new = runtimes.index(of: to), runtimes.entries[Int(new)].isAlive else {
      return .refused(epoch: 0)
    }
    let (forward, reverse) = (routes.find(keys.forward)?.slot, routes.find(keys.reverse)?.slot)
    var epoch: UInt32 = 0
    for case let slot? in [forward, reverse] {
      epoch = max(epoch, routes[slot].actor.epoch)
      guard routes[slot].actor.owner == old || routes[slot].actor.owner == new else { return .refused(epoch: epoch) }
    }
    guard forward != nil || reverse != nil else { return .unknown }
    for case let slot? in [forward, reverse] where routes[slot].actor.owner == old {
      routes[slot].actor.move(to: new, now: now)
      epoch = max(epoch, routes[slot].actor.epoch)
    }
    return .changed(epoch: epoch)
  }
}
