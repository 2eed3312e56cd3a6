import FlowActors
import ReliableChannels
import Wire

/// Runtimes that replicate their flows to each other, die, are taken for dead, and come back; a switch, a coordinator whose words
/// come late, and a network that does harm. After every event a witness checks that no packet has left whose state is not on a
/// living replica, that every flow has one owner, that what is lost is said, and that no address of the pool is lost or doubled.
///
///     places:  0 ... runtimes; the switch is beside them
///
/// Every decision comes from the seed.
public struct ReplicationWorld {
  public struct Violation: Error, CustomStringConvertible {
    public let description: String
  }

  /// What may happen to runtimes.
  public enum Harm: String, CaseIterable, Sendable {
    /// Faults of the network, pauses, and the end of flows.
    case network
    /// They die, one after another.
    case deaths
    /// They die, often a runtime and its holder at once.
    case pairs
    /// The same, and some that live are taken for dead.
    case zombies
  }

  private enum Word {
    case protect(UInt32, holders: [FlowOwner])
    case recover(lost: FlowOwner, by: FlowOwner?, standby: FlowOwner?)
  }

  /// Things that happened in a run.
  public struct Summary: Sendable {
    public var outputs = 0, unprotected = 0, deaths = 0, takenOver = 0, lost = 0, zombies = 0, ends = 0
  }

  public let seed: UInt64
  public let harm: Harm
  /// Of each flow.
  public let replicas: Int
  private let defect: ReplicationDefect?
  private var chance: Chance
  private var network = VirtualNetwork()
  private var settings = ChannelSettings()
  private let memory = WorldMemory()
  private let witness: ReplicationWitness
  private let edge = Edge()
  private let flowCount: Int
  private var now = Tick(milliseconds: 1)
  private var lives: [ReplicatedLife?] = []
  private var inboxes: [[VirtualNetwork.Arrival]] = []
  private var paused: Set<Int> = []
  /// When those who were taken for dead while they stood still go on.
  private var wakes: [Int: UInt64] = [:]
  private var words: [(time: UInt64, place: Int?, life: FlowOwner?, word: Word)] = []
  private var lastWord: [Int: UInt64] = [:]
  private var obituaries: [(time: UInt64, life: FlowOwner)] = []
  private let buffer: UnsafeMutableRawPointer
  public private(set) var summary = Summary()

  // What the coordinator believes.
  private var members: [FlowOwner?] = []
  private var holders: [FlowOwner: [FlowOwner]] = [:]
  /// Those of them that have said, through the owner, that they have everything.
  private var complete: [FlowOwner: Set<FlowOwner>] = [:]
  /// Who has taken over a life's flows, and who stands by.
  private var standbys: [(lost: FlowOwner, by: FlowOwner, standby: FlowOwner)] = []
  private var assignments: UInt32 = 0
  private var incarnations: UInt64 = 0
  /// Recoveries that were ordered and whose end has not been heard of.
  private var outstanding: [FlowOwner: FlowOwner] = [:]
  private var flowsAtEnd: [FlowOwner: (flows: Int, isProtected: Bool)] = [:]
  /// Of lives that are over: replicas that were found, once whoever is to take them over knows of it; `nil` if nobody will.
  private var found: [FlowOwner: Int?] = [:]
  private var unsettled: Set<FlowOwner> = []
  /// Lives whose flows are recovered with those of another, which was to recover them.
  private var inherited: [FlowOwner: [FlowOwner]] = [:]
  /// Lives whose heir has ended without anybody's going on with them.
  private var givenUp: Set<FlowOwner> = []

  /// The switch: routes, and who is over by the coordinator's word.
  private final class Edge {
    var routes: [Int: FlowOwner] = [:]
    var lives: [ReplicatedLife] = []
    var heirs: [FlowOwner: FlowOwner?] = [:]
    var acceptsZombies = false
    var witness: ReplicationWitness?

    func take(_ packet: CommittedPacket, from life: ReplicatedLife) {
      let isFenced = heirs[packet.owner] != nil
      if life.owner == packet.owner, isFenced, !acceptsZombies { return }
      witness?.leaves(packet, through: life, isFenced: isFenced)
    }
  }

