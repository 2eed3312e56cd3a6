// Settings that change while runtimes live, and what runtimes tell of the backends that they balance, as stories.
import ControlMessages
import ControlPlane
import Testing

@Suite struct SettingsChangeTests {
  static func spec(rules: String = "80", pool: String = "10.2.0.200") -> ClusterSpec {
    func map(_ key: String, _ value: String) -> Settings { Settings(.map([.init(key, Settings(.scalar(value)))])) }
    let chain = ServiceChainSpec(
      functions: [.init(kind: "firewall", settings: map("rules", rules)), .init(kind: "nat", settings: map("pool", pool))])
    return ClusterSpec(name: Samples.cluster, chain: chain, runtimes: 2, switches: 1, network: Samples.network)
  }

  /// Two runtimes that serve, under the newest rules.
  struct Cluster {
    var story = ClusterStory()
    var launches: [LaunchSpec] = []

    init(rules: UInt32 = DecisionRules.newest) {
      story.say(.rulesActivated(rules), by: .coordinator(Samples.host), isCritical: true)
      story.agent("lab-1")
      story.apply(SettingsChangeTests.spec())
      start()
    }

    mutating func start() {
      for command in story.commands where command.launch != nil && !launches.contains(command.launch!) {
        launches.append(command.launch!)
        story.start(command)
      }
    }

    mutating func change(to spec: ClusterSpec) -> [SettingsChange] {
      story.apply(spec).compactMap { if case .changeSettings(let change) = $0.body { change } else { nil } }
    }

    @discardableResult
    mutating func answer(_ node: UInt32, _ outcome: CommandAcknowledgement.Outcome) -> [Command] {
      let slot = story.commands.last { if case .changeSettings = $0.body { true } else { false } }!.slot
      return story.say(
        .commandAcknowledged(.init(slot: slot, by: .node(NodeID(node)!), outcome: outcome)),
        by: .node(.runtime, Samples.cluster, NodeID(node)!))
    }

    func version(_ node: UInt32) -> UInt64 { story.core.state.node(NodeID(node)!)!.settingsVersion }
  }

  @Test func `other rules are told to the runtimes, and each says when it has them`() {
    var cluster = Cluster()
    let new = SettingsChangeTests.spec(rules: "443")
    let changes = cluster.change(to: new)
    #expect(changes == [SettingsChange(version: 1, functions: new.chain.functions)])
    let state = cluster.story.core.state
    #expect(state.spec == new && state.pendingSpec == nil && state.pendingChanges.isEmpty && state.settingsVersion == 1)
    #expect(cluster.version(2) == 0 && cluster.version(3) == 0)
    cluster.answer(2, .applied)
    cluster.answer(3, .rejected(reason: "no memory"))
    #expect(cluster.version(2) == 1 && cluster.version(3) == 0)
    #expect(cluster.story.core.state.node(NodeID(3)!)?.settingsProblem == "no memory")
    #expect(cluster.change(to: new).isEmpty, "what is applied already is no change")

    // The next one settles it.
    #expect(cluster.change(to: SettingsChangeTests.spec(rules: "22")).map(\.version) == [2])
    cluster.answer(3, .applied)
    #expect(cluster.version(3) == 2 && cluster.story.core.state.node(NodeID(3)!)?.settingsProblem == "")
  }

  @Test func `a runtime that is launched later begins with them, and is not told again`() {
    var cluster = Cluster()
    _ = cluster.change(to: SettingsChangeTests.spec(rules: "443"))
    var more = SettingsChangeTests.spec(rules: "443")
    more.runtimes = 3
    #expect(cluster.change(to: more).isEmpty)
    let launch = cluster.story.commands.last { $0.launch != nil }?.launch
    #expect(launch?.chain == more.chain && launch?.node == NodeID(4)!)
    cluster.start()
    #expect(cluster.version(4) == 1)
  }

  @Test func `a pool cannot change while runtimes live, and holds back the rules that come with it`() {
    var cluster = Cluster()
    #expect(cluster.change(to: SettingsChangeTests.spec(rules: "443", pool: "10.2.0.201")).isEmpty)
    let state = cluster.story.core.state
    #expect(state.spec?.chain == SettingsChangeTests.spec().chain && state.pendingChanges.count == 1)
    // Without the pool it goes through.
    #expect(cluster.change(to: SettingsChangeTests.spec(rules: "443")).map(\.version) == [1])
  }

  @Test func `under older rules no settings change while runtimes live, and tables name no shares`() {
    var cluster = Cluster(rules: DecisionRules.flowRequests)
    #expect(cluster.change(to: SettingsChangeTests.spec(rules: "443")).isEmpty)
    #expect(cluster.story.core.state.pendingChanges == ["chain: takes effect after the cluster is deleted and applied again"])
    #expect(cluster.story.commands.compactMap(\.table).allSatisfy { $0.members.allSatisfy { $0.poolShare == nil } })
  }

  @Test func `tables name the shares of the runtimes that live`() {
    var cluster = Cluster()
    cluster.story.wait(seconds: 1)
    let members = cluster.story.core.state.table.members
    #expect(members.map(\.poolShare) == [nil, PoolShare(index: 0, of: 8), PoolShare(index: 1, of: 8)])
  }

  @Test func `what a runtime says of its backends is remembered while it lives`() {
    var cluster = Cluster()
    func say(_ isUp: Bool, _ reason: String) {
      cluster.story.say(
        .backendChanged(
          BackendChanged(node: NodeID(2)!, service: "10.1.0.100:80/tcp", backend: "10.2.0.11:80", isUp: isUp, reason: reason)),
        by: .node(.runtime, Samples.cluster, NodeID(2)!))
    }
    say(true, "connected")
    say(false, "refused")
    let backends = cluster.story.core.state.node(NodeID(2)!)!.backends
    #expect(backends.count == 1 && !backends[0].isUp && backends[0].reason == "refused")
    cluster.story.exit(cluster.launches.first { $0.node == NodeID(2)! }!)
    #expect(cluster.story.core.state.node(NodeID(2)!)?.backends == [])
  }

  @Test func `what functions say changes nothing`() {
    var cluster = Cluster()
    let before = cluster.story.core.state
    cluster.story.say(.functionLog(Samples.functionLog), by: .node(.runtime, Samples.cluster, NodeID(2)!))
    #expect(cluster.story.core.state.nodes == before.nodes && cluster.story.core.state.ignored == before.ignored)
  }
}
