import ControlMessages
import ControlNodes
import ControlPlane
import FoundationEssentials
import Glibc

/// Harm done to a running platform for as long as one likes: three coordinators, two hosts, a bus, and every ten seconds or so
/// something that a seed draws.
///
/// ```
///   a node fails: killed, stopped, its worker stands still, its host lost ──▶ how long until the table no longer names it?
///   nobody fails: the bus stalls or restarts, a coordinator is killed or becomes a zombie ──▶ was anybody declared dead?
/// ```
///
/// At the end the log has to verify: every command follows from the events, every slot is there once, whoever wrote it.
public final class SoakRun {
  public struct Settings: Sendable {
    public var binaries: String
    public var minutes = 60.0
    public var seed: UInt64 = 1
    public var keepsLogs = false

    public init(binaries: String) { self.binaries = binaries }
  }

  public enum Harm: String, CaseIterable, Sendable {
    case exit, stopped, standingWorker = "standing-worker", hostLost = "host-lost"
    case busStall = "bus-stall", busRestart = "bus-restart", coordinatorKilled = "coordinator-killed"
    case coordinatorZombie = "coordinator-zombie"

    /// Whether lives end by it.
    var isFailure: Bool {
      switch self {
      case .exit, .stopped, .standingWorker, .hostLost: true
      case .busStall, .busRestart, .coordinatorKilled, .coordinatorZombie: false
      }
    }
  }

  private struct Life: Hashable {
    var node: NodeID
    var incarnation: Incarnation
  }

  private let settings: Settings
  private let network: LabNetwork
  private let isStopRequested: () -> Bool
  private let clock = ContinuousClock()
  private var report = SoakReport()
  private var random: UInt64
  /// Lives that were harmed, and when those that are still in the table were.
  private var harmed: Set<Life> = []
  private var open: [Life: (harm: Harm, at: ContinuousClock.Instant)] = [:]
  /// Lives whose workers go before others.
  private var preferred: Set<Life> = []
  /// A worker that stands still now.
  private var standing: StandingThread?
  private var begin: ContinuousClock.Instant?
  private var lastHarm: Harm?
  /// Lives that have served.
  private var started: Set<Life> = []
  /// Lives that nobody harmed and that were replaced.
  private var mourned: Set<Life> = []

  private static let coordinators = ["one", "two", "three"]
  private static let hosts = ["a", "b"]

  public init(_ settings: Settings, isStopRequested: @escaping () -> Bool) {
    self.settings = settings
    self.isStopRequested = isStopRequested
    random = settings.seed
    network = LabNetwork(prefix: "nfv\(getpid())", runtimes: 6, ends: .together)
  }

  public func run() throws(LabError) -> SoakReport {
    if let obstacle = Lab.obstacle(Lab.Settings(binaries: settings.binaries), needsClients: false) { throw .notPossible(obstacle) }
    let temporary = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    let logs = "\(temporary)/\(network.prefix)-logs"
    var problem: LabError?
    Precedence.takeForChildren()
    do throws(LabError) {
      try network.make(goOn: { !isStopRequested() })
      let platform = try Platform(
        binaries: settings.binaries, directory: "\(temporary)/\(network.prefix)-soak", logs: logs, namespace: network.fabric,
        isStopRequested: isStopRequested)
      do throws(LabError) { try play(platform) } catch { problem = error }
      if problem == nil || problem == .interrupted { verify(platform) }
      for name in Self.coordinators {
        var log = GrowingFile(platform.log(name))
        report.criticalLines += log.newLines().count { $0.contains(" critical ") }
      }
      report.problems += platform.end()
    } catch {
      problem = error
    }
    report.problems += network.remove()
    if let problem, problem != .interrupted { report.problems.append("\(problem)") }
    if !settings.keepsLogs, report.problems.isEmpty { TextFile.removeTree(logs) } else { report.logs = logs }
    return report
  }

