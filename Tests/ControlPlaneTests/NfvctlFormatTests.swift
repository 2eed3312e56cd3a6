import ControlMessages
import ControlPlane
import Testing

@testable import nfvctl

/// What `nfvctl` prints of a state that was folded from records, without a log.
@Suite struct NfvctlFormatTests {
  /// A cluster with a switch and a runtime serving, and a second runtime that is being launched.
  static let core: ClusterCore = {
    var core = ClusterCore(cluster: Samples.cluster)
    var offset: UInt64 = 0
    func say(_ body: Event.Body, by author: inout EventAuthor, at milliseconds: UInt64) {
      _ = core.apply(
        EventRecord(
          offset: Offset(offset), timestamp: Timestamp(milliseconds: 1_000_000 + milliseconds), event: author.write(body)))
      offset += 1
    }
    var tool = EventAuthor(producer: .tool(1), incarnation: Incarnation(1))
    var agent = EventAuthor(producer: .agent(Samples.host), incarnation: Incarnation(1))
    say(.clusterApplied(Samples.spec), by: &tool, at: 0)
    say(.agentStarted(AgentStarted(host: Samples.host, cores: 4, runtimePorts: 3, switchPorts: 1)), by: &agent, at: 10)
    for node in core.state.nodes.prefix(2) {
      var author = EventAuthor(producer: .node(node.kind, Samples.cluster, node.id), incarnation: node.incarnation)
      say(
        .nodeStarted(
          NodeStarted(
            node: node.id, kind: node.kind, host: Samples.host, processID: 40 + node.id.number, ports: Samples.ports, startup: 250
          )),
        by: &author, at: 20)
      guard node.kind == .runtime else { continue }
      var load = NodeWorkload(node: node.id, interval: 500)
      load.forwardedPackets = 1_000
      load.forwardedBytes = 125_000
      load.droppedPackets = 3
      load.drops = [.init(reason: "firewall \"denied\"", packets: 3)]
      load.activeFlows = 17
      load.busyShare = 123_456
      load.capacity = 1_000
      say(.workload(load), by: &author, at: 30)
    }
    say(.agentHeartbeat(Samples.host), by: &agent, at: 90)
    return core
  }()

  static var state: ClusterState { core.state }

