import Wire

/// How many TCP connections have begun and not been completed: of the runtime, and of every client.
///
/// A SYN flood is many connections that stay half open (RFC 4987). With a limit per client one client, or one
/// forged address, cannot use up what the others need; with a limit in all the servers behind are spared. Flows
/// that arrive from another runtime are counted without being asked: they were admitted there.
///
/// Clients are counted in 65,536 buckets by address (IPv6: by /64, which one host can have for itself), so two
/// clients may share a bucket and its limit. The bucket's number travels with the flow, so it is the same
/// function of the address on every runtime.
public struct HalfOpenConnections {
  public private(set) var count = 0
  /// Connections that were refused because of a limit.
  public private(set) var refused: UInt64 = 0
  let limit: Int
  let limitPerClient: Int
  private let perBucket = FixedMemory<UInt32>(count: 65_536, repeating: 0)

  init(limit: Int, perClient: Int) {
    self.limit = limit
    limitPerClient = perClient
  }

  static func bucket(of client: IPAddress) -> UInt16 {
    let prefix = client.ipv4.map { UInt64($0.value) } ?? client.high
    let product = (prefix ^ 0x9e37_79b9_7f4a_7c15).multipliedFullWidth(by: 0xe703_7ed1_a0b4_28db)
    return UInt16(truncatingIfNeeded: product.high ^ product.low)
  }

  /// Counts one more, unless that is too many.
  mutating func admit(_ bucket: UInt16) -> Bool {
    guard count < limit, perBucket[Int(bucket)] < limitPerClient else {
      refused &+= 1
      return false
    }
    add(bucket)
    return true
  }

  mutating func add(_ bucket: UInt16) {
    count += 1
    perBucket[Int(bucket)] += 1
  }

  mutating func remove(_ bucket: UInt16) {
    precondition(perBucket[Int(bucket)] > 0, "a half-open connection is counted before it is taken away")
    count -= 1
    perBucket[Int(bucket)] -= 1
  }
}
