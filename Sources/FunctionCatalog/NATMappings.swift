import Wire

/// Which client has which external endpoint, and who still needs it.
///
/// A mapping serves every flow of one client address, port and realm, whatever the destination (RFC 4787
/// REQ-1, RFC 5382 REQ-1). It lives while a flow here uses it or one that has left still does:
///
///     here   flows on this runtime
///     away   flows that took the mapping along to another runtime
///
/// Only when both are zero may the endpoint be handed out again, and not before it has rested (`NATResting`).
/// Records are kept in fixed memory, each in a chain of a hash table by client, and where somebody asks for it in one of
/// a table by external endpoint; free records in one list. Everything is O(1), with a chain's length of 1 on average.
@usableFromInline
struct NATMappings {
  struct Record: BitwiseCopyable {
    var key = NATClientKey(word: 0)
    var here: UInt32 = 0
    var away: UInt32 = 0
    /// The following record of the same bucket, in either table.
    var next = SIMD2<UInt32>(0, 0)
    /// Position in the pool, and port.
    var address: UInt16 = 0
    var port: UInt16 = 0

    var isUsed: Bool { here != 0 || away != 0 }
    var externalWord: UInt64 { NATMappings.externalWord(Int(address), key.realm, port) }
  }

  private enum Table { static let client = 0, external = 1 }

  /// Records are numbered from 1; 0 ends a chain.
  let records: FixedMemory<Record>
  /// First records of the buckets, one table after the other.
  private let buckets: FixedMemory<UInt32>
  private let bucketsPerTable: Int
  private let indexesExternals: Bool
  var firstFree: UInt32
  var count = 0

  /// - Parameter indexesExternals: whether `find(external:realm:port:)` will be asked.
  init(capacity: Int, indexesExternals: Bool) {
    self.indexesExternals = indexesExternals
    records = FixedMemory(count: capacity + 1, repeating: Record())
    var size = 64
    while size < capacity { size *= 2 }
    bucketsPerTable = size
    buckets = FixedMemory(count: indexesExternals ? size * 2 : size, repeating: 0)
    for index in 1...capacity { records[index].next[Table.client] = index == capacity ? 0 : UInt32(index + 1) }
    firstFree = 1
  }

  /// The client's mapping, or `nil`.
  func find(_ key: NATClientKey) -> UInt32? {
    var index = buckets[bucket(Table.client, key.word)]
    while index != 0 {
      if records[Int(index)].key == key { return index }
      index = records[Int(index)].next[Table.client]
    }
    return nil
  }

  /// The client's mapping to this very endpoint: after a restart there can be two of one client.
  func find(_ key: NATClientKey, address: Int, port: UInt16) -> UInt32? {
    var index = buckets[bucket(Table.client, key.word)]
    while index != 0 {
      let record = records[Int(index)]
      if record.key == key, Int(record.address) == address, record.port == port { return index }
      index = record.next[Table.client]
    }
    return nil
  }

  /// Whose this external endpoint is. There is at most one, because an endpoint is taken from the pool once.
  func find(external address: Int, realm: Int, port: UInt16) -> UInt32? {
    precondition(indexesExternals, "what is looked up by its external endpoint is indexed by it")
    let word = NATMappings.externalWord(address, realm, port)
    var index = buckets[bucket(Table.external, word)]
    while index != 0 {
      if records[Int(index)].externalWord == word { return index }
      index = records[Int(index)].next[Table.external]
    }
    return nil
  }

  /// A new mapping without flows; `nil` when there is no room.
  mutating func insert(_ key: NATClientKey, address: Int, port: UInt16) -> UInt32? {
    guard firstFree != 0 else { return nil }
    let index = firstFree
    firstFree = records[Int(index)].next[Table.client]
    records[Int(index)] = Record(key: key, address: UInt16(truncatingIfNeeded: address), port: port)
    link(index, Table.client, key.word)
    if indexesExternals { link(index, Table.external, records[Int(index)].externalWord) }
    count += 1
    return index
  }

  mutating func remove(_ index: UInt32) {
    let record = records[Int(index)]
    unlink(index, Table.client, record.key.word)
    if indexesExternals { unlink(index, Table.external, record.externalWord) }
    records[Int(index)].next[Table.client] = firstFree
    firstFree = index
    count -= 1
  }

  private func link(_ index: UInt32, _ table: Int, _ word: UInt64) {
    let bucket = bucket(table, word)
    records[Int(index)].next[table] = buckets[bucket]
    buckets[bucket] = index
  }

  private func unlink(_ index: UInt32, _ table: Int, _ word: UInt64) {
    let bucket = bucket(table, word)
    let following = records[Int(index)].next[table]
    guard buckets[bucket] != index else {
      buckets[bucket] = following
      return
    }
    var before = buckets[bucket]
    while records[Int(before)].next[table] != index { before = records[Int(before)].next[table] }
    records[Int(before)].next[table] = following
  }

  private static func externalWord(_ address: Int, _ realm: Int, _ port: UInt16) -> UInt64 {
    UInt64(truncatingIfNeeded: address) << 18 | UInt64(truncatingIfNeeded: realm) << 16 | UInt64(port)
  }

  /// Where the memory lies differs from run to run: nobody outside can choose ports that share a bucket.
  private func bucket(_ table: Int, _ word: UInt64) -> Int {
    table * bucketsPerTable + Int(truncatingIfNeeded: buckets.keyedHash(word)) & (bucketsPerTable - 1)
  }
}

/// A client's side of a mapping in one word: address, port, realm and VLAN.
@usableFromInline
struct NATClientKey: Hashable, BitwiseCopyable {
  let word: UInt64

  init(word: UInt64) { self.word = word }

  init(_ address: IPv4Address, port: UInt16, realm: Int, vlan: UInt16) {
    word = UInt64(address.value) | UInt64(port) << 32 | UInt64(realm & 3) << 48 | UInt64(vlan & 0xfff) << 50
  }

  var address: IPv4Address { IPv4Address(UInt32(truncatingIfNeeded: word)) }
  var port: UInt16 { UInt16(truncatingIfNeeded: word >> 32) }
  var realm: Int { Int(word >> 48 & 3) }
  var vlan: UInt16 { UInt16(truncatingIfNeeded: word >> 50 & 0xfff) }

  /// The same client's port that makes a pair with this one: RTP's and RTCP's.
  var neighbor: NATClientKey { NATClientKey(word: word ^ 1 << 32) }
  /// The client, whatever its port and protocol.
  var client: UInt64 { word & ~(0x3_ffff << 32) }
}
