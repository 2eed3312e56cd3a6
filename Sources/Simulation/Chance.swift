/// Random numbers that a printed seed repeats (splitmix64). All chance in a simulation comes from one of these.
public struct Chance: RandomNumberGenerator, Sendable {
  public let seed: UInt64
  private var state: UInt64

  public init(seed: UInt64) {
    self.seed = seed
    state = seed
  }

  public mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
    return mixed ^ mixed >> 31
  }

  public mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }

  /// `true` with a probability of `perThousand` / 1,000.
  public mutating func happens(_ perThousand: Int) -> Bool { perThousand > 0 && below(1_000) < perThousand }

  public mutating func within(_ range: ClosedRange<UInt64>) -> UInt64 {
    range.lowerBound + next() % (range.upperBound - range.lowerBound + 1)
  }
}
