import Dataplane
import FlowActors
import Glibc
import ModuleGraphs
import NetworkFunctions
import Wire

/// A virtual switch and two runtimes of which one serves all flows and the other holds their replicas, or three where flows have
/// two replicas: the workers that ship, run in turn by one thread, each on its own account.
///
///     client ─▶ switch ─▶ owner: firewall, NAT, load balancer ─▶ holder: stores, releases ─▶ switch ─▶ server, and back
///                           └─▶ second holder: stores, acknowledges
///
/// The clock is the thread's processor time. Connections go on: every packet carries the next bytes of its side and acknowledges
/// what the other has sent, so every packet changes the state of its flow.
final class ReplicatedCluster {
  /// One life of a runtime.
  final class Life {
    let node: UInt32
    let incarnation: UInt64
    let port: FabricPort
    let rings = WorkerRings()
    let worker: Worker
    let address: FabricAddress
    fileprivate let memory = MeasuredMemory()
    /// Processor time of its passes, in nanoseconds.
    var time: UInt64 = 0

    var owner: FlowOwner { FlowOwner(node: node, incarnation: incarnation) }

    fileprivate init(place: Int, incarnation: UInt64, replicas: Int, rules: FlowRules, memory frames: FrameMemory, now: Tick) throws {
      node = UInt32(11 + place)
      self.incarnation = incarnation
      address = FabricAddress(cluster: 1, node: node)
      port = FabricPort("runtime \(place)", address.control, memory: frames)
      let chain = try ChainUnderTest.whole.makeChain(mappings: rules.capacity, share: RuntimeShare(index: place, count: 3))
      worker = Worker.runtime(
        port: port, address: address, identity: FlowOwner(node: node, incarnation: incarnation), replicas: replicas,
        chain: chain, rules: rules, seed: 43, rings: rings, now: now, memory: memory.source)
    }

    deinit { memory.free() }
  }

  let flows: Int
  let replicas: Int
  private var isReplicated: Bool { replicas > 0 }
  private let connections: Connections
  private let frames = FrameMemory(capacity: 65_536)
  private var switchMemory = MeasuredMemory()
  private let client: OutsidePort
  private let server: OutsidePort
  private let fabric: FabricPort
  private var switchRings = WorkerRings()
  private var switchWorker: Worker
  private var switchLife: UInt64 = 1
  private(set) var takeovers: [RecoveryReport] = []
  private var rules: FlowRules
  /// By place; `nil` while it is dead.
  private(set) var runtimes: [Life?] = []
  /// Which of them has the flows.
  private(set) var owner = 0
  private(set) var switchTime: UInt64 = 0
  private let outside: Outside
  private var version: UInt64 = 0
  private var stream: UInt32 = 0
  private var lives: UInt64 = 1
  private(set) var recoveries: [RecoveryReport] = []
  private var protectedStreams: Set<UInt32> = []

  private let templates: [PreparedFrames]
  /// What either side of each connection has sent: client's, server's, in turn.
  private var sent: [UInt32]
  private var turnOfFlow = 0
  /// Bytes of payload of the packets to come, in turn.
  var payloads = [6]

  /// What packets that come out are for.
  private final class Outside {
    var isOpening = true
    var count = 0
    var learn: ((UnsafeRawPointer) -> Void)?
    /// Where packets that carry labels are noted.
    var note: ((UnsafeRawPointer, Bool) -> Void)?
  }

  init(flows: Int, replicas: Int) throws {
    self.flows = flows
    self.replicas = replicas
    connections = Connections(count: flows)
    let (outside, memory) = (Outside(), frames)
    self.outside = outside
    func uplink(_ name: String, _ number: UInt64, isForward: Bool) -> OutsidePort {
      OutsidePort(
        name, MACAddress(0x02_00_00_00_00_00 | number), neighbor: MACAddress(0x02_00_00_00_0c_00 | number), memory: memory
      ) { bytes in
        outside.count += 1
        if outside.isOpening {
          if isForward { outside.learn?(bytes) }
        } else {
          outside.note?(bytes + 54, isForward)
        }
      }
    }
    client = uplink("client", 1, isForward: false)
    server = uplink("server", 2, isForward: true)
    fabric = FabricPort("fabric", MACAddress(0x02_00_00_00_00_03), memory: memory)
    switchWorker = Self.makeSwitch(
      SwitchPorts(client: client, server: server, fabric: fabric), life: 1, flows: flows, isReplicated: replicas > 0, switchRings,
      switchMemory, now: .zero)
    rules = FlowRules()
    rules.ipv6Capacity = 0
    rules.capacity = flows + flows / 8 + 64
    templates = [PreparedFrames(capacity: flows), PreparedFrames(capacity: flows)]
    sent = Array(repeating: 0, count: flows * 2)
    runtimes = try (0..<max(2, replicas + 1)).map {
      try Life(place: $0, incarnation: 1, replicas: replicas, rules: rules, memory: frames, now: .zero)
    }
    announce()
    // Until the runtimes have told the switch that they have no flows.
    for _ in 0..<2_000 { turn() }
    if isReplicated { try protect() }
    try open()
  }

