/// SipHash-2-4 (Aumasson, Bernstein 2012): a short keyed hash, so that frames of strangers are refused.
///
/// It keeps out whoever does not know the key; it hides nothing.
enum SipHash {
  /// The tag of a channel frame: header and body, the checksum's and the tag's own bytes as zero.
  static func tag(_ bytes: UnsafeRawPointer, bodyLength: Int, key: ChannelKey) -> UInt64 {
    var state = State(key)
    for offset in stride(from: 0, to: ChannelFrame.headerLength, by: 8) {
      let word = unsafe UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
      state.absorb(offset == 0 ? word & 0xffff_ffff : offset == 56 ? 0 : word)
    }
    return unsafe state.finish(bytes + ChannelFrame.headerLength, count: bodyLength, before: ChannelFrame.headerLength)
  }

  /// The hash of plain bytes.
  static func hash(_ bytes: UnsafeRawBufferPointer, key: ChannelKey) -> UInt64 {
    var state = State(key)
    guard let base = bytes.baseAddress else {
      return withUnsafeBytes(of: UInt8(0)) { unsafe state.finish($0.baseAddress!, count: 0, before: 0) }
    }
    return unsafe state.finish(base, count: bytes.count, before: 0)
  }

  private struct State {
    var (a, b, c, d): (UInt64, UInt64, UInt64, UInt64)

    init(_ key: ChannelKey) {
      a = key.low ^ 0x736f_6d65_7073_6575
      b = key.high ^ 0x646f_7261_6e64_6f6d
      c = key.low ^ 0x6c79_6765_6e65_7261
      d = key.high ^ 0x7465_6462_7974_6573
    }

    @inline(__always)
    mutating func round() {
      a &+= b
      b = (b << 13 | b >> 51) ^ a
      a = a << 32 | a >> 32
      c &+= d
      d = (d << 16 | d >> 48) ^ c
      a &+= d
      d = (d << 21 | d >> 43) ^ a
      c &+= b
      b = (b << 17 | b >> 47) ^ c
      c = c << 32 | c >> 32
    }

    @inline(__always)
    mutating func absorb(_ word: UInt64) {
      d ^= word
      round()
      round()
      a ^= word
    }

    /// Absorbs the last `count` bytes, after `before` that were absorbed already.
    mutating func finish(_ bytes: UnsafeRawPointer, count: Int, before: Int) -> UInt64 {
      var offset = 0
      while offset &+ 8 <= count {
        absorb(unsafe UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)))
        offset &+= 8
      }
      var last = UInt64(truncatingIfNeeded: before &+ count) << 56
      var shift: UInt64 = 0
      while offset < count {
        last |= unsafe UInt64(bytes.load(fromByteOffset: offset, as: UInt8.self)) << shift
        shift &+= 8
        offset &+= 1
      }
      absorb(last)
      c ^= 0xff
      for _ in 0..<4 { round() }
      return a ^ b ^ c ^ d
    }
  }
}
