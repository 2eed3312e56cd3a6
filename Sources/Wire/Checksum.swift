/// The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
public enum Checksum {
  /// The one's complement sum of `count` bytes in memory order, folded to 16 bits, not complemented.
  ///
  /// Sums eight bytes at a time; one's complement addition does not care about the width or the byte
  /// order of the words, as long as the result is stored the way it was loaded (RFC 1071 §2).
  @inlinable
  public static func sum(_ bytes: UnsafeRawPointer, count: Int, initial: UInt64 = 0) -> UInt64 {
    var total = initial
    var offset = 0
    while offset &+ 8 <= count {
      let (partial, carry) = total.addingReportingOverflow(bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
      total = partial &+ (carry ? 1 : 0)
      offset &+= 8
    }
    var tail: UInt64 = 0
    var shift: UInt64 = 0
    while offset < count {
      tail |= UInt64(bytes.load(fromByteOffset: offset, as: UInt8.self)) << shift
      shift &+= 8
      offset &+= 1
    }
    let (partial, carry) = total.addingReportingOverflow(tail)
    return partial &+ (carry ? 1 : 0)
  }

  /// Folds a sum to its 16 bits, still in memory order.
  @inlinable
  public static func fold(_ total: UInt64) -> UInt16 {
    var sum = (total & 0xffff_ffff) &+ (total >> 32)
    sum = (sum & 0xffff) &+ (sum >> 16)
    sum = (sum & 0xffff) &+ (sum >> 16)
    sum = (sum & 0xffff) &+ (sum >> 16)
    return UInt16(truncatingIfNeeded: sum)
  }

  /// The sum of the pseudo header of TCP and UDP over IPv4 (RFC 9293 §3.1), in memory order.
  @inlinable
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
  @inlinable
  public static func update(_ checksum: UInt16, removing old: UInt64, adding new: UInt64) -> UInt16 {
    ~fold(UInt64(~checksum) &+ new &+ old)
  }

  /// What to give `update` for the words of a 32-bit value that is taken away.
  @inlinable
  public static func removed(_ value: UInt32) -> UInt64 { UInt64(~UInt16(truncatingIfNeeded: value >> 16)) &+ UInt64(~UInt16(truncatingIfNeeded: value)) }

  /// What to give `update` for the words of a 32-bit value that is put in.
  @inlinable
  public static func added(_ value: UInt32) -> UInt64 { UInt64(value >> 16) &+ UInt64(value & 0xffff) }
}
