/// The free ports of every external address and protocol: which port is free is found in constant time.
///
/// A bitmap with two levels of summary above it, so that "the first free port at or after this one" is three
/// counts of trailing zeros, however full the pool is:
///
///     top       one word       bit = a word of `summary` is not zero
///     summary   up to 16 words bit = a word of `ports` is not zero
///     ports     up to 1024     bit = the port is free
///
/// One such tree per lane; a lane is an address, a protocol and a parity, because RTP and RTCP use an even
/// port and the odd one after it (RFC 4787 REQ-4), so the two parities are taken and given back apart.
@usableFromInline
struct PortSet {
  /// Words of one lane: ports, then summary, then top.
  let portWords: Int
  let summaryWords: Int
  let stride: Int
  /// Ports of one lane.
  let capacity: Int
  let words: FixedMemory<UInt64>

  /// `lanes` trees of `capacity` positions each, all taken.
  init(lanes: Int, capacity: Int) {
    precondition(capacity <= 64 * 64 * 64, "three levels of 64 cover 262,144 positions")
    self.capacity = capacity
    portWords = (capacity + 63) / 64
    summaryWords = (portWords + 63) / 64
    stride = portWords + summaryWords + 1
    words = FixedMemory(count: lanes * stride, repeating: 0)
  }

  @inline(__always)
  func prefetch(_ lane: Int, _ position: Int) { words.prefetch(lane * stride + position >> 6) }

  @inline(__always)
  func isFree(_ lane: Int, _ position: Int) -> Bool {
    words[lane * stride + position >> 6] & bit(position) != 0
  }

  @inline(__always)
  func give(_ lane: Int, _ position: Int) {
    let base = lane * stride
    words[base + position >> 6] |= bit(position)
    words[base + portWords + position >> 12] |= bit(position >> 6)
    words[base + portWords + summaryWords] |= bit(position >> 12)
  }

  @inline(__always)
  func take(_ lane: Int, _ position: Int) {
    let base = lane * stride
    words[base + position >> 6] &= ~bit(position)
    guard words[base + position >> 6] == 0 else { return }
    words[base + portWords + position >> 12] &= ~bit(position >> 6)
    guard words[base + portWords + position >> 12] == 0 else { return }
    words[base + portWords + summaryWords] &= ~bit(position >> 12)
  }

  /// The first free position at or after `start`, or else the first of all; `nil` when none is free.
  func first(_ lane: Int, from start: Int) -> Int? {
    find(lane, from: start) ?? find(lane, from: 0)
  }

  private func find(_ lane: Int, from start: Int) -> Int? {
    guard start < capacity else { return nil }
    let base = lane * stride
    let here = words[base + start >> 6] & from(start & 63)
    if here != 0 { return start & ~63 | here.trailingZeroBitCount }

    let word = start >> 6 + 1
    if word < portWords {
      let row = words[base + portWords + word >> 6] & from(word & 63)
      if row != 0 { return lowest(base, word & ~63 | row.trailingZeroBitCount) }
      let next = word >> 6 + 1
      if next < summaryWords {
        let top = words[base + portWords + summaryWords] & from(next)
        if top != 0 {
          let summary = top.trailingZeroBitCount
          return lowest(base, summary << 6 | words[base + portWords + summary].trailingZeroBitCount)
        }
      }
    }
    return nil
  }

  private func lowest(_ base: Int, _ word: Int) -> Int { word << 6 | words[base + word].trailingZeroBitCount }

  @inline(__always)
  private func bit(_ position: Int) -> UInt64 { 1 << UInt64(position & 63) }

  /// All bits from this one up.
  private func from(_ position: Int) -> UInt64 { ~0 << UInt64(position) }
}