  private static func makeSwitch(
    _ ports: SwitchPorts, life: UInt64, flows: Int, isReplicated: Bool, _ rings: WorkerRings, _ memory: MeasuredMemory, now: Tick
  ) -> Worker {
    var rules = FlowRules()
    // A switch has a route for each key of a flow.
    rules.capacity = flows * 2 + flows / 4 + 128
    rules.ipv6Capacity = 0
    return Worker.virtualSwitch(
      ports: ports, address: FabricAddress(cluster: 1, node: 1), identity: FlowOwner(node: 1, incarnation: life),
      client: UplinkSettings(interfaces: [.init(address: IPv4Address("10.3.255.254")!, prefixLength: 16)]),
      server: UplinkSettings(interfaces: [.init(address: IPv4Address("10.2.255.254")!, prefixLength: 16)]),
      rules: rules, isReplicated: isReplicated, seed: 42 &+ life, rings: rings, now: now, memory: memory.source)
  }

  // MARK: Who there is

  /// Another switch has the uplinks, and knows no flow.
  func replaceSwitch() {
    let old = switchMemory
    (switchRings, switchMemory, switchLife) = (WorkerRings(), MeasuredMemory(), switchLife + 1)
    switchWorker = Self.makeSwitch(
      SwitchPorts(client: client, server: server, fabric: fabric), life: switchLife, flows: flows, isReplicated: isReplicated,
      switchRings, switchMemory, now: now())
    old.free()
    announce()
  }

  private func announce() {
    version += 1
    let living = runtimes.compactMap { $0 }
    FabricPort.connect([(1, fabric)] + living.map { ($0.node, $0.port) })
    let peers = [Peer(node: 1, incarnation: switchLife, isSwitch: true, isAlive: true)] + living.map {
      Peer(node: $0.node, incarnation: $0.incarnation, isSwitch: false, isAlive: true)
    }
    let entries = living.map {
      // New flows go to the owner of the others.
      RuntimeTable.Entry(
        node: $0.node, incarnation: $0.incarnation, input: $0.address.address(of: .client),
        output: $0.address.address(of: .server), isServing: true, flows: $0.node == UInt32(11 + owner) ? 0 : 1 << 40)
    }
    let members = WorkerCommand.Members(version: version, entries: entries, peers: peers)
    for rings in [switchRings] + living.map(\.rings) { _ = rings.commands.put(.members(members)) }
  }

  /// Makes the other runtimes the holders of the owner's replicas, and waits until they have all there are.
  func protect() throws {
    stream += 1
    let stream = stream
    _ = runtimes[owner]!.rings.commands.put(.protect(assignment: stream, holders: holders.map(\.owner)))
    for _ in 0..<2_000_000 where !protectedStreams.contains(stream) { turn() }
    guard protectedStreams.contains(stream) else { throw BenchmarkError("the holder has not got every replica\(drops())") }
  }

  /// The other runtimes, the first holder first.
  private var holders: [Life] { runtimes.indices.filter { $0 != owner }.compactMap { runtimes[$0] } }

  /// The owner gets no turn any more, and nobody fetches what is sent to it.
  func kill() {
    buried = runtimes[owner]?.port
    runtimes[owner] = nil
  }

  /// The port of who died last.
  private var buried: FabricPort?

  /// The coordinator's word that the owner is dead and who has its flows now.
  func recover(run: UInt32) {
    let order = RecoveryOrder(
      run: run, lost: FlowOwner(node: UInt32(11 + owner), incarnation: lastLives[owner]), by: runtimes[1 - owner]!.owner)
    for rings in [switchRings, runtimes[1 - owner]!.rings] { _ = rings.commands.put(.recover(order)) }
    owner = 1 - owner
  }

