// Which switch has the uplinks, and who takes them over.
import ControlMessages
import ControlPlane
import LogAnalysis
import Testing

@Suite struct UplinkTests {
  /// Two switches, nodes 1 and 2, and two runtimes.
  private func running(rules: UInt32 = DecisionRules.newest, switches: UInt32 = 2) -> (story: ClusterStory, launches: [LaunchSpec]) {
    var story = ClusterStory()
    story.say(.rulesActivated(rules), by: .tool(9), isCritical: true)
    var spec = Samples.spec
    (spec.runtimes, spec.switches) = (2, switches)
    story.agent("a")
    story.agent("b")
    let launches = story.apply(spec).filter { $0.launch != nil }
    for command in launches { story.start(command, after: 100) }
    story.wait(seconds: 1)
    return (story, launches.compactMap(\.launch))
  }

  private func life(_ node: UInt32, _ number: UInt64 = 1) -> NodeLife { NodeLife(NodeID(node)!, Incarnation(number)) }

  @Test func `the first table that names a serving switch names it as the holder, and it stays that`() {
    let (story, _) = running()
    #expect(story.core.state.table.uplinks == .only(life(1)))
    let tables = story.commands.compactMap(\.table)
    #expect(tables.allSatisfy { $0.uplinks == .only(life(1)) || $0.uplinks == .only(nil) })
    #expect(story.commands.contains { $0.table != nil && $0.reason.hasSuffix("node 1 life 1 has the uplinks") })
  }

  @Test func `older rules choose nobody`() {
    let (story, _) = running(rules: DecisionRules.liveSettings)
    #expect(story.commands.compactMap(\.table).allSatisfy { $0.uplinks == .unassigned })
  }

  @Test func `when the holder ends the next table is the first that is said, and names another`() {
    var (story, launches) = running()
    let commands = story.exit(launches[0])
    #expect(commands.first?.table?.uplinks == .only(life(2)))
    #expect(commands.first?.reason.contains("node 2 life 1 takes over the uplinks: node 1 life 1 has ended") == true)
    #expect(commands.first?.target == .cluster)
    // It comes back, and stands by.
    let launch = commands.first { $0.launch?.kind == .virtualSwitch } ?? story.wait(seconds: 3).first { $0.launch != nil }!
    story.start(launch, after: 300)
    story.wait(seconds: 2)
    #expect(story.core.state.node(NodeID(1)!)?.isAlive == true)
    #expect(story.core.state.table.uplinks == .only(life(2)))
    // And takes over in its turn.
    let next = story.exit(launches[1])
    #expect(next.first?.table?.uplinks == .only(life(1, 2)))
  }

  @Test func `with nobody left there is no holder until a switch is back`() {
    var (story, launches) = running(switches: 1)
    let commands = story.exit(launches[0])
    #expect(commands.first?.table?.uplinks == .only(nil))
    #expect(commands.first?.reason.contains("nobody has the uplinks") == true)
    let launch = (commands + story.wait(seconds: 3)).first { $0.launch?.kind == .virtualSwitch }!
    story.start(launch, after: 300)
    story.wait(seconds: 2)
    #expect(story.core.state.table.uplinks == .only(life(1, 2)))
  }

  @Test func `a holder that is going to stop hands the uplinks over first`() {
    var (story, _) = running()
    var spec = Samples.spec
    (spec.runtimes, spec.switches) = (2, 2)
    let leaving = story.say(.nodeStopping(NodeID(1)!), by: .node(.virtualSwitch, spec.name, NodeID(1)!))
    let table = (leaving + story.wait(seconds: 1)).compactMap(\.table).first { $0.uplinks == .only(life(2)) }
    #expect(table != nil)
    #expect(story.commands.contains { $0.reason.contains("node 1 life 1 is going to stop") })
  }

  @Test func `an audit tells who took over from whom, why, and how many flows it was told of`() throws {
    var (story, launches) = running()
    let command = try #require(story.exit(launches[0]).first)
    var end = RecoveryFinished(slot: command.slot, node: NodeID(2)!, lost: life(1))
    (end.recovered, end.microseconds) = (1_000, 4_200)
    story.say(.recoveryFinished(end), by: .node(.virtualSwitch, Samples.spec.name, NodeID(2)!), after: 5)
    var history = RecoveryHistory()
    for (offset, command) in story.commands.enumerated() {
      history.take(CommandRecord(offset: Offset(UInt64(offset)), timestamp: Timestamp(milliseconds: story.time), command: command))
    }
    for record in story.records { history.take(record) }
    let takeover = try #require(history.takeover(from: life(1)))
    #expect(takeover.by == life(2) && takeover.slot == command.slot && takeover.numbers == end)
    #expect(takeover.reason.contains("node 1 life 1 has ended"))
    #expect(history.takeover(from: life(2)) == nil)
  }
}
