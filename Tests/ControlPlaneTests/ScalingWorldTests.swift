// Policies under loads that come and go: whatever the seed draws, the limits hold after every command.
import ControlMessages
import ControlPlane
import Testing

/// A cluster whose runtimes have a capacity, and flows that each bring the same load. Nodes start, flows move and processes
/// end as commands ask, half a second later.
struct ScalingWorld {
  private(set) var story = ClusterStory()
  let policy: ScalingPolicy
  private var random: RandomNumbers
  private var flows: [NodeID: UInt64] = [:]
  private var lives: [NodeID: LaunchSpec] = [:]
  private var agenda: [Task] = []
  /// Packets per second that one runtime forwards.
  private let capacity: UInt64 = 10_000
  private(set) var faults: [String] = []
  /// Times of what the policy did.
  private(set) var actions: [UInt64] = []
  private var underWay: Set<Slot> = []

  private enum Task {
    case start(LaunchSpec)
    case finish(Slot, NodeID, NodeID, UInt64)
    case exit(LaunchSpec)
  }

  static let poolShares: UInt32 = 12

  init(seed: UInt64) {
    random = RandomNumbers(seed: seed)
    var policy = ScalingPolicy(.manual)
    if random.next() % 2 == 0 {
      var rule = ScalingPolicy.DropThreshold()
      rule.idleBusyShare = UInt32(200_000 + random.next() % 400_000)
      policy.kind = .dropThreshold(rule)
    } else {
      var rule = ScalingPolicy.TargetUtilisation()
      rule.busyShare = UInt32(400_000 + random.next() % 400_000)
      rule.tolerance = UInt32(50_000 + random.next() % 150_000)
      policy.kind = .targetUtilisation(rule)
    }
    policy.minimumRuntimes = UInt32(1 + random.next() % 3)
    policy.maximumRuntimes = policy.minimumRuntimes + UInt32(random.next() % 14)
    policy.cooldown = [0, 1_000, 5_000, 20_000][Int(random.next() % 4)]
    policy.overloadPatience = [0, 750, 3_000][Int(random.next() % 3)]
    policy.idlePatience = [1_000, 5_000][Int(random.next() % 2)]
    policy.flowsPerMove = UInt32(100 + random.next() % 900)
    policy.concurrentMoves = UInt32(1 + random.next() % 3)
    policy.drainTimeout = 30_000
    self.policy = policy

    story.say(.rulesActivated(DecisionRules.newest), by: .tool(9), isCritical: true)
    story.agent("a", runtimes: 32)
    var spec = Samples.spec
    spec.runtimes = policy.minimumRuntimes
    spec.switches = 1
    spec.poolShares = Self.poolShares
    // Nobody here gives other signs of life than workloads.
    spec.heartbeatInterval = 60_000
    obey(story.apply(spec))
    step(load: 0)
    step(load: 0)
    obey(story.say(.policyActivated(policy), by: .tool(10), isCritical: true))
  }

  private var serving: [ClusterState.Node] { story.core.state.nodes.filter { $0.kind == .runtime && $0.memberState == .serving } }

  /// Half a second with so many packets per second in all, spread over flows as the runtimes have them.
  mutating func step(load: UInt64) {
    let due = agenda
    agenda = []
    for task in due { perform(task) }
    // New flows go to the least loaded; there are as many as the load is.
    let wanted = load / 10
    var all = flows.values.reduce(0, +)
    while all > wanted, let most = flows.filter({ $0.value > 0 }).max(by: { ($0.value, $1.key) < ($1.value, $0.key) })?.key {
      let gone = min(flows[most]!, max(1, (all - wanted) / UInt64(flows.count)))
      flows[most]! -= gone
      all -= gone
    }
    while all < wanted, let least = serving.min(by: { (flows[$0.id, default: 0], $0.id) < (flows[$1.id, default: 0], $1.id) })?.id {
      let new = min(wanted - all, max(1, (wanted - all) / UInt64(serving.count)))
      flows[least, default: 0] += new
      all += new
    }
    for life in lives.values.sorted(by: { $0.node < $1.node }) where life.kind == .runtime {
      let packets = flows[life.node, default: 0] * 10
      var work = NodeWorkload(node: life.node, interval: 500)
      work.activeFlows = flows[life.node, default: 0]
      work.forwardedPackets = min(packets, capacity) / 2
      work.droppedPackets = (packets - min(packets, capacity)) / 2
      if work.droppedPackets > 0 { work.drops = [.init(reason: "missed-by-port", packets: work.droppedPackets)] }
      work.busyShare = UInt32(min(1_000_000, packets * 1_000_000 / capacity))
      obey(story.say(.workload(work), by: .node(.runtime, Samples.cluster, life.node), life: life.incarnation.number))
    }
    for _ in 0..<5 {
      obey(
        story.say(
          .beacon(Beacon(position: nil, stateHash: 0, logHash: 0, rules: DecisionRules.newest)), by: .coordinator(Samples.host),
          after: 100))
    }
    obey(story.say(.agentHeartbeat(HostID("a")!), by: .agent(HostID("a")!)))
  }