  public init(seed: UInt64, harm: Harm, replicas: Int = 1, defect: ReplicationDefect? = nil) {
    self.seed = seed
    self.harm = harm
    self.replicas = replicas
    self.defect = defect
    chance = Chance(seed: seed ^ 0x2a65_1c07_0000)
    flowCount = 4 + chance.below(20)
    settings.mtu = 64 + 64 + chance.below(200)
    settings.sendFrames = 16
    settings.receiveFrames = 16
    settings.largestMessage = 256
    settings.leastTimeout = 200_000
    settings.initialTimeout = 500_000
    settings.greatestTimeout = 4_000_000
    settings.helloInterval = 300_000
    settings.keepaliveInterval = 1_000_000
    witness = ReplicationWitness(flows: flowCount)
    buffer = UnsafeMutableRawPointer(memory.source.allocate(UInt8.self, count: 2_048))
    edge.witness = witness
    edge.acceptsZombies = defect == .acceptsZombies
    let places = 2 + replicas + chance.below(2)
    lives = Array(repeating: nil, count: places)
    let edge = edge
    witness.lives = { edge.lives }
    members = lives.map { _ in nil }
    inboxes = Array(repeating: [], count: places)
    for place in 0..<places { start(place) }
    assignHolders()
  }

  // MARK: Running

  /// Harm for a while under traffic, then none, until everything has come to rest; then the books must close.
  public mutating func play(passes: Int = 150) throws(Violation) {
    network.faults = .drawn(&chance)
    for _ in 0..<passes {
      hurt()
      for _ in 0..<chance.below(6) { inject(chance.below(flowCount)) }
      try pass(20_000)
    }
    network.faults = .none
    network.cut = []
    paused = []
    wakes = [:]
    // Whoever was taken for dead learns it, and is gone.
    for life in lives { if let life, witness.over.contains(life.owner) { vanish(life.place) } }
    var quiet = 0
    for _ in 0..<2_000 where quiet < 10 {
      try pass(200_000)
      quiet = isAtRest ? quiet + 1 : 0
    }
    guard quiet == 10 else { throw violation("the cluster does not come to rest") }
    try probe()
    try closeBooks()
    for life in lives { summary.takenOver += life?.takenOver ?? 0 }
    (summary.outputs, summary.unprotected, summary.lost) = (witness.outputs, witness.unprotectedOutputs, witness.lost)
  }

  private var isAtRest: Bool {
    obituaries.isEmpty && words.isEmpty && outstanding.isEmpty && unsettled.isEmpty && lives.allSatisfy { $0.map { !$0.isRecovering } ?? true }
  }

  private mutating func pass(_ nanoseconds: UInt64) throws(Violation) {
    now = Tick(nanoseconds: now.nanoseconds + nanoseconds)
    while let index = obituaries.firstIndex(where: { $0.time <= now.nanoseconds }) { bury(obituaries.remove(at: index).life) }
    while let index = words.indices.filter({ words[$0].time <= now.nanoseconds && !isAsleep(words[$0].place) })
      .min(by: { words[$0].time < words[$1].time })
    {
      hear(words.remove(at: index))
      try check()
    }
    while let arrival = network.take(by: now) { inboxes[arrival.destination].append(arrival) }
    for place in inboxes.indices where !paused.contains(place) {
      let arrivals = inboxes[place]
      inboxes[place] = []
      for arrival in arrivals {
        deliver(arrival)
        try check()
      }
      guard let life = lives[place] else { continue }
      life.pass(now: now, chance: &chance)
      for lost in life.takeRecovered() where !witness.over.contains(life.owner) {
        for lost in [lost] + (inherited[lost] ?? []) { outstanding[lost] = nil }
      }
      if life.isProtected { complete[life.owner] = Set(life.replication.holders).intersection(holders[life.owner] ?? []) }
      try check()
      let channels = life.channels
      channels.fill(buffer, now: now) { frame, peer in network.send(frame, from: place, to: peer, now: now, chance: &chance) }
    }
  }

  /// Who stands still hears nothing either.
  private func isAsleep(_ place: Int?) -> Bool { place.map(paused.contains) ?? false }

  private func check() throws(Violation) { if let text = witness.violation { throw violation(text) } }

