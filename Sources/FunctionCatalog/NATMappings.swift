import Wire

/// Which client has which external endpoint, and who still needs it.
///
/// A mapping serves every flow of one client address, port and realm, whatever the destination (RFC 4787
/// REQ-1, RFC 5382 REQ-1). It lives while a flow here uses it or one that has left still does:
///
///     here   flows on this runtime
///     away   flows that took the mapping along to another runtime
///
/// Only when both are zero may the endpoint be handed out again. Records are kept in fixed memory, in
/// chains of a hash table; free records in one list. Everything is O(1), with a chain's length of 1 on average.
@usableFromInline
struct NATMappings {
  struct Record: BitwiseCopyable {
    var key = NATClientKey(word: 0)
    var here: UInt32 = 0
    var away: UInt32 = 0
    var next: UInt32 = 0
    /// Position in the pool, and port.
    var address: UInt16 = 0
    var port: UInt16 = 0
  }

  /// Records are numbered from 1; 0 ends a chain.
  let records: FixedMemory<Record>
  let buckets: FixedMemory<UInt32>
  var firstFree: UInt32
  var count = 0

  init(capacity: Int) {
    records = FixedMemory(count: capacity + 1, repeating: Record())
    var size = 64
    while size < capacity { size *= 2 }
    buckets = FixedMemory(count: size, repeating: 0)
    for index in 1...capacity { records[index].next = index == capacity ? 0 : UInt32(index + 1) }
    firstFree = 1
  }

  /// The client's mapping, or `nil`.
  func find(_ key: NATClientKey) -> UInt32? {
    var index = buckets[bucket(key)]
    while index != 0 {
      if records[Int(index)].key == key { return index }
      index = records[Int(index)].next
    }
    return nil
  }

  /// The client's mapping to this very endpoint: after a restart there can be two of one client.
  func find(_ key: NATClientKey, address: Int, port: UInt16) -> UInt32? {
    var index = buckets[bucket(key)]
    while index != 0 {
      let record = records[Int(index)]
      if record.key == key, Int(record.address) == address, record.port == port { return index }
      index = record.next
    }
    return nil
  }

  /// A new mapping without flows; `nil` when there is no room.
  mutating func insert(_ key: NATClientKey, address: Int, port: UInt16) -> UInt32? {
    guard firstFree != 0 else { return nil }
    let index = firstFree
    firstFree = records[Int(index)].next
    let bucket = bucket(key)
    records[Int(index)] = Record(
      key: key, next: buckets[bucket], address: UInt16(truncatingIfNeeded: address), port: port)
    buckets[bucket] = index
    count += 1
    return index
  }

  mutating func remove(_ index: UInt32) {
    let bucket = bucket(records[Int(index)].key)
    let next = records[Int(index)].next
    if buckets[bucket] == index {
      buckets[bucket] = next
    } else {
      var before = buckets[bucket]
      while records[Int(before)].next != index { before = records[Int(before)].next }
      records[Int(before)].next = next
    }
    records[Int(index)].next = firstFree
    firstFree = index
    count -= 1
  }

  /// Where the memory lies differs from run to run: nobody outside can choose ports that share a bucket.
  private func bucket(_ key: NATClientKey) -> Int {
    let product = (key.word ^ buckets.place &* 0x9e37_79b9_7f4a_7c15).multipliedFullWidth(by: 0xe703_7ed1_a0b4_28db)
    return Int(truncatingIfNeeded: product.high ^ product.low) & (buckets.count - 1)
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
}
