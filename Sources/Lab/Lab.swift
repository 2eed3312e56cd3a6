import ControlMessages
import ControlNodes
import ControlPlane
import Glibc
import KafkaLog

/// The whole system on one machine, for as long as one likes: network namespaces, bus, coordinator, agent, runtimes and
/// a switch on DPDK ports, two nginx behind them, and real clients in front.
///
/// ```
///   network ─▶ bus ─▶ coordinator ─▶ agent ─▶ apply ─▶ servers ─▶ (everything serves) ─▶ clients ─▶ ... ─▶ end
/// ```
///
/// Whatever happens on the way, `run` ends what it started and removes what it made, in the reverse order. The lab
/// does not help the platform: it starts processes, and then only reads the log and what its clients report.
public final class Lab {
  public struct Settings: Sendable {
    public var runtimes = 2
    /// Of traffic; nil: until a signal comes.
    public var seconds: Int?
    public var clusterFile: String?
    /// Where `nfvactor`, `nfv-coordinator` and `nfvctl` are.
    public var binaries: String
    public var keepsLogs = false
    /// Seconds of traffic after which the coordinator is killed; it is started again two seconds later.
    public var killCoordinatorAt: Int?
    /// The same of the bus: packets do not need it.
    public var killBusAt: Int?
    /// Seconds between migrations: all flows of one runtime to another, and back, by `nfvctl migrate`.
    public var migrateEvery: Int?
    /// Replicas of each flow.
    public var replicas = 0
    /// Seconds between kills: the runtimes in turn, with SIGKILL, each time when all flows have replicas again.
    public var killRuntimeEvery: Int?
    /// The same of a runtime and its first holder, in one moment, each time when all flows have two replicas again.
    public var killPairEvery: Int?
    /// Switches: one has the uplinks, the others stand by.
    public var switches = 1
    /// Seconds between kills of the switch that has the uplinks, each time when everything serves.
    public var killSwitchEvery: Int?
    /// Seconds of traffic after which a failure is brought about.
    var harms: [LabHarm.Kind: Int] = [:]
    /// A runtime stands still (SIGSTOP); its agent is to see it.
    public var freezeRuntimeAt: Int? { didSet { harms[.frozenRuntime] = freezeRuntimeAt } }
    /// A runtime and its agent stand still, and go on when its flows are others'.
    public var zombieAt: Int? { didSet { harms[.zombie] = zombieAt } }
    /// A runtime's cable to the fabric is pulled out.
    public var cutFabricAt: Int? { didSet { harms[.fabricCut] = cutFabricAt } }
    /// A host with one runtime loses the bus for some seconds, and nothing else.
    public var cutBusAt: Int? { didSet { harms[.busCut] = cutBusAt } }
    /// So many downloads at once instead of the usual clients: long ones, paced by the server, each checked byte by byte; and a
    /// packet counter behind the chain that must see neither gap nor reordering.
    public var transfers: Int?
    /// Whether the clients have IPv6 only, and reach the servers through NAT64.
    public var ipv6Clients = false
    /// What `tc netem` does to every frame on its way to a runtime or the switch, such as `delay 1ms 200us loss 0.1%`.
    public var netem: [String] = []
    /// The same by the nodes' own ports, on any kernel: `loss=0.1%;delay=1ms;jitter=200us`.
    public var impairment: String?

    public init(binaries: String) { self.binaries = binaries }
  }

  private let settings: Settings
  private let network: LabNetwork
  private let directory: String
  private let logs: String
  private let isStopRequested: () -> Bool
  private let screen = Screen()
  private let clock = ContinuousClock()

  private var processes: [ChildProcess] = []
  private var clients: [ChildProcess] = []
  private var clientLogs: [GrowingFile] = []
  private var servers: WebServers?
  private var follower: ClusterFollower?
  /// While the lab reads the bus; it ends after the follower and its threads.
  private var visit: NamespaceVisit?
  private var picture = LogPicture()
  private var traffic = TrafficCount()
  private var coordinatorOutage = Outage()
  private var busOutage = Outage()
  private var migrationsAsked = 0
  /// Lives of runtimes that were killed, and when in the traffic the next one's turn is.
  private var killed: [NodeLife] = []
  /// Of pairs: who was to recover whose flows and was killed with it.
  private var passedOn: [NodeLife: NodeLife] = [:]
  private var nextKill = 0
  /// The same of switches, and what the client's kernel has known of them.
  private var killedSwitches: [NodeLife] = []
  private var nextSwitchKill = 0
  private var linkAddresses: [String] = []
  private var rate = RateMeter()
  private var harm: LabHarm
  /// What the log said before the platform was ended.
  private var lastState: ClusterState?