  private func deliver(_ arrival: VirtualNetwork.Arrival) {
    guard let life = lives[arrival.destination] else { return }
    arrival.frame.withUnsafeBytes { bytes in
      if bytes.count == CommittedPacket.length {
        let packet = CommittedPacket(bytes)
        // It was sent to a life, not to a place.
        guard packet.owner == life.owner else { return }
        life.receive(packet, now: now)
      } else {
        life.receive(bytes, from: arrival.source, now: now)
      }
    }
  }

  // MARK: Traffic

  private mutating func inject(_ flow: Int) {
    let connection = witness.connections[flow]
    var packet = CommittedPacket(flow: flow, generation: connection.generation, isOpening: !connection.isEstablished)
    guard let life = route(flow) else { return }
    packet.owner = life
    // Packets keep their order and come whole: what happens to them on their way is not this story.
    network.send(packet.bytes, from: lives.count, to: Int(life.node) - 1, now: now, chance: &chance, faults: LinkFaults.none)
  }

  private mutating func route(_ flow: Int) -> FlowOwner? {
    if var life = edge.routes[flow] {
      while let heir = edge.heirs[life] {
        guard let heir else {
          edge.routes[flow] = nil
          return nil
        }
        life = heir
      }
      edge.routes[flow] = life
      return life
    }
    let choices = members.compactMap { $0 }.filter { edge.heirs[$0] == nil }
    guard !choices.isEmpty else { return nil }
    let life = choices[chance.below(choices.count)]
    edge.routes[flow] = life
    return life
  }

  // MARK: Harm

  private mutating func hurt() {
    let places = lives.count
    if chance.happens(15) {
      let place = chance.below(places)
      if paused.remove(place) == nil { paused.insert(place) }
    }
    if chance.happens(15) { network.cut = network.cut.isEmpty ? [[chance.below(places), chance.below(places)]] : [] }
    if chance.happens(60), let life = lives[chance.below(places)], let flow = life.flows.slots.keys.sorted().first {
      life.expire(flow)
      summary.ends += 1
    }
    guard harm != .network else { return }
    if chance.happens(12), let life = lives[chance.below(places)], !witness.over.contains(life.owner) {
      kill(life.place)
      if harm != .deaths, chance.happens(80), let assigned = holders[life.owner], !assigned.isEmpty,
        case let holder = assigned[chance.below(assigned.count)], let other = lives[Int(holder.node) - 1], other.owner == holder
      {
        kill(other.place)
      }
    }
    // Whoever has just taken flows over, of which somebody still has the replicas.
    if let heir = standbys.last?.by, let life = lives[Int(heir.node) - 1], life.owner == heir, life.takenOver > 0,
      !life.isProtected || life.isRecovering, chance.happens(80)
    {
      kill(life.place)
    }
    for (place, time) in wakes.sorted(by: { $0.key < $1.key }) where time <= now.nanoseconds {
      wakes[place] = nil
      paused.remove(place)
    }
    if harm == .zombies, chance.happens(15), let life = zombie() {
      // It lives; it was only slow to answer. Often it stands still, and goes on with what came for it meanwhile.
      summary.zombies += 1
      if chance.happens(700) {
        paused.insert(life.place)
        wakes[life.place] = now.nanoseconds + 1_200_000
        for flow in 0..<flowCount where edge.routes[flow] == life.owner { inject(flow) }
      }
      bury(life.owner)
    }
    for place in 0..<places where chance.happens(25) {
      if let life = lives[place] {
        guard witness.over.contains(life.owner), members[place] == nil, wakes[place] == nil else { continue }
        vanish(place)
      }
      guard members[place] == nil else { continue }
      start(place)
      assignHolders()
    }
  }

  /// Who is taken for dead: rather somebody whose packets leave by themselves, without a holder.
  private mutating func zombie() -> ReplicatedLife? {
    let alone = lives.compactMap { $0 }.filter { members[$0.place] == $0.owner && !$0.isReplicating && $0.flows.count > 0 }
    if !alone.isEmpty, chance.happens(500) { return alone[chance.below(alone.count)] }
    return lives[chance.below(lives.count)].flatMap { members[$0.place] == $0.owner ? $0 : nil }
  }

  /// The process is gone.
  private mutating func kill(_ place: Int) {
    guard let life = lives[place] else { return }
    summary.deaths += 1
    let owner = life.owner
    vanish(place)
    obituaries.append((now.nanoseconds + chance.within(50_000...2_000_000), owner))
  }

