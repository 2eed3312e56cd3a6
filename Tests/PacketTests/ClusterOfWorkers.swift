import Dataplane
import FlowActors
import FunctionCatalog
import NetworkFunctionTesting
import NetworkFunctions
import Simulation
import Wire

/// A virtual switch and runtimes, the workers that ship, with a fabric between them that keeps the order of each link but
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
  }

  let client: WirePort
  let server: WirePort
  private let fabric: WirePort
  private let switchRings = WorkerRings()
  private let switchWorker: Worker
  private var runtimes: [Runtime] = []
  private let switchAddress = FabricAddress(cluster: 1, node: 1)
  private let memory = WireMemory()
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

  private static let clientMAC = MACAddress(0x02_00_00_00_0c_01)
  private static let serverMAC = MACAddress(0x02_00_00_00_05_01)

  /// - Parameter chain: of each runtime, by its share of the pools.
  init(
    runtimes count: Int, seed: UInt64, isReplicated: Bool = false, entrance: ServerSideEntrance = .closed,
    chain: (RuntimeShare) -> ServiceChain = { ServiceChain([ServiceStage("packet-counter", PacketCounter(), share: $0)]) }
  ) {
    numbers = SeededNumbers(seed: seed)
    client = WirePort("client", MACAddress(0x02_00_00_00_00_01), memory: memory)
    server = WirePort("server", MACAddress(0x02_00_00_00_00_02), memory: memory)
    fabric = WirePort("fabric", MACAddress(0x02_00_00_00_00_03), memory: memory)
    var rules = FlowRules()
    rules.capacity = 4_096
    rules.ipv6Capacity = 64
    var clientSide = UplinkSettings(interfaces: [.init(address: IPv4Address("10.1.0.1")!, prefixLength: 24)])
    clientSide.ipv6.interfaces = [(IPAddress("2001:db8:1::1")!, AddressBlock("2001:db8:1::/64")!)]
    switchWorker = Worker.virtualSwitch(
      ports: SwitchPorts(client: client, server: server, fabric: fabric), address: switchAddress,
      identity: FlowOwner(node: 1, incarnation: 1), entrance: entrance,
      client: clientSide,
      server: UplinkSettings(interfaces: [.init(address: IPv4Address("10.2.0.1")!, prefixLength: 24)]),
      rules: rules, isReplicated: isReplicated, seed: seed, rings: switchRings, now: .zero, memory: .plain)
    for index in 0..<count {
      let node = UInt32(11 + index)
      let address = FabricAddress(cluster: 1, node: node)
      let port = WirePort("runtime \(index)", address.address(of: .client))
      let rings = WorkerRings()
      let worker = Worker.runtime(
        port: port, address: address, identity: FlowOwner(node: node, incarnation: 1), isReplicated: isReplicated,
        chain: chain(RuntimeShare(index: index, count: count)), rules: rules,
        seed: seed &+ UInt64(index),
        rings: rings, now: .zero, memory: .plain)
      runtimes.append(Runtime(port: port, rings: rings, worker: worker, address: address))
    }
    client.incoming.append(.arp(.reply, from: Self.clientMAC, "10.1.0.9", to: client.address, "10.1.0.1"))
    server.incoming.append(.arp(.reply, from: Self.serverMAC, "10.2.0.9", to: server.address, "10.2.0.1"))
    // The switch believes what it has asked for only.
    client.incoming.append(.arp(.request, from: Self.clientMAC, "10.1.0.9", to: .zero, "10.1.0.1"))
    server.incoming.append(.arp(.request, from: Self.serverMAC, "10.2.0.9", to: .zero, "10.2.0.1"))
    announce(serving: Array(0..<count))
    run(microseconds: 2_000)
    _ = client.takeSent()
    _ = server.takeSent()
  }

  /// Tells everybody who is in the cluster; new flows go to the first of `serving`.
  func announce(serving: [Int]) {
    version += 1
    var peers = [Peer(node: 1, incarnation: 1, isSwitch: true, isAlive: true)]
    var entries: [RuntimeTable.Entry] = []
    for (index, runtime) in runtimes.enumerated() {
      let node = UInt32(11 + index)
      peers.append(Peer(node: node, incarnation: 1, isSwitch: false, isAlive: !runtime.isDead))
      entries.append(
        .init(
          node: node, incarnation: 1, input: runtime.address.address(of: .client), output: runtime.address.address(of: .server),
          isServing: serving.contains(index), isAlive: !runtime.isDead, flows: UInt64(index) * 1_000_000,
          share: RuntimeShare(index: index, count: runtimes.count)))
    }
    let members = WorkerCommand.Members(version: version, entries: entries, peers: peers)
    for rings in [switchRings] + runtimes.map(\.rings) { _ = rings.commands.put(.members(members)) }
  }

  func migrate(_ flows: Int, from source: Int, to target: Int, run: UInt32) {
    _ = runtimes[source].rings.commands.put(
      .migrate(MigrationOrder(run: run, target: FlowOwner(node: UInt32(11 + target), incarnation: 1), flows: flows)))
  }

  private func owner(_ runtime: Int) -> FlowOwner { FlowOwner(node: UInt32(11 + runtime), incarnation: 1) }

  /// The holder of one runtime's replicas.
  func protect(_ runtime: Int, by holder: Int?, stream: UInt32) {
    _ = runtimes[runtime].rings.commands.put(.protect(stream: stream, holder: holder.map(owner)))
  }

  /// A process that gets no turn any more, and whose port nobody empties.
  func kill(_ runtime: Int) { runtimes[runtime].isDead = true }
  /// It was only asleep, and goes on where it was.
  func wake(_ runtime: Int) { runtimes[runtime].isDead = false }

  /// The coordinator's word to all who live.
  func recover(_ lost: Int, by: Int?, run: UInt32) {
    let order = RecoveryOrder(run: run, lost: owner(lost), by: by.map(owner))
    for rings in [switchRings] + runtimes.filter({ !$0.isDead }).map(\.rings) { _ = rings.commands.put(.recover(order)) }
  }

  func counters(_ runtime: Int) -> Counters { runtimes[runtime].worker.published.read() }
  func drops(_ runtime: Int) -> [(code: UInt8, count: UInt64)] { runtimes[runtime].worker.published.drops() }
  var switchCounters: Counters { switchWorker.published.read() }
  var switchDrops: [(code: UInt8, count: UInt64)] { switchWorker.published.drops() }

  // MARK: Traffic

  /// A datagram of a flow, with its number.
  func clientSends(flow: Int, number: UInt32) {
    let packet = TestPacket.udp(endpoint("10.1.0.9", 2_000 + flow), "10.2.0.9:53", payload: Self.payload(flow, number))
    client.incoming.append(packet.link(to: client.address, from: Self.clientMAC))
  }

  func serverSends(flow: Int, number: UInt32) {
    let packet = TestPacket.udp("10.2.0.9:53", endpoint("10.1.0.9", 2_000 + flow), payload: Self.payload(flow, number))
    server.incoming.append(packet.link(to: server.address, from: Self.serverMAC))
  }

  func clientSends(_ packet: TestPacket) {
    client.incoming.append(packet.link(to: client.address, from: Self.clientMAC))
  }

  func serverSends(_ packet: TestPacket) {
    server.incoming.append(packet.link(to: server.address, from: Self.serverMAC))
  }

  /// What came out at one side since the last call, without its link addresses, ARP left out.
  func takePackets(_ side: Side) -> [TestPacket] {
    (side == .client ? client : server).takeSent().compactMap { packet in
      packet.bytes[12] == 8 && packet.bytes[13] == 6 ? nil : packet.link(to: MACAddress(0x02_00_00_00_00_02), from: MACAddress(0x02_00_00_00_00_01))
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
      _ = switchWorker.pass(at: Tick(nanoseconds: now * 1_000))
      carry(fabric.takeSent())
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
      while switchRings.events.take() != nil {}
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
      let port = runtimes.first { $0.address.control.value >> 8 == link[0] }?.port ?? fabric
      port.incoming += links[link]!.prefix(count).map(\.packet)
      links[link]!.removeFirst(count)
    }
  }
}
