// Runtimes with flows, replicas and shares of a pool, as the data plane has them, under a core that only knows the log.
import ControlMessages
import ControlPlane
import Testing

/// Processes read the commands late, each at its own pace, say what they do when they have done it, die, fall silent and
/// wake up again. What really happened to each flow is known here, whatever the log says.
struct RecoveryWorld {
  struct Flow: Hashable {
    let number: Int
    /// Whose pool the flow's address is from.
    let share: UInt32
  }

  struct Process {
    let launch: LaunchSpec
    let command: Command
    var ready: UInt64
    var hasStarted = false
    /// It runs, and the log does not hear it nor it the log.
    var isCut = false
    /// Of `story.commands`.
    var read: Int
    var readAt: UInt64 = 0
    var countsAt: UInt64 = 0
    var lastTable = Slot.none
    var flows: [Flow] = []
    /// What it keeps for others.
    var replicas: [NodeLife: [Flow]] = [:]
    /// Without whom none of its packets leaves.
    var holders: [NodeLife] = []
    /// Lives whose flows are another's now, and that other: until he has replicas of them, it keeps its own.
    var standsBy: [NodeLife: NodeLife] = [:]
    /// What it will have done at a time.
    var work: [(at: UInt64, what: Work)] = []

    var life: NodeLife { NodeLife(launch.node, launch.incarnation) }
  }

  enum Work {
    case protected(Slot)
    case adopted(Slot, NodeLife)
    case moved(Slot, FlowMove)
  }

  struct Faults {
    var kills = true
    /// Owner and holder in one moment.
    var pairs = false
    /// Somebody dies only while the state says that no flow can be lost by it.
    var onlyWhenProtected = false
    var cuts = true
    var moves = true
    var drains = true
    /// Milliseconds from one fault to the next, at least.
    var pause: UInt64 = 0
  }

  var story = ClusterStory()
  var processes: [Process] = []
  var violations: [String] = []
  /// Flows that a process had when it ended and nobody has now.
  var lost: [Flow] = []
  var recovered = 0
  var kills = 0
  /// Of the kills, those of two at once.
  var pairs = 0
  private(set) var spec: ClusterSpec
  private let faults: Faults
  private var random: RandomNumbers
  private var isHealthy = false
  private var nextFlow = 0
  private var lastFault: UInt64 = 0
  private var agentsRead = 0
  private var loops: UInt64 = 0
  private var forsworn: Set<NodeLife> = []
  /// Whom its peers do not hear, and say so in every step.
  private var unheard: NodeLife?
  /// Ends that the agents have not told yet.
  private var ends: [(at: UInt64, launch: LaunchSpec)] = []
  /// Flows of lives that ended, until somebody adopts them.
  private var orphans: [NodeLife: [Flow]] = [:]

  init(
    seed: UInt64, runtimes: UInt32 = 3, replicas: UInt32 = 1, poolShares: UInt32 = 8, rules: UInt32 = DecisionRules.newest,
    faults: Faults
  ) {
    random = RandomNumbers(seed: seed)
    self.faults = faults
    spec = Samples.replicatedSpec
    spec.runtimes = runtimes
    spec.replicas = replicas
    spec.poolShares = poolShares
    spec.heartbeatInterval = 100
    story.say(.rulesActivated(rules), by: .tool(2), isCritical: true)
    for name in ["a", "b", "c"] { story.agent(name) }
    story.apply(spec)
  }

  static func run(
    seed: UInt64, steps: Int, runtimes: UInt32 = 3, replicas: UInt32 = 1, poolShares: UInt32 = 8,
    rules: UInt32 = DecisionRules.newest, faults: Faults = Faults()
  ) -> RecoveryWorld {
    var world = RecoveryWorld(
      seed: seed, runtimes: runtimes, replicas: replicas, poolShares: poolShares, rules: rules, faults: faults)
    world.isHealthy = true
    for _ in 0..<60 { world.step() }
    world.isHealthy = false
    for _ in 0..<steps { world.step() }
    return world
  }

  /// Faults end, and everybody has the time to come to rest.
  mutating func heal() {
    isHealthy = true
    for index in processes.indices { processes[index].isCut = false }
    for _ in 0..<400 { step() }
  }

  /// All flows end.
  mutating func endFlows() {
    for index in processes.indices {
      processes[index].flows = []
      processes[index].replicas = [:]
      processes[index].standsBy = [:]
    }
    orphans = [:]
  }

  private mutating func chance(_ one: Int) -> Bool { Int.random(in: 0..<one, using: &random) == 0 }
  private mutating func soon(_ most: UInt64) -> UInt64 { story.time + UInt64.random(in: 1...(isHealthy ? min(most, 60) : most), using: &random) }