  private var lastLives: [UInt64] = [1, 1]

  /// A new life in the place of the dead one, to hold the replicas from now on.
  func replace() throws {
    let place = 1 - owner
    lives += 1
    lastLives[place] = lives
    buried?.discard()
    runtimes[place] = try Life(
      place: place, incarnation: lives, replicas: replicas, rules: rules, memory: frames, now: now())
    announce()
    for _ in 0..<200 { turn() }
    try protect()
  }

  // MARK: Time

  func now() -> Tick { Tick(nanoseconds: Stopwatch.processorTime()) }

  /// Lets each worker work until it has nothing waiting, as one with a core of its own would in this time.
  func turn() {
    let now = now()
    var before = now.nanoseconds
    pass(switchWorker, now) { self.client.waiting + self.server.waiting + self.fabric.waiting }
    var after = Stopwatch.processorTime()
    switchTime += after - before
    before = after
    for runtime in runtimes {
      guard let runtime else { continue }
      pass(runtime.worker, now) { runtime.port.waiting }
      after = Stopwatch.processorTime()
      runtime.time += after - before
      before = after
      hear(runtime)
    }
    while let event = switchRings.events.take() { if case .tookOver(let report) = event { takeovers.append(report) } }
  }

  private func hear(_ runtime: Life) {
    while let event = runtime.rings.events.take() {
      if case .recovery(let report) = event { recoveries.append(report) }
      if case .protected(let stream, _) = event { protectedStreams.insert(stream) }
    }
  }

  private func pass(_ worker: Worker, _ now: Tick, waiting: () -> Int) {
    var passes = 0
    repeat {
      _ = worker.pass(at: now)
      passes += 1
    } while waiting() > 0 && passes < 64
  }

  // MARK: Connections

  private func open() throws {
    outside.learn = { [connections] in connections.learn(from: $0) }
    try exchange(.syn)
    outside.learn = nil
    try exchange(.synAck)
    let (client, server) = (Connections.Segment.clientStart + 1, Connections.Segment.serverStart + 1)
    try exchange(.init(flags: 0x10, sequence: client, acknowledgement: server))
    for flow in 0..<flows {
      let (there, back) = (templates[0].append(), templates[1].append())
      connections.write(flow, .init(flags: 0x10, sequence: client, acknowledgement: server, payload: 6), to: there)
      connections.write(
        flow, .init(flags: 0x10, sequence: server, acknowledgement: client, payload: 6, isForward: false), to: back)
      self.client.address(there)
      self.server.address(back)
    }
    outside.isOpening = false
  }

  /// A segment of every connection, through the chain.
  private func exchange(_ segment: Connections.Segment) throws {
    outside.count = 0
    var sent = 0
    while sent < flows {
      // The first wait for their neighbors' addresses.
      for _ in 0..<min(sent < 64 ? 1 : QueuedPort.burst, flows - sent) {
        let bytes = frames.take()!
        bytes.initializeMemory(as: UInt8.self, repeating: 0, count: 128)
        connections.write(sent, segment, to: bytes)
        let port = segment.isForward ? client : server
        port.address(bytes)
        _ = port.put(bytes, length: 60)
        sent += 1
      }
      for _ in 0..<8 where outside.count < sent { turn() }
    }
    for _ in 0..<1_000 where outside.count < sent { turn() }
    guard outside.count == flows else {
      throw BenchmarkError("of \(flows) connections \(outside.count) were opened\(drops())")
    }
  }

  // MARK: Traffic

