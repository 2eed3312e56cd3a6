import ControlMessages
import ControlNodes
import ControlPlane
import FoundationEssentials
import Glibc

/// Runtimes that die under traffic, with everything real: bus, coordinator, agent, a switch and three runtimes on DPDK ports, and a
/// generator whose packets go through all of them and carry numbers.
///
/// ```
///   SIGKILL ──▶ processExited ──▶ recover ──▶ switch, holder ──▶ packets come through again ──▶ ... ──▶ every flow has a replica again
///      │ detection │   decision   │  fence, recovery  │                                                      │ the next one
/// ```
///
/// All flows are on one runtime, so that each death concerns all of them; who has taken them over is the next to die. What is
/// served is the generator's verdict: packets that were written before some moment were lost, and none behind it. Detection and
/// decision are by the log's own timestamps, which are milliseconds.
public final class RecoveryRun {
  public struct Settings: Sendable {
    public var binaries: String
    public var flows = 100_000
    public var kills = 20
    /// Packets per second.
    public var rate: UInt64 = 20_000
    public var keepsLogs = false

    public init(binaries: String) { self.binaries = binaries }

    /// Seconds in which every flow has its turn.
    var round: Double { Double(flows) / Double(rate) }
  }

  private let settings: Settings
  private let network: LabNetwork
  private let isStopRequested: () -> Bool
  private let clock = ContinuousClock()
  private var record: RecoveryRecord
  private var generatorLines: GrowingFile?
  private var received: UInt64 = 0
  private var outages: [RecoveryRecord.Outage] = []
  /// The death that is being watched.
  private var kill: RecoveryRecord.Kill?
  private var slot: Slot?

  private static let runtimes = 3
  private static let patience = 180

  public init(_ settings: Settings, isStopRequested: @escaping () -> Bool) {
    self.settings = settings
    self.isStopRequested = isStopRequested
    network = LabNetwork(prefix: "nfv\(getpid())", runtimes: Self.runtimes, ends: .together)
    record = RecoveryRecord(settings)
  }

  public func run() throws(LabError) -> RecoveryRecord {
    if let obstacle = Lab.obstacle(Lab.Settings(binaries: settings.binaries), needsClients: false) { throw .notPossible(obstacle) }
    let temporary = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    let logs = "\(temporary)/\(network.prefix)-logs"
    var problem: LabError?
    var problems: [String] = []
    do throws(LabError) {
      try network.make(goOn: { !isStopRequested() })
      let platform = try Platform(
        binaries: settings.binaries, directory: "\(temporary)/\(network.prefix)-recovery", logs: logs, namespace: network.fabric,
        isStopRequested: isStopRequested)
      do throws(LabError) { try play(platform) } catch { problem = error }
      for (reason, packets) in platform.picture.drops { record.dropped[reason] = packets }
      problems += platform.end()
    } catch {
      problem = error
    }
    problems += network.remove()
    if let problem { throw problem }
    guard problems.isEmpty else { throw .late(problems.joined(separator: "\n")) }
    if !settings.keepsLogs { TextFile.removeTree(logs) }
    return record
  }

  private func play(_ platform: Platform) throws(LabError) {
    try platform.startBus()
    try platform.startCoordinator("lab")
    try platform.startAgent("agent", agent(logs: platform.logs))
    try platform.nfvctl(["apply"], file: "cluster.yaml", cluster)
    try platform.waitUntilServing(seconds: 90)
    try platform.wait(seconds: 60, for: "every runtime to have a holder") { isProtected(platform) }

    let generator = try platform.start(
      "traffic", "nfvactor",
      [
        "traffic", "--port", "af_packet:client0", "--sink", "af_packet:server0", "--destination-mac",
        LabNetwork.switchHardwareAddress, "--flows", "\(settings.flows)", "--source", "10.1.0.10-10.1.0.250", "--destination",
        "10.9.0.1", "--destination-ports", "5000", "--size", "128", "--rate", "\(settings.rate)", "--seconds", "86000", "--every", "1",
        "--watch", "--polling", "adaptive", "--processors", processors, "--stats", "none", "--wait", "10", "--memory", "ordinary",
      ], in: network.client)
    generatorLines = GrowingFile(generator.log)
    try gather(platform)
    for number in 1...settings.kills { try strike(number, generator, platform) }
    platform.forget(generator)
    generator.stop()
  }