  private static let coordinator = "coordinator"
  private static let bus = "bus"
  private static let secondAgent = "agent-b"

  /// A process that is killed once, and comes back.
  private struct Outage {
    var wasKilled = false
    var endsAt: ContinuousClock.Instant?
  }

  /// `isStopRequested` is asked often; the answer true ends the lab in order.
  public init(_ settings: Settings, isStopRequested: @escaping () -> Bool) {
    self.settings = settings
    self.isStopRequested = isStopRequested
    let prefix = "nfv\(getpid())"
    network = LabNetwork(
      prefix: prefix, runtimes: settings.runtimes, switches: settings.switches, netem: settings.netem,
      impairment: settings.impairment.map { ";\($0)" } ?? "", clients: settings.ipv6Clients ? .ipv6 : .ipv4,
      lastApart: settings.harms[.busCut] != nil)
    harm = LabHarm(settings.harms, network: network)
    let temporary = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    directory = "\(temporary)/\(prefix)-lab"
    logs = "\(temporary)/\(prefix)-logs"
  }

  /// What this machine lacks for a lab; nil when nothing.
  ///
  /// - Parameter needsClients: whether there are to be servers and clients of the lab's own.
  public static func obstacle(_ settings: Settings, needsClients: Bool = true) -> String? {
    if geteuid() != 0 {
      return "The lab makes network namespaces and opens packet sockets: run it as root, or with sudo."
    }
    let ends = needsClients ? ["nginx", "wrk", "curl", "sha256sum"] : []
    for program in ["ip", "ethtool", "setpriv"] + ends + (settings.netem.isEmpty ? [] : ["tc"]) where !Program.exists(program) {
      return "'\(program)' is missing; 'make install-packages' installs what the lab needs."
    }
    for program in ["nfvactor", "nfv-coordinator", "nfvctl"] where access("\(settings.binaries)/\(program)", X_OK) != 0 {
      return "There is no '\(program)' in \(settings.binaries); 'make build' makes it."
    }
    let probe = "nfv\(getpid())-probe"
    do throws(LabError) {
      try Program.run(["ip", "netns", "add", probe])
      defer { _ = try? Program.run(["ip", "netns", "delete", probe]) }
      if !settings.netem.isEmpty {
        try Program.run(["tc", "-n", probe, "qdisc", "add", "dev", "lo", "root", "netem"] + settings.netem)
      }
      return nil
    } catch {
      return "This machine does not let us make network namespaces\(settings.netem.isEmpty ? "" : " with netem"): \(error)"
    }
  }

