// What holds for every log: the core's laws, on logs that chance wrote.
import ControlCodec
import ControlMessages
import ControlPlane
import Testing

@Suite struct ClusterLawTests {
  static let seeds: [UInt64] = Array(1...8)

  static let rulesAndSeeds = (DecisionRules.first...DecisionRules.newest).flatMap { rules in seeds.map { (rules, $0) } }

  /// Taken when each version of the rules was the newest: number of commands, and FNV-1a over their lines. Never change
  /// them: whoever folds an old log must come to the commands that are in it.
  private static let golden: [UInt32: [(count: Int, digest: UInt64)]] = [
    1: [
      (276, 0xeb80_cf11_ac06_df61), (209, 0x81e7_06fb_a3ff_20d4), (295, 0xa7fb_8766_a392_6c3b), (310, 0x751b_aedd_7d52_a5d6),
      (323, 0xd738_0097_9e0a_da06), (302, 0x267a_1df6_dbd0_0c85), (282, 0xece2_0dc2_f4f8_cc2d), (236, 0xabff_457d_a19f_0f5c),
    ],
    2: [
      (254, 0x43ab_1c14_f4d9_edf3), (254, 0xc541_7bc7_0dfa_d994), (231, 0x4141_d614_293d_99f8), (275, 0x40fc_b4c2_6664_f443),
      (265, 0xa9a3_839a_1a9d_7f96), (245, 0x8ef5_0dfd_7512_78f7), (269, 0x271b_8a65_84e8_2336), (248, 0xce62_bb1e_80a2_b25f),
    ],
    3: [
      (271, 0x61c0_a0d9_b206_f9f4), (270, 0xce86_d4b0_98f3_66f1), (248, 0x1420_a4b7_c3b8_487a), (205, 0xfc4a_9ba2_4384_0c7b),
      (218, 0x9506_4d0f_ab7a_6bc8), (276, 0xc560_baae_1a7c_da58), (290, 0xb653_30f2_4bd0_4e00), (267, 0xfb0a_ce2f_3a2f_614d),
    ],
  ]

  @Test(arguments: [1, 2, 3] as [UInt32], Array(seeds.enumerated()).map(\.offset))
  func `a log of older rules leads to the same commands for ever`(rules: UInt32, index: Int) throws {
    let golden = try #require(Self.golden[rules])[index]
    let commands = ClusterWorld.run(seed: Self.seeds[index], rules: rules).story.commands
    var digest: UInt64 = 0xcbf2_9ce4_8422_2325
    for command in commands {
      for byte in "\(command.line) \(command.reason) \(command.stateHash) \(command.decision)\n".utf8 {
        digest = (digest ^ UInt64(byte)) &* 0x100_0000_01b3
      }
    }
    #expect(commands.count == golden.count)
    #expect(digest == golden.digest)
  }

  @Test(arguments: rulesAndSeeds) func `folding a record twice is folding it once`(rules: UInt32, seed: UInt64) {
    let world = ClusterWorld.run(seed: seed, rules: rules)
    var core = ClusterCore(cluster: Samples.cluster)
    var commands: [Command] = []
    for record in world.story.records {
      commands += core.apply(record)
      let before = core
      #expect(core.apply(record).isEmpty)
      #expect(core == before)
    }
    #expect(commands == world.story.commands)
    #expect(core == world.story.core)
  }

  @Test(arguments: rulesAndSeeds) func `replicas agree on every slot and on the hash`(rules: UInt32, seed: UInt64) {
    let world = ClusterWorld.run(seed: seed, rules: rules)
    #expect(world.story.commands.count > 10, "a world in which nothing happens proves nothing")
    var replica = ClusterCore(cluster: Samples.cluster)
    let commands = world.story.records.flatMap { replica.apply($0) }
    #expect(commands == world.story.commands)
    #expect(replica.hash == world.story.core.hash)
    #expect(world.story.commands.map(\.slot.number) == Array(1...UInt64(world.story.commands.count)))
  }

  /// The bus repeats what it was given: each record comes again, some later, never out of its lane's order first.
  @Test(arguments: rulesAndSeeds) func `any interleaving of repeated records gives the same commands`(rules: UInt32, seed: UInt64) {
    let world = ClusterWorld.run(seed: seed, rules: rules)
    var random = RandomNumbers(seed: seed &+ 1_000)
    var core = ClusterCore(cluster: Samples.cluster)
    var commands: [Command] = []
    var offset: UInt64 = 0
    func append(_ record: EventRecord) -> [Command] {
      defer { offset += 1 }
      return core.apply(EventRecord(offset: Offset(offset), timestamp: record.timestamp, event: record.event))
    }
    for (index, record) in world.story.records.enumerated() {
      commands += append(record)
      for _ in 0..<Int.random(in: 0...2, using: &random) {
        var copy = world.story.records[Int.random(in: 0...index, using: &random)]
        copy.timestamp = record.timestamp
        let new = append(copy)
        #expect(new.isEmpty, "a repeated record led to \(new.map(\.line))")
      }
    }
    #expect(commands.map(\.line) == world.story.commands.map(\.line))
    #expect(commands.map(\.stateHash) == world.story.commands.map(\.stateHash))
    #expect(core.state.nodes == world.story.core.state.nodes)
  }

