// Two holders of each runtime's flows: who they are, and whose the flows are when both an owner and a holder end.
import ControlCodec
import ControlMessages
import ControlPlane
import Testing

@Suite struct SecondReplicaTests {
  // MARK: Choosing

  @Test func `each runtime gets two holders in one command, and the second is the holder's own holder`() {
    var cluster = ReplicatedCluster(runtimes: 4, replicas: 2, isProtected: false)
    #expect(
      cluster.assignments == [
        "replicas of 2/1 on 3/1 and 4/1", "replicas of 3/1 on 4/1 and 5/1", "replicas of 4/1 on 5/1 and 2/1",
        "replicas of 5/1 on 2/1 and 3/1",
      ])
    #expect(cluster.held == [2: 2, 3: 2, 4: 2, 5: 2])
    #expect(cluster.state.unprotected.count == 4)
    #expect(
      cluster.state.unprotected.first?.reason == "no replica of its flows; they are on their way to node 3 life 1 and node 4 life 1")
    cluster.protectAll()
    #expect(cluster.state.unprotected.isEmpty)
    #expect(cluster.beat(milliseconds: 20_000).filter { $0.body.name == "set-replicas" }.isEmpty)
  }

  @Test(arguments: 3...8) func `whoever holds first is held by the second, however many runtimes there are`(runtimes: UInt32) {
    let cluster = ReplicatedCluster(runtimes: runtimes, replicas: 2)
    for node in cluster.living {
      let protection = cluster.protection(of: Int(node))!
      let next = cluster.protection(of: Int(protection.holder!.node.number))!
      #expect(next.holders.contains(protection.second!), "\(node) on \(protection.holders)")
    }
    #expect(cluster.held.values.allSatisfy { $0 <= 4 } && cluster.held.values.reduce(0, +) == Int(runtimes) * 2, "\(cluster.held)")
  }

  @Test func `older rules give one holder, and the second comes with the rules`() {
    var cluster = ReplicatedCluster(runtimes: 4, replicas: 2, rules: DecisionRules.excusedSilence)
    #expect(
      cluster.assignments == ["replicas of 2/1 on 3/1", "replicas of 3/1 on 4/1", "replicas of 4/1 on 5/1", "replicas of 5/1 on 2/1"])
    #expect(cluster.state.replicasWanted == 1 && cluster.state.unprotected.isEmpty)
    let before = cluster.story.commands
    cluster.story.say(.rulesActivated(DecisionRules.secondReplica), by: .tool(8), isCritical: true)
    #expect(
      cluster.assignments.suffix(4) == [
        "replicas of 2/1 on 3/1 and 4/1", "replicas of 3/1 on 4/1 and 5/1", "replicas of 4/1 on 5/1 and 2/1",
        "replicas of 5/1 on 2/1 and 3/1",
      ])
    #expect(cluster.protection(of: 2)?.kept == cluster.holder(of: 2), "it has every flow, and goes on having them")
    #expect(
      cluster.state.unprotected.first?.reason == "only 1 replica of its flows; they are on their way to node 4 life 1")
    #expect(cluster.story.commands.last?.reason == "somebody can hold the second replica")
    cluster.protectAll()
    #expect(cluster.state.unprotected.isEmpty)
    // What was decided under the older rules is decided again, by the program that knows the newer ones.
    let verifier = StoryLog(cluster.story).verify()
    #expect(verifier.findings.kept == [] && verifier.agreedCount == UInt64(cluster.story.commands.count))
    #expect(Array(cluster.story.commands.prefix(before.count)) == before)
  }

  @Test(arguments: RecoveryTests.seeds.prefix(6)) func `with one replica the newer rules decide as the older ones`(seed: UInt64) {
    let old = RecoveryWorld.run(seed: seed, steps: 400, rules: DecisionRules.excusedSilence, faults: .init(pairs: true))
    let new = RecoveryWorld.run(seed: seed, steps: 400, faults: .init(pairs: true))
    #expect(old.kills > 2)
    #expect(old.story.commands.map(\.line) == new.story.commands.map(\.line))
  }

  @Test func `one candidate is one holder, and the cluster says so until another comes`() {
    var cluster = ReplicatedCluster(runtimes: 2, replicas: 2)
    #expect(cluster.assignments == ["replicas of 2/1 on 3/1", "replicas of 3/1 on 2/1"])
    #expect(
      cluster.story.commands.first { $0.body.name == "set-replicas" }?.reason
        == "node 2 has no holder yet; no other runtime is left for the second replica")
    let lack = "only 1 replica of its flows; no other runtime could hold the second"
    #expect(cluster.state.unprotected.map(\.reason) == [lack, lack])
    #expect(cluster.protection(of: 2)?.isComplete == true)
    #expect(cluster.beat(milliseconds: 10_000).filter { $0.body.name == "set-replicas" }.isEmpty)

    var spec = cluster.state.spec!
    spec.runtimes = 3
    for command in cluster.story.apply(spec) where command.launch != nil { cluster.begin(command) }
    cluster.beat(milliseconds: 500)
    #expect(
      cluster.assignments.dropFirst(2) == [
        "replicas of 2/1 on 3/1 and 4/1", "replicas of 3/1 on 2/1 and 4/1", "replicas of 4/1 on 3/1 and 2/1",
      ])
    #expect(cluster.protection(of: 2)?.kept?.short == "3/1")
    cluster.protectAll()
    #expect(cluster.state.unprotected.isEmpty)
  }

  @Test func `what refuses is asked again after a second, and another instead of it if there is one`() {
    var cluster = ReplicatedCluster(runtimes: 4, replicas: 2)
    let commands = cluster.story.exit(cluster.launch(3))
    let assignment = commands.first { $0.line.contains("replicas of 2/1 on 4/1 and 5/1") }!
    #expect(cluster.answer(assignment, .rejected(reason: "no memory")).isEmpty)
    #expect(
      cluster.state.unprotected.first?.reason == "only 1 replica of its flows; it does not replicate to node 5 life 1: no memory")
    cluster.begin(commands.first { $0.launch != nil }!)
    #expect(cluster.beat(milliseconds: 700).filter { $0.line.contains("replicas of 2/1") }.isEmpty)
    let again = cluster.beat(milliseconds: 700).filter { $0.line.contains("replicas of 2/1") }
    #expect(again.map(\.line).map(cluster.withoutSlot) == ["replicas of 2/1 on 4/1 and 3/2"])
    #expect(again.first?.reason == "node 5 life 1 did not become a holder: no memory")
    #expect(cluster.protection(of: 2)?.kept?.short == "4/1", "a refusal of one is none of the other")
  }

  @Test func `while the one with every flow is gone, nobody waits for a refusal to be over`() {
    var cluster = ReplicatedCluster(runtimes: 4, replicas: 2)
    let assignment = cluster.story.exit(cluster.launch(3)).first { $0.line.contains("replicas of 2/1 on 4/1 and 5/1") }!
    cluster.answer(assignment, .rejected(reason: "no memory"))
    let commands = cluster.story.exit(cluster.launch(4))
    #expect(commands.contains { $0.line.hasSuffix("replicas of 2/1 on 5/1") })
  }

  // MARK: One ends

  @Test func `when a holder ends, each of its owners goes on with one command, and nothing of theirs is recovered`() {
    var cluster = ReplicatedCluster(runtimes: 4, replicas: 2)
    let commands = cluster.story.exit(cluster.launch(3))
    #expect(
      commands.map(\.line).map(cluster.withoutSlot) == [
        "recover 3/1 by 4/1, 5/1 stands by", "table 3: 1/1 serving, 2/1 serving, 3/1 dead, 4/1 serving, 5/1 serving",
        "replicas of 2/1 on 4/1 and 5/1", "replicas of 5/1 on 2/1 and 4/1", "launch runtime 3/2 on a, share 4/8",
      ])
    #expect(commands[0].reason == "node 3 life 1 killed by signal 9; node 4 life 1 holds its replicas; node 5 life 1 stands by")
    #expect(commands[2].reason == "node 3 life 1 has ended")
    #expect(cluster.protection(of: 2)?.kept?.short == "4/1", "the second had every flow, and is the holder")
    #expect(cluster.protection(of: 5)?.kept?.short == "2/1")
    #expect(cluster.beat(milliseconds: 3_000).filter { $0.body.name == "set-replicas" || $0.body.name == "recover" }.isEmpty)
  }

  @Test func `before an owner says that it has begun, and after, the holder that has every flow recovers them`() {
    for outcomes in [[], [.received], [.received, .rejected(reason: "x")]] as [[CommandAcknowledgement.Outcome]] {
      var cluster = ReplicatedCluster(runtimes: 4, replicas: 2)
      // The holder ends: the second has every flow, a third one is on its way.
      let assignment = cluster.story.exit(cluster.launch(4)).first { $0.line.contains("replicas of 3/1 on 5/1 and 2/1") }!
      for outcome in outcomes { cluster.answer(assignment, outcome) }
      #expect(cluster.protection(of: 3)?.kept?.short == "5/1")
      let recovery = cluster.story.exit(cluster.launch(3)).first!
      #expect(cluster.withoutSlot(recovery.line) == "recover 3/1 by 5/1, 2/1 stands by")
    }
    // The second ends: the holder has every flow, and goes on being the holder.
    var cluster = ReplicatedCluster(runtimes: 4, replicas: 2)
    cluster.story.exit(cluster.launch(5))
    #expect(cluster.protection(of: 3)?.holder?.short == "4/1" && cluster.protection(of: 3)?.kept?.short == "4/1")
    #expect(cluster.withoutSlot(cluster.story.exit(cluster.launch(3)).first!.line) == "recover 3/1 by 4/1, 2/1 stands by")
  }

  @Test func `a runtime that is going to stop is awaited in both roles`() {
    var cluster = ReplicatedCluster(runtimes: 4, replicas: 2)
    var spec = cluster.state.spec!
    spec.runtimes = 3
    let commands = cluster.story.apply(spec)
    let assignments = commands.filter { $0.body.name == "set-replicas" }
    #expect(assignments.map(\.line).map(cluster.withoutSlot) == ["replicas of 3/1 on 4/1 and 2/1", "replicas of 4/1 on 2/1 and 3/1"])
    #expect(assignments.map(\.reason) == ["node 5 life 1 is going to stop", "node 5 life 1 is going to stop"])
    #expect(commands.compactMap(\.stopped).isEmpty)
    for assignment in assignments { cluster.answer(assignment, .received) }
    #expect(cluster.beat(milliseconds: 1_000).compactMap(\.stopped).isEmpty)
    // Node 5 was the second of node 3, and the holder of node 4.
    #expect(cluster.answer(assignments[1], .completed).compactMap(\.stopped).isEmpty)
    #expect(cluster.answer(assignments[0], .completed).compactMap(\.stopped).map(\.node.number) == [5])
    #expect(cluster.state.unprotected.filter { $0.node.number != 5 }.isEmpty)
  }

  @Test func `a second that is going to stop is not stopped before its owner has been told of another`() {
    var cluster = ReplicatedCluster(runtimes: 3, replicas: 2)
    var spec = cluster.state.spec!
    spec.runtimes = 2
    let commands = cluster.story.apply(spec)
    // Nobody is left for the second replica: the owners say good-bye to it, and only then it is stopped.
    let assignments = commands.filter { $0.body.name == "set-replicas" }
    #expect(assignments.map(\.line).map(cluster.withoutSlot) == ["replicas of 2/1 on 3/1", "replicas of 3/1 on 2/1"])
    #expect(commands.compactMap(\.stopped).isEmpty)
    for assignment in assignments { cluster.answer(assignment, .completed) }
    #expect(cluster.story.commands.compactMap(\.stopped).map(\.node.number) == [4])
  }

  // MARK: Two end

  @Test func `owner and holder end in one instant, the owner's end is told first`() {
    var cluster = ReplicatedCluster(runtimes: 4, replicas: 2)
    let first = cluster.story.exit(cluster.launch(2)).first!
    #expect(cluster.withoutSlot(first.line) == "recover 2/1 by 3/1, 4/1 stands by")
    #expect(cluster.state.lostLives.last?.standby?.short == "4/1")
    let second = cluster.story.exit(cluster.launch(3)).first!
    #expect(cluster.withoutSlot(second.line) == "recover 3/1 by 4/1, 5/1 stands by")
    let lost = cluster.state.lostLives
    #expect(lost.map(\.isSettled) == [true, false])
    #expect(lost.map(\.problem) == ["", ""], "node 4 goes on with the flows of node 2")
    cluster.finishRecovery(second, by: 4, recovered: 2_000)
    #expect(cluster.state.lostLives.map(\.recovered) == [0, 2_000])
    #expect(cluster.state.lostLives.allSatisfy { $0.isSettled && $0.problem.isEmpty })
  }

  @Test func `owner and holder end in one instant, the holder's end is told first`() {
    var cluster = ReplicatedCluster(runtimes: 4, replicas: 2)
    let first = cluster.story.exit(cluster.launch(3)).first!
    #expect(cluster.withoutSlot(first.line) == "recover 3/1 by 4/1, 5/1 stands by")
    let second = cluster.story.exit(cluster.launch(2)).first!
    #expect(cluster.withoutSlot(second.line) == "recover 2/1 by 4/1, 5/1 stands by")
    #expect(cluster.state.lostLives.map(\.problem) == ["", ""])
  }

  @Test func `the state stays unsettled while somebody goes on with what another had begun`() {
    var cluster = ReplicatedCluster(runtimes: 4, replicas: 2)
    cluster.story.exit(cluster.launch(2))
    let second = cluster.story.exit(cluster.launch(3)).first!
    // Shares of both are kept until the flows of both are counted.
    for node in [4, 5] { cluster.count(node) }
    #expect(cluster.state.retiredShares == [0, 1])
    cluster.finishRecovery(second, by: 4, recovered: 3)
    cluster.beat(milliseconds: 1_200)
    for node in [4, 5] { cluster.count(node, borrowed: node == 4 ? [.init(share: 0, flows: 3)] : []) }
    #expect(cluster.state.retiredShares == [0])
  }

  /// Node 3 refused its first holders, so that it has nodes 6 and 2; node 2 has nodes 3 and 4.
  private func unevenCluster() -> ReplicatedCluster {
    var cluster = ReplicatedCluster(runtimes: 5, replicas: 2, isProtected: false)
    cluster.answer(cluster.story.commands.last { $0.line.contains("replicas of 3/1 on 4/1 and 5/1") }!, .rejected(reason: "no memory"))
    cluster.beat(milliseconds: 1_200)
    cluster.protectAll()
    return cluster
  }

  @Test func `a standby becomes a holder of the heir before anybody else, and is its first heir when it has every flow`() {
    var cluster = unevenCluster()
    #expect(cluster.protection(of: 2)?.holders.map(\.short) == ["3/1", "4/1"])
    #expect(cluster.protection(of: 3)?.holders.map(\.short) == ["6/1", "2/1"])
    #expect(cluster.state.unprotected.isEmpty)
    let commands = cluster.story.exit(cluster.launch(2))
    #expect(cluster.withoutSlot(commands[0].line) == "recover 2/1 by 3/1, 4/1 stands by")
    let assignment = commands.first { $0.line.contains("replicas of 3/1") }!
    #expect(cluster.withoutSlot(assignment.line) == "replicas of 3/1 on 6/1 and 4/1")

    // It does not have every flow yet: who has them comes first, and what node 2 had left is lost.
    var early = cluster
    let lostToo = early.story.exit(early.launch(3)).first!
    #expect(early.withoutSlot(lostToo.line).hasPrefix("recover 3/1 by 6/1"))
    #expect(early.state.lostLives.first?.problem == "node 3 life 1 ended before it had recovered all flows")

    cluster.answer(assignment, .received)
    cluster.answer(assignment, .completed)
    let next = cluster.story.exit(cluster.launch(3)).first!
    #expect(cluster.withoutSlot(next.line).hasPrefix("recover 3/1 by 4/1"), "node 6 is its holder, and would have to drop node 2's flows")
    #expect(cluster.state.lostLives.first?.problem == "")
  }

  @Test func `who stood by for a recovery of long ago is an heir like others`() {
    for (seconds, isRecent) in [(UInt64(2), true), (30, false)] {
      var cluster = unevenCluster()
      let recovery = cluster.story.exit(cluster.launch(2)).first!
      cluster.protectAll()
      cluster.finishRecovery(recovery, by: 3, recovered: 10)
      cluster.beat(milliseconds: seconds * 1_000)
      #expect(cluster.protection(of: 3)?.holders.map(\.short) == ["6/1", "4/1"])
      let next = cluster.story.exit(cluster.launch(3)).first!
      #expect(cluster.withoutSlot(next.line).hasPrefix("recover 3/1 by \(isRecent ? "4/1" : "6/1")"))
    }
  }

  @Test func `of two who have every flow, the one takes over whose own flows are all on the other`() {
    var cluster = unevenCluster()
    // Node 5 holds first what node 4 has, and has its own flows on nodes 6 and 2.
    #expect(cluster.protection(of: 6)?.holders.map(\.short) == ["2/1", "3/1"])
    #expect(cluster.protection(of: 2)?.holders.map(\.short) == ["3/1", "4/1"])
    let recovery = cluster.story.exit(cluster.launch(6)).first!
    #expect(cluster.withoutSlot(recovery.line) == "recover 6/1 by 2/1, 3/1 stands by")
    // Node 1's holders know nothing of each other: any of the two will do.
    var other = unevenCluster()
    let lonely = other.story.exit(other.launch(2)).first!
    #expect(other.withoutSlot(lonely.line) == "recover 2/1 by 3/1, 4/1 stands by")
  }

  @Test func `an heir whose standby has ended too leaves what it had not recovered, and says so`() {
    var cluster = ReplicatedCluster(runtimes: 4, replicas: 2)
    cluster.story.exit(cluster.launch(2))
    cluster.story.exit(cluster.launch(4))
    let last = cluster.story.exit(cluster.launch(3)).first!
    #expect(cluster.withoutSlot(last.line).hasPrefix("recover 3/1 by 5/1"))
    #expect(cluster.state.lostLives.first?.problem == "node 3 life 1 ended before it had recovered all flows")
  }

  @Test func `an heir that has answered leaves nothing unfinished`() {
    var cluster = ReplicatedCluster(runtimes: 4, replicas: 2)
    let first = cluster.story.exit(cluster.launch(2)).first!
    cluster.finishRecovery(first, by: 3, recovered: 5)
    let settled = cluster.state.lostLives[0]
    cluster.story.exit(cluster.launch(3))
    #expect(cluster.state.lostLives[0].settledAt == settled.settledAt && cluster.state.lostLives[0].recovered == 5)
  }

  @Test func `without any living holder nobody recovers`() {
    var cluster = ReplicatedCluster(runtimes: 3, replicas: 2)
    cluster.story.exit(cluster.launch(3))
    cluster.story.exit(cluster.launch(4))
    let command = cluster.story.exit(cluster.launch(2)).first!
    #expect(cluster.withoutSlot(command.line) == "recover 2/1 by nobody")
    #expect(cluster.state.lostLives.last?.problem.contains("ended too") == true)
  }

  @Test func `a cluster that is deleted meanwhile settles what an heir had begun`() {
    var cluster = ReplicatedCluster(runtimes: 4, replicas: 2)
    cluster.story.exit(cluster.launch(2))
    cluster.story.say(.clusterDeleted(Samples.cluster), by: .tool(3))
    cluster.story.exit(cluster.launch(3), .code(0))
    #expect(cluster.state.lostLives.allSatisfy { $0.isSettled })
    #expect(cluster.state.lostLives[0].problem == "node 3 life 1 ended before it had recovered all flows")
  }

  // MARK: State

  @Test func `a state that differs only in a second holder, in who was kept or in who stands by has another hash`() {
    var cluster = ReplicatedCluster(runtimes: 4, replicas: 2)
    cluster.story.exit(cluster.launch(2))
    let core = cluster.story.core
    let record = EventRecord(
      offset: Offset(1_000_000), timestamp: Timestamp(milliseconds: cluster.story.time),
      event: Event(
        producer: .tool(77), incarnation: Incarnation(1), sequence: 1, body: .nodeStopping(NodeID(99)!)))
    func hash(_ change: (inout ClusterState) -> Void) -> StateHash {
      var state = core.state
      change(&state)
      var core = ClusterCore(state: state, hash: core.hash, logHash: core.logHash, position: core.position)
      _ = core.apply(record)
      return core.hash
    }
    let whole = hash { _ in }
    let index = core.state.nodes.firstIndex { $0.protection?.kept != nil }!
    let protection = core.state.nodes[index].protection!
    func changed(second: NodeLife?, kept: NodeLife?) -> ClusterState.Protection {
      .init(
        holder: protection.holder, second: second, kept: kept, slot: protection.slot, askedAt: protection.askedAt,
        previous: protection.previous, progress: protection.progress)
    }
    #expect(hash { $0.nodes[index].protection = changed(second: protection.second, kept: protection.kept) } == whole)
    #expect(hash { $0.nodes[index].protection = changed(second: NodeLife(NodeID(2)!, Incarnation(1)), kept: protection.kept) } != whole)
    #expect(hash { $0.nodes[index].protection = changed(second: protection.second, kept: nil) } != whole)
    #expect(hash { $0.lostLives[0].standby = nil } != whole)
  }

  @Test func `a snapshot without a pair or a standby has no bytes for them`() throws {
    let single = ReplicatedCluster(runtimes: 3).story.core
    let pair = ReplicatedCluster(runtimes: 3, replicas: 2).story.core
    #expect(try RecordCodec.decodeCore(RecordCodec.encode(single)) == single)
    #expect(try RecordCodec.decodeCore(RecordCodec.encode(pair)) == pair)
    #expect(RecordCodec.encode(single).count < RecordCodec.encode(pair).count)
  }

  // MARK: By chance

  @Test(arguments: RecoveryTests.seeds.prefix(12)) func `whatever happens, each lost life is recovered once, and all comes to rest`(seed: UInt64) {
    var world = RecoveryWorld.run(seed: seed, steps: 700, runtimes: 4, replicas: 2, poolShares: 16, faults: .init(pairs: true))
    let state = world.expectRest()
    let able = state.nodes.count { $0.kind == .runtime && $0.memberState == .serving }
    #expect(state.unprotected.isEmpty || able < 3, "\(state.unprotected)")
  }

  /// An owner and one of its holders in one moment, whenever the state says that every flow has two replicas.
  @Test(arguments: RecoveryTests.seeds.prefix(10), [3, 4, 5] as [UInt32])
  func `pairs that end in one instant lose no flow`(seed: UInt64, runtimes: UInt32) {
    let world = RecoveryWorld.run(
      seed: seed, steps: 900, runtimes: runtimes, replicas: 2, poolShares: 64,
      faults: .init(pairs: true, onlyWhenProtected: true, cuts: false, moves: false, drains: false, pause: 500))
    #expect(world.pairs >= 2 && world.recovered > 0, "\(world.kills) kills, \(world.pairs) of them pairs")
    #expect(world.lost == [])
    #expect(world.violations == [])
    #expect(world.story.core.state.lostLives.allSatisfy { $0.problem.isEmpty })
  }

  @Test func `with one replica the same pairs do lose flows`() {
    let worlds = RecoveryTests.seeds.prefix(4).map {
      RecoveryWorld.run(
        seed: $0, steps: 800, runtimes: 4, replicas: 1, poolShares: 64,
        faults: .init(pairs: true, onlyWhenProtected: true, cuts: false, moves: false, drains: false, pause: 500))
    }
    #expect(worlds.contains { !$0.lost.isEmpty })
  }

  @Test(arguments: RecoveryTests.seeds.prefix(6)) func `replicas of the control plane agree on it, from snapshots too`(seed: UInt64) throws {
    let world = RecoveryWorld.run(seed: seed, steps: 300, runtimes: 4, replicas: 2, poolShares: 16, faults: .init(pairs: true))
    var core = ClusterCore(cluster: Samples.cluster)
    var commands: [Command] = []
    for (index, record) in world.story.records.enumerated() {
      commands += core.apply(record)
      guard index % 97 == 0 else { continue }
      let restored = try RecordCodec.decodeCore(RecordCodec.encode(core))
      #expect(restored == core)
      core = restored
    }
    #expect(commands == world.story.commands)
    #expect(core.hash == world.story.core.hash)
  }
}
