/// The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
public enum Checksum {
  /// The one's complement sum of `count` bytes in memory order, not folded, not complemented.
  ///
  /// One's complement addition does not care about the width or the byte order of the words, as long as the
  /// result is stored the way it was loaded (RFC 1071 §2).
  @inlinable @inline(__always)
  public static func sum(_ bytes: UnsafeRawPointer, count: Int, initial: UInt64 = 0) -> UInt64 {
    guard count >= 8 else { return unsafe sumFew(bytes, count: count, initial: initial) }
    var total = initial
    var offset = 0
    if count >= 128 {
      offset = count & ~15
      total = unsafe add(total, sumMany(bytes, count: offset))
    }
    while offset &+ 16 <= count {
      total = unsafe add(total, bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
      total = unsafe add(total, bytes.loadUnaligned(fromByteOffset: offset &+ 8, as: UInt64.self))
      offset &+= 16
    }
    // What is left, eight bytes or not and some more, without a jump: nobody foresees how long the next packet is. The last
    // eight bytes are loaded once more, and those dropped that were added already.
    let rest = count &- offset
    let few = rest & 7
    let last = unsafe bytes.loadUnaligned(fromByteOffset: count &- 8, as: UInt64.self)
    let eight = unsafe bytes.loadUnaligned(fromByteOffset: count &- 8 &- few, as: UInt64.self)
    total = add(total, eight & (0 &- UInt64(truncatingIfNeeded: rest &>> 3)))
    return add(total, (last &>> 1) &>> UInt64(truncatingIfNeeded: 63 &- few &* 8))
  }

  /// One's complement addition: the carry comes in again at the other end.
  @inlinable @inline(__always)
  static func add(_ a: UInt64, _ b: UInt64) -> UInt64 {
    let (sum, carry) = a.addingReportingOverflow(b)
    return sum &+ (carry ? 1 : 0)
  }

  /// 32-bit words in 64-bit sums need no carries, and several at a time: what a long payload takes.
  @inlinable @inline(never)
  static func sumMany(_ bytes: UnsafeRawPointer, count: Int) -> UInt64 {
    var total: UInt64 = 0
    var offset = 0
    while offset &+ 8 <= count {
      let word = unsafe bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
      total &+= (word & 0xffff_ffff) &+ (word >> 32)
      offset &+= 8
    }
    return total
  }

  @inlinable @inline(never)
  static func sumFew(_ bytes: UnsafeRawPointer, count: Int, initial: UInt64) -> UInt64 {
    var total = initial
    for offset in 0..<max(0, count) {
      unsafe total &+= UInt64(bytes.load(fromByteOffset: offset, as: UInt8.self)) << UInt64(offset & 1 &* 8)
    }
    return total
  }

  /// The sum of an IPv4 header without options: twenty bytes.
  @inlinable @inline(__always)
  static func sumOfPlainHeader(_ bytes: UnsafeRawPointer) -> UInt64 {
    let (a, b) = unsafe (bytes.loadUnaligned(as: UInt64.self), bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    return unsafe add(add(a, b), UInt64(bytes.loadUnaligned(fromByteOffset: 16, as: UInt32.self)))
  }

  /// Folds a sum to its 16 bits, still in memory order.
  ///
  /// Added to itself with its halves exchanged, a word has the one's complement sum of its halves in the upper one.
  @inlinable @inline(__always)
  public static func fold(_ total: UInt64) -> UInt16 {
    let words = UInt32(truncatingIfNeeded: (total &+ (total << 32 | total >> 32)) >> 32)
    return UInt16(truncatingIfNeeded: (words &+ (words << 16 | words >> 16)) >> 16)
  }

  /// The sum of the pseudo header of TCP and UDP over IPv4 (RFC 9293 §3.1), in memory order.
  @inlinable @inline(__always)
  public static func pseudoHeader(addresses: UnsafeRawPointer, protocolNumber: UInt8, length: Int) -> UInt64 {
    sum(
      addresses, count: 8,
      initial: UInt64(UInt16(protocolNumber).bigEndian) &+ UInt64(UInt16(truncatingIfNeeded: length).bigEndian))
  }

  /// The sum of the pseudo header over IPv6 (RFC 8200 §8.1). Source and destination are given apart: a
  /// home address or a routing header can put them elsewhere than in the fixed header.
  @inlinable
  public static func pseudoHeader(
    ipv6Source source: UnsafeRawPointer, destination: UnsafeRawPointer, protocolNumber: UInt8, length: Int
  ) -> UInt64 {
    let fixed = UInt64(UInt16(protocolNumber).bigEndian) &+ UInt64(UInt16(truncatingIfNeeded: length).bigEndian)
    return sum(destination, count: 16, initial: sum(source, count: 16, initial: fixed))
  }

  /// A checksum after some of the covered 16-bit words changed: `HC' = ~(~HC + ~m + m')`
  /// (RFC 1624 eqn. 3). All values as they stand in memory or all in host order, alike.
  @inlinable @inline(__always)
  public static func update(_ checksum: UInt16, removing old: UInt64, adding new: UInt64) -> UInt16 {
    ~fold(UInt64(~checksum) &+ new &+ old)
  }

  /// The same, where the sum of what is put in and of the complement of what is taken away is known; all in memory order.
  @inlinable @inline(__always)
  static func update(_ checksum: UInt16, by change: UInt64) -> UInt16 { ~fold(UInt64(~checksum) &+ change) }

  /// What to give `update` for the words of a 32-bit value that is taken away.
  @inlinable
  public static func removed(_ value: UInt32) -> UInt64 {
    UInt64(~UInt16(truncatingIfNeeded: value >> 16)) &+ UInt64(~UInt16(truncatingIfNeeded: value))
  }

  /// What to give `update` for the words of a 32-bit value that is put in.
  @inlinable
  public static func added(_ value: UInt32) -> UInt64 { UInt64(value >> 16) &+ UInt64(value & 0xffff) }
}