  /// A coordinator dies after each record, having written any part of the last commands, and another takes over.
  @Test(arguments: seeds) func `a coordinator killed anywhere leaves each slot in the log exactly once`(seed: UInt64) {
    let world = ClusterWorld.run(seed: seed, steps: 40)
    var random = RandomNumbers(seed: seed &+ 2_000)
    var log: [Command] = []
    for length in world.story.records.indices {
      var core = ClusterCore(cluster: Samples.cluster)
      var outbox = CommandOutbox()
      // The two topics are read side by side, in any interleaving.
      var events = world.story.records[...length]
      var commands = log[...]
      while !events.isEmpty || !commands.isEmpty {
        if let record = events.first, commands.isEmpty || Bool.random(using: &random) {
          outbox.computed(core.apply(record))
          events.removeFirst()
        } else if let command = commands.popFirst() {
          #expect(outbox.read(command) == .taken)
        }
      }
      #expect(outbox.divergence == nil)
      let missing = outbox.takeMissing()
      #expect(outbox.takeMissing().isEmpty)
      log += missing.prefix(Int.random(in: 0...missing.count, using: &random))
    }
    var reader = SlotReader()
    let readings = log.map { reader.read($0.slot) }
    #expect(readings.allSatisfy { $0 == .taken })
    #expect(log == Array(world.story.commands.prefix(log.count)))
    #expect(log.count + 8 > world.story.commands.count, "what is missing was decided at the end")
  }

  @Test(arguments: rulesAndSeeds) func `two processes never hold the same share of a pool`(rules: UInt32, seed: UInt64) {
    let world = ClusterWorld.run(seed: seed, rules: rules)
    #expect(world.violations == [])
  }

