import FixedContainers

// The fixed containers are noncopyable, which the test macros do not take: each stands in a class here.

final class TableUnderTest {
  private var table: FlowTable

  init(capacity: Int) { table = FlowTable(capacity: capacity, memory: .plain) }

  var count: Int { table.count }
  func insert(_ hash: UInt64, _ value: UInt32) -> Bool { table.insert(hash, value) }
  func remove(_ hash: UInt64, _ value: UInt32) -> Bool { table.remove(hash, value) }
  func find(_ hash: UInt64, where matches: (UInt32) -> Bool) -> UInt32? { table.find(hash, where: matches) }
  func contains(_ hash: UInt64, _ value: UInt32) -> Bool { table.find(hash) { $0 == value } == value }
}

final class PoolUnderTest {
  private var pool: SlotPool

  init(capacity: Int) { pool = SlotPool(capacity: capacity, memory: .plain) }

  var used: Int { pool.used }
  func take() -> UInt32? { pool.take() }
  func put(_ slot: UInt32) { pool.put(slot) }
}
