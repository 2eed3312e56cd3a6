import Dataplane
import FlowActors
import ModuleGraphs
import NetworkFunctions
import Wire

/// A virtual switch and one or several pairs of runtimes, the workers that ship with their channels and migrations, run in turn by
/// one thread.
///
///     client ─▶ switch ─▶ source or target: firewall, NAT, load balancer ─▶ switch ─▶ server, and back
///
/// The clock is the thread's processor time, read once for every turn: what other processes take of the core is not in it, and
/// what each worker does delays the others.
final class MigrationCluster {
  private struct Runtime {
    let port: FabricPort
    let rings: WorkerRings
    let worker: Worker
    let address: FabricAddress
  }

  let flows: Int
  let book: PacketBook
  private let connections: Connections
  private let memory = FrameMemory(capacity: 65_536)
  private let workerMemory = MeasuredMemory()
  private let client: OutsidePort
  private let server: OutsidePort
  private let fabric: FabricPort
  private let switchRings = WorkerRings()
  private let switchWorker: Worker
  /// Sources and targets in turn.
  private let runtimes: [Runtime]
  /// Processor time of the switch, of the runtimes that are sources now, and of the targets, in nanoseconds.
  private(set) var busy = (switches: UInt64(0), sources: UInt64(0), targets: UInt64(0))
  private let learning: Learning
  private(set) var reports: [MigrationReport] = []
  private var runs: UInt32 = 0
  /// Which of each pair of runtimes has the flows.
  private var owner = 0
  private let forward: PreparedFrames
  private let reverse: PreparedFrames
  /// Packets of the traffic so far.
  private var turnOfFlow = 0

  /// What packets that come out are for: opening connections, or the book.
  private final class Learning {
    var isOpening = true
    var opened = 0
    var learn: ((UnsafeRawPointer) -> Void)?
  }

  init(flows: Int, pairs: Int = 1) throws {
    self.flows = flows
    let (book, learning, memory) = (PacketBook(flows: flows), Learning(), memory)
    (self.book, self.learning) = (book, learning)
    connections = Connections(count: flows, payload: PacketBook.labelLength)
    func outside(_ name: String, _ number: UInt64, isForward: Bool) -> OutsidePort {
      OutsidePort(
        name, MACAddress(0x02_00_00_00_00_00 | number), neighbor: MACAddress(0x02_00_00_00_0c_00 | number), memory: memory
      ) { bytes in
        guard learning.isOpening else { return book.note(bytes + 54, isForward: isForward) }
        learning.opened += 1
        if isForward { learning.learn?(bytes) }
      }
    }
    client = outside("client", 1, isForward: false)
    server = outside("server", 2, isForward: true)
    fabric = FabricPort("fabric", MACAddress(0x02_00_00_00_00_03), memory: memory)
    var rules = FlowRules()
    // A switch has a route for each key of a flow.
    rules.capacity = flows * 2 + flows / 4 + 128
    rules.ipv6Capacity = 0
    switchWorker = Worker.virtualSwitch(
      ports: SwitchPorts(client: client, server: server, fabric: fabric), address: FabricAddress(cluster: 1, node: 1),
      identity: FlowOwner(node: 1, incarnation: 1),
      client: UplinkSettings(interfaces: [.init(address: IPv4Address("10.3.255.254")!, prefixLength: 16)]),
      server: UplinkSettings(interfaces: [.init(address: IPv4Address("10.2.255.254")!, prefixLength: 16)]),
      rules: rules, seed: 42, rings: switchRings, now: .zero, memory: workerMemory.source)
    rules.capacity = flows + flows / 8 + 64
    runtimes = try (0..<2 * pairs).map { [rules, workerMemory] index in
      let address = FabricAddress(cluster: 1, node: UInt32(11 + index))
      let (port, rings) = (FabricPort("runtime \(index)", address.control, memory: memory), WorkerRings())
      let chain = try ChainUnderTest.whole.makeChain(
        mappings: rules.capacity, share: RuntimeShare(index: index, count: 2 * pairs))
      let worker = Worker.runtime(
        port: port, address: address, identity: FlowOwner(node: UInt32(11 + index), incarnation: 1), chain: chain, rules: rules,
        seed: 43 + UInt64(index), rings: rings, now: .zero, memory: workerMemory.source)
      return Runtime(port: port, rings: rings, worker: worker, address: address)
    }
    forward = PreparedFrames(capacity: flows, length: 54 + PacketBook.labelLength)
    reverse = PreparedFrames(capacity: flows, length: 54 + PacketBook.labelLength)
    FabricPort.connect([(1, fabric)] + runtimes.enumerated().map { (UInt32(11 + $0), $1.port) })
    announce()
    try open()
  }

