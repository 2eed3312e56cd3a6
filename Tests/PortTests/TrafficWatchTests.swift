import Testing

@testable import Nodes

/// What a watch says of packets whose fate a test decides.
@Suite struct TrafficWatchTests {
  /// A packet each 100 us, of each flow in turn; those whose numbers are in `lost` do not come, the others do after 50 us.
  static func outage(flows: Int, packets: Int, lost: Set<Int>) -> TrafficOutage {
    let watch = TrafficWatch(flows: flows)
    watch.begin(at: 1_000_000)
    for number in 0..<packets {
      let time = 1_000_000 + UInt64(number) * 100_000
      watch.noteSent(1, from: number % flows, at: time)
      if !lost.contains(number) { watch.noteReceived(place: number % flows, written: time, at: time + 50_000) }
    }
    return watch.report(clock: 7_000_000)
  }

  @Test func `an outage lasts from the first packet that was lost to the last`() {
    let outage = Self.outage(flows: 10, packets: 5_000, lost: Set(20..<50).subtracting([30, 31]))
    #expect(outage.begin == 8_000_000 && outage.sent == 5_000 && outage.lost == 28 && outage.lostLater == 0)
    #expect(outage.from == 2_000 && outage.until == 5_000)
    #expect(outage.flowsHit == 10 && outage.mostOfOneFlow == 3)
    #expect(outage.flowsHeard == 10 && outage.lastFirst == 950 && outage.longestWait == 50)
  }

  @Test func `what is lost after a long calm is another's doing`() {
    let outage = Self.outage(flows: 4, packets: 8_000, lost: [10, 11, 3_012, 7_000])
    #expect(outage.until == 1_200 && outage.lost == 4 && outage.lostLater == 2)
  }

  @Test func `without a loss there is no outage, and a flow that is not heard is said`() {
    let outage = Self.outage(flows: 10, packets: 9, lost: [])
    #expect(outage.from == nil && outage.until == nil && outage.lost == 0)
    #expect(outage.flowsHeard == 9 && outage.lastFirst == nil)
  }

  @Test func `what was written before the beginning or after the end counts for nothing`() {
    let watch = TrafficWatch(flows: 1)
    watch.begin(at: 1_000_000)
    watch.noteReceived(place: 0, written: 999_999, at: 1_000_001)
    watch.noteSent(1, from: 0, at: 1_000_000)
    watch.end(at: 2_000_000)
    watch.noteSent(1, from: 0, at: 2_000_000)
    #expect(!watch.isComplete && !watch.isRunning)
    watch.noteReceived(place: 0, written: 1_000_000, at: 2_100_000)
    #expect(watch.isComplete)
    #expect(watch.report(clock: 0).sent == 1 && watch.report(clock: 0).lost == 0)
  }
}
