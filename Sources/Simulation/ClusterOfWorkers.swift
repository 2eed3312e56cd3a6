import Dataplane
import FixedContainers
import FlowActors
import NetworkFunctionTesting
import NetworkFunctions
import Wire

/// A virtual switch and runtimes, the workers that ship, with a fabric between them that keeps the order of each link but
/// takes its time, and loses and doubles frames of channels.
///
///     10.1.0.9 ─ client ─▶ switch ─▶ runtimes ─▶ switch ─▶ server ─ 10.2.0.9
final class ClusterOfWorkers {
  private struct Frame {
    var packet: TestPacket
    var due: UInt64
    var order: Int
    var port: WirePort
  }

  private struct Runtime {
    let port: WirePort
    let rings: WorkerRings
    let worker: Worker
    let address: FabricAddress
    let chain: ServiceChain
  }

  let client: WirePort
  let server: WirePort
  private let fabric: WirePort
  private let switchRings = WorkerRings()
  private let switchWorker: Worker
  private var runtimes: [Runtime] = []
  private let switchAddress = FabricAddress(cluster: 1, node: 1)
  private let memory = WireMemory()
  private let nodeMemory: WorldMemory
  private var underWay: [Frame] = []
  private var carried = 0
  /// When the last frame of each link, by destination and source, arrives.
  private var latest: [[UInt64]: UInt64] = [:]
  private var chance: Chance
  /// In microseconds.
  private(set) var now: UInt64 = 1_000
  /// Shares of the channel frames, in percent.
  var loss = 0
  var doubling = 0
  /// Longest time on a link, in microseconds; the shortest is half of it. So no way over two links is shorter than one over
  /// one: what a source has sent on before it hands a flow over is not overtaken by what the target sends on.
  var delay = 50
  private(set) var reports: [MigrationReport] = []
  /// Orders that a runtime did not take, as it was moving flows already.
  private(set) var refusals = 0

  static let clientMAC = MACAddress(0x02_00_00_00_0c_01)
  static let serverMAC = MACAddress(0x02_00_00_00_05_01)

  /// - Parameter makeChain: the chain of the runtime that has this share.
  init(
    runtimes count: Int, rules: FlowRules, seed: UInt64, memory nodeMemory: WorldMemory, makeChain: (RuntimeShare) -> ServiceChain
  ) {
    chance = Chance(seed: seed)
    self.nodeMemory = nodeMemory
    client = WirePort("client", MACAddress(0x02_00_00_00_00_01), memory: memory)
    server = WirePort("server", MACAddress(0x02_00_00_00_00_02), memory: memory)
    fabric = WirePort("fabric", MACAddress(0x02_00_00_00_00_03), memory: memory)
    var switchRules = FlowRules()
    (switchRules.capacity, switchRules.ipv6Capacity) = (rules.capacity * 4, rules.ipv6Capacity)
    switchWorker = Worker.virtualSwitch(
      ports: SwitchPorts(client: client, server: server, fabric: fabric), address: switchAddress,
      identity: FlowOwner(node: 1, incarnation: 1),
      client: UplinkSettings(interfaces: [.init(address: IPv4Address(10 << 24 | 1 << 16 | 1), prefixLength: 24)]),
      server: UplinkSettings(interfaces: [.init(address: IPv4Address(10 << 24 | 2 << 16 | 1), prefixLength: 24)]),
      rules: switchRules, seed: seed, rings: switchRings, now: .zero, memory: nodeMemory.source)
    for index in 0..<count {
      let node = UInt32(11 + index)
      let address = FabricAddress(cluster: 1, node: node)
      let port = WirePort("runtime \(index)", address.address(of: .client))
      let (rings, share) = (WorkerRings(), RuntimeShare(index: index, count: count))
      let chain = makeChain(share)
      let worker = Worker.runtime(
        port: port, address: address, identity: FlowOwner(node: node, incarnation: 1), chain: chain, rules: rules,
        seed: seed &+ UInt64(index), rings: rings, now: .zero, memory: nodeMemory.source)
      runtimes.append(Runtime(port: port, rings: rings, worker: worker, address: address, chain: chain))
    }
    client.incoming.append(.arp(.reply, from: Self.clientMAC, "10.1.0.9", to: client.address, "10.1.0.1"))
    server.incoming.append(.arp(.reply, from: Self.serverMAC, "10.2.0.9", to: server.address, "10.2.0.1"))
    // The switch believes what it has asked for only.
    client.incoming.append(.arp(.request, from: Self.clientMAC, "10.1.0.9", to: .zero, "10.1.0.1"))
    server.incoming.append(.arp(.request, from: Self.serverMAC, "10.2.0.9", to: .zero, "10.2.0.1"))
    announce()
    run(microseconds: 2_000)
    _ = client.takeSent()
    _ = server.takeSent()
  }

