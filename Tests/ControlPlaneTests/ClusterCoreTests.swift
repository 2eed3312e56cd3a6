// The core told as stories: what happens to a cluster, and what is asked for.
import ControlMessages
import ControlPlane
import Testing

@Suite struct ClusterCoreTests {
  @Test func `a cluster waits for hosts and then spreads its nodes over them`() {
    var story = ClusterStory()
    #expect(story.apply(Samples.spec).isEmpty)
    #expect(story.agent("b").map(\.line) == [
      "1 launch switch 1/1 on b", "2 launch runtime 2/1 on b, share 0/4", "3 launch runtime 3/1 on b, share 1/4",
    ])

    var other = ClusterStory()
    other.agent("b")
    other.agent("a")
    #expect(other.apply(Samples.spec).map(\.line) == [
      "1 launch switch 1/1 on a", "2 launch runtime 2/1 on b, share 0/4", "3 launch runtime 3/1 on a, share 1/4",
    ])
    #expect(other.commands.allSatisfy { $0.decision.offset == Offset(2) })
    #expect(other.commands.map(\.decision.index) == [0, 1, 2])
    #expect(other.commands[0].launch?.network == Samples.network)
    #expect(other.commands[1].launch?.network == nil)
    #expect(other.commands[0].target == .host(HostID("a")!))
    #expect(other.commands[0].expiry == Timestamp(milliseconds: other.time + 10_000))
  }

  @Test func `the ports of a host are a limit`() {
    var story = ClusterStory()
    story.apply(Samples.spec)
    #expect(story.agent("a", runtimes: 1, switches: 0).map(\.line) == ["1 launch runtime 2/1 on a, share 0/4"])
    #expect(story.agent("b", runtimes: 0, switches: 1).map(\.line) == ["2 launch switch 1/1 on b"])
    #expect(story.agent("c").map(\.line) == ["3 launch runtime 3/1 on c, share 1/4"])
  }

  @Test func `those that serve are told to all, at most ten times a second`() {
    var story = ClusterStory()
    story.apply(Samples.spec)
    let launches = story.agent("a")
    #expect(story.start(launches[1], after: 50).map(\.line) == ["4 table 1: 1/1 starting, 2/1 serving, 3/1 starting"])
    #expect(story.start(launches[0], after: 50).isEmpty)
    #expect(story.start(launches[2], after: 50).map(\.line) == ["5 table 2: 1/1 serving, 2/1 serving, 3/1 serving"])
    #expect(story.wait(seconds: 5).isEmpty)
    #expect(story.commands.last?.table?.members[1].ports?.input == HardwareAddress(bits: 2))
  }

  @Test func `a table follows the loads at most once a second, and only when they moved`() {
    var (story, launches) = ClusterStory.running()
    let runtime = launches[1]
    story.wait(seconds: 2)
    #expect(story.workload(runtime, flows: 15).isEmpty, "15 flows are not worth a word")
    #expect(story.workload(runtime, flows: 1_000).count == 1)
    #expect(story.workload(runtime, flows: 2_000, after: 500).isEmpty, "too soon")
    let tables = story.workload(runtime, flows: 3_000, after: 500).compactMap(\.table)
    #expect(tables.map { $0.members[1].load.activeFlows } == [3_000])
    #expect(story.workload(runtime, flows: 3_299, after: 2_000).isEmpty, "less than a tenth")
    #expect(story.workload(runtime, flows: 3_301, after: 2_000).count == 1)
  }

  @Test func `a node whose process ends is launched again as a new life`() {
    var (story, launches) = ClusterStory.running()
    let lines = story.exit(launches[1]).map(\.line)
    #expect(lines == ["7 launch runtime 2/2 on b, share 0/4", "8 table 4: 1/1 serving, 2/2 starting, 3/1 serving"])
    #expect(story.core.state.node(launches[1].node)?.lastProblem == "killed by signal 9")
    // What the dead life had still in its buffers does not count.
    story.workload(launches[1], flows: 5_000, after: 100)
    #expect(story.core.state.node(launches[1].node)?.workload == nil)
    #expect(story.start(story.commands[6], after: 200).map(\.line) == ["9 table 5: 1/1 serving, 2/2 serving, 3/1 serving"])
  }

  @Test func `a process that dies again and again is launched ever more slowly`() {
    var story = ClusterStory()
    var spec = Samples.spec
    spec.switches = 0
    spec.runtimes = 1
    story.apply(spec)
    var launches = story.agent("a").compactMap(\.launch)
    var pauses: [Int] = []
    for _ in 0..<8 {
      var seconds = 0
      var next = story.exit(launches[launches.count - 1], .code(1)).compactMap(\.launch)
      while next.isEmpty, seconds < 100 {
        next = story.wait(seconds: 1).compactMap(\.launch)
        seconds += 1
      }
      pauses.append(seconds)
      launches += next
    }
    #expect(pauses == [0, 1, 2, 4, 8, 16, 32, 32])
    #expect(launches.map(\.incarnation.number) == [1, 2, 3, 4, 5, 6, 7, 8, 9])
    #expect(Set(launches.map(\.poolShare.index)) == [0], "a life known to be over gives its share back")
  }

  @Test func `a host that refuses is passed over`() {
    var story = ClusterStory()
    var spec = Samples.spec
    spec.switches = 0
    spec.runtimes = 1
    story.agent("a")
    story.agent("b")
    let first = story.apply(spec)
    #expect(first.map(\.line) == ["1 launch runtime 1/1 on a, share 0/4"])
    let second = story.answer(first[0], .rejected(reason: "no core left"))
    #expect(second.map(\.line) == ["2 launch runtime 1/2 on b, share 0/4"])
    #expect(second[0].reason == "node 1 a refused it: no core left; life 2 on b")
    #expect(story.answer(second[0], .rejected(reason: "nor here")).isEmpty)
    #expect(story.wait(seconds: 5).map(\.line) == ["3 launch runtime 1/3 on a, share 0/4"])
  }

  @Test func `a launch without an answer is given up, and its share is kept until that life is known to be over`() {
    var story = ClusterStory()
    var spec = Samples.spec
    spec.switches = 0
    spec.runtimes = 1
    story.agent("a")
    story.agent("b")
    story.apply(spec)
    #expect(story.wait(seconds: 9).isEmpty)
    let after = story.wait(seconds: 1)
    #expect(after.map(\.line) == ["2 stop 1/1", "3 launch runtime 1/2 on b, share 1/4"])
    #expect(after[0].target == .host(HostID("a")!))
    #expect(story.core.state.abandoned.map(\.incarnation.number) == [1])
    // The late start of the life that was given up changes nothing.
    story.start(story.commands[0])
    #expect(story.core.state.node(NodeID(1)!)?.memberState == .starting)
    story.start(after[1])
    story.answer(after[0], .completed)
    #expect(story.core.state.abandoned.isEmpty)
    let relaunched = story.exit(after[1].launch!) + story.wait(seconds: 1)
    #expect(relaunched.compactMap(\.launch).map(\.poolShare.index) == [0], "the share is free again")
  }

  @Test func `a request to stop is repeated ever more slowly, and only to a host that is heard`() {
    var (story, launches) = ClusterStory.running()
    var spec = Samples.spec
    spec.runtimes = 1
    #expect(story.apply(spec).first?.stopped?.node == launches[2].node)
    story.wait(seconds: 9)
    #expect(story.wait(seconds: 1).compactMap(\.stopped).count == 1)
    #expect(story.wait(seconds: 19).compactMap(\.stopped).isEmpty)
    #expect(story.wait(seconds: 1).compactMap(\.stopped).count == 1)
    // Nobody there: ticks only.
    let silence = (0..<60).flatMap { _ in story.say(.tick, by: .coordinator(Samples.host), after: 1_000) }
    #expect(silence.compactMap(\.stopped).isEmpty)
    #expect(story.core.state.hosts.allSatisfy { $0.isSilent })
    let heard = story.agent("a", life: 2) + story.agent("b", life: 2)
    #expect(heard.compactMap(\.stopped).count == 1)
  }

  @Test func `the counts follow the operator, the highest numbers go first`() {
    var (story, launches) = ClusterStory.running()
    var spec = Samples.spec
    spec.runtimes = 4
    let up = story.apply(spec)
    #expect(up.compactMap(\.launch).map(\.poolShare.index) == [2, 3])
    for command in up where command.launch != nil { story.start(command, after: 200) }
    spec.runtimes = 1
    let down = story.apply(spec, after: 200)
    #expect(down.compactMap(\.stopped).map(\.node.number) == [3, 4, 5])
    #expect(down.compactMap(\.table).last?.members.map(\.state) == [.serving, .serving, .stopping, .stopping, .stopping])
    story.exit(launches[2], .code(0), after: 200)
    #expect(story.core.state.nodes.map(\.id.number) == [1, 2, 4, 5])
    spec.runtimes = 2
    let again = story.apply(spec, after: 200)
    #expect(again.compactMap(\.launch).map(\.node.number) == [6], "a number is not used again")
    #expect(again.compactMap(\.launch).map(\.poolShare.index) == [1], "a share is, once it is free")
  }

  @Test func `what running processes were started with changes only after they are gone`() {
    var (story, launches) = ClusterStory.running()
    var spec = Samples.spec
    spec.chain.functions = [.init(kind: "packet-counter", settings: Settings(.map([])))]
    spec.runtimes = 3
    let up = story.apply(spec).compactMap(\.launch)
    #expect(up.map(\.chain) == [Samples.chain], "the count follows at once, with the old chain")
    #expect(story.core.state.pendingChanges == ["chain: takes effect after the cluster is deleted and applied again"])
    #expect(story.core.state.pendingSpec == spec)

    let stops = story.say(.clusterDeleted(Samples.cluster), by: .tool(1))
    #expect(stops.compactMap(\.stopped).map(\.node.number) == [1, 2, 3, 4])
    #expect(story.core.state.pendingSpec == nil)
    story.apply(spec)
    #expect(story.core.state.pendingChanges.first == "the deleted nodes have to stop first")
    let early = launches.flatMap { story.exit($0, .code(0), after: 10) }
    #expect(early.compactMap(\.launch).isEmpty)
    let fresh = story.exit(up[0], .code(0), after: 10).compactMap(\.launch)
    #expect(fresh.map(\.node.number) == [5, 6, 7, 8])
    #expect(fresh.allSatisfy { $0.chain == spec.chain })
    #expect(story.core.state.pendingChanges.isEmpty)
  }

  @Test func `a node that falls silent is shown, and a log that stands still harms nobody`() {
    var (story, launches) = ClusterStory.running()
    func beat(for seconds: Int) { for _ in 0..<(seconds * 10) { for launch in launches { story.heartbeat(launch, after: 34) } } }
    beat(for: 1)
    #expect(story.core.state.nodes.allSatisfy { !$0.isSilent })
    // A minute without any record is the log's silence, not the nodes'.
    story.say(.tick, by: .coordinator(Samples.host), after: 60_000)
    #expect(story.core.state.nodes.allSatisfy { !$0.isSilent })
    #expect(story.core.state.clock.stalled == 60_000)
    for _ in 0..<11 { for launch in launches.dropLast() { story.heartbeat(launch, after: 50) } }
    #expect(story.core.state.nodes.map(\.isSilent) == [false, false, true])
    story.heartbeat(launches[2])
    #expect(story.core.state.nodes.map(\.isSilent) == [false, false, false])
  }

  @Test func `a stall of the log ends no launch`() {
    var story = ClusterStory()
    story.agent("a")
    story.apply(Samples.spec)
    let count = story.commands.count
    story.wait(seconds: 5)
    #expect(story.say(.tick, by: .coordinator(Samples.host), after: 600_000).isEmpty)
    story.wait(seconds: 4)
    #expect(story.commands.count == count)
    story.wait(seconds: 1)
    #expect(story.commands.count > count)
  }

  @Test func `a critical event of a newer version stops the core, any other is passed over`() {
    var (story, launches) = ClusterStory.running()
    story.say(.unknown(UnknownBody(tag: 60, record: [1])), by: .tool(7))
    #expect(story.core.state.ignored.unknown == 1)
    #expect(!story.exit(launches[1]).isEmpty)
    story.say(.unknown(UnknownBody(tag: 61, record: [1])), by: .tool(8), isCritical: true)
    #expect(story.core.state.needsNewerVersion?.tag == 61)
    let before = story.core.state
    #expect(story.exit(launches[2]).isEmpty)
    #expect(story.core.state == before)
  }

  @Test func `what belongs to another cluster, node or life is counted and changes nothing`() {
    var (story, launches) = ClusterStory.running()
    var spec = Samples.spec
    spec.name = ClusterID("other")!
    spec.runtimes = 4
    #expect(story.apply(spec).isEmpty)
    #expect(story.say(.clusterDeleted(ClusterID("other")!), by: .tool(1)).isEmpty)
    var stranger = launches[1]
    stranger.host = HostID("elsewhere")!
    #expect(story.exit(stranger).isEmpty)
    stranger = launches[1]
    stranger.incarnation = Incarnation(77)
    #expect(story.exit(stranger).isEmpty)
    #expect(story.heartbeat(stranger).isEmpty)
    #expect(story.core.state.ignored.misdirected == 5)
  }

  @Test func `the directory gives each name a partition once and for ever`() {
    var directory = Directory(partitionCount: 3)
    func register(_ name: String, at offset: UInt64) -> Directory.Entry? {
      directory.apply(
        EventRecord(
          offset: Offset(offset), timestamp: .zero,
          event: Event(producer: .tool(offset), incarnation: Incarnation(1), sequence: 1, body: .clusterRegistered(ClusterID(name)!))))
    }
    #expect(register("web", at: 0)?.partition == 1)
    #expect(register("web", at: 1) == nil)
    #expect(register("dns", at: 2)?.partition == 2)
    #expect(register("mail", at: 3) == nil)
    #expect(directory.refused == [ClusterID("mail")!])
    #expect(register("late", at: 2) == nil, "a record folded already")
    #expect(directory.partition(of: ClusterID("dns")!) == 2)
    #expect(directory.cluster(at: 1) == ClusterID("web")!)
  }

  @Test func `a reader takes the first copy of each next slot`() {
    var reader = SlotReader(after: Slot(4))
    #expect(reader.read(Slot(4)) == .repeated)
    #expect(reader.read(Slot(6)) == .early)
    #expect(reader.read(Slot(5)) == .taken)
    #expect(reader.read(Slot(5)) == .repeated)
    #expect(reader.read(Slot(6)) == .taken)
    #expect(reader.last == Slot(6))
  }
}
