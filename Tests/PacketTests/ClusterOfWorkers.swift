import Dataplane
import FlowActors
import FunctionCatalog
import NetworkFunctionTesting
import NetworkFunctions
import Simulation
import Wire

/// Virtual switches and runtimes, the workers that ship, with a fabric between them that keeps the order of each link but
/// takes its time, and loses and doubles frames of channels.
///
/// Packets are told apart by flow and number, written into their payload: what goes in at one uplink has to come out at
/// the other, once and in order.
final class ClusterOfWorkers {
  private struct Frame {
    var packet: TestPacket
    var due: UInt64
  }

  private struct Runtime {
    let port: WirePort
    let rings: WorkerRings
    let worker: Worker
    let address: FabricAddress
    var isDead = false
    /// Its life is over by the coordinator's word.
    var isOver = false
  }

  /// What a life of a switch is made of.
  private struct SwitchPlan {
    let seed: UInt64
    let rules: FlowRules
    let isReplicated: Bool
    let entrance: ServerSideEntrance
    let memory: WireMemory
  }

  private struct Switch {
    let client: WirePort
    let server: WirePort
    let fabric: WirePort
    let rings = WorkerRings()
    let worker: Worker
    let address: FabricAddress
    let owner: FlowOwner
    var isDead = false

    func port(_ side: Side) -> WirePort { side == .client ? client : server }

    init(_ index: Int, life: UInt64, _ plan: SwitchPlan) {
      func port(_ name: String, _ number: UInt64) -> WirePort {
        WirePort("\(name) \(index)", MACAddress(0x02_00_00_00_00_00 | UInt64(index) << 8 | number), memory: plan.memory)
      }
      (client, server, fabric) = (port("client", 1), port("server", 2), port("fabric", 3))
      owner = FlowOwner(node: UInt32(1 + index), incarnation: life)
      address = FabricAddress(cluster: 1, node: owner.node)
      var clientSide = UplinkSettings(interfaces: [.init(address: IPv4Address("10.1.0.1")!, prefixLength: 24)])
      clientSide.ipv6.interfaces = [(IPAddress("2001:db8:1::1")!, AddressBlock("2001:db8:1::/64")!)]
      worker = Worker.virtualSwitch(
        ports: SwitchPorts(client: client, server: server, fabric: fabric), address: address, identity: owner,
        entrance: plan.entrance,
        client: clientSide,
        server: UplinkSettings(interfaces: [.init(address: IPv4Address("10.2.0.1")!, prefixLength: 24)]),
        rules: plan.rules, isReplicated: plan.isReplicated, seed: plan.seed &+ UInt64(index) &+ life << 8, rings: rings, now: .zero,
        memory: .plain)
    }
  }

  private var switches: [Switch] = []
  /// The switch that has the uplinks.
  private var holder = 0
  /// The link address by which the hosts of either side know the switch.
  private(set) var gateways: (client: MACAddress, server: MACAddress) = (.zero, .zero)
  private var runtimes: [Runtime] = []
  private let memory = WireMemory()
  private let plan: SwitchPlan
  /// Frames on each link, by destination and source.
  private var links: [[UInt64]: [Frame]] = [:]
  private var numbers: SeededNumbers
  /// In microseconds.
  private(set) var now: UInt64 = 1_000
  /// Shares of the channel frames, in percent.
  var loss = 0
  var doubling = 0
  /// Longest time on a link, in microseconds.
  var delay = 50
  private(set) var reports: [MigrationReport] = []
  private(set) var recoveries: [RecoveryReport] = []
  /// Streams whose every flow is on its holder.
  private(set) var protectedStreams: Set<UInt32> = []
  private var version: UInt64 = 0
  private var serving: [Int] = []

  private static let clientMAC = MACAddress(0x02_00_00_00_0c_01)
  private static let serverMAC = MACAddress(0x02_00_00_00_05_01)

