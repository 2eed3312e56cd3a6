import Dataplane
import FunctionCatalog
import NetworkFunctionTesting
import NetworkFunctions
import Wire

/// The workers that ship, under one seed: a switch and two or three runtimes with a NAT whose flows move, end and begin
/// again, while frames of channels are lost and doubled, links are slow and processes miss their turn.
///
/// Packets are numbered by flow and direction. The rules: each comes out once and in order, whatever moves; nothing is dropped;
/// what comes back reaches the client that it is for; an external endpoint has one client until that one's flows have ended;
/// and when everything has ended, every endpoint is back with its owner.
public struct WorkerWorld {
  public struct Violation: Error, CustomStringConvertible {
    public let description: String
  }

  /// What went in at one side, by flow: the number that has to come out next at the other.
  private struct Ledger {
    var sent: [UInt32]
    var due: [UInt32]

    init(flows: Int) {
      sent = Array(repeating: 0, count: flows)
      due = sent
    }

    mutating func next(_ flow: Int) -> UInt32 {
      defer { sent[flow] += 1 }
      return sent[flow]
    }
  }

  /// Who uses an external endpoint, and when a packet of theirs last came out.
  private struct Use {
    var client: Int
    var time: UInt64
  }

  public let seed: UInt64
  private var chance: Chance
  private let cluster: ClusterOfWorkers
  private let runtimes: Int
  /// Ports that clients send from; each has two flows, to two ports of the server.
  private let clients: Int
  private var outward: Ledger
  private var homeward: Ledger
  /// By flow: the external port it last came out with, and when it was last heard at all.
  private var external: [UInt16?]
  private var heard: [UInt64]
  private var uses: [UInt16: Use] = [:]
  private var runs: UInt32 = 0
  private let memory = WorldMemory()
  /// Runs that ended, flows they moved, endpoints that came back from another runtime's books.
  public private(set) var summary = (runs: 0, moved: 0, returned: 0)

  private static let lowestPort = 10_000
  /// Milliseconds that a flow outlives its last packet: longer than a switch's memory of a flow's former runtime, as anybody's.
  private static let idleTimeout: UInt32 = 2_400

  public init(seed: UInt64, defect: ReturnDefect? = nil) {
    self.seed = seed
    chance = Chance(seed: seed ^ 0x776f_726b)
    let runtimes = 2 + chance.below(2)
    self.runtimes = runtimes
    let clients = 2 * (4 + chance.below(40))
    self.clients = clients
    let flows = clients * 2
    (outward, homeward) = (Ledger(flows: flows), Ledger(flows: flows))
    external = Array(repeating: nil, count: flows)
    heard = Array(repeating: 0, count: flows)
    var rules = FlowRules()
    (rules.capacity, rules.ipv6Capacity) = (flows * 2, 16)
    rules.timeouts = rules.timeouts.map { _ in Self.idleTimeout }
    // Every share has as many endpoints as there are clients: with one that does not come back there are too few.
    let isFused = chance.happens(500)
    let lowest = UInt16(Self.lowestPort)
    cluster = ClusterOfWorkers(runtimes: runtimes, rules: rules, seed: seed, memory: memory) { share in
      let nat = CountingReturns(
        function: NAT(
          pool: [IPv4Address(10 << 24 | 2 << 16 | 200)], ports: lowest...lowest + UInt16(clients * runtimes) - 1, mappings: 128),
        defect: defect)
      return ServiceChain(
        isFused
          ? [ServiceStage("counted-nat", PacketCounter().then(nat), share: share)]
          : [ServiceStage("packet-counter", PacketCounter(), share: share), ServiceStage("nat", nat, share: share)])
    }
    (cluster.loss, cluster.doubling) = (chance.happens(600) ? chance.below(30) : 0, chance.happens(500) ? chance.below(20) : 0)
    cluster.delay = [0, 50, 400][chance.below(3)]
  }

  // MARK: Running

  public mutating func play(rounds: Int = 6) throws(Violation) {
    for _ in 0..<rounds {
      for _ in 0..<20 + chance.below(60) {
        command()
        try traffic(chance.below(24))
      }
      // Some flows end now and then, and what they had goes home.
      if chance.happens(600) { try rest(milliseconds: chance.below(3_000)) }
    }
    try end()
  }

  private mutating func command() {
    guard chance.happens(120) else { return }
    let (source, target) = (chance.below(runtimes), chance.below(runtimes))
    guard source != target else { return }
    runs += 1
    cluster.migrate(1 + chance.below(clients * 2), from: source, to: target, run: runs)
  }

  private mutating func traffic(_ packets: Int) throws(Violation) {
    for _ in 0..<packets {
      let flow = chance.below(clients * 2)
      // Whoever answers late answers a flow that is no more: what is dropped then is dropped rightly.
      if chance.happens(500), let port = external[flow], cluster.now - heard[flow] < UInt64(Self.idleTimeout) * 500 {
        let packet = TestPacket.udp(
          serverEndpoint(flow), Endpoint(IPv4Address(10 << 24 | 2 << 16 | 200), port: port),
          payload: label(flow, homeward.next(flow)))
        cluster.server.incoming.append(packet.link(to: cluster.server.address, from: ClusterOfWorkers.serverMAC))
      } else {
        let packet = TestPacket.udp(clientEndpoint(flow), serverEndpoint(flow), payload: label(flow, outward.next(flow)))
        cluster.client.incoming.append(packet.link(to: cluster.client.address, from: ClusterOfWorkers.clientMAC))
      }
    }
    cluster.run(microseconds: 40)
    try hear()
  }