  /// Tells everybody who is in the cluster; new flows go to the first runtime.
  private func announce() {
    var peers = [Peer(node: 1, incarnation: 1, isSwitch: true, isAlive: true)]
    var entries: [RuntimeTable.Entry] = []
    for (index, runtime) in runtimes.enumerated() {
      let node = UInt32(11 + index)
      peers.append(Peer(node: node, incarnation: 1, isSwitch: false, isAlive: true))
      entries.append(
        .init(
          node: node, incarnation: 1, input: runtime.address.address(of: .client), output: runtime.address.address(of: .server),
          isServing: true, flows: UInt64(index) << 40, share: RuntimeShare(index: index, count: runtimes.count)))
    }
    let members = WorkerCommand.Members(version: 1, entries: entries, peers: peers)
    for rings in [switchRings] + runtimes.map(\.rings) { _ = rings.commands.put(.members(members)) }
  }

  func migrate(_ flows: Int, from source: Int, to target: Int, run: UInt32) {
    _ = runtimes[source].rings.commands.put(
      .migrate(MigrationOrder(run: run, target: FlowOwner(node: UInt32(11 + target), incarnation: 1), flows: flows)))
  }

  /// Of the runtimes in order, then of the switch.
  var counters: [Counters] { (runtimes.map(\.worker) + [switchWorker]).map { $0.published.read() } }

  /// What every node has dropped and why, for people.
  var drops: String {
    (runtimes.map(\.worker) + [switchWorker]).enumerated().flatMap { node, worker in
      worker.published.drops().map { "node \(node) dropped \($0.count) for reason \($0.code)" }
    }.joined(separator: ", ")
  }

  /// Of a runtime's chain: the numbers its functions show.
  func observations(_ runtime: Int) -> [Observation] { runtimes[runtime].chain.observe() }

  // MARK: Time

  /// Passes in small steps, some of which a runtime misses, with time on the links.
  func run(microseconds: UInt64) {
    let end = now + microseconds
    while now < end { step(5 + UInt64(chance.below(20)), missing: 10) }
  }

  /// Passes two milliseconds apart: for timers and what follows from them.
  func wait(milliseconds: Int) { for _ in 0..<milliseconds / 2 { step(2_000, missing: 1_000) } }

  private func step(_ microseconds: UInt64, missing: Int) {
    now += microseconds
    let tick = Tick(nanoseconds: now * 1_000)
    _ = switchWorker.pass(at: tick)
    carry(fabric)
    for runtime in runtimes {
      // Now and then a process does not get its turn.
      if chance.below(missing) == 0 { continue }
      _ = runtime.worker.pass(at: tick)
      carry(runtime.port)
      while let event = runtime.rings.events.take() {
        switch event {
        case .migration(let report) where report.finished != nil: reports.append(report)
        case .migrationRefused: refusals += 1
        default: break
        }
      }
    }
    deliver()
    while switchRings.events.take() != nil {}
  }

  private func carry(_ port: WirePort) {
    guard !port.sent.isEmpty else { return }
    for packet in port.takeSent() {
      let isChannel = packet.bytes[12] == 0x88 && packet.bytes[13] == 0xb5
      if isChannel, chance.below(100) < loss { continue }
      let copies = isChannel && chance.below(100) < doubling ? 2 : 1
      for _ in 0..<copies {
        // A link keeps its order: nothing is due before what went in earlier.
        let link = [packet.destinationMAC.value >> 8, packet.sourceMAC.value >> 8]
        let due = max(now + UInt64(delay / 2 + chance.below(delay / 2 + 1)), latest[link] ?? 0)
        latest[link] = due
        carried += 1
        let port = runtimes.first { $0.address.control.value >> 8 == link[0] }?.port ?? fabric
        underWay.append(Frame(packet: packet, due: due, order: carried, port: port))
      }
    }
  }

  private func deliver() {
    let due = underWay.filter { $0.due <= now }
    guard !due.isEmpty else { return }
    underWay.removeAll { $0.due <= now }
    for frame in due.sorted(by: { ($0.due, $0.order) < ($1.due, $1.order) }) { frame.port.incoming.append(frame.packet) }
  }
}