  /// - Parameter chain: of each runtime, by its share of the pools.
  init(
    switches switchCount: Int = 1, runtimes count: Int, seed: UInt64, isReplicated: Bool = false, entrance: ServerSideEntrance = .closed,
    chain: (RuntimeShare) -> ServiceChain = { ServiceChain([ServiceStage("packet-counter", PacketCounter(), share: $0)]) }
  ) {
    numbers = SeededNumbers(seed: seed)
    var rules = FlowRules()
    rules.capacity = 4_096
    rules.ipv6Capacity = 64
    plan = SwitchPlan(seed: seed, rules: rules, isReplicated: isReplicated, entrance: entrance, memory: memory)
    switches = (0..<switchCount).map { Switch($0, life: 1, plan) }
    for index in 0..<count {
      let node = UInt32(11 + index)
      let address = FabricAddress(cluster: 1, node: node)
      let port = WirePort("runtime \(index)", address.address(of: .client))
      let rings = WorkerRings()
      let worker = Worker.runtime(
        port: port, address: address, identity: FlowOwner(node: node, incarnation: 1), replicas: isReplicated ? 2 : 0,
        chain: chain(RuntimeShare(index: index, count: count)), rules: rules,
        seed: seed &+ UInt64(index),
        rings: rings, now: .zero, memory: .plain)
      runtimes.append(Runtime(port: port, rings: rings, worker: worker, address: address))
    }
    introduceHosts(to: 0..<switchCount)
    announce(serving: Array(0..<count))
    run(microseconds: 2_000)
    _ = takeSent(.client)
    _ = takeSent(.server)
  }

  /// A switch learns neighbors from questions for its addresses, also while it stands by.
  private func introduceHosts(to switches: Range<Int>) {
    for index in switches {
      self.switches[index].client.incoming.append(.arp(.request, from: Self.clientMAC, "10.1.0.9", to: .zero, "10.1.0.1"))
      self.switches[index].server.incoming.append(.arp(.request, from: Self.serverMAC, "10.2.0.9", to: .zero, "10.2.0.1"))
    }
  }

  /// Tells everybody who is in the cluster; new flows go to the first of `serving`.
  func announce(serving: [Int]) {
    self.serving = serving
    version += 1
    var peers = switches.map { Peer(node: $0.owner.node, incarnation: $0.owner.incarnation, isSwitch: true, isAlive: !$0.isDead) }
    var entries: [RuntimeTable.Entry] = []
    for (index, runtime) in runtimes.enumerated() {
      let node = UInt32(11 + index)
      peers.append(Peer(node: node, incarnation: 1, isSwitch: false, isAlive: !runtime.isOver))
      entries.append(
        .init(
          node: node, incarnation: 1, input: runtime.address.address(of: .client), output: runtime.address.address(of: .server),
          isServing: serving.contains(index), isAlive: !runtime.isOver, flows: UInt64(index) * 1_000_000,
          share: RuntimeShare(index: index, count: runtimes.count)))
    }
    let members = WorkerCommand.Members(version: version, entries: entries, peers: peers, uplinks: .only(switches[holder].owner))
    for rings in livingSwitches + runtimes.map(\.rings) { _ = rings.commands.put(.members(members)) }
  }

  private var livingSwitches: [WorkerRings] { switches.filter { !$0.isDead }.map(\.rings) }

  /// A process that gets no turn any more. Hosts go on sending to it until they hear otherwise.
  func killSwitch(_ index: Int) { switches[index].isDead = true }

  /// It was only asleep, and goes on where it was.
  func wakeSwitch(_ index: Int) { switches[index].isDead = false }

  /// A later life of a switch that was killed.
  func restartSwitch(_ index: Int) {
    switches[index] = Switch(index, life: switches[index].owner.incarnation + 1, plan)
    introduceHosts(to: index..<index + 1)
  }

  /// The coordinator's word that a switch has the uplinks now.
  func giveUplinks(to index: Int) {
    holder = index
    announce(serving: serving)
  }

  func migrate(_ flows: Int, from source: Int, to target: Int, run: UInt32) {
    _ = runtimes[source].rings.commands.put(
      .migrate(MigrationOrder(run: run, target: FlowOwner(node: UInt32(11 + target), incarnation: 1), flows: flows)))
  }

  private func owner(_ runtime: Int) -> FlowOwner { FlowOwner(node: UInt32(11 + runtime), incarnation: 1) }

