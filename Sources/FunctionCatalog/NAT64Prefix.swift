import ControlMessages
import Wire

/// IPv6 addresses that stand for IPv4 addresses: 96 bits of a prefix, then the IPv4 address (RFC 6052 §2).
public struct NAT64Prefix: Hashable, Sendable, CustomStringConvertible {
  private let high: UInt64
  /// The prefix's last 32 bits, in the upper half.
  private let low: UInt64

  /// `64:ff9b::/96`, for global addresses only (RFC 6052 §3.1).
  public static let wellKnown = NAT64Prefix(high: 0x0064_ff9b_0000_0000, low: 0)

  private init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// `nil` for a block of another length, and for one whose bits 64 to 71 are not zero (RFC 6052 §2.2).
  public init?(_ block: AddressBlock) {
    guard block.length == 96, block.base.low >> 56 == 0, block.base.high != 0 else { return nil }
    self.init(high: block.base.high, low: block.base.low)
  }

  init(reader: SettingsReader) throws(SettingsError) {
    let block = try reader.addressBlock()
    guard let prefix = NAT64Prefix(block) else {
      throw reader.error(
        "'\(block)' is not an IPv6 prefix of 96 bits such as 64:ff9b::/96, with bits 64 to 71 zero; "
          + "other lengths are not supported")
    }
    self = prefix
  }

  public func contains(_ address: IPAddress) -> Bool { address.high == high && address.low & ~0xffff_ffff == low }

  public func address(of address: IPv4Address) -> IPAddress { IPAddress(high: high, low: low | UInt64(address.value)) }

  public func ipv4(in address: IPAddress) -> IPv4Address? {
    contains(address) ? IPv4Address(UInt32(truncatingIfNeeded: address.low)) : nil
  }

  /// Whether an IPv4 address is that of a host, and with the well-known prefix of one that everybody can reach.
  public func stands(for address: IPv4Address) -> Bool {
    let value = address.value
    guard value >> 24 != 0, value >> 24 != 127, value < 0xe000_0000 else { return false }
    guard self == .wellKnown else { return true }
    for (base, length) in NAT64Prefix.notGlobal where (value ^ base) >> (32 - length) == 0 { return false }
    return true
  }

  /// RFC 5735 §3, to which RFC 6052 refers.
  private static let notGlobal: [(base: UInt32, length: UInt32)] = [
    (0x0a00_0000, 8), (0xa9fe_0000, 16), (0xac10_0000, 12), (0xc000_0000, 24), (0xc000_0200, 24), (0xc0a8_0000, 16),
    (0xc612_0000, 15), (0xc633_6400, 24), (0xcb00_7100, 24),
  ]

  public var description: String { "\(IPAddress(high: high, low: low))/96" }
}