  private func announce() {
    let peers = ([1] + runtimes.indices.map { UInt32(11 + $0) }).map {
      Peer(node: $0, incarnation: 1, isSwitch: $0 == 1, isAlive: true)
    }
    let entries = runtimes.enumerated().map { index, runtime in
      // New flows go to the first of each pair.
      RuntimeTable.Entry(
        node: UInt32(11 + index), incarnation: 1, input: runtime.address.address(of: .client),
        output: runtime.address.address(of: .server), isServing: true, flows: UInt64(index % 2) << 40)
    }
    let members = WorkerCommand.Members(version: 1, entries: entries, peers: peers)
    for rings in [switchRings] + runtimes.map(\.rings) { _ = rings.commands.put(.members(members)) }
    for _ in 0..<100 { turn() }
  }

  // MARK: Time

  /// Lets each worker work until it has nothing waiting, as one with a core of its own would in this time.
  private func turn() {
    let now = Tick(nanoseconds: Stopwatch.processorTime())
    book.now = now.nanoseconds
    pass(switchWorker, now) { self.client.waiting + self.server.waiting + self.fabric.waiting }
    var before = now.nanoseconds
    func spent() -> UInt64 {
      let now = Stopwatch.processorTime()
      defer { before = now }
      return now - before
    }
    busy.switches += spent()
    for (index, runtime) in runtimes.enumerated() {
      pass(runtime.worker, now) { runtime.port.waiting }
      // The flows are on their way to the owner.
      if index % 2 == owner { busy.targets += spent() } else { busy.sources += spent() }
      while let event = runtime.rings.events.take() {
        if case .migration(let report) = event, report.finished != nil { reports.append(report) }
      }
    }
    while switchRings.events.take() != nil {}
  }

  private func pass(_ worker: Worker, _ now: Tick, waiting: () -> Int) {
    var passes = 0
    repeat {
      _ = worker.pass(at: now)
      passes += 1
    } while waiting() > 0 && passes < 8
  }

  // MARK: Connections

  private func open() throws {
    learning.learn = { [connections] in connections.learn(from: $0) }
    try exchange(.syn)
    learning.learn = nil
    try exchange(.synAck)
    let (client, server) = (Connections.Segment.clientStart + 1, Connections.Segment.serverStart + 1)
    try exchange(.init(flags: 0x10, sequence: client, acknowledgement: server))
    let payload = PacketBook.labelLength
    for flow in 0..<flows {
      let (there, back) = (forward.append(), reverse.append())
      connections.write(flow, .init(flags: 0x10, sequence: client, acknowledgement: server, payload: payload), to: there)
      connections.write(
        flow, .init(flags: 0x10, sequence: server, acknowledgement: client, payload: payload, isForward: false), to: back)
      self.client.address(there)
      self.server.address(back)
    }
    learning.isOpening = false
  }

  /// A segment of every connection, through the chain.
  private func exchange(_ segment: Connections.Segment) throws {
    learning.opened = 0
    var sent = 0
    while sent < flows {
      // The first wait for their neighbors' addresses.
      for _ in 0..<min(sent < 64 ? 1 : QueuedPort.burst, flows - sent) {
        let bytes = memory.take()!
        bytes.initializeMemory(as: UInt8.self, repeating: 0, count: 128)
        connections.write(sent, segment, to: bytes)
        let port = segment.isForward ? client : server
        port.address(bytes)
        _ = port.put(bytes, length: 60)
        sent += 1
      }
      for _ in 0..<8 where learning.opened < sent { turn() }
    }
    for _ in 0..<1_000 where learning.opened < sent { turn() }
    guard learning.opened == flows else {
      throw BenchmarkError("of \(flows) connections \(learning.opened) were opened\(drops())")
    }
  }

  // MARK: Traffic