  private func play(_ platform: Platform) throws(LabError) {
    try platform.startBus()
    for name in Self.coordinators { try platform.startCoordinator(name) }
    for host in Self.hosts { try platform.startAgent("agent-\(host)", agent(host, logs: platform.logs)) }
    try platform.nfvctl(["apply"], file: "cluster.yaml", cluster)
    try platform.waitUntilServing(seconds: 90)
    try platform.wait(seconds: 30, for: "the decision rules") {
      platform.cluster.map { $0.state.rules >= DecisionRules.failureDetection } ?? false
    }
    let begin = clock.now
    self.begin = begin
    while clock.now - begin < .milliseconds(Int64(settings.minutes * 60_000)) {
      try rest(.milliseconds(Int64(2_000 + next() % 4_000)), platform)
      let harm = Harm.allCases[Int(next() % UInt64(Harm.allCases.count))]
      report.harms[harm.rawValue, default: 0] += 1
      lastHarm = harm
      try strike(harm, platform)
      try settle(after: harm, platform)
      report.minutes = Double(Int((clock.now - begin) / .milliseconds(1))) / 60_000
    }
  }

  // MARK: Harm

  private func strike(_ harm: Harm, _ platform: Platform) throws(LabError) {
    let nodes = platform.cluster?.state.nodes.filter { $0.memberState == .serving && $0.kind == .runtime } ?? []
    guard !nodes.isEmpty else { return }
    let victim = nodes[Int(next() % UInt64(nodes.count))]
    let coordinator = Self.coordinators[Int(next() % 3)]
    switch harm {
    case .exit:
      note(victim, harm)
      kill(pid_t(victim.processID), SIGKILL)
    case .stopped:
      note(victim, harm)
      kill(pid_t(victim.processID), SIGSTOP)
    case .standingWorker:
      // The process lives and its control thread speaks. A process that has ended itself meanwhile was replaced in time.
      note(victim, harm)
      standing = try StandingThread(pid_t(victim.processID))
      defer {
        standing?.release()
        standing = nil
      }
      try rest(.seconds(3), platform)
    case .hostLost:
      // The one without the switch, so that the mass guard has others to compare with.
      guard let host = HostID("\(network.prefix)-b"), let process = platform.process("agent-b") else { return }
      platform.forget(process)
      process.stop(SIGKILL, patience: .milliseconds(200))
      for node in platform.cluster?.state.nodes ?? [] where node.host == host && node.isAlive {
        note(node, harm)
        kill(pid_t(node.processID), SIGKILL)
      }
      // Long enough that nobody but silence tells.
      try rest(.seconds(6), platform)
      try platform.startAgent("agent-b", agent("b", logs: platform.logs))
    case .busStall:
      let length = 300 + next() % 5_700
      report.stalledSeconds += Double(length) / 1_000
      platform.process("bus")?.signal(SIGSTOP)
      try rest(.milliseconds(Int64(length)), platform)
      platform.process("bus")?.signal(SIGCONT)
    case .busRestart:
      guard let process = platform.process("bus") else { return }
      platform.forget(process)
      process.stop(SIGKILL, patience: .milliseconds(200))
      let killed = clock.now
      try platform.startBus()
      report.busReturns.append(Double(Int((clock.now - killed) / .microseconds(1))) / 1_000)
    case .coordinatorKilled:
      guard let process = platform.process(coordinator) else { return }
      platform.forget(process)
      process.stop(SIGKILL, patience: .milliseconds(200))
      try rest(.seconds(2), platform)
      try platform.startCoordinator(coordinator)
    case .coordinatorZombie:
      platform.process(coordinator)?.signal(SIGSTOP)
      try rest(.seconds(3), platform)
      platform.process(coordinator)?.signal(SIGCONT)
    }
  }

  private func note(_ node: ClusterState.Node, _ harm: Harm) {
    let life = Life(node: node.id, incarnation: node.incarnation)
    harmed.insert(life)
    open[life] = (harm, clock.now)
  }