  @Test func `clusters are a table that says what is missing`() {
    let text = OutputFormat.text.list([ClusterListing(Self.state, partition: 1)])
    #expect(
      text == """
        CLUSTER  PARTITION  STATUS       RUNTIMES  SWITCHES  FLOWS  PKT/S  MBIT/S  DROP/S  CHAIN            REASON
        web              1  progressing       1/2       1/1     17   2000     2.0       6  firewall -> nat  1 of 2 runtimes serve

        """)
  }

  @Test func `nodes are a table with what they carry`() {
    let text = OutputFormat.text.list(NodeListing.all(.runtime, of: Self.state))
    #expect(
      text == """
        CLUSTER  ID  STATE      HOST   LIFE  SHARE  FLOWS  PKT/S  MBIT/S  DROP/S  BUSY%  REPLICAS     HEARD  PROBLEM
        web       2  serving    lab-1     1    0/4     17   2000     2.0       6   12.3  -         60ms ago
        web       3  launching  lab-1     1    1/4      -      -       -       -      -  -                -

        """)
  }

  @Test func `hosts are a table of what is used`() {
    let text = OutputFormat.text.list(Self.state.hosts.map { HostListing($0, of: Self.state) })
    #expect(
      text == """
        HOST   CLUSTER  STATE  CORES  RUNTIMES  SWITCHES    HEARD  REFUSAL
        lab-1  web      ready      4       2/3       1/1  0ms ago

        """)
  }

  @Test func `a list in lines has one object in each`() {
    let lines = OutputFormat.jsonl.list(NodeListing.all(.runtime, of: Self.state)).split(separator: "\n")
    #expect(lines.count == 2)
    #expect(
      lines[1] == """
        {"cluster":"web","id":3,"kind":"runtime","state":"launching","host":"lab-1","incarnation":1,"poolShare":1,"poolShares":4,\
        "acknowledgedSlot":0,"failures":0,"lastProblem":"","settingsVersion":0,"settingsProblem":"","backends":[]}
        """)
    #expect(lines[0].contains(#""drops":[{"reason":"firewall \"denied\"","packets":3}]"#))
  }

  @Test func `a document of an empty list is an empty list`() {
    #expect(OutputFormat.json.list([ClusterListing]()) == "[]\n")
    #expect(OutputFormat.jsonl.list([ClusterListing]()) == "")
  }

  @Test func `a description names everything of a cluster`() throws {
    let description = ClusterDescription(ClusterListing(Self.state, partition: 1), Self.state, [])
    for piece in [
      "Cluster:", "firewall -> nat", "Client side:  10.0.0.1/24, gateway 10.0.0.254, answers for 10.0.0.100-10.0.0.102",
    ] {
      #expect(description.text.contains(piece), "\(piece) is not in\n\(description.text)")
    }
    #expect(description.json["runtimesServing"] == .integer(1))
    guard case .array(let switches) = description.json["switches"] else { throw Complaint("no switches") }
    #expect(switches.count == 1)
    #expect(description.json["spec"]?["poolShares"] == .integer(4))
  }

  @Test func `statuses tell a cluster's life`() {
    var core = ClusterCore(cluster: Samples.cluster)
    #expect(ClusterListing(core.state, partition: 1).status == .registered)
    var tool = EventAuthor(producer: .tool(1), incarnation: Incarnation(1))
    _ = core.apply(
      EventRecord(offset: Offset(0), timestamp: Timestamp(milliseconds: 1), event: tool.write(.clusterApplied(Samples.spec))))
    let waiting = ClusterListing(core.state, partition: 1)
    #expect(waiting.status == .progressing)
    #expect(waiting.reason == "0 of 2 runtimes serve; 0 of 1 switches serve; no agent has offered a host")
    _ = core.apply(
      EventRecord(offset: Offset(1), timestamp: Timestamp(milliseconds: 2), event: tool.write(.clusterDeleted(Samples.cluster))))
    #expect(ClusterListing(core.state, partition: 1).status == .deleted)
    #expect(ClusterListing(Self.state, partition: 1, lacksBeginning: true).status == .unknown)
  }

  // MARK: Parts

  @Test func `texts from the log cannot move a terminal's cursor`() {
    #expect(TextTable.printable("a\u{1b}[2Jb\nc\u{9b}") == "a?[2Jb?c?")
  }

  @Test func `JSON escapes what has to be escaped, and keeps large numbers whole`() {
    #expect(JSON.object(["a\"\\": .string("\n\u{1}é"), "n": nil]).line == #"{"a\"\\":"\n\u0001é"}"#)
    #expect(JSON.number(UInt64.max).line == "18446744073709551615")
    #expect(JSON.array([.null, .bool(true)]).document == "[\n  null,\n  true\n]\n")
  }

  @Test func `spans, rates and times`() {
    let spans: [(UInt64, String)] = [
      (0, "0ms"), (999, "999ms"), (4_250, "4.2s"), (60_000, "1m"), (7_200_000, "2h"), (.max, "213503982334d"),
    ]
    for (milliseconds, text) in spans { #expect(Quantity.span(milliseconds: milliseconds) == text) }
    #expect(Quantity.perSecond(.max, interval: 1) == .max)
    #expect(Quantity.perSecond(10, interval: 0) == 0)
    #expect(Quantity.perSecond(.max, interval: 1_000) == .max)
    #expect(Timestamp(milliseconds: 1795386681_123).iso8601 == "2026-11-22T22:31:21.123Z")
    #expect(!Timestamp(milliseconds: .max).iso8601.isEmpty)
  }

  @Test func `lines of a file do not make another chain`() {
    var one = Settings(.map([.init("a", Settings(.list([Settings(.scalar("x"), line: 9)]), line: 8))]), line: 7)
    one.removeLines()
    #expect(one == Settings(.map([.init("a", Settings(.list([Settings(.scalar("x"))])))])))
  }

  @Test func `every type of event and command can be asked for`() {
    let names = Samples.events.map(\.event.body.name) + Samples.commands.map(\.command.body.name)
    #expect(Set(names).isSubset(of: EventsTail.knownTypes))
  }

  // MARK: The order of records of several partitions

  @Test func `sources are merged by time and keep their own order`() {
    var merge = TimeMerge<String>()
    let (a, b) = (merge.addSource(), merge.addSource())
    merge.add("a1", at: 10, from: a)
    merge.add("a2", at: 5, from: a)  // a clock went back: it stays behind a1
    #expect(merge.takeReady() == [])  // b may have something earlier
    merge.add("b1", at: 7, from: b)
    #expect(merge.takeReady() == ["b1"])
    merge.pass(20, b)
    #expect(merge.takeReady() == ["a1", "a2"])
    merge.add("a3", at: 30, from: a)
    merge.end(b)
    #expect(merge.takeReady() == ["a3"])
    #expect(!merge.isAtEnd)
    merge.end(a)
    #expect(merge.isAtEnd)
  }
}