  public func run() -> LabSummary {
    var summary = LabSummary()
    summary.log.coordinatorKilledAt = settings.killCoordinatorAt
    let start = clock.now
    var trafficStart: ContinuousClock.Instant?
    do throws(LabError) {
      if let obstacle = Self.obstacle(settings) { throw .notPossible(obstacle) }
      try network.make(goOn: { !isStopRequested() })
      visit = try NamespaceVisit(network.fabric)
      do throws(LabError) {
        try setUp()
        summary.seconds.setup = seconds(since: start)
        trafficStart = clock.now
        try watch(from: clock.now)
      } catch {
        summary.problems.append("\(error)")
      }
      end(&summary, trafficStart: trafficStart)
      visit = nil
    } catch {
      summary.problems.append("\(error)")
    }
    let removal = clock.now
    summary.problems += network.remove()
    TextFile.removeTree(directory)
    summary.seconds.removal += seconds(since: removal)

    if traffic.failed > 0 { summary.problems += ["\(traffic.failed) requests failed"] + traffic.complaints.prefix(5) }
    if trafficStart != nil, (traffic.kept.requests == 0 && settings.transfers == nil) || traffic.fresh.requests == 0 {
      summary.problems.append("there was no traffic")
    }
    if settings.transfers != nil, trafficStart != nil {
      if summary.segments == nil { summary.problems.append("no runtime said what its packet counter has seen") }
      // What the network drops is the network's: with netem gaps are its doing.
      // So is what ports lose of a machine that is too busy. And what was on its way in a process that is killed dies with it.
      if let seen = summary.segments, settings.netem.isEmpty, settings.impairment == nil, settings.killRuntimeEvery == nil,
        settings.killPairEvery == nil, settings.killSwitchEvery == nil, harm.isEmpty,
        summary.dropsByReason["missed-by-port"] == nil, seen.gaps + seen.reordered > 0 {
        summary.problems.append("the packet counters saw \(seen.gaps) gaps and \(seen.reordered) segments out of order")
      }
    }
    if coordinatorOutage.wasKilled, picture.repeatedCommands > 0 {
      summary.problems.append("the restarted coordinator wrote \(picture.repeatedCommands) commands again")
    }
    for life in killed where !picture.recoveries.contains(where: { $0.lost == life }) && !isPassedOn(life) {
      summary.problems.append("the flows of \(life), which was killed, were not recovered")
    }
    if trafficStart != nil { summary.problems += harm.problems(lastState, picture) }
    if settings.killRuntimeEvery != nil, killed.isEmpty { summary.problems.append("no runtime was ever ready to be killed") }
    if settings.killPairEvery != nil, killed.isEmpty { summary.problems.append("no runtime and its holder were ever ready to be killed") }
    for life in killedSwitches where picture.uplinkHolders.last == life {
      summary.problems.append("nobody took over the uplinks of \(life), which was killed")
    }
    if settings.killSwitchEvery != nil, killedSwitches.isEmpty { summary.problems.append("no switch was ever ready to be killed") }
    if migrationsAsked > 0, picture.flowsMoved == 0 { summary.problems.append("no flow was moved") }
    summary.passed = summary.problems.isEmpty
    // Who interrupts a lab does not ask for its logs.
    let isFailure = summary.problems.contains { $0 != LabError.interrupted.description }
    if settings.keepsLogs || isFailure, access(logs, F_OK) == 0 {
      summary.logDirectory = logs
    } else {
      TextFile.removeTree(logs)
    }
    return summary
  }

  // MARK: Setting up

