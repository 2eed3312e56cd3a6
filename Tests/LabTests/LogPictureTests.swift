import ControlMessages
import Testing

@testable import Lab

/// What the lab sees of the log.
@Suite struct LogPictureTests {
  let runtime = NodeID(1)!
  let host = HostID("lab")!

  private func record(_ offset: UInt64, _ body: Event.Body) -> EventRecord {
    EventRecord(
      offset: Offset(offset), timestamp: Timestamp(milliseconds: 1_000 + offset),
      event: Event(producer: ProducerID("runtime/web/1")!, incarnation: Incarnation(1), sequence: offset + 1, body: body))
  }

  private func workload(_ packets: UInt64, drops: UInt64) -> Event.Body {
    var workload = NodeWorkload(node: runtime, interval: 500)
    workload.receivedPackets = packets
    workload.forwardedPackets = packets - drops
    workload.droppedPackets = drops
    workload.drops = drops > 0 ? [.init(reason: "no-flow", packets: drops)] : []
    workload.flowsCreated = 2
    workload.activeFlows = 7
    return .workload(workload)
  }

  private func started() -> Event.Body {
    let address = HardwareAddress(bits: 0x024e_0000_0001)
    return .nodeStarted(
      NodeStarted(
        node: runtime, kind: .runtime, host: host, processID: 99,
        ports: NodePorts(input: address, output: address, control: address),
        startup: 200))
  }

  @Test func `workloads of intervals become totals of a node`() {
    var picture = LogPicture()
    picture.read(record(0, workload(5, drops: 0)))
    #expect(picture.nodes.isEmpty, "nobody has said what node 1 is")
    picture.read(record(1, started()))
    picture.read(record(2, workload(100, drops: 3)))
    picture.read(record(3, workload(50, drops: 4)))
    #expect(picture.nodes[runtime]?.total.receivedPackets == 150)
    #expect(picture.nodes[runtime]?.total.forwardedPackets == 143)
    #expect(picture.nodes[runtime]?.total.flowsCreated == 4)
    #expect(picture.nodes[runtime]?.last.receivedPackets == 50)
    #expect(picture.drops.map(\.reason) == ["no-flow"] && picture.drops[0].packets == 7)
    picture.read(record(4, started()))
    #expect(picture.nodes[runtime]?.lives == 2)
    #expect(picture.events == 5)
  }

  @Test func `a command that the log had is counted as repeated, and a heartbeat is no news`() {
    var picture = LogPicture()
    var reader = SlotReader()
    for slot: UInt64 in [1, 2, 2, 1, 3] {
      let command = Command(
        slot: Slot(slot), decision: DecisionID(offset: Offset(slot), index: 0), target: .cluster, expiry: .zero,
        reason: "why \(slot)",
        body: .stopNode(runtime, Incarnation(1)))
      picture.read(CommandRecord(offset: Offset(slot), timestamp: .zero, command: command), reader.read(Slot(slot)))
    }
    #expect(picture.commands == 3)
    #expect(picture.repeatedCommands == 2)
    #expect(picture.lines.map(\.text) == ["stop node 1 (why 1)", "stop node 1 (why 2)", "stop node 1 (why 3)"])
    for offset: UInt64 in 0..<1_000 {
      picture.read(record(offset, .heartbeat(Heartbeat(node: runtime, workerLoops: 1, busyLoops: 0))))
    }
    #expect(picture.lines.count == 3)
  }

  @Test func `the view fits its terminal`() {
    var picture = LogPicture()
    picture.read(record(0, started()))
    picture.read(record(1, workload(100, drops: 3)))
    for offset: UInt64 in 2..<80 {
      picture.read(
        record(offset, .processExited(ProcessExited(host: host, node: runtime, incarnation: Incarnation(1), ending: .signal(9)))))
    }
    let view = LiveView(
      elapsed: 12, limit: 60, picture: picture, state: nil, traffic: TrafficCount(), requestRate: 10, byteRate: 1_000)
    for (width, height) in [(80, 24), (200, 60), (20, 5), (1, 1)] {
      let lines = view.lines(width: width, height: height)
      #expect(lines.count <= max(1, height - 1))
      #expect(lines.allSatisfy { $0.count <= max(20, width - 1) })
    }
    #expect(view.lines(width: 100, height: 40).contains { $0.contains("runtime 1") && $0.contains("200") })
    #expect(view.line.contains("runtime 1: 7 flows 200 packets/s"))
  }
}