  private mutating func rest(milliseconds: Int) throws(Violation) {
    cluster.run(microseconds: 4_000)
    try hear()
    // What comes out is heard soon: when it was is what flows and endpoints are judged by.
    for _ in 0..<milliseconds / 20 {
      cluster.wait(milliseconds: 20)
      try hear()
    }
  }

  private func clientEndpoint(_ flow: Int) -> Endpoint {
    Endpoint(IPv4Address(10 << 24 | 1 << 16 | 9), port: UInt16(2_000 + flow / 2))
  }
  private func serverEndpoint(_ flow: Int) -> Endpoint {
    Endpoint(IPv4Address(10 << 24 | 2 << 16 | 9), port: UInt16(53 + flow % 2))
  }

  private func label(_ flow: Int, _ number: UInt32) -> [UInt8] {
    withUnsafeBytes(of: (UInt32(flow), number)) { Array($0) } + Array(repeating: 0, count: 16)
  }

  // MARK: Judging

  private mutating func hear() throws(Violation) {
    for packet in cluster.server.takeSent() {
      guard let (flow, number) = read(packet) else { continue }
      try take(flow, number, \.outward, "outward")
      let port = packet.source.port
      if let use = uses[port], use.client != flow / 2, cluster.now - use.time < UInt64(Self.idleTimeout) * 1_000 {
        throw violation("external port \(port) came to client \(flow / 2) while client \(use.client) has it")
      }
      uses[port] = Use(client: flow / 2, time: cluster.now)
      external[flow] = port
    }
    for packet in cluster.client.takeSent() {
      guard let (flow, number) = read(packet) else { continue }
      try take(flow, number, \.homeward, "homeward")
      guard packet.destination == clientEndpoint(flow) else {
        throw violation("a packet for \(clientEndpoint(flow)) went to \(packet.destination)")
      }
      if let port = external[flow] { uses[port]?.time = cluster.now }
    }
  }

  private mutating func take(_ flow: Int, _ number: UInt32, _ ledger: WritableKeyPath<Self, Ledger>, _ way: String)
    throws(Violation)
  {
    guard number == self[keyPath: ledger].due[flow] else {
      throw violation("packet \(number) of flow \(flow), \(way), came where \(self[keyPath: ledger].due[flow]) was due")
    }
    self[keyPath: ledger].due[flow] += 1
    heard[flow] = cluster.now
  }

  private func read(_ packet: TestPacket) -> (flow: Int, number: UInt32)? {
    guard packet.bytes.count >= 50, packet.bytes[12] == 8, packet.bytes[13] == 0 else { return nil }
    return packet.bytes.withUnsafeBytes {
      (Int($0.loadUnaligned(fromByteOffset: 42, as: UInt32.self)), $0.loadUnaligned(fromByteOffset: 46, as: UInt32.self))
    }
  }

  /// No more harm, until everything has ended; then the books must close.
  private mutating func end() throws(Violation) {
    (cluster.loss, cluster.doubling) = (0, 0)
    cluster.run(microseconds: 4_000)
    for _ in 0..<40 where cluster.reports.count + cluster.refusals < Int(runs) { try rest(milliseconds: 20) }
    // What a channel has to send again may take its longest timeout.
    try rest(milliseconds: 300)
    guard cluster.reports.count + cluster.refusals == Int(runs) else {
      throw violation("of \(runs) migrations \(cluster.reports.count) ended and \(cluster.refusals) were refused")
    }
    for flow in 0..<clients * 2 where outward.sent[flow] != outward.due[flow] || homeward.sent[flow] != homeward.due[flow] {
      throw violation(
        "of flow \(flow) \(outward.due[flow]) of \(outward.sent[flow]) packets came out, homeward \(homeward.due[flow]) of \(homeward.sent[flow])"
      )
    }
    // Flows end, and a return waits two seconds before it goes.
    cluster.wait(milliseconds: 5_000)
    for (index, counters) in cluster.counters.prefix(runtimes).enumerated() where counters.activeFlows != 0 {
      throw violation("node \(index) says that it has \(counters.activeFlows) flows when all have ended")
    }
    for (index, counters) in cluster.counters.enumerated() {
      guard counters.received == counters.forwarded + counters.dropped + counters.consumed, counters.dropped == 0 else {
        throw violation(
          "node \(index) received \(counters.received), forwarded \(counters.forwarded), dropped \(counters.dropped) and consumed \(counters.consumed)"
        )
      }
    }
    var returns: (taken: UInt64, accepted: UInt64) = (0, 0)
    for runtime in 0..<runtimes {
      for observation in cluster.observations(runtime) {
        if observation.name == "returns.taken" { returns.taken += observation.value }
        if observation.name == "returns.accepted" { returns.accepted += observation.value }
        let isRest =
          ["nat.mappings", "nat.foreign-flows", "nat.endpoints-lost", "nat.exhausted"].contains(observation.name)
          || observation.name.hasPrefix("nat.returns")
          || (observation.name.hasPrefix("nat.pool") && observation.name.hasSuffix("used"))
        if isRest, observation.value != 0 {
          throw violation("when all flows had ended, \(observation.name) of runtime \(runtime) was \(observation.value)")
        }
      }
    }
    guard returns.taken == returns.accepted else {
      throw violation("\(returns.taken) endpoints were given back and \(returns.accepted) taken back")
    }
    summary.returned = Int(returns.accepted)
    for report in cluster.reports {
      summary.runs += 1
      summary.moved += report.moved
    }
  }

  private func violation(_ text: String) -> Violation {
    cluster.wait(milliseconds: 4)
    return Violation(description: "seed \(seed): \(text)\(cluster.drops.isEmpty ? "" : "; \(cluster.drops)")")
  }
}
