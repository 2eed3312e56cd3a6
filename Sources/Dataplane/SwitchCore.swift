import FixedContainers
import FlowActors
import ModuleGraphs
import NetworkFunctions
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
  /// Whether new flows are given to runtimes: by the switch that has the uplinks, once it knows the flows that there are.
  var admission = Admission.open
  private let fabric: FabricAddress
  private let entrance: ServerSideEntrance

  init(
    fabric: FabricAddress, entrance: ServerSideEntrance = .closed, rules: FlowRules, seed: UInt64, now: Tick, memory: MemorySource
  ) {
    self.fabric = fabric
    self.entrance = entrance
    routes = FlowStore(
      capacity: rules.capacity, ipv6Capacity: rules.ipv6Capacity, seed: seed, timeouts: rules.timeouts, now: now, memory: memory)
  }

  /// Dispatches what came from outside; live frames afterwards go to the fabric port.
  ///
  /// A switch is the cluster's router: here a packet's time to live is counted down, and a packet that cannot leave on the
  /// other side because of its size, or of its age, is reported to its sender (RFC 1812 §5.3.1, RFC 4443 §3.2, §3.3).
  ///
  /// - Parameters:
  ///   - egress: where packets leave that are not turned round.
  ///   - isReassembled: whether they came in fragments, and so may be cut again.
  mutating func processOutside(
    _ batch: PacketBatch, uplink: Uplink, side: Side, egress: Uplink, isReassembled: Bool = false, now: Tick
  ) {
    let mtu = egress.port.mtu
    let growth = side == .server ? entrance.growth : 0
    PacketBatch.forEach(in: batch.live) { index in
      // Checksums are the runtime's business; the switch needs the key only.
      if let reason = batch[index].parse(checksums: .trust) {
        batch.drop(index, reason)
      } else if batch[index].family == .arp {
        let heard = uplink.hear(batch[index], now: now)
        batch.drop(index, heard ? .handledARP : .unexpectedARP)
      } else if batch[index].family == .ipv6, batch[index].icmpType.map({ (133...137).contains($0) }) == true {
        // Of the link, and never sent on; to a group's address mostly.
        let heard = uplink.hearNeighbor(batch[index], now: now)
        batch.drop(index, heard ? .handledARP : .unexpectedARP)
      } else if batch[index].destinationMAC != uplink.port.address {
        batch.drop(index, .notForThisNode)
      } else if batch[index].timeToLive <= 1 {
        uplink.report(.timeExceeded, about: batch[index], now: now)
        batch.drop(index, .timeToLiveExceeded)
      } else if batch[index].networkLength > mtu - growth, !isReassembled, batch[index].mayNotBeCut,
        case let limit = growth > 0 && entrance.isOwn(batch[index]) ? mtu - growth : mtu, batch[index].networkLength > limit
      {
        uplink.report(.tooBig(mtu: limit), about: batch[index], now: now)
        batch.drop(index, .packetTooBig)
      } else {
        batch[index].decrementTimeToLive()
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
      return runtimes.entries[Int(owner)].isAlive ? owner : inherit(slot, batch, index, now: now)
    }
    // An ICMP error goes to the runtime that has the flow of the packet it quotes.
    if let error = ICMPError(batch[index]) {
      guard let (slot, _) = routes.find(error.answerFlowKey) else {
        batch.drop(index, .icmpErrorWithoutFlow)
        return nil
      }
      let owner = routes[slot].actor.owner
      return runtimes.entries[Int(owner)].isAlive ? owner : inherit(slot, batch, index, now: now)
    }
    guard side == .client || entrance.isOpen else {
      batch.drop(index, .noFlow)
      return nil
    }
    guard admission == .open else {
      batch.drop(index, admission == .standsBy ? .standsBy : .awaitsRecovery)
      return nil
    }
    guard let owner = entrance.owner(of: batch[index], from: side, among: runtimes) else {
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

  /// The runtime of a flow whose own is gone: whoever has recovered it. The frame is dropped while that is not known, and
  /// with its route if it is nobody.
  @inline(never)
  private mutating func inherit(_ slot: UInt32, _ batch: PacketBatch, _ index: Int, now: Tick) -> UInt16? {
    // It had only just moved there: where it came from they know whether it ever arrived, and send the packet after it.
    if let former = routes[slot].actor.recentFormer(now: now), runtimes.entries[Int(former)].isAlive {
      routes[slot].actor.move(to: former, now: now)
      return former
    }
    switch runtimes.heir(of: routes[slot].actor.owner) {
    case .runtime(let heir):
      routes[slot].actor.move(to: heir, now: now)
      counters.flowsRecovered &+= 1
      return heir
    case .unknown:
      batch.drop(index, .awaitsRecovery)
    case .nobody:
      routes.remove(slot)
      batch.drop(index, .noRuntime)
    }
    return nil
  }

  /// Sends what runtimes have processed on its way; live frames afterwards go to the uplink of their side.
  ///
  /// - Returns: the frames for the client's side and for the server's, those that wait for a next hop, and those that
  ///   go to a runtime again: they left for the server side, and an endpoint there is another client's of this
  ///   cluster (hairpinning, RFC 4787 REQ-9).
  mutating func processFabric(
    _ batch: PacketBatch, client: Uplink, server: Uplink, now: Tick
  ) -> (client: UInt64, server: UInt64, held: UInt64, turned: UInt64) {
    var sides = (client: UInt64(0), server: UInt64(0), held: UInt64(0), turned: UInt64(0))
    var owners = InlineArray<64, UInt16>(repeating: 0)
    var serverSide: UInt64 = 0
    PacketBatch.forEach(in: batch.live) { index in
      if let reason = batch[index].parse(checksums: .trust) {
        batch.drop(index, reason)
        return
      }
      guard let side = fabric.side(of: batch[index].destinationMAC) else {
        batch.drop(index, .notForThisNode)
        return
      }
      let source = batch[index].sourceMAC
      guard batch[index].family != .arp, let owner = runtimes.index(of: FabricAddress.sender(source)) else {
        batch.drop(index, .unknownSource)
        return
      }
      // What the holder of a replica releases was committed while its runtime lived.
      guard runtimes.entries[Int(owner)].isAlive || FabricAddress.isReleased(source) else {
        batch.drop(index, .fenced)
        return
      }
      // Of the answers, whose route is to be found or made.
      batch[index].hash = routes.reversedHash(batch[index])
      routes.prefetchBucket(batch[index].hash)
      owners[index] = owner
      if side == .server { serverSide |= 1 << UInt64(index) }
    }
    PacketBatch.forEach(in: batch.live) { index in _ = routes.prefetchCandidate(batch[index].hash) }
    PacketBatch.forEach(in: batch.live) { index in
      let side: Side = serverSide & 1 << UInt64(index) == 0 ? .client : .server
      // An error is nothing that can be answered.
      if ICMPError(batch[index]) == nil { learn(batch[index], owner: owners[index], now: now) }
      if side == .server, entrance.isOwn(batch[index]) {
        batch[index].hash = routes.hash(batch[index])
        guard let owner = route(batch, index, side: .server, now: now) else { return }
        batch[index].destinationMAC = runtimes.entries[Int(owner)].output
        batch[index].sourceMAC = fabric.address(of: .server)
        sides.turned |= 1 << UInt64(index)
        return
      }
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
  ///
  /// - Parameter frame: its `hash` is that of the answers.
  private mutating func learn(_ frame: borrowing Frame, owner: UInt16, now: Tick) {
    if let slot = routes.findReversed(frame, hash: frame.hash) {
      touch(slot, frame, now: now)
      routes[slot].actor.hear(owner, now: now)
      return
    }
    let actor = SwitchActor(owner: owner)
    let timeoutClass = timeoutClass(of: frame)
    var slot = routes.createReversed(frame, actor: actor, timeoutClass: timeoutClass, now: now)
    if slot == nil, evict(for: frame, now: now) {
      slot = routes.createReversed(frame, actor: actor, timeoutClass: timeoutClass, now: now)
    }
    count(slot)
  }

  /// Makes room: the route of a connection that is half open or closing has to go.
  private mutating func evict(for frame: borrowing Frame, now: Tick) -> Bool {
    guard let slot = routes.victim(for: frame, timeoutClass: TimeoutClass.tcpTransitory, now: now) else { return false }
    counters.flowsEvicted &+= 1
    routes.remove(slot)
    return true
  }

  private mutating func remember(_ frame: borrowing Frame, owner: UInt16, now: Tick) -> Bool {
    let actor = SwitchActor(owner: owner)
    let timeoutClass = timeoutClass(of: frame)
    var slot = routes.create(frame, actor: actor, timeoutClass: timeoutClass, now: now)
    if slot == nil, evict(for: frame, now: now) {
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

/// What a switch does with packets of flows that it does not know.
enum Admission {
  case open
  /// Another has the uplinks.
  case standsBy
  /// They may be flows of the switch that had the uplinks before: the runtimes are being asked.
  case takesCensus
}

/// What a switch does with a packet from the server side of a flow that it does not know, as its chain would have it.
public struct ServerSideEntrance: Sendable {
  let isOpen: Bool
  private let endpoints: ServerSideEndpoints?
  /// Bytes that a packet to such an endpoint may gain before it leaves to the client.
  let growth: Int
  private let first: IPv4Address
  private let last: IPv4Address

  /// No such packet is any runtime's.
  public static let closed = ServerSideEntrance(isOpen: false, endpoints: nil)

  public init(isOpen: Bool, endpoints: ServerSideEndpoints?, growth: Int = 0) {
    self.isOpen = isOpen
    self.growth = growth
    self.endpoints = endpoints
    first = endpoints?.addresses.min() ?? IPv4Address(.max)
    last = endpoints?.addresses.max() ?? IPv4Address(0)
  }

  /// Whether a packet is to an address whose endpoints the functions hand out.
  func isOwn(_ frame: borrowing Frame) -> Bool {
    guard frame.family == .ipv4, case let address = frame.fiveTuple.destination, first <= address, address <= last else {
      return false
    }
    return endpoints?.addresses.contains(address) == true
  }

  /// Who gets a flow that begins with this packet: the runtime with the fewest flows, unless functions hand out
  /// endpoints that the server side may open flows to. Then it is the runtime that has the endpoint, and the flows of one
  /// client's endpoint all go to one runtime, so that they have one mapping (RFC 4787 REQ-1).
  func owner(of frame: borrowing Frame, from side: Side, among runtimes: RuntimeTable) -> UInt16? {
    guard isOpen, let endpoints else { return runtimes.leastLoaded() }
    if side == .client {
      if frame.family == .ipv4 { return runtimes.serving(for: frame.fiveTuple.clientWord) }
      // Where the chain translates, an IPv6 client may have an endpoint, too.
      return growth > 0 ? runtimes.serving(for: frame.ipv6FiveTuple.clientWord) : runtimes.leastLoaded()
    }
    guard isOwn(frame) else { return runtimes.leastLoaded() }
    return runtimes.serving(endpoints, port: frame.destinationPort)
  }
}

extension IPv4FiveTuple {
  /// Source address, port and protocol: whose mapping it is.
  fileprivate var clientWord: UInt64 {
    UInt64(source.value) | UInt64(transport.sourcePort) << 32 | UInt64(transport.protocolNumber) << 48
  }
}

extension IPv6FiveTuple {
  fileprivate var clientWord: UInt64 {
    let transport = UInt64(transport.sourcePort) << 32 | UInt64(transport.protocolNumber) << 48
    let product = (sourceHigh ^ transport).multipliedFullWidth(by: 0x9e37_79b9_7f4a_7c15)
    return product.high ^ product.low ^ sourceLow
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
    let role = role(of: address)
    return role == 1 ? .client : role == 2 ? .server : nil
  }

  /// 1 for the client side's address of this node, 2 for the server side's, and something else for any other.
  @inline(__always)
  func role(of address: MACAddress) -> UInt64 { address.value ^ base }

  /// Whether an address is that of a node of the same cluster, in a role that carries packets.
  @inline(__always)
  public func isPeer(_ address: MACAddress) -> Bool {
    let role = address.value & 0xff
    return (address.value ^ base) >> 24 == 0 && (role == 1 || role == 2)
  }

  /// What the last bytes of a node's two addresses differ by.
  static var roleFlip: UInt8 { 3 }

  /// The node that an address of the cluster is of.
  static func node(of address: MACAddress) -> UInt32 { UInt32(truncatingIfNeeded: address.value >> 8 & 0xffff) }
  /// Whether another node sends this packet for the one it comes from (`Frame.markReleased`).
  static func isReleased(_ source: MACAddress) -> Bool { source.value & 0x10 != 0 }
  /// Whom a packet comes from, whoever sends it.
  static func sender(_ source: MACAddress) -> MACAddress { MACAddress(source.value & ~0x10) }
}

/// The routes of a switch while a migration changes some of them.
///
/// Both keys of a flow go from one owner to another or neither does. A switch that knows only one has had no packet of
/// the other direction yet; it is asked about both, and one is enough.
@safe
struct RouteChanges: MigratingRoutes, RestoredRoutes, ~Copyable {
  /// Once for a message, not once for a flow, it is checked that nobody else has it.
  let core: UnsafeMutablePointer<SwitchCore>
  let now: Tick

  func foresee(_ keys: FlowKeyPair, _ step: Foresight) { unsafe core.pointee.routes.foresee(keys, step) }

  mutating func change(_ keys: FlowKeyPair, from: FlowOwner, to: FlowOwner) -> RouteChange {
    unsafe core.pointee.change(keys, from: from, to: to, now: now)
  }

  mutating func restore(_ keys: FlowKeyPair, timeoutClass: UInt8, owner: FlowOwner) {
    unsafe core.pointee.restore(keys, timeoutClass: timeoutClass, owner: owner, now: now)
  }
}

extension SwitchCore {
  mutating func change(_ keys: FlowKeyPair, from: FlowOwner, to: FlowOwner, now: Tick) -> RouteChange {
    guard let old = runtimes.index(of: from), let new = runtimes.index(of: to), runtimes.entries[Int(new)].isAlive else {
      return .refused(epoch: 0)
    }
    let (forward, reverse) = (routes.find(keys.forward)?.slot, routes.find(keys.reverse)?.slot)
    guard let one = forward ?? reverse else {
      return admission == .takesCensus ? adopt(keys, from: old, to: new, now: now) : .unknown
    }
    let other = reverse ?? one
    let epoch = max(routes[one].actor.epoch, routes[other].actor.epoch)
    let owners = (routes[one].actor.owner, routes[other].actor.owner)
    guard owners.0 == old || owners.0 == new, owners.1 == old || owners.1 == new else { return .refused(epoch: epoch) }
    move(one, from: old, to: new, now: now)
    move(other, from: old, to: new, now: now)
    return .changed(epoch: max(routes[one].actor.epoch, routes[other].actor.epoch))
  }

  private mutating func move(_ slot: UInt32, from old: UInt16, to new: UInt16, now: Tick) {
    if routes[slot].actor.owner == old { routes[slot].actor.move(to: new, now: now) }
  }

  // MARK: Taking over

  /// A runtime says that a flow is its own. What is known otherwise is older, but for a change of routes: the runtime may have
  /// said so before it knew of that.
  mutating func restore(_ keys: FlowKeyPair, timeoutClass: UInt8, owner: FlowOwner, now: Tick) {
    guard let index = runtimes.index(of: owner), runtimes.entries[Int(index)].isAlive else { return }
    restore(keys.forward, timeoutClass, SwitchActor(owner: index), now)
    restore(keys.reverse, timeoutClass, SwitchActor(owner: index), now)
  }

  private mutating func restore(_ key: FlowKey, _ timeoutClass: UInt8, _ actor: SwitchActor, _ now: Tick) {
    if let (slot, _) = routes.find(key) {
      guard routes[slot].actor.owner != actor.owner, routes[slot].actor.recentFormer(now: now) == nil else { return }
      routes[slot].actor = actor
    } else if routes.create(key, actor: actor, timeoutClass: timeoutClass, now: now) == nil {
      counters.flowsRefused &+= 1
    } else {
      counters.flowsRecovered &+= 1
    }
  }

  /// A flow moves that nobody has told of: nobody will, as it has left its runtime before its turn came.
  private mutating func adopt(_ keys: FlowKeyPair, from old: UInt16, to new: UInt16, now: Tick) -> RouteChange {
    var actor = SwitchActor(owner: old)
    actor.move(to: new, now: now)
    let timeoutClass = TimeoutClass.of(keys.protocolNumber, .established)
    let forward = routes.create(keys.forward, actor: actor, timeoutClass: timeoutClass, now: now)
    let reverse = routes.create(keys.reverse, actor: actor, timeoutClass: timeoutClass, now: now)
    if forward == nil || reverse == nil { counters.flowsRefused &+= 1 }
    return .changed(epoch: actor.epoch)
  }
}
