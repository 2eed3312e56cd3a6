// Hosts, agents and processes as chance has them, answering the core's commands well, badly, late or never.
import ControlMessages
import ControlPlane

struct ClusterWorld {
  struct Process {
    var launch: LaunchSpec
    /// When it says that it started.
    var ready: UInt64
    var command: Command
    var hasStarted = false
    /// It runs, and nobody hears it.
    var isMute = false
  }

  var story = ClusterStory()
  /// What really runs, whatever the log says.
  var processes: [Process] = []
  var violations: [String] = []
  private var random: RandomNumbers
  private var read = 0
  private var agents: [HostID] = []
  /// Lives that an agent has promised not to begin.
  private var forsworn: Set<String> = []
  /// Commands that have not reached their agents, and when they will.
  private var onTheWay: [(command: Command, at: UInt64)] = []
  private var isHealthy = false
  private var rules = DecisionRules.first

  init(seed: UInt64) { random = RandomNumbers(seed: seed) }

  static func run(seed: UInt64, steps: Int = 400, rules: UInt32 = DecisionRules.first) -> ClusterWorld {
    var world = ClusterWorld(seed: seed)
    world.rules = rules
    if rules > DecisionRules.first { world.story.say(.rulesActivated(rules), by: .tool(2), isCritical: true) }
    for name in ["a", "b", "c"].prefix(Int.random(in: 1...3, using: &world.random)) {
      world.agents.append(HostID(name)!)
      world.story.agent(name)
    }
    world.story.apply(Samples.spec)
    for _ in 0..<steps { world.step() }
    return world
  }

  /// Everything works again, for long enough.
  mutating func heal() {
    isHealthy = true
    for index in processes.indices { processes[index].isMute = false }
    for agent in agents { story.agent(agent.name, runtimes: 64, switches: 8, life: 1) }
    for _ in 0..<800 { step() }
  }

  private mutating func step() {
    pass(milliseconds: isHealthy ? 400 : UInt64.random(in: 10...1_500, using: &random))
    receiveCommands()
    for (index, process) in processes.enumerated().reversed() where !process.hasStarted && process.ready <= story.time {
      processes[index].hasStarted = true
      story.start(process.command)
    }
    guard !isHealthy else { return }
    switch Int.random(in: 0..<40, using: &random) {
    case 0...2: if let index = processes.indices.randomElement(using: &random) { end(index, .signal(9)) }
    case 3...6: if let process = processes.filter(\.hasStarted).randomElement(using: &random) {
      let drops = rules >= DecisionRules.failureDetection ? UInt64.random(in: 0...200, using: &random) : 0
      story.workload(process.launch, flows: UInt64.random(in: 0...10_000, using: &random), drops: drops)
    }
    case 7, 8:
      var spec = Samples.spec
      spec.runtimes = UInt32.random(in: 1...4, using: &random)
      spec.switches = UInt32.random(in: 0...2, using: &random)
      if Bool.random(using: &random) { spec.chain.functions.removeLast() }
      story.apply(spec)
    case 9 where Int.random(in: 0..<4, using: &random) == 0:
      story.say(.clusterDeleted(Samples.cluster), by: .tool(1))
      story.apply(Samples.spec, after: 100)
    case let draw where (10...13).contains(draw) && rules >= DecisionRules.failureDetection:
      if let index = processes.indices.randomElement(using: &random) { processes[index].isMute.toggle() }
    case let draw where (14...17).contains(draw) && rules >= DecisionRules.failureDetection:
      guard let mute = processes.first(where: \.isMute), let peer = processes.first(where: { $0.hasStarted && !$0.isMute }) else { break }
      story.peerSilent(mute.launch, by: peer.launch)
    case 18 where rules >= DecisionRules.failureDetection:
      var policy = Samples.dropPolicy
      policy.minimumRuntimes = 1
      policy.cooldown = UInt64.random(in: 0...2_000, using: &random)
      story.say(.policyActivated(Bool.random(using: &random) ? policy : ScalingPolicy(.manual)), by: .tool(3))
    case 19, 20, 21:
      guard rules >= DecisionRules.flowRequests, let source = story.core.state.nodes.randomElement(using: &random),
        let target = story.core.state.nodes.randomElement(using: &random)
      else { break }
      let afterwards: DrainRequest.Afterwards = [.keep, .stop, .undo].randomElement(using: &random)!
      story.say(
        Bool.random(using: &random)
          ? .moveRequested(MoveRequest(source: source.id, target: target.id, flows: UInt64.random(in: 0...9_000, using: &random)))
          : .drainRequested(DrainRequest(node: source.id, afterwards: afterwards)), by: .tool(4))
    case 22, 23 where rules >= DecisionRules.liveSettings:
      guard rules >= DecisionRules.liveSettings, var spec = story.core.state.spec, spec.chain.functions.first?.kind == "firewall"
      else { break }
      let number = String(Int.random(in: 0...9, using: &random))
      spec.chain.functions[0].settings = Settings(.map([.init("rules", Settings(.scalar(number)))]))
      story.apply(spec)
      guard let command = story.commands.last, case .changeSettings = command.body else { break }
      for process in processes where process.hasStarted && process.launch.kind == .runtime {
        let outcome: CommandAcknowledgement.Outcome = Bool.random(using: &random) ? .applied : .rejected(reason: "no")
        story.say(
          .commandAcknowledged(.init(slot: command.slot, by: .node(process.launch.node), outcome: outcome)),
          by: .node(.runtime, Samples.cluster, process.launch.node), life: process.launch.incarnation.number)
      }
    default: break
    }
  }

