import ControlMessages
import ControlNodes
import ControlPlane
import FoundationEssentials
import Glibc

/// Dynamic scaling under a load that rises and falls (the paper's figure 7d), with everything real: bus, coordinator,
/// agent, runtimes and a switch on DPDK ports, and a traffic generator whose packets go through all of them.
///
/// ```
///   offered ╱╲            policy activate -f  ──▶ log ──▶ coordinator: launch, move 500 flows at a time, drain, stop
///          ╱   ╲___       runtimes lose packets at their ports ──▶ workload events ──▶ log
/// ```
///
/// The paper has a machine of 20 cores; here a runtime's worker gets a fixed small share of a core (`CoreReservation`), so
/// that what one runtime carries is known, and the whole figure fits on two cores. The drops that the policy sees are the
/// kernel's own, of frames that found no room in the ring of a worker that was out of processor time.
public final class ScalingRun {
  public struct Settings: Sendable {
    public var binaries: String
    /// A short run for looking whether it works: a third of the time.
    public var isQuick = false
    /// Packets per second at the top; the bottom is an eighth.
    public var peak: UInt64 = 48_000
    public var flows = 4_000
    /// Share of a core that a runtime's worker has, parts per thousand.
    public var workerShare: UInt64 = 50
    public var keepsLogs = false

    public init(binaries: String) { self.binaries = binaries }

    /// Seconds up, and down.
    var up: Double { isQuick ? 5 : 15 }
    var down: Double { isQuick ? 15 : 45 }
  }

  private let settings: Settings
  private let network: LabNetwork
  private let isStopRequested: () -> Bool
  private let clock = ContinuousClock()
  private var record = ScalingRecord()
  private var begin: ContinuousClock.Instant?
  private var generatorLines: GrowingFile?
  private var last = ScalingRecord.Offer()
  /// Workers that have their share.
  private var limited: Set<UInt32> = []
  private var movedFlows: UInt64 = 0

  private static let runtimePorts = 6

  public init(_ settings: Settings, isStopRequested: @escaping () -> Bool) {
    self.settings = settings
    self.isStopRequested = isStopRequested
    network = LabNetwork(prefix: "nfv\(getpid())", runtimes: Self.runtimePorts, ends: .together)
  }