  mutating func step() {
    story.say(.tick, by: .coordinator(Samples.host), after: UInt64.random(in: 20...140, using: &random))
    loops += 1
    for host in story.core.state.hosts where loops % 5 == 0 { story.say(.agentHeartbeat(host.id), by: .agent(host.id)) }
    for end in ends where end.at <= story.time { story.exit(end.launch) }
    ends.removeAll { $0.at <= story.time }
    workAgents()
    for index in processes.indices where !processes[index].isCut { live(index) }
    accuse()
    endGivenUp()
    passTraffic()
    if !isHealthy, story.time >= lastFault + faults.pause, chance(12) { fault() }
  }

  // MARK: Processes

  private func index(of life: NodeLife) -> Int? { processes.firstIndex { $0.life == life && $0.hasStarted } }

  private mutating func live(_ index: Int) {
    let launch = processes[index].launch
    if !processes[index].hasStarted {
      guard processes[index].ready <= story.time else { return }
      processes[index].hasStarted = true
      story.start(processes[index].command)
    }
    say(index, .heartbeat(Heartbeat(node: launch.node, workerLoops: loops, busyLoops: 0)))
    guard launch.kind == .runtime else { return }
    finishWork(index)
    if processes[index].readAt <= story.time {
      readCommands(index)
      processes[index].readAt = chance(4) ? soon(1_500) : story.time
    }
    if processes[index].countsAt <= story.time {
      processes[index].countsAt = story.time + spec.workloadInterval
      count(index)
    }
  }

  private mutating func say(_ index: Int, _ body: Event.Body) {
    let launch = processes[index].launch
    story.say(body, by: .node(launch.kind, launch.cluster, launch.node), life: launch.incarnation.number)
  }

  private mutating func answer(_ index: Int, _ slot: Slot, _ outcome: CommandAcknowledgement.Outcome) {
    say(index, .commandAcknowledged(.init(slot: slot, by: .node(processes[index].launch.node), outcome: outcome)))
  }

  private mutating func count(_ index: Int) {
    let process = processes[index]
    var load = NodeWorkload(node: process.launch.node, interval: 400)
    load.activeFlows = UInt64(process.flows.count)
    load.replicasHeld = UInt64(process.replicas.values.reduce(0) { $0 + $1.count })
    let foreign = process.flows.filter { $0.share != process.launch.poolShare.index }
    for share in Set(foreign.map(\.share)).sorted() {
      load.borrowed.append(.init(share: share, flows: UInt64(foreign.count { $0.share == share })))
    }
    load.lastSlot = process.lastTable
    say(index, .workload(load))
  }

  private mutating func readCommands(_ index: Int) {
    while processes[index].read < story.commands.count {
      let command = story.commands[processes[index].read]
      processes[index].read += 1
      let life = processes[index].life
      switch command.body {
      case .notifyClusterConfig: processes[index].lastTable = command.slot
      case .setReplicas(let assignment) where assignment.owner == life:
        let holders = [assignment.holder, assignment.second].compactMap { $0 }
        for former in processes[index].holders where spec.replicas == 1 || !holders.contains(former) {
          if let old = self.index(of: former) { processes[old].replicas[life] = nil }
        }
        processes[index].holders = holders
        processes[index].work.removeAll { if case .protected = $0.what { true } else { false } }
        guard !holders.isEmpty else {
          answer(index, command.slot, .completed)
          continue
        }
        answer(index, command.slot, .received)
        processes[index].work.append((soon(2_000), .protected(command.slot)))
      case .recover(let recovery) where recovery.by == life:
        answer(index, command.slot, .received)
        processes[index].work.append((soon(800), .adopted(command.slot, recovery.lost)))
      case .recover(let recovery):
        dropStandbys(index, for: recovery.lost)
        if recovery.standby == life {
          processes[index].standsBy[recovery.lost] = recovery.by
        } else {
          processes[index].replicas[recovery.lost] = nil
        }
      case .setMigrationTarget(let move) where NodeLife(move.source, move.sourceIncarnation) == life:
        processes[index].work.append((soon(isHealthy ? 200 : 40_000), .moved(command.slot, move)))
      default: break
      }
    }
  }