  /// The holder of one runtime's replicas.
  func protect(_ runtime: Int, by holder: Int?, stream: UInt32) {
    protect(runtime, by: holder.map { [$0] } ?? [], stream: stream)
  }

  func protect(_ runtime: Int, by holders: [Int], stream: UInt32) {
    _ = runtimes[runtime].rings.commands.put(.protect(assignment: stream, holders: holders.map(owner)))
  }

  /// A process that gets no turn any more, and whose port nobody empties.
  func kill(_ runtime: Int) { runtimes[runtime].isDead = true }
  /// It was only asleep, and goes on where it was.
  func wake(_ runtime: Int) { runtimes[runtime].isDead = false }

  /// The coordinator's word to all who live.
  func recover(_ lost: Int, by: Int?, standby: Int? = nil, run: UInt32) {
    runtimes[lost].isOver = true
    let order = RecoveryOrder(run: run, lost: owner(lost), by: by.map(owner), standby: standby.map(owner))
    for rings in livingSwitches + runtimes.filter({ !$0.isDead }).map(\.rings) { _ = rings.commands.put(.recover(order)) }
  }

  func counters(_ runtime: Int) -> Counters { runtimes[runtime].worker.published.read() }
  func drops(_ runtime: Int) -> [(code: UInt8, count: UInt64)] { runtimes[runtime].worker.published.drops() }
  var switchCounters: Counters { switches[holder].worker.published.read() }
  var switchDrops: [(code: UInt8, count: UInt64)] { switches[holder].worker.published.drops() }

  // MARK: Traffic

  /// A datagram of a flow, with its number.
  func clientSends(flow: Int, number: UInt32) {
    let packet = TestPacket.udp(endpoint("10.1.0.9", 2_000 + flow), "10.2.0.9:53", payload: Self.payload(flow, number))
    send(packet, from: .client)
  }

  func serverSends(flow: Int, number: UInt32) {
    let packet = TestPacket.udp("10.2.0.9:53", endpoint("10.1.0.9", 2_000 + flow), payload: Self.payload(flow, number))
    send(packet, from: .server)
  }

  func clientSends(_ packet: TestPacket) {
    send(packet, from: .client)
  }

  func serverSends(_ packet: TestPacket) {
    send(packet, from: .server)
  }

  /// To the link address that the hosts of this side know. With nobody behind it the packet is lost.
  private func send(_ packet: TestPacket, from side: Side) {
    let (gateway, source) = side == .client ? (gateways.client, Self.clientMAC) : (gateways.server, Self.serverMAC)
    for station in switches where !station.isDead && station.port(side).address == gateway {
      station.port(side).incoming.append(packet.link(to: gateway, from: source))
    }
  }

  /// A datagram that a switch has all the same, as if it had come before.
  func slip(flow: Int, number: UInt32, into index: Int) {
    let packet = TestPacket.udp(endpoint("10.1.0.9", 2_000 + flow), "10.2.0.9:53", payload: Self.payload(flow, number))
    let port = switches[index].client
    port.incoming.append(packet.link(to: port.address, from: Self.clientMAC))
  }

  /// A frame that somebody on this side sends to the holder of the uplinks.
  func appear(on side: Side, _ frame: (MACAddress) -> TestPacket) {
    let port = switches[holder].port(side)
    port.incoming.append(frame(port.address))
  }

  /// The longest packet that a side's link takes, in bytes.
  func limit(_ side: Side, to longest: Int) { for station in switches { station.port(side).longest = longest } }

  /// What switches have sent to one side since the last call. Its hosts believe who announces the switch's address.
  func takeSent(_ side: Side) -> [TestPacket] {
    switches.flatMap { station in
      let sent = station.port(side).takeSent()
      for packet in sent where packet.bytes[12] == 8 && packet.bytes[13] == 6 && packet.bytes[28..<32] == packet.bytes[38..<42] {
        if side == .client { gateways.client = packet.sourceMAC } else { gateways.server = packet.sourceMAC }
      }
      return sent
    }
  }

