import Testing
import Wire

@testable import Nodes

/// The witness itself: what a sink says about packets that a test delivers as it likes.
@Suite struct TrafficSinkTests {
  static func plan(flows: Int, newFlowShare: Double = 0) -> TrafficPlan {
    var plan = TrafficPlan()
    plan.flows = flows
    plan.newFlowShare = newFlowShare
    return plan
  }

  /// Delivers (flow, sequence) pairs and returns the counts.
  static func deliver(_ packets: [(UInt32, UInt32)], plan: TrafficPlan, begun: UInt32? = nil) -> TrafficSink.Counts {
    var sink = TrafficSink(plan: plan, run: 9)
    for (flow, sequence) in packets {
      sink.accept(
        TrafficRecord(run: 9, flow: flow, sequence: sequence, time: 1_000), length: 60, flowsBegun: begun ?? UInt32(plan.flows),
        now: Tick(nanoseconds: 5_000))
    }
    return sink.counts
  }

  @Test func `packets in order are received and nothing else`() {
    let counts = Self.deliver([(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)], plan: Self.plan(flows: 2))
    #expect(counts == TrafficSink.Counts(received: 5, bytes: 5 * 64))
  }

  @Test func `a gap is no reordering, and what fills it is`() {
    #expect(Self.deliver([(0, 0), (0, 5), (0, 6)], plan: Self.plan(flows: 1)).reordered == 0)
    let counts = Self.deliver([(0, 0), (0, 5), (0, 3), (0, 6)], plan: Self.plan(flows: 1))
    #expect(counts.received == 4)
    #expect(counts.reordered == 1)
    #expect(counts.duplicates == 0)
  }

  @Test(arguments: [1, 2, 62, 63, 64])
  func `a second copy is a duplicate as long as it is remembered`(later: UInt32) {
    let sequence = (0..<later).map { (UInt32(0), $0) } + [(0, 0), (0, 0)]
    let counts = Self.deliver(sequence, plan: Self.plan(flows: 1))
    #expect(counts.duplicates == 2)
    #expect(counts.received == UInt64(later))
  }

  @Test func `what is too old to be remembered is reordered`() {
    let counts = Self.deliver([(0, 100), (0, 30)], plan: Self.plan(flows: 1))
    #expect(counts.reordered == 1)
    #expect(counts.duplicates == 0)
  }

  @Test func `sequence numbers may go round`() {
    let counts = Self.deliver([(0, .max - 1), (0, .max), (0, 0), (0, 1), (0, .max)], plan: Self.plan(flows: 1))
    // The first is behind 0, modulo 2^32: the sink expected 0.
    #expect(counts.duplicates == 1)
    #expect(counts.received == 4)
  }

  @Test func `a place knows the flow that took it over`() {
    // Places 2 and 3 are short: flow 4 takes 2, flow 5 takes 3, flow 6 takes 2 again.
    let plan = Self.plan(flows: 4, newFlowShare: 0.1)
    #expect((4...7).map { plan.place(of: $0) } == [2, 3, 2, 3])
    let counts = Self.deliver([(2, 0), (4, 0), (4, 1), (2, 1), (6, 0), (6, 0)], plan: plan, begun: 7)
    #expect(counts.received == 5)
    #expect(counts.reordered == 1)
    #expect(counts.duplicates == 1)
  }

  @Test func `flows that were never begun and runs of others are foreign`() {
    #expect(Self.deliver([(2, 0), (.max - 1, 0)], plan: Self.plan(flows: 2)).foreign == 2)
    var sink = TrafficSink(plan: Self.plan(flows: 2), run: 9)
    sink.accept(TrafficRecord(run: 8, flow: 0, sequence: 0, time: 0), length: 60, flowsBegun: 2, now: .zero)
    sink.accept(nil, length: 60, flowsBegun: 2, now: .zero)
    #expect(sink.counts == TrafficSink.Counts(foreign: 2))
  }

  @Test func `latency is the time from writing to reading`() {
    var sink = TrafficSink(plan: Self.plan(flows: 1), run: 9)
    for sequence in 0..<1_000 as Range<UInt32> {
      let record = TrafficRecord(run: 9, flow: 0, sequence: sequence, time: 1_000)
      sink.accept(record, length: 60, flowsBegun: 1, now: Tick(nanoseconds: 1_000 + (sequence < 990 ? 10_000 : 5_000_000)))
    }
    #expect(sink.latency.valueAtPercentile(50) / 100 == 100)
    #expect(sink.latency.valueAtPercentile(99.9) / 10_000 == 500)
    #expect(sink.latency.totalCount == 1_000)
  }

  @Test func `a record survives its bytes, and other bytes are no record`() {
    let record = TrafficRecord(run: 0xabcd, flow: 0x0102_0304, sequence: 0x0506_0708, time: 0x1122_3344_5566)
    var bytes = [UInt8](repeating: 0, count: 18)
    bytes.withUnsafeMutableBytes { record.write(to: $0.baseAddress!) }
    #expect(bytes == [0x4e, 0x46, 0xab, 0xcd, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66])
    #expect(TrafficRecord(bytes.span.bytes) == record)
    #expect(TrafficRecord(Array(bytes.dropLast()).span.bytes) == nil)
    bytes[0] = 0
    #expect(TrafficRecord(bytes.span.bytes) == nil)
  }
}

/// What can be asked of a generator, and what cannot.
@Suite struct TrafficPlanTests {
  @Test func `flows differ in addresses or ports until all combinations are used`() {
    var plan = TrafficPlan()
    plan.sources = 1...3
    plan.sourcePorts = 10...11
    plan.destinations = 100...101
    plan.destinationPorts = 80...82
    #expect(plan.combinations == 36)
    func key(_ flow: UInt32) -> [UInt32] {
      let ends = plan.endpoints(of: flow)
      return [ends.source, ends.destination, UInt32(ends.sourcePort), UInt32(ends.destinationPort)]
    }
    #expect(Set((0..<36).map { key($0) }).count == 36)
    #expect(key(36) == key(0))
    plan.flows = 37
    #expect(plan.fault?.contains("37 flows need") == true)
  }

  @Test func `the whole address space does not overflow`() {
    var plan = TrafficPlan()
    plan.sources = 0...(.max)
    plan.destinations = 0...(.max)
    plan.sourcePorts = 0...(.max)
    plan.destinationPorts = 0...(.max)
    #expect(plan.combinations == .max)
    #expect(plan.fault == nil)
    _ = plan.endpoints(of: .max)
  }

  @Test func `frames have room for what is looked for`() {
    var plan = TrafficPlan()
    #expect(plan.smallestFrame == 64)
    plan.transport = .tcp
    #expect(plan.smallestFrame == 76)
    #expect(plan.fault?.contains("76 to 1518") == true)
    plan.sizes = [76, 1_518]
    #expect(plan.fault == nil)
    plan.sizes = [1_519]
    #expect(plan.fault != nil)
  }

  @Test func `the simple IMIX is seven, four and one`() {
    let counts = Dictionary(TrafficPlan.imix.map { ($0, 1) }, uniquingKeysWith: +)
    #expect(counts == [64: 7, 594: 4, 1_518: 1])
  }
}
