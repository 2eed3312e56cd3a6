// Who is declared dead, on what evidence, and who is not.
import ControlMessages
import ControlPlane
import Testing

@Suite struct FailureDetectionTests {
  @Test func `silence alone is only shown`() {
    var cluster = BeatingCluster()
    let victim = cluster.launches[1]
    #expect(cluster.beat(milliseconds: 5_000, except: [victim.node]).isEmpty)
    #expect(cluster.state.node(victim.node)?.isSilent == true)
    #expect(cluster.state.deaths.isEmpty)
  }

  @Test func `silence that a peer confirms is death: the table first, then the fence, then another life`() {
    var cluster = BeatingCluster(rules: DecisionRules.flowRequests)
    let victim = cluster.launches[1]
    cluster.beat(milliseconds: 300, except: [victim.node])
    let commands = cluster.story.peerSilent(victim, by: cluster.launches[2])
    #expect(
      commands.map(\.line) == [
        "7 table 4: 1/1 serving, 2/1 dead, 3/1 serving", "8 fence 2/1", "9 launch runtime 2/2 on b, share 2/4",
      ])
    #expect(commands[1].target == .host(victim.host))
    #expect(commands[1].reason.contains("silent for 300 ms, and node 3 gets no answer either"))
    #expect(cluster.state.deaths.map(\.node) == [victim.node])
    #expect(cluster.state.abandoned.map(\.isDeclaredDead) == [true])

    // The zombie speaks, and nobody listens; its agent kills it, and its share is free again.
    cluster.story.heartbeat(victim)
    #expect(cluster.state.node(victim.node)?.memberState == .starting)
    cluster.story.exit(victim, .signal(9))
    #expect(cluster.state.abandoned.isEmpty)
  }

  @Test func `a peer's word counts for nothing when the node is heard, is old, or the peer is not of the cluster`() {
    var cluster = BeatingCluster(rules: DecisionRules.flowRequests)
    let victim = cluster.launches[1]
    cluster.story.peerSilent(victim, by: cluster.launches[2])
    #expect(cluster.beat(milliseconds: 20).isEmpty)
    #expect(cluster.state.node(victim.node)?.peerWitness == nil)
    cluster.story.peerSilent(victim, by: cluster.launches[2])
    var stranger = cluster.launches[2]
    stranger.incarnation = Incarnation(5)
    cluster.beat(milliseconds: 150, except: [victim.node])
    cluster.story.peerSilent(victim, by: stranger)
    cluster.story.peerSilent(victim, by: victim)
    #expect(cluster.state.ignored.misdirected == 2)
    var late = BeatingCluster(rules: DecisionRules.flowRequests)
    late.beat(milliseconds: 190, except: [victim.node])
    late.story.peerSilent(victim, by: late.launches[2])
    #expect(late.beat(milliseconds: 50, except: [victim.node]).contains { $0.line.contains("fence 2/1") }, "the word came first")
  }

  @Test func `a worker that stands still is dead though its control thread speaks`() {
    var cluster = BeatingCluster()
    let victim = cluster.launches[2]
    let commands = cluster.beat(milliseconds: 600, frozen: [victim.node])
    #expect(commands.compactMap(\.stopped).map(\.node) == [victim.node])
    #expect(cluster.state.deaths.map(\.evidence) == ["its worker has stood still for 500 ms"])
    #expect(cluster.state.deaths[0].silence == 500)
  }

  /// A link to the log that comes back brings the records of before once more.
  @Test(arguments: [UInt64(300), 900, 6_800])
  func `what a node says after a silence is not held against its worker`(milliseconds: UInt64) {
    for rules in [DecisionRules.switchTakeover, DecisionRules.excusedSilence] {
      var cluster = BeatingCluster(rules: rules)
      let node = cluster.launches[2]
      let loops = cluster.state.node(node.node)!.workerLoops
      cluster.beat(milliseconds: milliseconds, except: [node.node])
      cluster.story.say(
        .heartbeat(Heartbeat(node: node.node, workerLoops: loops, busyLoops: 0)), by: .node(node.kind, node.cluster, node.node),
        life: node.incarnation.number)
      cluster.beat(milliseconds: 300)
      #expect(cluster.state.deaths.isEmpty == (rules == DecisionRules.excusedSilence || milliseconds < 500))
    }
  }

  @Test func `a host that falls silent takes its nodes with it`() {
    var cluster = BeatingCluster(hosts: ["a", "b", "c"], runtimes: 5)
    let lost = HostID("b")!
    let victims = cluster.launches.filter { $0.host == lost }.map(\.node)
    #expect(!victims.isEmpty)
    let commands = cluster.beat(milliseconds: 4_000, except: victims, silentHosts: [lost])
    #expect(cluster.state.deaths.map(\.node) == victims)
    #expect(cluster.state.deaths.allSatisfy { (2_500...2_700).contains($0.silence) })
    #expect(commands.compactMap(\.launch).allSatisfy { $0.host != lost })
    #expect(commands.compactMap(\.launch).count == victims.count)
  }

  @Test func `many silent at once are held back for ten seconds, and then declared one by one`() {
    var cluster = BeatingCluster(hosts: ["a", "b"], runtimes: 5)
    let everybody = cluster.launches.map(\.node)
    let witness = cluster.launches[0]
    let victims = Array(everybody.dropFirst())
    var deaths: [Int] = []
    for _ in 0..<16 {
      cluster.beat(milliseconds: 1_000, except: victims)
      for launch in cluster.launches.dropFirst() { cluster.story.peerSilent(launch, by: witness) }
      deaths.append(cluster.state.deaths.count)
    }
    #expect(deaths.prefix(10).allSatisfy { $0 == 0 }, "\(deaths)")
    #expect(cluster.state.manySilentSince == nil || deaths.last! > 0)
    #expect(zip(deaths, deaths.dropFirst()).allSatisfy { $1 - $0 <= 3 })
    #expect(deaths.last! >= 3, "\(deaths)")
  }

  @Test(arguments: [400, 1_000, 2_900, 5_000, 60_000] as [UInt64])
  func `a broker that stands still declares nobody dead`(milliseconds: UInt64) {
    var cluster = BeatingCluster()
    cluster.beat(milliseconds: 500)
    cluster.story.time += milliseconds
    // Those who reconnect first say of the others what they see.
    cluster.story.heartbeat(cluster.launches[0])
    cluster.story.peerSilent(cluster.launches[1], by: cluster.launches[0])
    cluster.beat(milliseconds: 600, except: [cluster.launches[1].node])
    #expect(cluster.beat(milliseconds: 2_000).isEmpty)
    #expect(cluster.state.deaths.isEmpty)
    #expect(cluster.state.clock.stalled == milliseconds - LogClock.stallBound)
  }

  @Test func `under rules 1 nobody is declared dead`() {
    var cluster = BeatingCluster(rules: DecisionRules.first)
    let victim = cluster.launches[1]
    cluster.beat(milliseconds: 2_000, except: [victim.node])
    #expect(cluster.story.peerSilent(victim, by: cluster.launches[2]).isEmpty)
    #expect(cluster.beat(milliseconds: 1_000, frozen: [cluster.launches[2].node]).isEmpty)
  }

  @Test func `rules come into force when every living replica can follow them, and never go back`() {
    var story = ClusterStory()
    let one = ProducerID.coordinator(HostID("one")!), two = ProducerID.coordinator(HostID("two")!)
    func beacon(_ rules: UInt32) -> Event.Body { .beacon(Beacon(position: nil, stateHash: 0, logHash: 0, rules: rules)) }
    story.say(beacon(2), by: two)
    story.say(.tick, by: one)
    #expect(story.core.state.activatableRules == nil, "replica one is of the first release")
    #expect(story.core.state.rank(of: one) == 0 && story.core.state.rank(of: two) == 1)
    for _ in 0..<6 { story.say(beacon(DecisionRules.newest), by: two, after: 100) }
    #expect(story.core.state.activatableRules == DecisionRules.newest)
    #expect(story.core.state.rank(of: two) == 0, "replica one is gone")
    story.say(.rulesActivated(DecisionRules.newest), by: two, isCritical: true)
    story.say(.rulesActivated(1), by: two, isCritical: true)
    #expect(story.core.state.rules == DecisionRules.newest)
    #expect(story.core.state.activatableRules == nil)
    story.say(.rulesActivated(DecisionRules.newest + 1), by: two, isCritical: true)
    #expect(story.core.state.needsNewerVersion != nil)
  }
}