  private func setUp() throws(LabError) {
    try TextFile.makeDirectory(directory)
    try TextFile.makeDirectory(logs)
    screen.say("Lab \(network.prefix): namespaces \(network.namespaces.joined(separator: ", ")); logs in \(logs)")

    try TextFile.makeDirectory("\(directory)/bus")
    try startBus()
    try wait(seconds: 20, for: "the bus to listen") {
      TextFile.lastLines(of: log("bus"), 50).contains { $0.contains("listening") }
    }
    do throws(KafkaError) {
      follower = try ClusterFollower(KafkaSettings(bootstrap: network.bootstrap, clientID: "nfv-lab"))
    } catch {
      throw .late("the log cannot be read: \(error)")
    }
    try startCoordinator()

    let processors = max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))
    let agentFile = "\(directory)/agent.yaml"
    try TextFile.write(
      LabConfigurations.agent(network, processors: processors, program: "\(settings.binaries)/nfvactor", logs: logs),
      to: agentFile)
    try start("agent", "nfvactor", ["agent", "--config", agentFile])
    if network.lastApart {
      let file = "\(directory)/agent-b.yaml"
      try TextFile.write(
        LabConfigurations.agent(network, processors: processors, program: "\(settings.binaries)/nfvactor", logs: logs, isApart: true),
        to: file)
      try start(Self.secondAgent, "nfvactor", ["agent", "--config", file], in: network.secondHost)
    }

    let clusterFile: String
    if let file = settings.clusterFile {
      clusterFile = file
    } else {
      clusterFile = "\(directory)/cluster.yaml"
      let cluster = LabConfigurations.cluster(
        runtimes: settings.runtimes, switches: settings.switches, replicas: settings.replicas,
        countsPackets: settings.transfers != nil, clients: network.clients)
      try TextFile.write(cluster, to: clusterFile)
    }
    try Program.run(
      ["\(settings.binaries)/nfvctl", "apply", "-f", clusterFile, "--bootstrap", network.bootstrap], in: network.fabric)

    let servers = WebServers(directory: directory)
    let checksum = try servers.prepare()
    self.servers = servers
    for index in WebServers.names.indices {
      processes.append(try servers.start(index, in: network.servers, log: log(WebServers.names[index])))
    }
    try wait(seconds: 60, for: "the runtimes and the switch to serve") {
      guard let follower else { return false }
      return follower.clusters.contains { picture.isServing($0.state) }
    }
    screen.say("Everything serves; starting the clients.")
    let traffic = TrafficClients(directory: directory, network: network, checksum: checksum)
    if let transfers = settings.transfers {
      clients = try traffic.startTransfers(transfers, log: log)
    } else {
      clients = try traffic.start(log: log)
    }
    clientLogs = clients.map { GrowingFile($0.log) }
  }

  private func log(_ name: String) -> String { "\(logs)/\(name).log" }

  private func start(_ name: String, _ program: String, _ arguments: [String], in namespace: String? = nil) throws(LabError) {
    guard !isStopRequested() else { throw .interrupted }
    processes.append(
      try ChildProcess.start(
        name, ["\(settings.binaries)/\(program)"] + arguments, in: namespace ?? network.fabric, log: log(name)))
  }

  private func startBus() throws(LabError) {
    try start(Self.bus, "nfvctl", ["bus", "--listen", network.bootstrap, "--data-dir", "\(directory)/bus"])
  }

  private func startCoordinator() throws(LabError) {
    try start(Self.coordinator, "nfv-coordinator", ["--bootstrap", network.bootstrap, "--name", "lab"])
  }

  private func wait(seconds: Int, for what: String, _ isDone: () -> Bool) throws(LabError) {
    let deadline = clock.now + .seconds(seconds)
    while !isDone() {
      guard !isStopRequested() else { throw .interrupted }
      guard clock.now < deadline else {
        throw .late("waited \(seconds) s for \(what)" + picture.lines.suffix(8).map { "\n    \($0.text)" }.joined())
      }
      for process in processes { try process.checkRunning() }
      try readLog()
    }
  }

  // MARK: Watching

  private func watch(from start: ContinuousClock.Instant) throws(LabError) {
    while !isStopRequested() {
      let elapsed = Int(seconds(since: start))
      if let limit = settings.seconds, elapsed >= limit { return }
      for process in processes + clients { try process.checkRunning() }
      try interrupt(Self.coordinator, at: settings.killCoordinatorAt, elapsed, &coordinatorOutage) { () throws(LabError) in
        try startCoordinator()
      }
      try interrupt(Self.bus, at: settings.killBusAt, elapsed, &busOutage) { () throws(LabError) in try startBus() }
      try migrate(elapsed)
      killRuntime(elapsed)
      killPair(elapsed)
      killSwitch(elapsed)
      try harm.attend(elapsed, follower?.clusters.first?.state, picture, agent: processes.first { $0.name == "agent" })
      try readLog()
      readClients()
      rate.take(requests: traffic.requests, bytes: traffic.bytes, at: clock.now)
      screen.show(
        LiveView(
          elapsed: elapsed, limit: settings.seconds, picture: picture, state: follower?.clusters.first?.state, traffic: traffic,
          requestRate: rate.requests, byteRate: rate.bytes,
          notice: [(Self.coordinator, coordinatorOutage), (Self.bus, busOutage)].compactMap { name, outage in
            outage.endsAt != nil ? "the \(name) is dead" : outage.wasKilled ? "the \(name) was killed once" : nil
          }.joined(separator: ", ")))
    }
  }

  /// Kills a process at its moment, and starts it again two seconds later.
  private func interrupt(
    _ name: String, at moment: Int?, _ elapsed: Int, _ outage: inout Outage, start: () throws(LabError) -> Void
  ) throws(LabError) {
    if let moment, elapsed >= moment, !outage.wasKilled, let index = processes.firstIndex(where: { $0.name == name }) {
      processes[index].stop(SIGKILL)
      processes.remove(at: index)
      outage = Outage(wasKilled: true, endsAt: clock.now + .seconds(2))
    }
    if let end = outage.endsAt, clock.now >= end {
      outage.endsAt = nil
      try start()
    }
  }

  /// Everything one runtime has goes to the next one, in turn.
  private func migrate(_ elapsed: Int) throws(LabError) {
    guard let interval = settings.migrateEvery, elapsed >= (migrationsAsked + 1) * interval,
      settings.seconds.map({ elapsed < $0 }) ?? true
    else { return }
    let runtimes = picture.nodes.filter { $0.value.kind == .runtime }.keys.sorted()
    guard runtimes.count > 1 else { return }
    let source = runtimes[migrationsAsked % runtimes.count]
    let target = runtimes[(migrationsAsked + 1) % runtimes.count]
    migrationsAsked += 1
    try Program.run(
      [
        "\(settings.binaries)/nfvctl", "migrate", "--from", "\(source)", "--to", "\(target)", "--flows", "1000000", "--bootstrap",
        network.bootstrap,
      ], in: network.fabric)
  }

  /// The next runtime dies, when it is its turn and the flows of all have replicas.
  private func killRuntime(_ elapsed: Int) {
    guard let interval = settings.killRuntimeEvery, elapsed >= max(interval, nextKill),
      // The last one's recovery is to be seen.
      settings.seconds.map({ elapsed + 3 <= $0 }) ?? true, let state = follower?.clusters.first?.state
    else { return }
    let runtimes = state.nodes.filter { $0.kind == .runtime }
    guard runtimes.count > 1, runtimes.allSatisfy({ $0.protection?.isComplete == true && $0.processID != 0 }) else { return }
    let victim = runtimes[killed.count % runtimes.count]
    killed.append(NodeLife(victim.id, victim.incarnation))
    nextKill = elapsed + interval
    kill(pid_t(victim.processID), SIGKILL)
  }

  /// A runtime and the first holder of its flows die in one moment, when every flow has two replicas.
  private func killPair(_ elapsed: Int) {
    guard let interval = settings.killPairEvery, let state = follower?.clusters.first?.state else { return }
    notePassedOn(state)
    guard elapsed >= max(interval, nextKill), settings.seconds.map({ elapsed + 3 <= $0 }) ?? true,
      let pair = Self.pair(of: state, turn: killed.count / 2, runtimes: settings.runtimes)
    else { return }
    killed += pair.map(\.life)
    nextKill = elapsed + interval
    for node in pair { kill(pid_t(node.processID), SIGKILL) }
  }

  /// A runtime, each in its turn, and its present first holder; nil while any runtime lacks a holder, or any flow a replica.
  static func pair(of state: ClusterState, turn: Int, runtimes wanted: Int) -> [ClusterState.Node]? {
    let runtimes = state.nodes.filter { $0.kind == .runtime }
    guard runtimes.count >= wanted, !runtimes.isEmpty, state.unprotected.isEmpty, state.lostLives.allSatisfy({ $0.isSettled }),
      runtimes.allSatisfy({ $0.protection?.isComplete == true && $0.protection?.second != nil && $0.processID != 0 }),
      case let victim = runtimes[turn % runtimes.count], let holder = victim.protection?.holder,
      let partner = state.node(holder.node), partner.life == holder
    else { return nil }
    return [victim, partner]
  }

  /// Notes whose flows of the last pair were to be recovered by the other one of it: they are counted with that one's. The
  /// state does not remember all lives for ever.
  private func notePassedOn(_ state: ClusterState) {
    for life in killed.suffix(2) {
      guard let lost = state.lostLives.first(where: { $0.life == life }), lost.isSettled, lost.problem.isEmpty, let heir = lost.by,
        killed.suffix(2).contains(heir)
      else { continue }
      passedOn[life] = heir
    }
  }

  private func isPassedOn(_ life: NodeLife) -> Bool {
    passedOn[life].map { heir in picture.recoveries.contains { $0.lost == heir } } ?? false
  }

  /// The switch that has the uplinks dies, when everything serves.
  private func killSwitch(_ elapsed: Int) {
    guard let interval = settings.killSwitchEvery else { return }
    noteLinkAddress()
    guard elapsed >= max(interval, nextSwitchKill), settings.seconds.map({ elapsed + 3 <= $0 }) ?? true,
      let state = follower?.clusters.first?.state, picture.isServing(state), let holder = picture.uplinkHolders.last,
      holder != killedSwitches.last, let node = state.node(holder.node), node.life == holder, node.processID != 0
    else { return }
    killedSwitches.append(holder)
    nextSwitchKill = elapsed + interval
    kill(pid_t(node.processID), SIGKILL)
  }

  private func noteLinkAddress() {
    let words = try? Program.run(["ip", "-n", network.client, "neighbor", "show", LabNetwork.virtualAddress])
      .split(whereSeparator: \.isWhitespace)
    guard let words, let index = words.firstIndex(of: "lladdr"), index + 1 < words.count else { return }
    let address = String(words[index + 1])
    if linkAddresses.last != address { linkAddresses.append(address) }
  }

  /// Takes what came, and waits a little if nothing did.
  private func readLog() throws(LabError) {
    guard let follower else {
      usleep(20_000)
      return
    }
    do throws(KafkaError) {
      for item in try follower.poll(timeoutMilliseconds: 50) {
        switch item {
        case .event(_, let record, _): picture.read(record)
        case .command(_, let record, let reading): picture.read(record, reading)
        case .unreadable: picture.readUnreadable()
        case .clusterFound, .caughtUp: break
        }
      }
    } catch {
      throw .late("the log cannot be read any more: \(error)")
    }
  }

  private func readClients() {
    for index in clientLogs.indices {
      for line in clientLogs[index].newLines() {
        if clients[index].name == "wrk" { traffic.readKept(line) } else { traffic.readFresh(line, client: clients[index].name) }
      }
    }
  }

  // MARK: Ending

  /// Traffic first, so that nothing is lost by ending; then the platform, from the hand to the memory.
  private func end(_ summary: inout LabSummary, trafficStart: ContinuousClock.Instant?) {
    screen.say("Ending the lab.")
    harm.release()
    for client in clients { TrafficClients.finish(client) }
    for client in clients where client.wait(.seconds(35)) == nil {
      summary.problems.append("\(client.name) did not finish")
      client.stop(SIGKILL)
    }
    readClients()
    if let trafficStart {
      summary.seconds.traffic = seconds(since: trafficStart)
      // Nodes report twice a second: what the last requests caused is still to come.
      let deadline = clock.now + .milliseconds(1_500)
      while clock.now < deadline { do throws(LabError) { try readLog() } catch { break } }
    }
    let removal = clock.now
    for (index, name) in WebServers.names.enumerated() where processes.contains(where: { $0.name == name && $0.poll() == nil }) {
      guard let count = servers?.count(index) else { continue }
      summary.servers.append(.init(name: name, connections: count.connections, requests: count.requests))
    }
    lastState = follower?.clusters.first?.state
    if settings.killPairEvery != nil, let lastState { notePassedOn(lastState) }
    summary.harms = harm.summary(lastState)
    for name in [Self.secondAgent, "agent", Self.coordinator] + WebServers.names { stop(name, &summary) }
    if settings.transfers != nil { summary.segments = LabSummary.Segments(logsIn: logs) }
    follower = nil
    stop("bus", &summary)
    summary.problems += endLeftovers()
    summary.take(traffic)
    summary.take(picture)
    summary.takeovers.linkAddresses = linkAddresses
    summary.seconds.removal = seconds(since: removal)
  }

  private func stop(_ name: String, _ summary: inout LabSummary) {
    for process in processes where process.name == name && process.poll() == nil {
      // An agent waits for its nodes, which give their ports back.
      switch process.stop(patience: .seconds(15)) {
      case .code(0): break
      // So early that it had not begun to listen.
      case .signal(SIGTERM) where summary.seconds.setup == 0: break
      case let ending?: summary.problems.append("\(name) was asked to stop and \(ending); its log is \(process.log)")
      case nil: summary.problems.append("\(name) did not stop and was killed; its log is \(process.log)")
      }
    }
    processes.removeAll { $0.name == name }
  }

  /// Kills what our own programs left behind in our own namespace: nodes whose agent did not end them.
  private func endLeftovers() -> [String] {
    let lists = ([network.fabric] + (network.lastApart ? [network.secondHost] : [])).compactMap {
      try? Program.run(["ip", "netns", "pids", $0])
    }
    var problems: [String] = []
    for word in lists.joined(separator: "\n").split(whereSeparator: \.isWhitespace) {
      guard let processID = pid_t(word), processID != getpid(), let path = Program.path(of: processID),
        path.hasPrefix(settings.binaries)
      else { continue }
      problems.append("process \(processID) (\(path)) was left behind and has been killed")
      kill(processID, SIGKILL)
    }
    return problems
  }

  private func seconds(since start: ContinuousClock.Instant) -> Double {
    let (whole, fraction) = (clock.now - start).components
    return Double(whole) + Double(fraction) / 1e18
  }
}

/// How much a total grew in about the last second.
struct RateMeter {
  private(set) var requests: UInt64 = 0
  private(set) var bytes: UInt64 = 0
  private var last: (requests: UInt64, bytes: UInt64, at: ContinuousClock.Instant)?

  mutating func take(requests total: UInt64, bytes totalBytes: UInt64, at now: ContinuousClock.Instant) {
    guard let last else {
      self.last = (total, totalBytes, now)
      return
    }
    let milliseconds = UInt64((now - last.at) / .milliseconds(1))
    guard milliseconds >= 1_000 else { return }
    requests = (total - min(total, last.requests)) * 1_000 / milliseconds
    bytes = (totalBytes - min(totalBytes, last.bytes)) * 1_000 / milliseconds
    self.last = (total, totalBytes, now)
  }
}