  private mutating func pass(milliseconds: UInt64) {
    story.say(.tick, by: .coordinator(Samples.host), after: milliseconds)
    for agent in agents { story.say(.agentHeartbeat(agent), by: .agent(agent)) }
    for process in processes where process.hasStarted && !process.isMute { story.heartbeat(process.launch) }
  }

  private mutating func receiveCommands() {
    while read < story.commands.count {
      let delay = isHealthy || Int.random(in: 0..<4, using: &random) > 0 ? 0 : UInt64.random(in: 0...15_000, using: &random)
      onTheWay.append((story.commands[read], story.time + delay))
      read += 1
    }
    let due = onTheWay.filter { $0.at <= story.time }
    onTheWay.removeAll { $0.at <= story.time }
    for (command, _) in due {
      if let launch = command.launch { begin(launch, command) }
      if let stopped = command.stopped { stop(stopped.node, stopped.incarnation, command) }
    }
  }

  private mutating func begin(_ launch: LaunchSpec, _ command: Command) {
    guard story.time <= command.expiry.milliseconds, !forsworn.contains("\(launch.node)/\(launch.incarnation)") else { return }
    switch isHealthy ? 9 : Int.random(in: 0..<10, using: &random) {
    case 0: story.answer(command, .rejected(reason: "no"))
    case 1: break  // it got lost in the agent
    case let chance:
      if launch.kind == .runtime {
        for other in processes where other.launch.kind == .runtime && overlap(other.launch.poolShare, launch.poolShare) {
          violations.append("\(other.launch.node)/\(other.launch.incarnation) and \(launch.node)/\(launch.incarnation)")
        }
      }
      let startup = chance < 4 ? UInt64.random(in: 5_000...20_000, using: &random) : UInt64.random(in: 100...400, using: &random)
      processes.append(Process(launch: launch, ready: story.time + startup, command: command))
    }
  }

  /// Whether two shares, perhaps of different cuts, have an address in common.
  private func overlap(_ a: PoolShare, _ b: PoolShare) -> Bool {
    a.index * b.count < (b.index + 1) * a.count && b.index * a.count < (a.index + 1) * b.count
  }

  private mutating func stop(_ node: NodeID, _ incarnation: Incarnation, _ command: Command) {
    if let index = processes.firstIndex(where: { $0.launch.node == node && $0.launch.incarnation == incarnation }) {
      end(index, .signal(15))
    } else {
      forsworn.insert("\(node)/\(incarnation)")
      story.answer(command, .completed)
    }
  }

  private mutating func end(_ index: Int, _ ending: ProcessExited.Ending) {
    let process = processes.remove(at: index)
    story.exit(process.launch, ending)
  }
}
