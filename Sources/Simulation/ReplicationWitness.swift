import FlowActors

/// Addresses that a runtime's connections have, and no other connection may have: what its functions share.
///
/// Every life has a share of its own. A connection that is taken over keeps its address, which is then a foreign one.
final class AddressPool {
  private let share: UInt32
  private(set) var taken: Set<UInt32> = []

  init(share: UInt32) { self.share = share }

  func take() -> UInt32 {
    var address = share << 12
    while taken.contains(address) { address += 1 }
    taken.insert(address)
    return address
  }

  func adopt(_ address: UInt32) { taken.insert(address) }
  func giveBack(_ address: UInt32) { taken.remove(address) }
  static func share(of address: UInt32) -> UInt32 { address >> 12 }
}

/// Replication with a defect: what the machines and their driver must not do. The witness has to notice each.
public enum ReplicationDefect: String, CaseIterable, Sendable {
  /// The holder lets a packet go and stores its state behind it.
  case releasesFirst
  /// The holder takes flows over while it still listens to the life they belonged to.
  case recoversUnfenced
  /// The holder's copy of a flow ends by itself, and with it the owner's hold on its address.
  case replicasExpire
  /// The switch takes packets from a life that is over.
  case acceptsZombies
  /// The holder is not told that a flow has ended.
  case endsUntold
  /// The owner takes for sent what the channel had no room for.
  case believesRefusedSends
  /// A runtime and its holder die at once, and whoever was to take the flows over is believed to have them all.
  case hidesLosses
  /// Of two holders, the first lets packets go before the second has their state.
  case doesNotWait
  /// Whoever stands by is told that all flows have replicas again before they do.
  case settlesEarly
  /// Whoever stood by takes over the replicas that it has kept rather than newer ones.
  case keepsOldReplicas

  /// Whether it is one of two holders.
  public var needsTwo: Bool {
    switch self {
    case .doesNotWait, .settlesEarly, .keepsOldReplicas: true
    default: false
    }
  }
}

/// Sees every packet that leaves, and what the coordinator knows; says what must not be.
final class ReplicationWitness {
  struct Connection {
    /// The present one of the flow's endpoints.
    var generation: UInt32 = 1
    /// Whether anything of it has left.
    var isEstablished = false
    /// The latest state that has left, and who has replicas of it: nobody when it left unprotected.
    var stamp: UInt32 = 0
    var holders: [FlowOwner] = []
  }

  /// Who serves a connection, as far as lives are not over.
  struct Service {
    var generation: UInt32
    var owner: FlowOwner
    var address: UInt32
  }

  var connections: [Connection]
  private(set) var services: [Int: Service] = [:]
  private var addresses: [UInt32: Int] = [:]
  /// Lives that are over: dead, or by the coordinator's word.
  private(set) var over: Set<FlowOwner> = []
  private var dead: Set<FlowOwner> = []
  private var recoveries: Set<FlowOwner> = []
  /// Lives whose heirs have ended, and whose flows are recovered with those of the heirs.
  private var inherited: Set<FlowOwner> = []
  /// Lives whose connections' fate is settled.
  private var settled: Set<FlowOwner> = []
  /// Connections that are gone, and may be.
  private(set) var lost = 0
  private(set) var unprotectedOutputs = 0
  private(set) var outputs = 0
  private(set) var violation: String?
  /// Who lives.
  var lives: () -> [ReplicatedLife] = { [] }
  /// By share; for a defect.
  var pools: [UInt32: AddressPool] = [:]

  init(flows: Int) { connections = Array(repeating: Connection(), count: flows) }

  func complain(_ text: String) { if violation == nil { violation = text } }

  func giveBackForOwner(_ address: UInt32) { pools[AddressPool.share(of: address)]?.giveBack(address) }

  // MARK: Lives

  /// Nothing more comes of this life.
  func dies(_ life: FlowOwner) {
    dead.insert(life)
    over.insert(life)
  }

  /// The coordinator has decided that it is over.
  func isDeclaredOver(_ life: FlowOwner) { over.insert(life) }

  func recoveryBegins(of life: FlowOwner) { recoveries.insert(life) }
  func isInherited(_ life: FlowOwner) { inherited.insert(life) }

  // MARK: Connections

  func begins(_ flow: Int, _ generation: UInt32, address: UInt32, at life: FlowOwner) {
    guard !settled.contains(life) else { return }
    if let service = services[flow], service.owner != life, !over.contains(service.owner) {
      // A life that was taken for dead gets a packet late, and knows no better. What it says of it nobody takes.
      if over.contains(life) { return }
      complain("flow \(flow) begins at node \(life.node) while node \(service.owner.node) has it")
    }
    serve(flow, Service(generation: generation, owner: life, address: address))
  }

  private func serve(_ flow: Int, _ service: Service) {
    // What a life that is over has given to another flow since, and its holder has not heard of, is over with it.
    if let other = addresses[service.address], other != flow, let holder = services[other]?.owner, !over.contains(holder) {
      complain("flows \(other) and \(flow) have the same address")
    }
    if let before = services[flow], addresses[before.address] == flow { addresses[before.address] = nil }
    services[flow] = service
    addresses[service.address] = flow
  }

  func ends(_ flow: Int, _ generation: UInt32, at life: FlowOwner) {
    guard let service = services[flow], service.owner == life, service.generation == generation, !settled.contains(life) else { return }
    forget(flow)
  }

