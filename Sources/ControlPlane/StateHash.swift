import ControlMessages

/// FNV-1a over the words that decide what the core does next, chained from record to record.
///
/// Replicas that folded the same log have the same hash; each command carries it, so that a replica that came to
/// another state is noticed at the first command. Swift's own hashing is seeded differently in each process.
public struct StateHash: Hashable, Sendable, CustomStringConvertible {
  public private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325

  package init(value: UInt64 = 0xcbf2_9ce4_8422_2325) { self.value = value }

  mutating func mix(_ word: UInt64) {
    var word = word
    for _ in 0..<8 {
      value = (value ^ (word & 0xff)) &* 0x100_0000_01b3
      word >>= 8
    }
  }

  mutating func mix(_ text: String) {
    for byte in text.utf8 { value = (value ^ UInt64(byte)) &* 0x100_0000_01b3 }
    mix(UInt64(text.utf8.count))
  }

  public var description: String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.utf8.count) + digits
  }
}

/// Chained over every record of the log, so that a replica whose log lost its tail and grew another one is noticed.
///
/// It says nothing about the state; it takes a few nanoseconds, so that heartbeats can be in it.
public struct LogHash: Hashable, Sendable {
  public private(set) var value: UInt64

  package init(value: UInt64 = 0x9e37_79b9_7f4a_7c15) { self.value = value }

  mutating func mix(_ record: EventRecord) {
    mix(record.offset.value)
    mix(record.timestamp.milliseconds)
    mix(record.event.sequence)
    mix(record.event.incarnation.number)
  }

  private mutating func mix(_ word: UInt64) {
    value = (value ^ word) &* 0x9fb2_1c65_1e98_df25
    value ^= value >> 32
  }
}