  /// What came out at one side since the last call, without its link addresses; ARP and what is for everybody left out.
  func takePackets(_ side: Side) -> [TestPacket] {
    takeSent(side).compactMap { packet in
      packet.bytes[0] & 1 == 1 || packet.bytes[12] == 8 && packet.bytes[13] == 6 ? nil : packet.link(to: MACAddress(0x02_00_00_00_00_02), from: MACAddress(0x02_00_00_00_00_01))
    }
  }

  func send(_ errand: ChainErrand, to runtime: Int) { _ = runtimes[runtime].rings.commands.put(.errand(errand)) }
  private(set) var errandsDone: [ChainErrand] = []

  private static func payload(_ flow: Int, _ number: UInt32) -> [UInt8] {
    withUnsafeBytes(of: (UInt32(flow), number)) { Array($0) } + Array(repeating: 0, count: 16)
  }

  /// Flow and number of what came out.
  static func labels(_ packets: [TestPacket]) -> [(flow: Int, number: UInt32)] {
    packets.compactMap { packet in
      guard packet.bytes.count >= 50, packet.bytes[12] == 8, packet.bytes[13] == 0 else { return nil }
      return packet.bytes.withUnsafeBytes {
        (Int($0.loadUnaligned(fromByteOffset: 42, as: UInt32.self)), $0.loadUnaligned(fromByteOffset: 46, as: UInt32.self))
      }
    }
  }

  /// What `StampingFunction` has written into what came out, by flow.
  static func stamps(_ packets: [TestPacket]) -> [(flow: Int, stamp: UInt32)] {
    packets.compactMap { packet in
      guard packet.bytes.count >= 54, packet.bytes[12] == 8, packet.bytes[13] == 0 else { return nil }
      return packet.bytes.withUnsafeBytes {
        (Int($0.loadUnaligned(fromByteOffset: 42, as: UInt32.self)), $0.loadUnaligned(fromByteOffset: 50, as: UInt32.self))
      }
    }
  }

  // MARK: Time

  func run(microseconds: UInt64) {
    let end = now + microseconds
    while now < end {
      now += 5 + UInt64(numbers.below(20))
      for station in switches where !station.isDead {
        _ = station.worker.pass(at: Tick(nanoseconds: now * 1_000))
        carry(station.fabric.takeSent())
        while station.rings.events.take() != nil {}
      }
      for runtime in runtimes where !runtime.isDead {
        // Now and then a process does not get its turn.
        if numbers.below(10) == 0 { continue }
        _ = runtime.worker.pass(at: Tick(nanoseconds: now * 1_000))
        carry(runtime.port.takeSent())
        while let event = runtime.rings.events.take() {
          if case .migration(let report) = event, report.finished != nil { reports.append(report) }
          if case .recovery(let report) = event, report.finished != nil { recoveries.append(report) }
          if case .protected(let stream, _) = event { protectedStreams.insert(stream) }
          if case .done(let errand) = event { errandsDone.append(errand) }
        }
      }
      deliver()
    }
  }

  private func carry(_ packets: [TestPacket]) {
    for packet in packets {
      let isChannel = packet.bytes[12] == 0x88 && packet.bytes[13] == 0xb5
      if isChannel, numbers.below(100) < loss { continue }
      let copies = isChannel && numbers.below(100) < doubling ? 2 : 1
      for _ in 0..<copies {
        // A link keeps its order: nothing is due before what went in earlier.
        let link = [packet.destinationMAC.value >> 8, packet.sourceMAC.value >> 8]
        let due = max(now + UInt64(numbers.below(delay + 1)), links[link]?.last?.due ?? 0)
        links[link, default: []].append(Frame(packet: packet, due: due))
      }
    }
  }

  private func deliver() {
    for link in links.keys.sorted(by: { $0.lexicographicallyPrecedes($1) }) {
      let count = links[link]!.prefix { $0.due <= now }.count
      guard count > 0 else { continue }
      // What arrives at a dead process is lost with it.
      let station = switches.first { $0.address.control.value >> 8 == link[0] }
      let port = runtimes.first { $0.address.control.value >> 8 == link[0] }?.port ?? station.flatMap { $0.isDead ? nil : $0.fabric }
      port?.incoming += links[link]!.prefix(count).map(\.packet)
      links[link]!.removeFirst(count)
    }
  }
}
