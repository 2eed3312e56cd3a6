/// The rules that one packet makes worth judging, each once, in the order they are judged in.
///
/// A bit per rule, and the part of the bitmap that has any: adding is constant time however often a pattern occurs.
struct CandidateRules {
  private let words: FixedMemory<UInt64>
  private var lowest = Int.max
  private var highest = -1

  init(capacity: Int) { words = FixedMemory(count: (capacity + 63) / 64, repeating: 0) }

  var isEmpty: Bool { highest < 0 }

  @inline(__always)
  mutating func insert(_ rule: UInt32) {
    let word = Int(rule >> 6)
    words[word] |= 1 << UInt64(rule & 63)
    if word < lowest { lowest = word }
    if word > highest { highest = word }
  }

  /// Takes the first one out.
  mutating func popFirst() -> UInt32? {
    while lowest <= highest {
      let word = words[lowest]
      if word != 0 {
        words[lowest] = word & (word - 1)
        return UInt32(lowest << 6 | word.trailingZeroBitCount)
      }
      lowest += 1
    }
    (lowest, highest) = (.max, -1)
    return nil
  }

  mutating func removeAll() {
    while lowest <= highest {
      words[lowest] = 0
      lowest += 1
    }
    (lowest, highest) = (.max, -1)
  }
}