  private mutating func perform(_ task: Task) {
    switch task {
    case .start(let launch):
      lives[launch.node] = launch
      if launch.kind == .runtime { flows[launch.node] = flows[launch.node] ?? 0 }
      obey(
        story.say(
          .nodeStarted(
            NodeStarted(
              node: launch.node, kind: launch.kind, host: launch.host, processID: 1, ports: Samples.ports, startup: 1,
              canMigrate: launch.kind == .runtime)),
          by: .node(launch.kind, launch.cluster, launch.node), life: launch.incarnation.number))
    case .finish(let slot, let source, let target, let count):
      guard let life = lives[source], lives[target] != nil else { return }
      let moved = min(count, flows[source, default: 0])
      flows[source, default: 0] -= moved
      flows[target, default: 0] += moved
      underWay.remove(slot)
      for outcome in [CommandAcknowledgement.Outcome.progress(done: moved, of: count), .completed] {
        obey(
          story.say(
            .commandAcknowledged(.init(slot: slot, by: .node(source), outcome: outcome)), by: .node(.runtime, Samples.cluster, source),
            life: life.incarnation.number))
      }
    case .exit(let life):
      lives[life.node] = nil
      flows[life.node] = nil
      obey(
        story.say(
          .processExited(ProcessExited(host: life.host, node: life.node, incarnation: life.incarnation, ending: .code(0))),
          by: .agent(life.host)))
    }
  }

  private mutating func obey(_ commands: [Command]) {
    for command in commands {
      switch command.body {
      case .launchRuntime(let launch), .launchSwitch(let launch):
        agenda.append(.start(launch))
        if command.reason.hasPrefix("policy ") { act(command) }
      case .drainRuntime: if command.reason.hasPrefix("policy ") { act(command) }
      case .setMigrationTarget(let move):
        agenda.append(.finish(command.slot, move.source, move.target, UInt64(move.flows)))
        underWay.insert(command.slot)
        if underWay.count > policy.concurrentMoves { faults.append("\(underWay.count) moves at once: \(command.reason)") }
        if move.flows > policy.flowsPerMove { faults.append("\(move.flows) flows in one move: \(command.reason)") }
      case .stopNode(let node, _): if let life = lives[node] { agenda.append(.exit(life)) }
      default: break
      }
    }
    check()
  }

  private mutating func act(_ command: Command) {
    if let last = actions.last, story.time - last < policy.cooldown {
      faults.append("\(story.time - last) ms after the last action: \(command.reason)")
    }
    actions.append(story.time)
  }

  private mutating func check() {
    let state = story.core.state
    guard state.scaling.policy != nil else { return }
    let wanted = state.wanted(.runtime)
    let most = min(policy.maximumRuntimes, Self.poolShares)
    if wanted > most { faults.append("\(wanted) runtimes wanted, \(most) allowed") }
    if wanted < min(policy.minimumRuntimes, Self.poolShares) { faults.append("\(wanted) runtimes wanted, \(policy.minimumRuntimes) is the least") }
    let carrying = state.nodes.count { $0.kind == .runtime && $0.drain == nil && $0.isAlive }
    if carrying > Int(most) { faults.append("\(carrying) runtimes there, \(most) allowed") }
    if state.nodes.count(where: { $0.drain != nil }) > 1 { faults.append("two drain at once") }
    let shares = state.nodes.compactMap(\.poolShare)
    if Set(shares).count != shares.count { faults.append("a pool share twice") }
  }

  /// A load that jumps about, and then stays for as long as it takes to come from any count to any other, and 40 s longer.
  static func run(seed: UInt64) -> (world: ScalingWorld, quietSince: UInt64) {
    var world = ScalingWorld(seed: seed)
    for _ in 0..<8 {
      let load = world.random.next() % 140_000
      for _ in 0..<Int(10 + world.random.next() % 60) { world.step(load: load) }
    }
    let load = world.random.next() % 100_000
    let settling = UInt64(poolShares + 2) * (max(world.policy.cooldown, world.policy.idlePatience, world.policy.overloadPatience) + 3_000)
    for _ in 0..<(settling / 500 + 80) { world.step(load: load) }
    return (world, world.story.time - 40_000)
  }
}

@Suite struct ScalingWorldTests {
  @Test(arguments: 1...30) func `limits, cooldown and the budget of moves hold, whatever the load does`(seed: Int) {
    let (world, _) = ScalingWorld.run(seed: UInt64(seed))
    #expect(world.faults.isEmpty, "seed \(seed), \(world.policy): \(Set(world.faults).prefix(5))")
  }

  @Test(arguments: 1...30) func `under a load that stays, the count comes to rest`(seed: Int) {
    let (world, quietSince) = ScalingWorld.run(seed: UInt64(seed))
    let late = world.actions.filter { $0 > quietSince }
    #expect(late.isEmpty, "seed \(seed), \(world.policy): \(late.count) actions in the last 40 s")
  }

  @Test func `the worlds are not idle: most of them scale out and in`() {
    let actions = (1...20).map { ScalingWorld.run(seed: $0).world.actions.count }
    #expect(actions.reduce(0, +) > 100 && actions.count { $0 > 2 } > 12, "\(actions)")
  }

  @Test func `what was decided about a load is decided again, and another policy differs`() {
    let log = StoryLog(ScalingWorld.run(seed: 3).world.story)
    #expect(log.verify().findings.faultCount == 0)
    #expect(log.replay() == [])
    var eager = ScalingPolicy(.targetUtilisation(.init()))
    eager.minimumRuntimes = 7
    let differences = log.replay(instead: [.policyActivated(eager)])
    #expect(differences.flatMap(\.added).contains { $0.launch != nil })
    // The recorded policy is passed over: none of its decisions is made again.
    #expect(!differences.flatMap(\.added).contains { $0.reason.hasPrefix("policy drop-threshold") })
  }
}
