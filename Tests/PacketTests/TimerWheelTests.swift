import FixedContainers
import Testing

/// `TimerWheel` beside a list that is searched: what is due fires, nothing else does, and nothing is forgotten.
@Suite struct TimerWheelTests {
  @Test func `a timer fires once, when its position is reached`() {
    var wheel = TimerWheel(capacity: 4, horizon: 64, start: 10, memory: .plain)
    wheel.arm(2, at: 15)
    #expect(fired(&wheel, 14) == [])
    #expect(fired(&wheel, 15) == [2])
    #expect(fired(&wheel, 500) == [])
  }

  @Test func `a deadline that is past fires at the next advance`() {
    var wheel = TimerWheel(capacity: 4, horizon: 64, start: 1_000, memory: .plain)
    wheel.arm(0, at: 3)
    #expect(fired(&wheel, 1_000) == [0])
  }

  @Test func `a cancelled timer does not fire, and cancelling again changes nothing`() {
    var wheel = TimerWheel(capacity: 4, horizon: 64, start: 0, memory: .plain)
    for slot in 0..<4 as Range<UInt32> { wheel.arm(slot, at: 5) }
    wheel.cancel(1)
    wheel.cancel(1)
    wheel.cancel(3)  // the head of its list
    wheel.cancel(0)  // its end
    #expect(fired(&wheel, 10) == [2])
  }

  @Test func `beyond the horizon a timer comes early and is armed again by its owner`() {
    var wheel = TimerWheel(capacity: 1, horizon: 64, start: 0, memory: .plain)
    let deadline: UInt64 = 1_000
    wheel.arm(0, at: deadline)
    var firedAt: UInt64?
    var early = 0
    for now in 0...1_100 as ClosedRange<UInt64> {
      for slot in fired(&wheel, now, limit: 10) {
        if now < deadline {
          early += 1
          wheel.arm(slot, at: deadline)
        } else {
          firedAt = now
        }
      }
    }
    #expect(firedAt == deadline)
    #expect(early > 0 && early < 40)
  }

  @Test func `a leap of years costs one turn and fires everything that is armed`() {
    var wheel = TimerWheel(capacity: 500, horizon: 8_192, start: 77, memory: .plain)
    for slot in 0..<500 as Range<UInt32> { wheel.arm(slot, at: 77 + UInt64(slot) * 13) }
    let years: UInt64 = 10 * 365 * 86_400 * 8
    #expect(fired(&wheel, years).sorted() == Array(0..<500))
    wheel.arm(3, at: years + 5)
    #expect(fired(&wheel, years + 4) == [])
    #expect(fired(&wheel, years + 5) == [3])
    #expect(fired(&wheel, .max - 20_000) == [])
  }

  @Test func `what has fired and is armed for now waits for the next position`() {
    var wheel = TimerWheel(capacity: 1, horizon: 64, start: 0, memory: .plain)
    wheel.arm(0, at: 5)
    var positions: [UInt64] = []
    for now in 0...9 as ClosedRange<UInt64> {
      for slot in fired(&wheel, now, limit: 100) {
        positions.append(now)
        wheel.arm(slot, at: 0)
      }
    }
    #expect(positions == [5, 6, 7, 8, 9])
  }

  @Test func `at most the limit fires; the rest fires at the next call`() {
    var wheel = TimerWheel(capacity: 100, horizon: 64, start: 0, memory: .plain)
    for slot in 0..<100 as Range<UInt32> { wheel.arm(slot, at: UInt64(slot) / 30) }
    var all: [UInt32] = []
    var calls = 0
    while all.count < 100, calls < 20 {
      let some = fired(&wheel, 50, limit: 7)
      #expect(some.count <= 7)
      all += some
      calls += 1
    }
    #expect(all.sorted() == Array(0..<100))
    #expect(calls == 15)
  }

  @Test func `what is armed anew behind the present position does not keep the rest of a list from firing`() {
    var wheel = TimerWheel(capacity: 10, horizon: 64, start: 0, memory: .plain)
    for slot in 0..<10 as Range<UInt32> { wheel.arm(slot, at: 5) }
    var seen: Set<UInt32> = []
    for _ in 0..<5 {
      for slot in fired(&wheel, 5, limit: 2) {
        seen.insert(slot)
        wheel.arm(slot, at: 6)
      }
    }
    #expect(seen == Set(0..<10))
    #expect(Set(fired(&wheel, 6)) == Set(0..<10))
  }

  @Test(arguments: [1, 2, 3, 4] as [UInt64])
  func `random use agrees with a searched list`(seed: UInt64) {
    var numbers = SeededNumbers(seed: seed)
    var now: UInt64 = numbers.next() >> 20
    var wheel = TimerWheel(capacity: 64, horizon: 256, start: now, memory: .plain)
    var deadlines: [UInt32: UInt64] = [:]
    for step in 0..<20_000 {
      let slot = UInt32(numbers.below(64))
      switch numbers.below(4) {
      case 0, 1:
        if deadlines[slot] != nil { wheel.cancel(slot) }
        // Mostly near, some beyond the horizon, some past.
        let distance = numbers.oneIn(5) ? numbers.below(3_000) : numbers.below(200)
        let deadline = numbers.oneIn(10) ? now - min(now, 5) : now + UInt64(distance)
        wheel.arm(slot, at: deadline)
        deadlines[slot] = deadline
      case 2:
        wheel.cancel(slot)
        deadlines[slot] = nil
      default:
        now += numbers.oneIn(50) ? 1 + numbers.next() >> 34 : 1 + UInt64(numbers.below(20))
        var seen: [UInt32] = []
        for slot in fired(&wheel, now, limit: 1_000) {
          guard let deadline = deadlines[slot] else {
            Issue.record("slot \(slot) fired unarmed: seed \(seed), step \(step)")
            continue
          }
          if deadline > now {
            wheel.arm(slot, at: deadline)  // it waited at the horizon
          } else {
            seen.append(slot)
          }
        }
        let due = deadlines.filter { $0.value <= now }.keys.sorted()
        // A deadline that was past already when it was armed fires at the next position.
        #expect(seen.sorted() == due, "seed \(seed), step \(step)")
        for slot in seen { deadlines[slot] = nil }
      }
    }
  }

  private func fired(_ wheel: inout TimerWheel, _ target: UInt64, limit: Int = 1_000) -> [UInt32] {
    withUnsafeTemporaryAllocation(of: UInt32.self, capacity: limit) { fired in
      let count = wheel.advance(to: target, into: fired)
      return Array(fired[..<count])
    }
  }
}