  public func run() throws(LabError) -> ScalingRecord {
    if let obstacle = Lab.obstacle(Lab.Settings(binaries: settings.binaries), needsClients: false) { throw .notPossible(obstacle) }
    let temporary = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    let logs = "\(temporary)/\(network.prefix)-logs"
    var problem: LabError?
    var problems: [String] = []
    do throws(LabError) {
      try network.make(goOn: { !isStopRequested() })
      let platform = try Platform(
        binaries: settings.binaries, directory: "\(temporary)/\(network.prefix)-scaling", logs: logs, namespace: network.fabric,
        isStopRequested: isStopRequested)
      do throws(LabError) { try play(platform) } catch { problem = error }
      record.take(platform.picture)
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
    try platform.startAgent(
      "agent",
      LabConfigurations.agent(
        network, processors: max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))), program: "\(settings.binaries)/nfvactor",
        logs: platform.logs))
    try platform.nfvctl(["apply"], file: "cluster.yaml", cluster)
    try platform.waitUntilServing(seconds: 60)
    try platform.nfvctl(["policy", "activate", "--cluster", "web"], file: "policy.yaml", policy)
    try platform.wait(seconds: 20, for: "the policy to be in force") {
      platform.cluster.map { $0.state.scaling.policy != nil && $0.state.rules >= DecisionRules.flowRequests } ?? false
    }
    try limitWorkers(platform)

    let ramp = "0:\(settings.peak / 8),\(settings.up):\(settings.peak),\(settings.up + settings.down):\(settings.peak / 8)"
    record.begin(settings, policy: policy)
    let generator = try platform.start(
      "traffic", "nfvactor",
      [
        "traffic", "--port", "af_packet:client0", "--sink", "af_packet:server0", "--destination-mac",
        LabNetwork.switchHardwareAddress, "--flows", "\(settings.flows)", "--source", "10.1.0.10-10.1.0.250", "--destination",
        "10.9.0.1", "--destination-ports", "5000", "--size", "256", "--ramp", ramp, "--seconds", "\(settings.up + settings.down)",
        "--every", "0.5", "--drain", "1", "--polling", "adaptive", "--processors", processors, "--stats", "none", "--wait", "10",
      ], in: network.client)
    // The way under test is the runtimes': the generator and the switch are to have enough.
    try reserve(400, for: generator.processID, period: 2)
    generatorLines = GrowingFile(generator.log)
    while generator.poll() == nil {
      guard !isStopRequested() else { throw .interrupted }
      for process in platform.processes where process !== generator { try process.checkRunning() }
      try limitWorkers(platform)
      try platform.readLog { note($0) }
      readGenerator(platform)
    }
    readGenerator(platform)
    guard generator.ending == .code(0) else { try generator.checkRunning(); return }
    platform.forget(generator)
    // What the log still has to say of it.
    let deadline = clock.now + .seconds(1)
    while clock.now < deadline { try platform.readLog { note($0) } }
  }

  private var processors: String {
    (0..<max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))).map(String.init).joined(separator: ",")
  }

  /// Gives every worker its share as soon as its process is known.
  private func limitWorkers(_ platform: Platform) throws(LabError) {
    for node in platform.cluster?.state.nodes ?? [] where node.processID != 0 && node.isAlive && !limited.contains(node.processID) {
      limited.insert(node.processID)
      if node.kind == .runtime {
        try reserve(settings.workerShare, for: pid_t(node.processID), period: 10)
      } else {
        try reserve(600, for: pid_t(node.processID), period: 2)
      }
    }
  }

  /// Of each `period`, in milliseconds. A ring of af_packet (512 frames) outlasts 10 ms at 50,000 packets per second.
  private func reserve(_ thousandths: UInt64, for process: pid_t, period: UInt64) throws(LabError) {
    do throws(LabError) {
      try CoreReservation(budget: thousandths * period * 1_000, period: period * 1_000_000).give(to: process)
    } catch {
      // It may have ended meanwhile.
      if kill(process, 0) == 0 { throw error }
    }
  }

  // MARK: Recording

  private func note(_ item: ClusterFollower.Item) {
    guard let begin else { return }
    let at = seconds(since: begin)
    switch item {
    case .command(_, let record, .taken):
      switch record.command.body {
      case .launchRuntime(let launch): self.record.note(at, "launch", launch.node.number, record.command.reason)
      case .drainRuntime(let node, _): self.record.note(at, "drain", node.number, record.command.reason)
      case .stopNode(let node, _): self.record.note(at, "stop", node.number, record.command.reason)
      default: break
      }
    case .event(_, let record, _):
      if case .migrationFinished(let end) = record.event.body { movedFlows += end.moved }
      if case .nodeStarted(let started) = record.event.body, started.kind == .runtime {
        self.record.note(at, "started", started.node.number, "after \(started.startup) ms")
      }
    default: break
    }
  }

  private func readGenerator(_ platform: Platform) {
    for line in generatorLines?.newLines() ?? [] where line.hasPrefix("{\"") {
      guard let offer = try? JSONDecoder().decode(ScalingRecord.Offer.self, from: Data(line.utf8)) else { continue }
      if begin == nil { begin = clock.now - .milliseconds(Int64(offer.seconds * 1_000)) }
      let passed = max(0.001, offer.seconds - last.seconds)
      func rate(_ key: KeyPath<ScalingRecord.Offer, UInt64>) -> Double {
        (Double(offer[keyPath: key] &- min(offer[keyPath: key], last[keyPath: key])) / passed).rounded()
      }
      let nodes = platform.cluster?.state.nodes.filter { $0.kind == .runtime } ?? []
      record.samples.append(
        .init(
          seconds: (offer.seconds * 100).rounded() / 100, offered: rate(\.offered), achieved: rate(\.received),
          serving: nodes.count { $0.memberState == .serving }, draining: nodes.count { $0.memberState == .stopping },
          starting: nodes.count { $0.memberState == .starting }, moved: movedFlows,
          busyShares: nodes.filter { $0.memberState == .serving }.map { Double($0.workload?.busyShare ?? 0) / 1e6 }))
      record.total = offer
      last = offer
    }
  }

  private func seconds(since start: ContinuousClock.Instant) -> Double {
    let (whole, fraction) = (clock.now - start).components
    return ((Double(whole) + Double(fraction) / 1e18) * 100).rounded() / 100
  }

  // MARK: Files

  private var cluster: String {
    """
    name: web
    runtimes: 2
    switches: 1
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
          pool: 10.2.0.200-10.2.0.215
      - ips:
          rules: |
            alert udp any any -> any 5000 (msg:"a word that is not there"; content:"one actor per flow"; sid:1; rev:1;)
            alert udp any any -> any 5000 (msg:"another"; content:"|de ad be ef|"; content:"/cgi-bin/"; distance:0; sid:2; rev:1;)
    flows:
      capacity: 65536
    network:
      client:
        addresses: [10.1.0.2/24]
      server:
        addresses: [10.2.0.2/24]
        gateway: \(LabNetwork.gatewayAddress)
        answers-for: [10.2.0.200-10.2.0.215]

    """
  }

  /// The paper's, with its numbers; the times are shorter since the whole day lasts a minute.
  private var policy: String {
    """
    kind: drop-threshold
    drops: 100
    idle-busy-share: 35%
    minimum: 2
    maximum: \(Self.runtimePorts)
    cooldown: \(settings.isQuick ? "1s" : "2s")
    overload-patience: 400ms
    idle-patience: \(settings.isQuick ? "2s" : "4s")
    flows-per-move: 500
    concurrent-moves: 2
    drain-timeout: 1m

    """
  }
}
