import ControlMessages
import ControlPlane

/// How long the control plane takes from a failure to the table that no longer names the failed node, by kind of
/// failure, and how often it raises a false alarm: an hour of log time, simulated.
///
/// Three hosts carry eight runtimes and a switch. Heartbeats come every 10 ms, one in a thousand is lost; the bus takes
/// 1 to 4 ms, and every half minute it stands still for 0.1 to 6 s, in which signs of life are lost. A failure happens
/// every 20 s. What the data plane and the agent notice is assumed: a peer after 100 ms, an exit within 20 ms.
struct DetectionBenchmark {
  let isQuick: Bool

  func run() throws {
    let report = Report(name: "detection")
    var soak = DetectionSoak(seed: 7)
    soak.run(seconds: isQuick ? 600 : 3_600)
    for (name, detections) in [("", soak.detections), ("/in-a-stall", soak.detectionsInStalls)] {
      for kind in DetectionSoak.Failure.allCases {
        guard let times = detections[kind], !times.isEmpty else { continue }
        let samples = times.map { Double($0) }
        try report.add(
          Measurement(
            "detection/\(kind)\(name)", samples, unit: "ms"))
      }
    }
    print(
      "stalls of the bus: \(soak.stalls), \(soak.stalled / 1_000) s in all; failures: \(soak.failures); undetected: \(soak.undetected)"
    )
    try report.add(Measurement("detection/false-alarms", [Double(soak.falseAlarms)], unit: "lives"))
  }
}

struct DetectionSoak {
  enum Failure: String, CaseIterable { case exit, frozenWorker, silentToPeer, hostLost }

  /// Milliseconds to the table that no longer names the failed life.
  private(set) var detections: [Failure: [UInt64]] = [:]
  /// The same where the bus stood still meanwhile.
  private(set) var detectionsInStalls: [Failure: [UInt64]] = [:]
  private(set) var falseAlarms = 0, stalls = 0, failures = 0
  private(set) var stalled: UInt64 = 0
  var undetected: Int { open.count }

  private struct Life: Hashable {
    var node: NodeID
    var incarnation: Incarnation
  }

  private var core = ClusterCore(cluster: ControlLog.cluster)
  private var random: SeededNumbers
  private var time: UInt64 = 1_000_000
  private var offset: UInt64 = 0
  private var authors: [ProducerID: EventAuthor] = [:]
  private var lives: [LaunchSpec] = []
  private var failing: [Life: Failure] = [:]
  private var open: [Life: (kind: Failure, since: UInt64)] = [:]
  private var lostHost: (id: HostID, until: UInt64)?
  private var seenDeaths: Set<Life> = []
  private var agenda: [(at: UInt64, body: Event.Body, by: ProducerID, life: Incarnation)] = []
  private let hosts = ["a", "b", "c"].map { HostID($0)! }
  private var stallEnd: UInt64 = 0

  init(seed: UInt64) { random = SeededNumbers(state: seed) }

  mutating func run(seconds: UInt64) {
    say(.rulesActivated(DecisionRules.newest), by: .tool(1))
    for host in hosts {
      say(.agentStarted(AgentStarted(host: host, cores: 16, runtimePorts: 16, switchPorts: 2)), by: .agent(host))
    }
    var spec = ClusterSpec(
      name: ControlLog.cluster, chain: ServiceChainSpec(functions: [.init(kind: "firewall", settings: Settings(.map([])))]),
      runtimes: 8,
      switches: 1)
    spec.poolShares = 64
    say(.clusterApplied(spec), by: .tool(2))
    for _ in 0..<(seconds * 1_000) { step() }
  }

  private mutating func step() {
    time += 1
    if time % 30_000 == 0 {
      stallEnd = time + 100 + random.next() % 5_900
      stalls += 1
      stalled += stallEnd - time
    }
    if time % 20_000 == 11_000 { fail() }
    if time < stallEnd { return }
    if let lost = lostHost, time >= lost.until { comeBack(lost.id) }
    for index in agenda.indices where agenda[index].at <= time {
      say(agenda[index].body, by: agenda[index].by, life: agenda[index].life)
    }
    agenda.removeAll { $0.at <= time }
    for life in lives where (time + UInt64(life.node.number)) % 10 == 0 && random.next() % 1_000 > 0 { beat(life) }
    if time % 100 == 0 {
      for name in ["one", "two", "three"] {
        say(
          .beacon(Beacon(position: nil, stateHash: 0, logHash: 0, rules: DecisionRules.newest)), by: .coordinator(HostID(name)!))
      }
    }
    if time % 500 == 0 { for host in hosts where host != lostHost?.id { say(.agentHeartbeat(host), by: .agent(host)) } }
    for death in core.state.deaths {
      let life = Life(node: death.node, incarnation: death.incarnation)
      if seenDeaths.insert(life).inserted, failing[life] == nil { falseAlarms += 1 }
    }
  }