  /// Puts the next packets of the traffic in: flow after flow, a packet there and, in the next round, one back.
  private func inject(_ count: Int) {
    for _ in 0..<count {
      let flow = Int(UInt64(turnOfFlow) &* 7_919 % UInt64(flows))
      let isForward = (turnOfFlow / flows + turnOfFlow) & 1 == 0
      turnOfFlow += 1
      guard let bytes = memory.take() else { return }
      let frames = isForward ? forward : reverse
      bytes.copyMemory(from: frames.base + flow * frames.stride, byteCount: frames.length)
      book.label(bytes + 54, flow: flow, isForward: isForward)
      _ = (isForward ? client : server).put(bytes, length: frames.length)
    }
  }

  /// Lets `packetsPerSecond` come until `isDone`.
  func play(_ packetsPerSecond: Double, until isDone: () -> Bool) {
    let start = Stopwatch.processorTime()
    var sent = 0
    while !isDone() {
      let due = Int(Double(Stopwatch.processorTime() - start) * packetsPerSecond / 1e9)
      let count = min(2 * QueuedPort.burst, due - sent)
      if count > 0 {
        book.now = Stopwatch.processorTime()
        inject(count)
        sent += count
      }
      turn()
    }
  }

  /// Waits for everything that is under way; then, if asked to, for two packets of every flow, one each way. All have come
  /// out, in order, or it throws.
  func settle(checkingAll: Bool = true) throws {
    for _ in 0..<100_000 where book.underWay > 0 { turn() }
    var rest = checkingAll ? 2 * flows : 0
    while rest > 0 {
      let count = min(QueuedPort.burst, rest)
      inject(count)
      rest -= count
      turn()
    }
    for _ in 0..<100_000 where book.underWay > 0 { turn() }
    guard book.underWay == 0, book.disordered == 0 else {
      throw BenchmarkError("\(book.underWay) packets were lost and \(book.disordered) out of order\(drops())")
    }
  }

  /// The longest time of each flow's packets, in microseconds, of flows that had any.
  var times: [Double] { book.longest.lazy.filter { $0 > 0 }.map { Double($0) / 1_000 } }

  // MARK: Migration

  /// What moving all flows has come to, over all pairs.
  struct Move {
    var nanoseconds: UInt64 = 0
    var stateBytes: UInt64 = 0
    var channelBytes = 0
    var missedDeadlines = 0
  }

  /// Moves all flows to the other runtime of each pair, while packets come at this rate.
  func migrate(packetsPerSecond: Double) throws -> Move {
    let (source, before) = (owner, channelBytes)
    owner = 1 - owner
    runs += 1
    reports = []
    book.forgetTimes()
    busy = (0, 0, 0)
    let pairs = runtimes.count / 2
    for pair in 0..<pairs {
      let order = MigrationOrder(
        run: runs, target: FlowOwner(node: UInt32(11 + pair * 2 + owner), incarnation: 1), flows: flows)
      _ = runtimes[pair * 2 + source].rings.commands.put(.migrate(order))
    }
    let deadline = Stopwatch.processorTime() + 120_000_000_000
    play(packetsPerSecond) { self.reports.count == pairs || Stopwatch.processorTime() > deadline }
    guard reports.count == pairs else { throw BenchmarkError("\(flows) flows have not moved within two minutes\(drops())") }
    let moved = reports.reduce(0) { $0 + $1.moved }
    guard moved == flows else {
      let (refused, returned) = (reports.reduce(0) { $0 + $1.refused }, reports.reduce(0) { $0 + $1.returned })
      throw BenchmarkError("of \(flows) flows \(moved) moved; \(refused) were refused, \(returned) taken back\(drops())")
    }
    let (first, last) = (reports.map(\.started).min()!, reports.map { $0.finished! }.max()!)
    return Move(
      nanoseconds: last.nanoseconds - first.nanoseconds, stateBytes: reports.reduce(0) { $0 + $1.bytes },
      channelBytes: channelBytes - before, missedDeadlines: reports.reduce(0) { $0 + $1.missedDeadlines })
  }

  private var channelBytes: Int { fabric.channelBytes + runtimes.reduce(0) { $0 + $1.port.channelBytes } }

  private func drops() -> String {
    for _ in 0..<1_000 { turn() }
    let workers = [("switch", switchWorker)] + runtimes.enumerated().map { ("runtime \($0)", $1.worker) }
    return workers.map { name, worker in "; \(name) dropped \(worker.published.drops().map { "\($0.count) for \($0.code)" })" }
      .joined()
  }
}