/// A cluster whose nodes, agents and one replica give their signs of life as often as real ones.
struct BeatingCluster {
  var story = ClusterStory()
  let launches: [LaunchSpec]
  private var loops: UInt64 = 1

  var state: ClusterState { story.core.state }

  init(hosts: [String] = ["a", "b"], runtimes: UInt32 = 2, rules: UInt32 = DecisionRules.newest) {
    if rules > DecisionRules.first { story.say(.rulesActivated(rules), by: .tool(9), isCritical: true) }
    var spec = Samples.spec
    spec.runtimes = runtimes
    spec.poolShares = max(4, runtimes * 2)
    spec.heartbeatInterval = 10
    for host in hosts { story.agent(host) }
    story.apply(spec)
    let commands = story.commands
    launches = commands.compactMap(\.launch)
    for command in commands { story.start(command, after: 100) }
    beat(milliseconds: 1_500)
  }

  /// Time passes: heartbeats every 10 ms, beacons every 100, agents every 500; returns the commands it led to.
  @discardableResult
  mutating func beat(
    milliseconds: UInt64, except mute: [NodeID] = [], frozen: [NodeID] = [], silentHosts: [HostID] = []
  ) -> [Command] {
    var commands: [Command] = []
    for step in 1...max(1, milliseconds / 10) {
      loops += 100
      story.time += 10
      if step % 10 == 0 {
        commands += story.say(
          .beacon(Beacon(position: story.core.position, stateHash: 0, logHash: 0, rules: DecisionRules.newest)),
          by: .coordinator(Samples.host))
      }
      for launch in launches where !mute.contains(launch.node) {
        commands += story.say(
          .heartbeat(Heartbeat(node: launch.node, workerLoops: frozen.contains(launch.node) ? 7 : loops, busyLoops: 0)),
          by: .node(launch.kind, launch.cluster, launch.node), life: launch.incarnation.number)
      }
      if step % 50 == 0 {
        for host in story.core.state.hosts where !silentHosts.contains(host.id) {
          commands += story.say(.agentHeartbeat(host.id), by: .agent(host.id))
        }
      }
    }
    return commands
  }
}