  /// Until all that failed is replaced and everything serves.
  private func settle(after harm: Harm, _ platform: Platform) throws(LabError) {
    let limit = clock.now + .seconds(60)
    while clock.now < limit {
      try rest(.milliseconds(100), platform)
      if open.isEmpty, platform.cluster.map({ platform.picture.isServing($0.state) }) ?? false { return }
    }
    for (life, what) in open {
      report.problems.append("node \(life.node) life \(life.incarnation) was not noticed within 60 s: \(what.harm.rawValue)")
    }
    open = [:]
    if harm.isFailure { throw .late("not everything serves 60 s after \(harm.rawValue)") }
  }

  /// Lets every worker run before others, so that one that stands still does so by our hand, and not because a compiler runs beside it.
  private func preferWorkers(_ platform: Platform) {
    for node in platform.cluster?.state.nodes ?? [] where node.isAlive && node.processID != 0 {
      guard preferred.insert(Life(node: node.id, incarnation: node.incarnation)).inserted else { continue }
      Precedence.give(toWorker: pid_t(node.processID))
    }
  }

  private func rest(_ duration: Duration, _ platform: Platform) throws(LabError) {
    let end = clock.now + duration
    while clock.now < end {
      preferWorkers(platform)
      standing?.look()
      guard !isStopRequested() else { throw .interrupted }
      try platform.readLog(waiting: 5) { look($0) }
      for death in platform.cluster?.state.deaths ?? [] {
        let life = Life(node: death.node, incarnation: death.incarnation)
        if !harmed.contains(life), mourned.insert(life).inserted { alarm("node \(life.node) was declared dead: \(death.evidence)") }
      }
    }
  }

  private func alarm(_ what: String) {
    let minutes = begin.map { Double(Int((clock.now - $0) / .seconds(6))) / 10 } ?? 0
    report.falseAlarms.append("after \(minutes) minutes, the last harm \(lastHarm?.rawValue ?? "none"): \(what)")
  }

  private func look(_ item: ClusterFollower.Item) {
    if case .event(_, let record, _) = item, case .nodeStarted(let node) = record.event.body {
      started.insert(Life(node: node.node, incarnation: record.event.incarnation))
    }
    guard case .command(_, let record, .taken) = item else { return }
    switch record.command.body {
    case .notifyClusterConfig(let table):
      for (life, what) in open
      where !table.members.contains(where: { $0.node == life.node && $0.incarnation == life.incarnation && $0.state == .serving }) {
        report.detections[what.harm.rawValue, default: []].append(Double(Int((clock.now - what.at) / .microseconds(1))) / 1_000)
        open[life] = nil
      }
    case .launchRuntime(let launch), .launchSwitch(let launch):
      guard launch.incarnation.number > 1 else { return }
      let before = Life(node: launch.node, incarnation: Incarnation(launch.incarnation.number - 1))
      // A life that was launched and never served, since its host was lost meanwhile, is no alarm.
      if started.contains(before), !harmed.contains(before), mourned.insert(before).inserted {
        alarm("node \(launch.node) was launched again: \(record.command.reason)")
      }
    default: break
    }
  }

  private func verify(_ platform: Platform) {
    do throws(LabError) {
      report.verified = try Program.run(
        ["\(settings.binaries)/nfvctl", "verify", "--bootstrap", LabConfigurations.bootstrap], in: network.fabric)
    } catch {
      report.problems.append("the log does not verify: \(error)")
    }
  }

  /// SplitMix64.
  private func next() -> UInt64 {
    random &+= 0x9e37_79b9_7f4a_7c15
    var z = random
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }

  // MARK: Files

  private func agent(_ host: String, logs: String) -> String {
    let ports = host == "a" ? network.runtimeInterfaces.prefix(3) : network.runtimeInterfaces.suffix(3)
    let processors = (0..<max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))).map(String.init).joined(separator: ", ")
    return """
      host: \(network.prefix)-\(host)
      bootstrap: \(LabConfigurations.bootstrap)
      processors: [\(processors)]
      runtime-ports: [\(ports.map { "'af_packet:\($0)'" }.joined(separator: ", "))]
      switch-ports: [\(host == "a" ? "{client: 'af_packet:swc', server: 'af_packet:sws', fabric: 'af_packet:swf'}" : "")]
      memory: ordinary
      program: \(settings.binaries)/nfvactor
      log-directory: \(logs)

      """
  }

  private var cluster: String {
    """
    name: web
    runtimes: 4
    switches: 1
    pool-shares: 32
    polling: adaptive
    heartbeat: 10ms
    workload: 500ms
    chain:
      - packet-counter
    flows:
      capacity: 1024
    network:
      client:
        addresses: [10.1.0.2/24]
      server:
        addresses: [10.2.0.2/24]

    """
  }
}