  private func forget(_ flow: Int) {
    guard let service = services.removeValue(forKey: flow) else { return }
    if addresses[service.address] == flow { addresses[service.address] = nil }
    guard connections[flow].generation == service.generation else { return }
    connections[flow] = Connection(generation: service.generation + 1)
  }

  func takesOver(_ flow: Int, _ state: ConnectionState, from lost: FlowOwner, at life: FlowOwner) {
    guard !settled.contains(life) else { return }
    if let service = services[flow], service.owner != lost, !inherited.contains(lost) || !over.contains(service.owner) {
      complain("flow \(flow) of \(lost) is taken over by node \(life.node) while node \(service.owner.node) has it")
    }
    let connection = connections[flow]
    if connection.generation == state.generation, state.count < connection.stamp {
      complain("flow \(flow) is taken over at \(state.count) while \(connection.stamp) has left")
    }
    serve(flow, Service(generation: state.generation, owner: life, address: state.address))
  }

  /// The fate of a life's connections is settled: only those that one of `stores` has go on.
  ///
  /// - Parameters:
  ///   - isSaid: whether somebody has said that some of them may be lost.
  ///   - isGivenUp: whether nobody could recover what others may still have replicas of.
  func judge(_ life: FlowOwner, _ stores: [HeldLife], isSaid: Bool, isGivenUp: Bool) {
    settled.insert(life)
    for (flow, service) in services.sorted(by: { $0.key < $1.key }) where service.owner == life {
      let connection = connections[flow]
      let replica = stores.lazy.compactMap { $0.state(of: flow) }.first
      let isCurrent = connection.generation == service.generation && connection.stamp > 0
      if let replica, replica.generation == service.generation, !isCurrent || replica.count >= connection.stamp { continue }
      if isCurrent {
        lost += 1
        for holder in connection.holders where !over.contains(holder) && !isGivenUp {
          complain("flow \(flow) of \(life) is lost while node \(holder.node), who had its last state, lives")
        }
        if !isSaid { complain("flow \(flow) is lost, and nobody says so") }
      }
      forget(flow)
    }
  }

  /// Connections that this life should be serving.
  func flows(of life: FlowOwner) -> [Int] { services.filter { $0.value.owner == life }.keys.sorted() }

  // MARK: Packets

  /// Who has the state of a packet that a holder lets go; two, if there are two who have everything.
  private func holders(of packet: CommittedPacket, _ releasing: FlowOwner) -> [FlowOwner] {
    let lives = self.lives()
    guard let owner = lives.first(where: { $0.owner == packet.owner }), owner.isProtected, !over.contains(packet.owner),
      case let holders = owner.replication.holders, holders.count == 2, holders.allSatisfy({ !over.contains($0) })
    else { return [releasing] }
    for holder in holders {
      let replica = lives.first { $0.owner == holder }?.held[packet.owner]?.state(of: packet.flow)
      // A flow that has ended has ended there too.
      guard let slot = owner.flows.slots[packet.flow], owner.flows[slot].generation == packet.generation else { continue }
      if replica == nil || replica!.generation != packet.generation || replica!.count < packet.stamp {
        complain("a packet of flow \(packet.flow) left with state \(packet.stamp), which is not on \(holder)")
      }
    }
    return holders
  }

  /// A packet has left.
  func leaves(_ packet: CommittedPacket, through life: ReplicatedLife, isFenced: Bool) {
    outputs += 1
    // A holder that was taken for dead may let go late what it has. Nobody is misled: whoever has the flow now began with a state
    // that is no older, or it would be noticed when it took over, or with its next packet.
    let isLate = life.owner != packet.owner && over.contains(life.owner)
    if !isLate, let service = services[packet.flow], service.generation == packet.generation, service.owner != packet.owner {
      complain("a packet of flow \(packet.flow) left from node \(packet.owner.node) while node \(service.owner.node) has the flow")
    }
    if life.owner == packet.owner {
      if isFenced { complain("a packet left from node \(packet.owner.node), whose life is over") }
      unprotectedOutputs += 1
      if life.unprotected == 0 { complain("a packet left unprotected, and nobody says so") }
    } else {
      if !isLate, recoveries.contains(packet.owner) {
        complain("a packet of flow \(packet.flow) left after node \(packet.owner.node)'s flows were taken over")
      }
      let replica = life.held[packet.owner]?.state(of: packet.flow)
      // A packet that has waited may be of a connection that another one with the same endpoints has replaced.
      let isOlder = packet.generation < (replica?.generation ?? 0)
      if replica == nil || replica!.generation < packet.generation || !isOlder && replica!.count < packet.stamp || !replica!.isWhole {
        complain("a packet of flow \(packet.flow) left with state \(packet.stamp), which is on no replica")
      }
      if dead.contains(life.owner) { complain("a packet left through node \(life.owner.node), which is dead") }
    }
    let holders = life.owner == packet.owner ? [] : holders(of: packet, life.owner)
    guard connections[packet.flow].generation == packet.generation else { return }
    if isLate, packet.stamp < connections[packet.flow].stamp { return }
    if packet.stamp <= connections[packet.flow].stamp {
      complain("state \(packet.stamp) of flow \(packet.flow) left after \(connections[packet.flow].stamp)")
    }
    connections[packet.flow].stamp = packet.stamp
    connections[packet.flow].isEstablished = true
    connections[packet.flow].holders = holders
  }
}