  @Test(arguments: rulesAndSeeds) func `when the harm ends, what is wanted is there`(rules: UInt32, seed: UInt64) {
    var world = ClusterWorld.run(seed: seed, rules: rules)
    world.heal()
    let state = world.story.core.state
    #expect(state.nodes.allSatisfy { $0.memberState == .serving }, "\(state.nodes.map(\.phase))")
    #expect(UInt32(state.nodes.count { $0.kind == .runtime }) == state.wanted(.runtime))
    #expect(UInt32(state.nodes.count { $0.kind == .virtualSwitch }) == state.wanted(.virtualSwitch))
    #expect(state.abandoned.isEmpty)
    #expect(Set(world.processes.map { "\($0.launch.node)/\($0.launch.incarnation)" })
      == Set(state.nodes.map { "\($0.id)/\($0.incarnation)" }))
    #expect(world.violations == [])
  }

  @Test func `no record traps the core, however wild`() {
    for seed in 1...20 as ClosedRange<UInt64> {
      var random = RandomNumbers(seed: seed)
      var core = ClusterCore(cluster: Samples.cluster)
      var slot: UInt64 = 0
      for offset in 0..<2_000 as Range<UInt64> {
        let record = EventRecord(
          offset: Offset(offset), timestamp: Timestamp(milliseconds: wildNumber(&random)), event: wildEvent(&random))
        for command in core.apply(record) {
          slot += 1
          #expect(command.slot.number == slot)
        }
        #expect(core.state.replicas.count <= 16 && core.state.deaths.count <= 64)
        #expect(core.state.nodes.count <= 4_096 && core.state.hosts.count <= 1_024 && core.state.abandoned.count <= 4_096)
      }
    }
  }

  /// What the codec lets through of broken records of a whole story, folded on.
  @Test(arguments: seeds) func `no mutated record traps the core`(seed: UInt64) {
    let records = ClusterWorld.run(seed: seed, steps: 60, rules: DecisionRules.newest).story.records
    var random = RandomNumbers(seed: seed)
    var core = ClusterCore(cluster: Samples.cluster)
    var taken = 0
    for (index, record) in records.enumerated() {
      var bytes = RecordCodec.encode(record.event)
      for _ in 0..<Int.random(in: 0...2, using: &random) where !bytes.isEmpty {
        bytes[Int.random(in: bytes.indices, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      }
      guard let event = try? RecordCodec.decodeEvent(bytes) else { continue }
      taken += 1
      let time = Timestamp(milliseconds: record.timestamp.milliseconds &+ wildNumber(&random) % 10_000)
      _ = core.apply(EventRecord(offset: Offset(UInt64(index)), timestamp: time, event: event))
    }
    #expect(taken > records.count / 4)
  }

  private func wildNumber(_ random: inout RandomNumbers) -> UInt64 {
    switch Int.random(in: 0..<6, using: &random) {
    case 0: 0
    case 1: .max
    case 2: random.next()
    default: UInt64.random(in: 0...5_000, using: &random)
    }
  }

  private func wildEvent(_ random: inout RandomNumbers) -> Event {
    let node = NodeID(UInt32.random(in: 1...6, using: &random))!
    let host = HostID(["a", "b", "c"].randomElement(using: &random)!)!
    let life = Incarnation(UInt64.random(in: 1...3, using: &random))
    let body: Event.Body
    switch Int.random(in: 0..<19, using: &random) {
    case 17:
      body = .moveRequested(
        MoveRequest(source: node, target: NodeID(UInt32.random(in: 1...6, using: &random))!, flows: wildNumber(&random)))
    case 18:
      body = .drainRequested(DrainRequest(node: node, afterwards: [.keep, .stop, .undo].randomElement(using: &random)!))
    case 11: body = .beacon(Beacon(position: Offset(wildNumber(&random)), stateHash: 0, logHash: 0, rules: UInt32.random(in: 0...3, using: &random)))
    case 12, 13: body = .peerSilent(PeerSilent(by: NodeID(UInt32.random(in: 1...6, using: &random))!, node: node, incarnation: life))
    case 14: body = .rulesActivated(UInt32.random(in: 0...DecisionRules.newest, using: &random))
    case 15:
      var policy = ScalingPolicy(Bool.random(using: &random) ? .dropThreshold(.init()) : .targetUtilisation(.init()))
      policy.maximumRuntimes = UInt32(truncatingIfNeeded: wildNumber(&random))
      policy.cooldown = wildNumber(&random)
      policy.overloadPatience = wildNumber(&random)
      policy.drainTimeout = wildNumber(&random)
      body = .policyActivated(policy)
    case 0:
      var spec = Samples.spec
      spec.runtimes = UInt32(truncatingIfNeeded: wildNumber(&random))
      spec.switches = UInt32(truncatingIfNeeded: wildNumber(&random))
      spec.poolShares = UInt32(truncatingIfNeeded: wildNumber(&random))
      spec.heartbeatInterval = wildNumber(&random)
      spec.workloadInterval = wildNumber(&random)
      body = .clusterApplied(spec)
    case 1: body = .clusterDeleted(Samples.cluster)
    case 2, 3:
      let ports = UInt32(truncatingIfNeeded: wildNumber(&random))
      body = .agentStarted(AgentStarted(host: host, cores: ports, runtimePorts: ports, switchPorts: ports))
    case 4: body = .agentHeartbeat(host)
    case 5: body = .processExited(ProcessExited(host: host, node: node, incarnation: life, ending: .code(.max)))
    case 6:
      body = .nodeStarted(
        NodeStarted(
          node: node, kind: Bool.random(using: &random) ? .runtime : .virtualSwitch, host: host, processID: .max, ports: Samples.ports,
          startup: wildNumber(&random)))
    case 7: body = .heartbeat(Heartbeat(node: node, workerLoops: wildNumber(&random), busyLoops: wildNumber(&random)))
    case 8:
      var load = NodeWorkload(node: node, interval: wildNumber(&random))
      load.droppedPackets = wildNumber(&random)
      load.activeFlows = wildNumber(&random)
      load.busyShare = UInt32(truncatingIfNeeded: wildNumber(&random))
      load.drops = [.init(reason: "missed-by-port", packets: wildNumber(&random)), .init(reason: "missed-by-port", packets: .max)]
      body = .workload(load)
    case 9:
      let outcomes: [CommandAcknowledgement.Outcome] = [.received, .applied, .rejected(reason: ""), .progress(done: .max, of: 0), .completed]
      let by: CommandAcknowledgement.Acknowledger = Bool.random(using: &random) ? .host(host) : .node(node)
      body = .commandAcknowledged(.init(slot: Slot(wildNumber(&random)), by: by, outcome: outcomes.randomElement(using: &random)!))
    case 10: body = .nodeStopping(node)
    default: body = .tick
    }
    return Event(
      producer: .tool(random.next()), incarnation: life, sequence: max(1, wildNumber(&random)), body: body)
  }
}
