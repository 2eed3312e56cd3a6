// A rate that changes: as many packets as lie under the lines.
import Testing

@testable import Nodes

@Suite struct TrafficRampTests {
  private func makeRamp(_ points: [(Double, UInt64)]) -> TrafficRamp? {
    TrafficRamp(points.map { .init(nanoseconds: UInt64($0.0 * 1e9), rate: $0.1) })
  }

  @Test func `packets are the area under the lines, and the last rate stays`() throws {
    let ramp = try #require(makeRamp([(0, 1_000), (10, 3_000), (20, 0), (30, 500)]))
    let due = { (seconds: Double) in ramp.packets(until: UInt64(seconds * 1e9)) }
    #expect(due(0) == 0 && due(5) == 7_500 && due(10) == 20_000)
    #expect(due(15) == 20_000 + 11_250 && due(20) == 35_000)
    #expect(due(30) == 37_500 && due(40) == 42_500)
  }

  @Test func `it never goes back, however finely it is asked`() throws {
    let ramp = try #require(makeRamp([(0, 6_000), (15, 48_000), (60, 0)]))
    var last: UInt64 = 0
    for step in 0..<70_000 {
      let due = ramp.packets(until: UInt64(step) * 1_000_000)
      #expect(due >= last && due - last <= 49)
      last = due
    }
    #expect(last == 405_000 + 1_080_000)
  }

  @Test func `points have to begin at the beginning and go on in time`() {
    #expect(makeRamp([]) == nil && makeRamp([(1, 5)]) == nil && makeRamp([(0, 5), (2, 6), (2, 7)]) == nil && makeRamp([(0, 5), (3, 6), (2, 7)]) == nil)
    #expect(makeRamp([(0, 5)])?.packets(until: 2_000_000_000) == 10)
  }
}