  private mutating func vanish(_ place: Int) {
    guard let life = lives[place] else { return }
    witness.dies(life.owner)
    flowsAtEnd[life.owner] = (life.flows.count, life.isProtected)
    summary.takenOver += life.takenOver
    lives[place] = nil
    edge.lives.removeAll { $0 === life }
    inboxes[place] = []
    paused.remove(place)
    wakes[place] = nil
  }

  private mutating func start(_ place: Int) {
    incarnations += 1
    let (edge, peers) = (edge, lives.indices.filter { $0 != place })
    let life = ReplicatedLife(
      place: place, incarnation: incarnations, peers: peers, flows: flowCount * 2, settings: settings, now: now, witness: witness,
      defect: defect, memory: memory.source
    ) { edge.take($0, from: $1) }
    lives[place] = life
    edge.lives.append(life)
    members[place] = life.owner
  }

  // MARK: The coordinator

  /// Sends a word to a life, or to the switch. Words to one arrive in order, and when they like.
  ///
  /// - Returns: when it arrives.
  @discardableResult
  private mutating func say(_ word: Word, to life: FlowOwner?, after earliest: UInt64 = 0) -> UInt64 {
    let place = life.map { Int($0.node) - 1 }
    let time = max(lastWord[place ?? -1] ?? 0, earliest, now.nanoseconds + chance.within(10_000...1_000_000))
    lastWord[place ?? -1] = time
    words.append((time, place, life, word))
    return time
  }

  private mutating func hear(_ heard: (time: UInt64, place: Int?, life: FlowOwner?, word: Word)) {
    guard let place = heard.place else {
      if case .recover(let lost, let by, _) = heard.word { edge.heirs[lost] = .some(by) }
      return settle()
    }
    guard let life = lives[place], life.owner == heard.life else { return }
    switch heard.word {
    case .protect(let assignment, let holders): life.protect(assignment, by: holders)
    case .recover(let lost, let by, let standby):
      let isHeir = by == life.owner && !witness.over.contains(life.owner)
      let taken = isHeir ? [lost] + (inherited[lost] ?? []) : []
      for lost in taken { found[lost] = .some(life.held[lost]?.store.count ?? 0) }
      life.recover(lost, by: by, standby: standby)
      if isHeir { settle() }
    }
  }

  /// The connections of a life go on, or are lost, when the switch takes nothing from it any more and its heir has begun, or
  /// there is none.
  private mutating func settle() {
    for lost in unsettled.sorted(by: { $0.incarnation < $1.incarnation }) {
      guard edge.heirs[lost] != nil, let replicas = found[lost] else { continue }
      // An heir that is dead, which nobody knows yet.
      if let heir = outstanding[lost], lives[Int(heir.node) - 1]?.owner != heir { continue }
      unsettled.remove(lost)
      // One that was taken for dead may still have gone on for a while.
      let living = lives[Int(lost.node) - 1].flatMap { $0.owner == lost ? $0 : nil }
      let end: (flows: Int, isProtected: Bool) = living.map { ($0.flows.count, $0.isProtected) } ?? flowsAtEnd[lost] ?? (0, true)
      let heir = outstanding[lost].flatMap { lives[Int($0.node) - 1] }
      // The same life may take over what the lost one was still to take over.
      let others = outstanding.filter { $0.value == heir?.owner && $0.key != lost }.keys.sorted { $0.incarnation < $1.incarnation }
      witness.judge(
        lost, ([lost] + others).compactMap { heir?.held[$0] },
        isSaid: replicas.map { !end.isProtected || $0 < end.flows } ?? (defect != .hidesLosses), isGivenUp: givenUp.contains(lost))
    }
  }

  private func isMember(_ life: FlowOwner) -> Bool { members[Int(life.node) - 1] == life }

  /// Who is to have the flows of a life, and who stands by: a holder of that one, if there is any.
  private func heirs(of life: FlowOwner) -> (by: FlowOwner?, standby: FlowOwner?) {
    let living = (holders[life] ?? []).filter(isMember)
    let sure = living.filter { complete[life]?.contains($0) ?? false }
    let candidates = sure.isEmpty ? living : sure
    let obliged = standbys.filter { $0.by == life }.map(\.standby)
    let by = sure.first(where: obliged.contains)
      ?? sure.first { first in living.contains { $0 != first && holders[first]?.contains($0) ?? false } } ?? candidates.first
    return (by, by.flatMap { by in living.first { $0 != by } })
  }

