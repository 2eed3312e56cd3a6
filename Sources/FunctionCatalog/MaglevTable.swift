import Wire

/// Consistent hashing as in Maglev (Eisenbud et al., NSDI 2016, §3.4): every backend gets its share of the entries
/// to within a few, and when one goes hardly any entry of the others changes.
///
/// Every backend has a permutation of the entries, from two hashes of its name; in turns each takes the next entry of
/// its permutation that is free:
///
///     for b in backends, round after round:  entry[next free of (offset(b) + j · skip(b)) mod M] = b
///
/// A backend with twice the weight has twice as many turns. All of it follows from names, weights and the flow's
/// five-tuple, so all runtimes choose alike, and go on choosing alike after a restart.
public struct MaglevTable: Sendable {
  /// What the paper uses for its smaller size; prime, so that any skip visits all entries.
  public static let defaultSize = 65_537

  public struct Candidate: Hashable, Sendable {
    /// The same for the same backend at all times.
    public let name: UInt64
    /// 0 for one that gets nothing.
    public let weight: Int

    public init(name: UInt64, weight: Int = 1) {
      self.name = name
      self.weight = weight
    }
  }

  /// Position of a candidate per entry.
  public let entries: [UInt16]

  /// `nil` when no candidate has weight.
  ///
  /// - Parameter size: a prime, larger than the number of candidates: a hundred times as large for an even spread.
  public init?(_ candidates: [Candidate], size: Int = MaglevTable.defaultSize) {
    precondition(size > candidates.count && MaglevTable.isPrime(size), "the size of a Maglev table is prime and ample")
    precondition(candidates.count <= 65_535, "a Maglev table has at most 65535 candidates")
    let largest = candidates.map(\.weight).max() ?? 0
    guard largest > 0 else { return nil }
    var entries = [Int32](repeating: -1, count: size)
    var next = candidates.map { Int(MaglevTable.mix($0.name, 0x9e37_79b9_7f4a_7c15) % UInt64(size)) }
    let skip = candidates.map { 1 + Int(MaglevTable.mix($0.name, 0xc2b2_ae3d_27d4_eb4f) % UInt64(size - 1)) }
    var credit = candidates.map { _ in 0 }
    var filled = 0
    while filled < size {
      for index in candidates.indices where filled < size {
        credit[index] += candidates[index].weight
        guard credit[index] >= largest else { continue }
        credit[index] -= largest
        while entries[next[index]] >= 0 { next[index] = (next[index] + skip[index]) % size }
        entries[next[index]] = Int32(index)
        filled += 1
      }
    }
    self.entries = entries.map { UInt16($0) }
  }

  /// Position of the candidate for a flow.
  public func backend(for flow: IPv4FiveTuple) -> Int {
    let hash = MaglevTable.mix(
      flow.addresses ^ MaglevTable.mix(flow.transport.word, 0x8ebc_6af0_9c88_c6e3), 0xe703_7ed1_a0b4_28db)
    return Int(entries[Int(hash % UInt64(entries.count))])
  }

  public func backend(for flow: IPv6FiveTuple) -> Int {
    var hash = MaglevTable.mix(flow.transport.word, 0x8ebc_6af0_9c88_c6e3)
    hash = MaglevTable.mix(flow.sourceHigh ^ hash, 0xe703_7ed1_a0b4_28db)
    hash = MaglevTable.mix(flow.sourceLow ^ hash, 0xe703_7ed1_a0b4_28db)
    hash = MaglevTable.mix(flow.destinationHigh ^ hash, 0xe703_7ed1_a0b4_28db)
    hash = MaglevTable.mix(flow.destinationLow ^ hash, 0xe703_7ed1_a0b4_28db)
    return Int(entries[Int(hash % UInt64(entries.count))])
  }

  /// What a backend is called: its address and port, mixed where they are more than a word.
  static func name(of address: IPAddress, port: UInt16) -> UInt64 {
    if let address = address.ipv4 { return UInt64(address.value) << 16 | UInt64(port) }
    return mix(address.low ^ mix(address.high, 0x9e37_79b9_7f4a_7c15), 0x8ebc_6af0_9c88_c6e3) ^ UInt64(port)
  }

  /// Two rounds of multiplication: one leaves neighbours' hashes at equal distances.
  private static func mix(_ value: UInt64, _ constant: UInt64) -> UInt64 {
    let first = (value ^ constant).multipliedFullWidth(by: 0xa076_1d64_78bd_642f)
    let second = (first.high ^ first.low ^ constant).multipliedFullWidth(by: 0xe703_7ed1_a0b4_28db)
    return second.high ^ second.low
  }

  private static func isPrime(_ number: Int) -> Bool {
    number > 1 && !(2..<number).prefix { $0 * $0 <= number }.contains { number % $0 == 0 }
  }
}
