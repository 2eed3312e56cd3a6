import FixedContainers
import Testing

/// `FlowTable` beside a dictionary: whatever the table says, the dictionary says too.
@Suite struct FlowTableTests {
  @Test(arguments: [1, 2, 3] as [UInt64])
  func `a table and a dictionary never disagree`(seed: UInt64) {
    var numbers = SeededNumbers(seed: seed)
    let table = TableUnderTest(capacity: 4_096)
    var oracle: [UInt64: UInt32] = [:]
    var keys: [UInt64] = []
    for step in 0..<35_000 {
      switch numbers.below(keys.count > 4_000 ? 2 : 3) {
      case 0:
        // Half of the look-ups are for something that is not there.
        let key = numbers.oneIn(2) || keys.isEmpty ? numbers.next() : keys[numbers.below(keys.count)]
        let expected = oracle[key]
        let found = table.find(key) { $0 == expected }
        #expect(found == expected, "seed \(seed), step \(step)")
      case 1 where !keys.isEmpty:
        let key = keys.remove(at: numbers.below(keys.count))
        let value = oracle.removeValue(forKey: key)!
        #expect(table.remove(key, value), "seed \(seed), step \(step)")
        #expect(!table.remove(key, value), "removed twice: seed \(seed), step \(step)")
      default:
        let key = numbers.next()
        let value = UInt32(step)
        guard oracle[key] == nil, table.insert(key, value) else { continue }
        oracle[key] = value
        keys.append(key)
      }
      guard table.count == oracle.count else {
        Issue.record("\(table.count) entries instead of \(oracle.count): seed \(seed), step \(step)")
        return
      }
    }
    for (key, value) in oracle {
      #expect(table.contains(key, value), "seed \(seed)")
    }
  }

  @Test func `it takes its capacity without refusing`() {
    for seed in 1...5 as ClosedRange<UInt64> {
      var numbers = SeededNumbers(seed: seed)
      let table = TableUnderTest(capacity: 6_144)
      for value in 0..<6_144 as Range<UInt32> {
        #expect(table.insert(numbers.next(), value), "refused entry \(value) of 6,144: seed \(seed)")
      }
    }
  }

  @Test func `a refused insertion leaves everything where it was`() {
    for seed in 1...5 as ClosedRange<UInt64> {
      var numbers = SeededNumbers(seed: seed)
      let table = TableUnderTest(capacity: 96)
      var entries: [(key: UInt64, value: UInt32)] = []
      var refusals = 0
      for value in 0..<2_000 as Range<UInt32> {
        let key = numbers.next()
        let count = table.count
        guard table.insert(key, value) else {
          refusals += 1
          #expect(table.count == count)
          #expect(!table.contains(key, value), "a refused entry is there: seed \(seed)")
          continue
        }
        entries.append((key, value))
      }
      #expect(refusals > 0 && entries.count > 96)
      #expect(table.count == entries.count)
      for (key, value) in entries {
        #expect(table.contains(key, value), "entry \(value) is lost: seed \(seed)")
      }
      for (key, value) in entries { #expect(table.remove(key, value), "seed \(seed)") }
      #expect(table.count == 0)
    }
  }

  @Test func `entries of one hash are all offered`() {
    let table = TableUnderTest(capacity: 96)
    for value in 0..<10 as Range<UInt32> { #expect(table.insert(0x1234_0000_0000_0007, value)) }
    for value in 0..<10 as Range<UInt32> { #expect(table.contains(0x1234_0000_0000_0007, value)) }
    var offered: Set<UInt32> = []
    let found = table.find(0x1234_0000_0000_0007) { value in
      offered.insert(value)
      return false
    }
    #expect(found == nil)
    #expect(offered.isSuperset(of: 0..<10))
  }

  @Test func `a hash whose tag is zero is kept like any other`() {
    let table = TableUnderTest(capacity: 96)
    #expect(table.find(5) { _ in true } == nil)
    #expect(table.insert(5, 77))
    #expect(table.find(5) { _ in true } == 77)
    #expect(table.remove(5, 77))
    #expect(table.find(5) { _ in true } == nil)
  }
}

@Suite struct SlotPoolTests {
  @Test func `every slot is handed out once, the last returned first`() {
    let pool = PoolUnderTest(capacity: 100)
    var taken: [UInt32] = []
    while let slot = pool.take() { taken.append(slot) }
    #expect(Set(taken) == Set(0..<100))
    #expect(taken.count == 100 && pool.used == 100)
    pool.put(17)
    pool.put(42)
    #expect(pool.used == 98)
    #expect(pool.take() == 42)
    #expect(pool.take() == 17)
    #expect(pool.take() == nil)
  }

  @Test func `no slot is in two hands`() {
    let seed: UInt64 = 11
    var numbers = SeededNumbers(seed: seed)
    let pool = PoolUnderTest(capacity: 64)
    var held: Set<UInt32> = []
    for _ in 0..<20_000 {
      if numbers.oneIn(2), let slot = pool.take() {
        #expect(held.insert(slot).inserted, "slot \(slot) was handed out twice: seed \(seed)")
      } else if let slot = held.randomElement(using: &numbers) {
        held.remove(slot)
        pool.put(slot)
      }
      #expect(pool.used == held.count, "seed \(seed)")
    }
  }

  @Test func `a pool of nothing has nothing`() {
    let pool = PoolUnderTest(capacity: 0)
    #expect(pool.take() == nil)
  }
}