  private mutating func finishWork(_ index: Int) {
    let due = processes[index].work.filter { $0.at <= story.time }
    processes[index].work.removeAll { $0.at <= story.time }
    for (_, what) in due {
      switch what {
      case .protected(let slot):
        let others = processes[index].holders.map { self.index(of: $0) }
        guard others.allSatisfy({ $0 != nil }) else { continue }
        for other in others.compactMap({ $0 }) { processes[other].replicas[processes[index].life] = processes[index].flows }
        answer(index, slot, .completed)
        release(index)
      case .adopted(let slot, let lost):
        var flows = processes[index].replicas.removeValue(forKey: lost) ?? []
        var left = orphans.removeValue(forKey: lost) ?? []
        // What the lost life had been asked to take over itself, or had only just.
        for (other, by) in processes[index].standsBy where by == lost {
          left += orphans.removeValue(forKey: other) ?? []
          flows += processes[index].replicas[other, default: []].filter { left.contains($0) && !flows.contains($0) }
        }
        dropStandbys(index, for: lost)
        self.lost += left.filter { !flows.contains($0) }
        take(flows, index)
        release(index)
        recovered += flows.count
        var end = RecoveryFinished(slot: slot, node: processes[index].launch.node, lost: lost)
        end.recovered = UInt64(flows.count)
        say(index, .recoveryFinished(end))
        answer(index, slot, .completed)
      case .moved(let slot, let move):
        let target = self.index(of: NodeLife(move.target, move.targetIncarnation))
        if let target, !processes[target].isCut {
          let flows = Array(processes[index].flows.prefix(Int(move.flows)))
          give(flows, index)
          take(flows, target)
          answer(index, slot, .progress(done: UInt64(flows.count), of: UInt64(move.flows)))
        }
        answer(index, slot, .completed)
      }
    }
  }

  /// A process forgets what it kept in case that `life` ends before it has replicas of the flows that it took over.
  private mutating func dropStandbys(_ index: Int, for life: NodeLife) {
    for (lost, by) in processes[index].standsBy where by == life {
      processes[index].standsBy[lost] = nil
      processes[index].replicas[lost] = nil
    }
  }

  /// When all flows of a process have replicas, nobody needs to stand by for them.
  private mutating func release(_ index: Int) {
    let life = processes[index].life
    guard processes[index].work.isEmpty, processes[index].holders.allSatisfy({ self.index(of: $0) != nil }) else { return }
    for other in processes.indices {
      // What it has not even read of is still to come.
      for (lost, by) in processes[other].standsBy where by == life && orphans[lost] == nil {
        processes[other].standsBy[lost] = nil
        processes[other].replicas[lost] = nil
      }
    }
  }

  /// Flows come to a process, and to its holders with it.
  private mutating func take(_ flows: [Flow], _ index: Int) {
    processes[index].flows += flows
    for other in processes[index].holders.compactMap({ self.index(of: $0) }) {
      processes[other].replicas[processes[index].life, default: []] += flows
    }
  }

  private mutating func give(_ flows: [Flow], _ index: Int) {
    processes[index].flows.removeAll { flows.contains($0) }
    for other in processes[index].holders.compactMap({ self.index(of: $0) }) {
      processes[other].replicas[processes[index].life]?.removeAll { flows.contains($0) }
    }
  }

  private mutating func passTraffic() {
    for index in processes.indices where processes[index].hasStarted && processes[index].launch.kind == .runtime {
      let life = processes[index].life
      guard let node = story.core.state.node(life.node), node.incarnation == life.incarnation, node.memberState == .serving else { continue }
      // Output commit: without its holders nothing leaves, so nobody has seen the flow.
      if processes[index].holders.contains(where: { self.index(of: $0) == nil }) { continue }
      if processes[index].flows.count < 12, chance(3) {
        nextFlow += 1
        take([Flow(number: nextFlow, share: processes[index].launch.poolShare.index)], index)
      }
      if chance(6), let flow = processes[index].flows.randomElement(using: &random) { give([flow], index) }
    }
  }

  private mutating func accuse() {
    guard let life = unheard, let victim = processes.first(where: { $0.life == life && $0.isCut }) else {
      unheard = nil
      return
    }
    for peer in processes where peer.hasStarted && !peer.isCut { story.peerSilent(victim.launch, by: peer.launch) }
  }

  // MARK: Agents

  private mutating func workAgents() {
    while agentsRead < story.commands.count {
      let command = story.commands[agentsRead]
      agentsRead += 1
      if let launch = command.launch {
        guard !forsworn.contains(NodeLife(launch.node, launch.incarnation)) else { continue }
        check(launch)
        processes.append(Process(launch: launch, command: command, ready: soon(400), read: agentsRead))
      }
      if let stopped = command.stopped {
        let life = NodeLife(stopped.node, stopped.incarnation)
        if let index = processes.firstIndex(where: { $0.life == life }) {
          end(index)
        } else if !ends.contains(where: { $0.launch.node == life.node && $0.launch.incarnation == life.incarnation }) {
          forsworn.insert(life)
          story.answer(command, .completed)
        }
      }
    }
  }