/// What a soak came to.
public struct SoakReport: Sendable {
  public var minutes = 0.0
  public var harms: [String: Int] = [:]
  /// Milliseconds from the harm to the first table without the life, as the lab read it.
  public var detections: [String: [Double]] = [:]
  public var falseAlarms: [String] = []
  public var stalledSeconds = 0.0
  /// Milliseconds from a bus's death to the moment in which the next one listens.
  public var busReturns: [Double] = []
  /// Lines in the coordinators' logs that say that something is gravely wrong.
  public var criticalLines = 0
  public var verified = ""
  public var problems: [String] = []
  public var logs: String?

  public var passed: Bool { falseAlarms.isEmpty && problems.isEmpty && criticalLines == 0 }

  private static func percentile(_ values: [Double], _ share: Double) -> Double {
    let sorted = values.sorted()
    return sorted.isEmpty ? 0 : sorted[min(sorted.count - 1, Int(share * Double(sorted.count)))]
  }

  /// In the form of `make bench`.
  public func jsonLines() -> String {
    struct Figure: Encodable { var name: String, value: Double, unit: String, baseline = "none", ratio = 1.0, spread: [Double], repeats: Int }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    var figures = detections.sorted { $0.key < $1.key }.map { kind, times in
      Figure(
        name: "soak/detection/\(kind)", value: Self.percentile(times, 0.5), unit: "ms",
        spread: [Self.percentile(times, 0.1), Self.percentile(times, 0.9)], repeats: times.count)
    }
    if !busReturns.isEmpty {
      figures.append(
        Figure(
          name: "soak/bus-return", value: Self.percentile(busReturns, 0.5), unit: "ms",
          spread: [Self.percentile(busReturns, 0.1), Self.percentile(busReturns, 0.9)], repeats: busReturns.count))
    }
    figures.append(
      Figure(name: "soak/false-alarms", value: Double(falseAlarms.count), unit: "lives", spread: [], repeats: harms.values.reduce(0, +)))
    return figures.compactMap { try? encoder.encode($0) }.map { String(decoding: $0, as: UTF8.self) }.joined(separator: "\n") + "\n"
  }

  public var text: String {
    var lines = [
      "\(passed ? "Passed" : "Failed"): \(Double(Int(minutes * 10)) / 10) minutes, "
        + harms.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
        + "; the bus stood still for \(Int(stalledSeconds)) s in all"
    ]
    func times(_ times: [Double]) -> String {
      func ms(_ share: Double) -> Int { Int(Self.percentile(times, share)) }
      return "\(ms(0.5)) ms (\(ms(0.1)) - \(ms(0.9)), the longest \(Int(times.max() ?? 0))"
    }
    for (kind, all) in detections.sorted(by: { $0.key < $1.key }) {
      lines.append("  \(kind): noticed after \(times(all)); \(all.count) lives)")
    }
    if !busReturns.isEmpty { lines.append("  a killed bus listens again after \(times(busReturns)))") }
    lines.append("  false alarms: \(falseAlarms.count)")
    for alarm in falseAlarms.prefix(10) { lines.append("    \(alarm)") }
    lines.append("  grave words of coordinators: \(criticalLines)")
    if !verified.isEmpty { lines.append("  verify: " + verified.split(separator: "\n").joined(separator: "\n    ")) }
    for problem in problems { lines.append("  problem: \(problem)") }
    if let logs { lines.append("  logs in \(logs)") }
    return lines.joined(separator: "\n")
  }
}
