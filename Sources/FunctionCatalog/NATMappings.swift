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
  /// 24 bytes.
  struct Record: BitwiseCopyable {
    var key = NATClientKey(word: 0)
    var here: UInt32 = 0
    var away: UInt32 = 0
    /// The following record of the same bucket of clients, or the following free one.
    var next: UInt32 = 0
    /// Position in the pool, and port.
    var address: UInt16 = 0
    var port: UInt16 = 0

    var isUsed: Bool { here != 0 || away != 0 }
    var externalWord: UInt64 { NATMappings.externalWord(Int(address), key.realm, port) }
  }

  /// Records are numbered from 1; 0 ends a chain.
  let records: FixedMemory<Record>
  /// First records of the buckets by client.
  private let buckets: FixedMemory<UInt32>
  /// First records of the buckets by external endpoint, and the record that follows each in its bucket; empty where nobody asks.
  private let externalBuckets: FixedMemory<UInt32>
  private let nextExternal: FixedMemory<UInt32>
  let indexesExternals: Bool
  var firstFree: UInt32
  var count = 0

  /// - Parameter indexesExternals: whether `find(external:realm:port:)` will be asked.
  init(capacity: Int, indexesExternals: Bool) {
    self.indexesExternals = indexesExternals
    records = FixedMemory(count: capacity + 1, repeating: Record())
    buckets = FixedMemory(count: max(64, capacity), repeating: 0)
    externalBuckets = FixedMemory(count: indexesExternals ? max(64, capacity) : 1, repeating: 0)
    nextExternal = FixedMemory(count: indexesExternals ? capacity + 1 : 1, repeating: 0)
    for index in 1...capacity { records[index].next = index == capacity ? 0 : UInt32(index + 1) }
    firstFree = 1
  }

  /// Asks for the bucket that `find` reads first.
  @inline(__always)
  func prefetch(_ key: NATClientKey) { buckets.prefetch(bucket(of: key)) }

  /// The client's mapping, or `nil`.
  @inline(__always)
  func find(_ key: NATClientKey) -> UInt32? {
    var index = buckets[bucket(of: key)]
    while index != 0 {
      if records[Int(index)].key == key { return index }
      index = records[Int(index)].next
    }
    return nil
  }

  /// The client's mapping to this very endpoint: after a restart there can be two of one client.
  func find(_ key: NATClientKey, address: Int, port: UInt16) -> UInt32? {
    var index = buckets[bucket(of: key)]
    while index != 0 {
      let record = records[Int(index)]
      if record.key == key, Int(record.address) == address, record.port == port { return index }
      index = record.next
    }
    return nil
  }

  /// Whose this external endpoint is. There is at most one, because an endpoint is taken from the pool once.
  func find(external address: Int, realm: Int, port: UInt16) -> UInt32? {
    precondition(indexesExternals, "what is looked up by its external endpoint is indexed by it")
    let word = NATMappings.externalWord(address, realm, port)
    var index = externalBuckets[externalBuckets.place(of: word)]
    while index != 0 {
      if records[Int(index)].externalWord == word { return index }
      index = nextExternal[Int(index)]
    }
    return nil
  }

  /// A new mapping without flows; `nil` when there is no room.
  @inline(__always)
  mutating func insert(_ key: NATClientKey, address: Int, port: UInt16) -> UInt32? {
    guard firstFree != 0 else { return nil }
    let index = firstFree
    let bucket = bucket(of: key)
    firstFree = records[Int(index)].next
    // The next new mapping's.
    records.prefetch(Int(firstFree))
    records[Int(index)] = Record(
      key: key, next: buckets[bucket], address: UInt16(truncatingIfNeeded: address), port: port)
    buckets[bucket] = index
    if indexesExternals {
      let place = externalBuckets.place(of: records[Int(index)].externalWord)
      nextExternal[Int(index)] = externalBuckets[place]
      externalBuckets[place] = index
    }
    count += 1
    return index
  }

  @inline(__always)
  mutating func remove(_ index: UInt32) {
    unlink(index)
    if indexesExternals { unlinkExternal(index) }
    records[Int(index)].next = firstFree
    firstFree = index
    count -= 1
  }

  @inline(__always)
  private func unlink(_ index: UInt32) {
    let bucket = bucket(of: records[Int(index)].key)
    let following = records[Int(index)].next
    guard buckets[bucket] != index else {
      buckets[bucket] = following
      return
    }
    var before = buckets[bucket]
    while records[Int(before)].next != index { before = records[Int(before)].next }
    records[Int(before)].next = following
  }

  private func unlinkExternal(_ index: UInt32) {
    let place = externalBuckets.place(of: records[Int(index)].externalWord)
    guard externalBuckets[place] != index else {
      externalBuckets[place] = nextExternal[Int(index)]
      return
    }
    var before = externalBuckets[place]
    while nextExternal[Int(before)] != index { before = nextExternal[Int(before)] }
    nextExternal[Int(before)] = nextExternal[Int(index)]
  }

  private static func externalWord(_ address: Int, _ realm: Int, _ port: UInt16) -> UInt64 {
    UInt64(truncatingIfNeeded: address) << 18 | UInt64(truncatingIfNeeded: realm) << 16 | UInt64(port)
  }

  @inline(__always)
  private func bucket(of key: NATClientKey) -> Int { buckets.place(of: key.word) }
}

/// A client's side of a mapping in one word: address, port, realm and VLAN. Of an IPv6 client it is a number (`NAT64Clients`)
/// instead of the address.
@usableFromInline
struct NATClientKey: Hashable, BitwiseCopyable {
  let word: UInt64

  init(word: UInt64) { self.word = word }

  init(_ address: IPv4Address, port: UInt16, realm: Int, vlan: UInt16) {
    word = UInt64(address.value) | UInt64(port) << 32 | UInt64(realm & 3) << 48 | UInt64(vlan & 0xfff) << 50
  }

  init(ipv6Client number: UInt32, port: UInt16, realm: Int, vlan: UInt16) {
    self.init(word: NATClientKey(IPv4Address(number), port: port, realm: realm, vlan: vlan).word | 1 << 62)
  }

  var address: IPv4Address { IPv4Address(UInt32(truncatingIfNeeded: word)) }
  var isIPv6: Bool { word >> 62 & 1 != 0 }
  var ipv6Client: UInt32 { UInt32(truncatingIfNeeded: word) }
  var port: UInt16 { UInt16(truncatingIfNeeded: word >> 32) }
  var realm: Int { Int(word >> 48 & 3) }
  var vlan: UInt16 { UInt16(truncatingIfNeeded: word >> 50) & 0xfff }

  /// The same client's port that makes a pair with this one: RTP's and RTCP's.
  var neighbor: NATClientKey { NATClientKey(word: word ^ 1 << 32) }
  /// The client, whatever its port and protocol.
  var client: UInt64 { word & ~(0x3_ffff << 32) }
}