  /// A process that may hand out addresses of a share begins: nobody else may, and no flow may have one.
  private mutating func check(_ launch: LaunchSpec) {
    guard launch.kind == .runtime else { return }
    let share = launch.poolShare.index
    for process in processes where process.launch.kind == .runtime {
      if process.launch.poolShare.index == share { violations.append("\(process.life) and node \(launch.node) hold share \(share)") }
      // A life that was given up changes nothing any more: what it still has leaves nowhere.
      guard !story.core.state.abandoned.contains(where: { $0.node == process.launch.node && $0.incarnation == process.launch.incarnation })
      else { continue }
      if process.flows.contains(where: { $0.share == share }) { violations.append("a flow of \(process.life) uses share \(share)") }
      for (owner, flows) in process.replicas where orphans[owner] != nil && flows.contains(where: { $0.share == share }) {
        let isOpen = story.core.state.lostLives.contains { $0.life == owner && !$0.isSettled }
        if isOpen { violations.append("a flow of \(owner), not recovered yet, uses share \(share)") }
      }
    }
  }

  private mutating func end(_ index: Int) {
    let process = processes.remove(at: index)
    if process.launch.kind == .runtime { orphans[process.life] = process.flows }
    ends.append((soon(60), process.launch))
  }

  /// A process that reads that its life is over ends itself; one that is cut off is seen to by its agent.
  private mutating func endGivenUp() {
    for index in processes.indices.reversed() where processes[index].hasStarted && !processes[index].isCut {
      let life = processes[index].life
      if story.core.state.lostLives.contains(where: { $0.life == life }), processes[index].read >= story.commands.count { end(index) }
    }
    // Nobody will adopt what nobody was asked to.
    for lost in story.core.state.lostLives where lost.isSettled && !isAwaited(lost) {
      self.lost += orphans.removeValue(forKey: lost.life) ?? []
    }
  }

  /// Whether somebody keeps replicas of a life whose recovery was not finished, or is going to when he reads of it.
  private func isAwaited(_ lost: ClusterState.LostLife) -> Bool {
    processes.contains {
      $0.standsBy[lost.life] != nil || ($0.hasStarted && $0.life == lost.standby && $0.read < story.commands.count)
    }
  }

  // MARK: Faults

  /// Whether every flow has as many replicas as it is to have, as the log tells.
  private var isProtected: Bool {
    let state = story.core.state
    return state.unprotected.isEmpty && state.lostLives.allSatisfy(\.isSettled)
      && state.nodes.count { $0.kind == .runtime && $0.memberState == .serving && $0.protection?.isComplete == true } == Int(spec.runtimes)
  }

  private mutating func fault() {
    let running = processes.indices.filter { processes[$0].hasStarted && processes[$0].launch.kind == .runtime }
    guard let victim = running.randomElement(using: &random) else { return }
    if faults.onlyWhenProtected, !isProtected { return }
    switch Int.random(in: 0..<7, using: &random) {
    case 0 where faults.kills, 1 where faults.kills:
      lastFault = story.time
      kills += 1
      let holders = processes[victim].holders
      let partner = (spec.replicas > 1 ? holders.randomElement(using: &random) : holders.first).flatMap { index(of: $0) }
      end(victim)
      if faults.pairs, let partner, partner != victim, chance(2) {
        pairs += 1
        end(partner < victim ? partner : partner - 1)
      }
    case 2 where faults.cuts:
      lastFault = story.time
      processes[victim].isCut.toggle()
    case 3 where faults.cuts:
      if let cut = processes.first(where: \.isCut) { unheard = cut.life }
    case 4 where faults.moves, 5 where faults.moves:
      guard let target = running.randomElement(using: &random), target != victim else { return }
      lastFault = story.time
      story.say(
        .moveRequested(MoveRequest(source: processes[victim].launch.node, target: processes[target].launch.node, flows: 5)),
        by: .tool(1_000 + story.time))
    case 6 where faults.drains:
      lastFault = story.time
      let afterwards: DrainRequest.Afterwards = [.keep, .stop, .undo].randomElement(using: &random)!
      story.say(
        .drainRequested(DrainRequest(node: processes[victim].launch.node, afterwards: afterwards)), by: .tool(1_000 + story.time))
    default: break
    }
  }
}

extension RecoveryWorld {
  /// After harm there is none any more, and no flow: every lost life is settled, every share is free, and all that should serve does.
  mutating func expectRest() -> ClusterState {
    checkRecoveries()
    #expect(violations == [])
    #expect(kills >= 5, "a world without harm proves nothing")
    heal()
    endFlows()
    heal()
    checkRecoveries()
    #expect(violations == [])
    let state = story.core.state
    #expect(state.retiredShares == [], "shares leak: \(state.lostLives.filter { $0.poolShare != nil })")
    #expect(state.lostLives.allSatisfy { $0.isSettled })
    #expect(state.nodes.allSatisfy { $0.memberState == .serving || $0.drain?.isKept == true })
    return state
  }
}