  private mutating func beat(_ life: LaunchSpec) {
    switch failing[Life(node: life.node, incarnation: life.incarnation)] {
    case nil:
      say(.heartbeat(Heartbeat(node: life.node, workerLoops: time, busyLoops: 0)), by: producer(life), life: life.incarnation)
    case .frozenWorker:
      say(.heartbeat(Heartbeat(node: life.node, workerLoops: 1, busyLoops: 0)), by: producer(life), life: life.incarnation)
    case .exit, .silentToPeer, .hostLost: break
    }
  }

  private mutating func fail() {
    let well = lives.filter { failing[Life(node: $0.node, incarnation: $0.incarnation)] == nil && $0.host != lostHost?.id }
    guard well.count == lives.count, well.count >= 9, core.state.nodes.allSatisfy({ $0.memberState == .serving }) else { return }
    let victim = well[Int(random.next() % UInt64(well.count))]
    let kind = Failure.allCases[Int(random.next() % 4)]
    failures += 1
    if kind == .hostLost {
      lostHost = (victim.host, time + 15_000)
      for life in lives where life.host == victim.host { fail(life, .hostLost) }
      return
    }
    fail(victim, kind)
    if kind == .exit {
      agenda.append((time + random.next() % 20 + 1 + random.next() % 4, exited(victim), .agent(victim.host), Incarnation(1)))
    }
    if kind == .silentToPeer, let peer = well.first(where: { $0 != victim }) {
      for again in 0..<20 as Range<UInt64> {
        let word = PeerSilent(by: peer.node, node: victim.node, incarnation: victim.incarnation)
        agenda.append((time + 100 + again * 100 + random.next() % 4, .peerSilent(word), producer(peer), peer.incarnation))
      }
    }
  }

  private mutating func fail(_ life: LaunchSpec, _ kind: Failure) {
    let id = Life(node: life.node, incarnation: life.incarnation)
    failing[id] = kind
    open[id] = (kind, time)
  }

  /// The host is heard again; what ran on it is gone.
  private mutating func comeBack(_ host: HostID) {
    lostHost = nil
    for life in lives where life.host == host { say(exited(life), by: .agent(host)) }
    lives.removeAll { $0.host == host && failing[Life(node: $0.node, incarnation: $0.incarnation)] != nil }
  }

  private func exited(_ life: LaunchSpec) -> Event.Body {
    .processExited(ProcessExited(host: life.host, node: life.node, incarnation: life.incarnation, ending: .signal(9)))
  }

  private func producer(_ life: LaunchSpec) -> ProducerID { .node(life.kind, life.cluster, life.node) }

  private mutating func say(_ body: Event.Body, by producer: ProducerID, life: Incarnation = Incarnation(1)) {
    var author = authors[producer] ?? EventAuthor(producer: producer, incarnation: life)
    if author.incarnation < life { author = EventAuthor(producer: producer, incarnation: life) }
    let event = author.write(body)
    authors[producer] = author
    offset += 1
    for command in core.apply(EventRecord(offset: Offset(offset), timestamp: Timestamp(milliseconds: time), event: event)) {
      obey(command)
    }
  }

  private mutating func obey(_ command: Command) {
    switch command.body {
    case .notifyClusterConfig(let table):
      for (life, failure) in open
      where !table.members.contains(where: { $0.node == life.node && $0.incarnation == life.incarnation && $0.state == .serving })
      {
        if stallEnd > failure.since {
          detectionsInStalls[failure.kind, default: []].append(time - failure.since)
        } else {
          detections[failure.kind, default: []].append(time - failure.since)
        }
        open[life] = nil
      }
    case .launchRuntime(let launch), .launchSwitch(let launch):
      lives.removeAll { $0.node == launch.node && $0.host != lostHost?.id }
      lives.append(launch)
      let ports = NodePorts(input: HardwareAddress(bits: 1), output: HardwareAddress(bits: 2), control: HardwareAddress(bits: 3))
      let started = NodeStarted(node: launch.node, kind: launch.kind, host: launch.host, processID: 1, ports: ports, startup: 200)
      agenda.append((time + 210, .nodeStarted(started), producer(launch), launch.incarnation))
    case .fence(let node, let incarnation):
      guard case .host(let host) = command.target, host != lostHost?.id else { break }
      let ended = ProcessExited(host: host, node: node, incarnation: incarnation, ending: .signal(9))
      agenda.append((time + 30, .processExited(ended), .agent(host), Incarnation(1)))
    default: break
    }
  }
}

/// SplitMix64.
struct SeededNumbers {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
