import Wire

/// The IPv6 clients that have mappings, by numbers of 32 bits: what stands for a client in `NATClientKey`.
///
/// A client has its number for as long as it has mappings. Numbers say nothing elsewhere: what travels is the address.
struct NAT64Clients {
  /// 32 bytes.
  private struct Client: BitwiseCopyable {
    var high: UInt64 = 0
    var low: UInt64 = 0
    var mappings: UInt32 = 0
    /// The next one of the same bucket, or the next free one.
    var next: UInt32 = 0
  }

  /// Numbered from 1; 0 ends a chain.
  private let clients: FixedMemory<Client>
  private let buckets: FixedMemory<UInt32>
  private var firstFree: UInt32
  private(set) var count = 0

  /// - Parameter capacity: 0 where no IPv6 client is translated.
  init(capacity: Int) {
    clients = FixedMemory(count: capacity + 1, repeating: Client())
    buckets = FixedMemory(count: max(1, capacity), repeating: 0)
    for index in 0..<capacity where index > 0 { clients[index].next = UInt32(index + 1) }
    firstFree = capacity == 0 ? 0 : 1
  }

  subscript(number: UInt32) -> IPAddress { IPAddress(high: clients[Int(number)].high, low: clients[Int(number)].low) }

  /// The client's number, a new one if it has none: then `settle` is to be called. `nil` when there is no room.
  mutating func number(of address: IPAddress) -> UInt32? {
    let bucket = bucket(of: address)
    var number = buckets[bucket]
    while number != 0 {
      if clients[Int(number)].high == address.high, clients[Int(number)].low == address.low { return number }
      number = clients[Int(number)].next
    }
    guard firstFree != 0 else { return nil }
    number = firstFree
    firstFree = clients[Int(number)].next
    clients[Int(number)] = Client(high: address.high, low: address.low, mappings: 0, next: buckets[bucket])
    buckets[bucket] = number
    count += 1
    return number
  }

  mutating func add(_ number: UInt32) { clients[Int(number)].mappings &+= 1 }

  mutating func remove(_ number: UInt32) {
    clients[Int(number)].mappings &-= 1
    settle(number)
  }

  /// Forgets a client without mappings.
  mutating func settle(_ number: UInt32) {
    guard clients[Int(number)].mappings == 0 else { return }
    let bucket = bucket(of: self[number])
    if buckets[bucket] == number {
      buckets[bucket] = clients[Int(number)].next
    } else {
      var before = buckets[bucket]
      while clients[Int(before)].next != number { before = clients[Int(before)].next }
      clients[Int(before)].next = clients[Int(number)].next
    }
    clients[Int(number)].next = firstFree
    firstFree = number
    count -= 1
  }

  private func bucket(of address: IPAddress) -> Int { buckets.place(of: address.high ^ buckets.keyedHash(address.low)) }

  // MARK: Words that stand for a client

  /// The same on every runtime: where the client's endpoints are looked for first, and who it is in a return.
  static func word(of client: IPAddress) -> IPv4Address {
    let product = (client.high ^ 0x9e37_79b9_7f4a_7c15).multipliedFullWidth(by: 0xe703_7ed1_a0b4_28db)
    let mixed = (product.high ^ product.low ^ client.low).multipliedFullWidth(by: 0xa076_1d64_78bd_642f)
    return IPv4Address(UInt32(truncatingIfNeeded: (mixed.high ^ mixed.low) >> 16))
  }

  /// Whom a limit counts: all addresses of a /64 are one client's. No IPv4 client's word.
  static func limited(_ client: IPAddress, vlan: UInt16) -> UInt64 {
    let product = (client.high ^ UInt64(vlan) << 48).multipliedFullWidth(by: 0x9e37_79b9_7f4a_7c15)
    return product.high ^ product.low | 1 << 63
  }
}