  /// Puts the next packets of the traffic in: flow after flow, a packet there and, in the next round, one back.
  ///
  /// - Returns: bytes of their frames.
  func inject(_ count: Int, label: ((UnsafeMutableRawPointer, _ flow: Int, _ isForward: Bool) -> Void)? = nil) -> Int {
    var byteCount = 0
    for _ in 0..<count {
      let flow = Int(UInt64(turnOfFlow) &* 7_919 % UInt64(flows))
      let isForward = (turnOfFlow / flows + turnOfFlow) & 1 == 0
      let payload = payloads[turnOfFlow % payloads.count]
      turnOfFlow += 1
      guard let bytes = frames.take() else { return byteCount }
      let (side, frames) = (isForward ? 0 : 1, templates[isForward ? 0 : 1])
      bytes.copyMemory(from: frames.base + flow * frames.stride, byteCount: 54)
      (bytes + 54).initializeMemory(as: UInt8.self, repeating: 0, count: max(6, payload))
      goOn(bytes, by: sent[flow * 2 + side], acknowledging: sent[flow * 2 + 1 - side], payload: payload)
      sent[flow * 2 + side] &+= UInt32(payload)
      label?(bytes + 54, flow, isForward)
      let length = max(60, 54 + payload)
      byteCount += length
      _ = (isForward ? client : server).put(bytes, length: length)
    }
    return byteCount
  }

  /// Makes the connection's first packet a later one: checksums follow (RFC 1624).
  private func goOn(_ bytes: UnsafeMutableRawPointer, by advance: UInt32, acknowledging: UInt32, payload: Int) {
    func exchange(_ at: Int, _ old: UInt16, _ new: UInt16) {
      let sum = UInt64(~bytes.load(fromByteOffset: at, as: UInt16.self)) + UInt64(~old.bigEndian) + UInt64(new.bigEndian)
      bytes.storeBytes(of: ~Checksum.fold(sum), toByteOffset: at, as: UInt16.self)
    }
    if payload != 6 {
      exchange(24, 46, UInt16(40 + payload))
      exchange(50, 26, UInt16(20 + payload))
      bytes.storeBytes(of: UInt16(40 + payload).bigEndian, toByteOffset: 16, as: UInt16.self)
    }
    var sum = UInt64(~bytes.load(fromByteOffset: 50, as: UInt16.self))
    for (at, more) in [(38, advance), (42, acknowledging)] {
      let old = bytes.loadUnaligned(fromByteOffset: at, as: UInt32.self)
      let new = (UInt32(bigEndian: old) &+ more).bigEndian
      bytes.storeBytes(of: new, toByteOffset: at, as: UInt32.self)
      sum += UInt64(~old) + UInt64(new)
    }
    bytes.storeBytes(of: ~Checksum.fold(sum), toByteOffset: 50, as: UInt16.self)
  }

  func hearPackets(_ note: ((UnsafeRawPointer, Bool) -> Void)?) { outside.note = note }

  /// Packets that have come out since connections were opened.
  var received: Int { outside.count }

  /// What so many packets have cost the owner, the holders and the switch, in nanoseconds per packet, and the bytes of the
  /// owner's frames to the holder beyond the packets. All packets have come out, or it throws.
  struct Cost {
    var owner, holder, network: Double
    /// Of the holder that packets wait for; 0 without one.
    var second: Double
    var bytes, frames: Double
  }

  func play(_ packets: Int, atOnce: Int = 256) throws -> Cost {
    let owner = runtimes[owner]!
    let (holder, second) = (holders[0], holders.dropFirst().first)
    let (times, channelBytes, channelFrames) = ((owner.time, holder.time, switchTime), owner.port.channelBytes, owner.port.channelFrames)
    let secondTime = second?.time ?? 0
    var (target, byteCount, rest) = (outside.count, 0, packets)
    while rest > 0 {
      let count = min(atOnce, rest)
      byteCount += inject(count)
      rest -= count
      target += count
      for _ in 0..<1_000 where outside.count < target { turn() }
      guard outside.count == target else { throw BenchmarkError("\(target - outside.count) packets were lost\(drops())") }
    }
    let count = Double(packets)
    let overhead = owner.port.channelBytes - channelBytes - (isReplicated ? byteCount : 0)
    return Cost(
      owner: Double(owner.time - times.0) / count, holder: Double(holder.time - times.1) / count,
      network: Double(switchTime - times.2) / count, second: Double((second?.time ?? 0) - secondTime) / count, bytes: Double(overhead) / count,
      frames: Double(owner.port.channelFrames - channelFrames) / count)
  }

  func drops() -> String {
    for _ in 0..<1_000 { turn() }
    let workers = [("switch", switchWorker)] + runtimes.compactMap { $0 }.map { ("node \($0.node)", $0.worker) }
    return workers.map { name, worker in "; \(name) dropped \(worker.published.drops().map { "\($0.count) for \($0.code)" })" }
      .joined()
  }
}