  private var processors: String {
    (0..<max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))).map(String.init).joined(separator: ",")
  }

  // MARK: Flows

  private func runtimes(_ platform: Platform) -> [ClusterState.Node] {
    platform.cluster?.state.nodes.filter { $0.kind == .runtime } ?? []
  }

  private func isProtected(_ platform: Platform) -> Bool {
    let runtimes = runtimes(platform)
    return runtimes.count == Self.runtimes && runtimes.allSatisfy { $0.protection?.isComplete == true }
  }

  private func flows(of node: ClusterState.Node) -> Int { Int(clamping: node.workload?.activeFlows ?? 0) }

  /// Every flow is opened, and moved to one runtime.
  private func gather(_ platform: Platform) throws(LabError) {
    try platform.wait(seconds: Self.patience, for: "every flow to be open") {
      readGenerator()
      return received >= UInt64(settings.flows) && runtimes(platform).reduce(0) { $0 + flows(of: $1) } >= settings.flows
    }
    try platform.wait(seconds: Self.patience, for: "every flow to have a replica") { isProtected(platform) }
    let nodes = runtimes(platform).sorted { flows(of: $0) > flows(of: $1) }
    for node in nodes.dropFirst() {
      try Program.run(
        [
          "\(settings.binaries)/nfvctl", "migrate", "--from", "\(node.id)", "--to", "\(nodes[0].id)", "--flows", "1000000", "--bootstrap",
          LabConfigurations.bootstrap,
        ], in: network.fabric)
      try platform.wait(seconds: Self.patience, for: "the flows of node \(node.id) to move") {
        runtimes(platform).contains { $0.id == node.id && flows(of: $0) == 0 }
      }
    }
    try settle(platform)
  }

  /// Everything serves, all flows are on one runtime, and have replicas.
  private func settle(_ platform: Platform, noticing: (ClusterFollower.Item) -> Void = { _ in }) throws(LabError) {
    try platform.wait(seconds: Self.patience, for: "all flows to be served and replicated again", noticing: noticing) {
      readGenerator()
      return platform.cluster.map { platform.picture.isServing($0.state) } ?? false && isProtected(platform)
        && runtimes(platform).contains { flows(of: $0) >= settings.flows }
    }
  }

  // MARK: Deaths

  private func strike(_ number: Int, _ generator: ChildProcess, _ platform: Platform) throws(LabError) {
    try rest(1, platform)
    guard let victim = runtimes(platform).first(where: { flows(of: $0) >= settings.flows }), victim.processID != 0 else {
      throw .late("no runtime has all flows")
    }
    generator.signal(SIGUSR1)
    usleep(20_000)
    let moment = Moment()
    kill = RecoveryRecord.Kill(number: number, node: victim.id.number, incarnation: victim.incarnation.number, flows: flows(of: victim))
    slot = nil
    let life = NodeLife(victim.id, victim.incarnation)
    Glibc.kill(pid_t(victim.processID), SIGKILL)
    // Whoever reads the log meanwhile takes of the processors that the recovery is to have.
    usleep(300_000)
    let end = clock.now + .milliseconds(Int64(settings.round * 1_000) + 1_000)
    try platform.wait(seconds: Self.patience, for: "the flows of \(life) to be taken over", noticing: { note($0, of: life, moment) }) {
      kill?.finished != nil
    }
    try settle(platform) { note($0, of: life, moment) }
    kill?.isProtectedAgain = moment.milliseconds(since: nil)
    while clock.now < end { try rest(0.1, platform) }
    generator.signal(SIGUSR1)
    try platform.wait(seconds: 10, for: "the generator's word on what was lost") {
      readGenerator()
      return !outages.isEmpty
    }
    guard var kill, let outage = outages.popLast() else { return }
    outages = []
    kill.take(outage, killedAt: moment.monotonic)
    record.kills.append(kill)
    self.kill = nil
    print(kill.text)
    fflush(nil)
  }

  private func rest(_ seconds: Double, _ platform: Platform) throws(LabError) {
    let end = clock.now + .milliseconds(Int64(seconds * 1_000))
    while clock.now < end {
      guard !isStopRequested() else { throw .interrupted }
      for process in platform.processes { try process.checkRunning() }
      try platform.readLog(waiting: 20)
      readGenerator()
    }
  }

  /// What the log says of the death, in milliseconds since then.
  private func note(_ item: ClusterFollower.Item, of life: NodeLife, _ moment: Moment) {
    switch item {
    case .event(_, let record, _):
      let at = moment.milliseconds(since: record.timestamp)
      switch record.event.body {
      case .processExited(let exit) where NodeLife(exit.node, exit.incarnation) == life: kill?.evidence = at
      case .commandAcknowledged(let answer) where answer.slot == slot && answer.outcome == .received: kill?.heard = at
      case .recoveryFinished(let end) where end.lost == life:
        kill?.finished = at
        kill?.microseconds = end.microseconds
        kill?.recovered = end.recovered
        kill?.onDemand = end.onDemand
        kill?.refused = end.refused
      case .nodeStarted(let started) where started.node == life.node: kill?.restarted = at
      default: break
      }
    case .command(_, let record, .taken):
      guard case .recover(let recovery) = record.command.body, recovery.lost == life else { return }
      kill?.decision = moment.milliseconds(since: record.timestamp)
      slot = record.command.slot
    default: break
    }
  }

  private func readGenerator() {
    for line in generatorLines?.newLines() ?? [] where line.hasPrefix("{\"") {
      let data = Data(line.utf8)
      if let outage = try? JSONDecoder().decode(RecoveryRecord.Outage.self, from: data) {
        outages.append(outage)
      } else if let offer = try? JSONDecoder().decode(ScalingRecord.Offer.self, from: data) {
        received = offer.received
      }
    }
  }

  /// A moment on both of the clocks that are compared with it.
  private struct Moment {
    /// Nanoseconds.
    let monotonic: UInt64
    let real: UInt64

    init() { (monotonic, real) = (Self.time(CLOCK_MONOTONIC), Self.time(CLOCK_REALTIME)) }

    /// From the moment to a record's time, or to now. A record's time is cut to a millisecond; half of one is added.
    func milliseconds(since timestamp: Timestamp?) -> Double {
      let now = timestamp.map { Double($0.milliseconds) + 0.5 } ?? Double(Self.time(CLOCK_REALTIME)) / 1e6
      return ((now - Double(real) / 1e6) * 100).rounded() / 100
    }

    private static func time(_ clock: clockid_t) -> UInt64 {
      var time = timespec()
      clock_gettime(clock, &time)
      return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
  }

  // MARK: Files

  private func agent(logs: String) -> String {
    LabConfigurations.agent(
      network, processors: max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))), program: "\(settings.binaries)/nfvactor", logs: logs)
      + "memory: ordinary\n"
  }

  private var cluster: String {
    var capacity = 32_768
    while capacity * 3 < settings.flows * 4 { capacity *= 2 }
    return """
      name: web
      runtimes: \(Self.runtimes)
      switches: 1
      replicas: 1
      pool-shares: 16
      polling: adaptive
      heartbeat: 100ms
      workload: 250ms
      chain:
        - firewall:
            default: deny
            rules:
              - {action: allow, protocol: udp, from: 10.1.0.0/24}
        - nat:
            pool: 10.2.0.100-10.2.0.227
        - packet-counter
      flows:
        capacity: \(capacity)
        udp: 10m
      network:
        client:
          addresses: [10.1.0.2/24]
        server:
          addresses: [10.2.0.2/24]
          gateway: \(LabNetwork.gatewayAddress)
          answers-for: [10.2.0.100-10.2.0.227]

      """
  }
}