  private mutating func bury(_ life: FlowOwner) {
    let place = Int(life.node) - 1
    guard members[place] == life else { return }
    members[place] = nil
    witness.isDeclaredOver(life)
    let (by, standby) = heirs(of: life)
    // Whoever takes the flows over hears of it before the switch sends packets there: it would open them anew.
    let word = Word.recover(lost: life, by: by, standby: standby)
    let heard = by.map { say(word, to: $0) }
    say(word, to: nil, after: heard ?? 0)
    for case let member? in members where member != by { say(word, to: member) }
    unsettled.insert(life)
    if let by { outstanding[life] = by } else { found[life] = .some(nil) }
    // Whoever was to take flows over may not have done so yet: somebody who stood by goes on, or what is left of them is lost, and
    // that is said.
    for (lost, heir) in outstanding.sorted(by: { $0.key.incarnation < $1.key.incarnation }) where heir == life {
      unsettled.insert(lost)
      (outstanding[lost], found[lost]) = (nil, .some(nil))
    }
    for (lost, heir, standby) in standbys where heir == life {
      if let by, standby == by {
        inherited[life, default: []].append(lost)
        unsettled.insert(lost)
        (outstanding[lost], found[lost]) = (by, nil)
      } else {
        givenUp.formUnion([lost, life])
      }
    }
    standbys.removeAll { $0.by == life || $0.standby == life }
    if let by, let standby { standbys.append((life, by, standby)) }
    settle()
    (holders[life], complete[life]) = (nil, nil)
    assignHolders()
  }

  /// Everybody gets as many living holders as there are to be, or as many as there are.
  private mutating func assignHolders() {
    let living = members.compactMap { $0 }
    for owner in living {
      let before = holders[owner] ?? []
      var assigned = before.filter(isMember)
      while assigned.count < replicas {
        let choices = living.filter { $0 != owner && !assigned.contains($0) }
        guard !choices.isEmpty else { break }
        // First whoever stands by for it, then who has the replicas of its holder: they can go on with what it has taken over.
        let better = standbys.filter { $0.by == owner }.map(\.standby) + (assigned.first.flatMap { holders[$0] } ?? [])
        assigned.append(better.first(where: choices.contains) ?? choices[chance.below(choices.count)])
      }
      guard assigned != before else { continue }
      holders[owner] = assigned
      complete[owner]?.formIntersection(assigned)
      assignments += 1
      say(.protect(assignments, holders: assigned), to: owner)
    }
  }

  // MARK: The end

  /// A packet of every connection must come out.
  private mutating func probe() throws(Violation) {
    for flow in 0..<flowCount where witness.connections[flow].isEstablished {
      guard let service = witness.services[flow] else { throw violation("nobody has flow \(flow), and nobody says so") }
      let before = witness.connections[flow]
      for _ in 0..<20 where witness.connections[flow].stamp == before.stamp {
        inject(flow)
        try pass(200_000)
      }
      guard witness.connections[flow].stamp > before.stamp else {
        throw violation("flow \(flow), which node \(service.owner.node) has, does not go on; its packets go to \(edge.routes[flow].map { "\($0)" } ?? "nobody")")
      }
    }
  }

  private func closeBooks() throws(Violation) {
    for case let life? in lives where !witness.over.contains(life.owner) {
      let used = Set(life.flows.slots.values.map { life.flows[$0].address })
      guard used == life.addressesTaken else {
        throw violation("node \(life.owner.node) has \(life.addressesTaken.count) addresses for \(used.count) flows")
      }
      if life.unprotected > 0, members.compactMap({ $0 }).count > 1 {
        throw violation("\(life.unprotected) flows of node \(life.owner.node) stay unprotected")
      }
    }
  }

  private func violation(_ text: String) -> Violation {
    Violation(description: "seed \(seed), \(harm.rawValue)\(defect.map { ", \($0.rawValue)" } ?? ""): \(text)")
  }
}
