// The scalars that network functions are configured with: addresses, blocks, ports.

import ControlMessages
import Wire

extension SettingsReader {
  func addressBlock() throws(SettingsError) -> AddressBlock {
    let text = try string()
    guard let block = AddressBlock(text) else {
      throw error("'\(text)' is not an address block such as 10.0.0.0/8 (with no bits set behind the prefix)")
    }
    return block
  }

  func ipv4Address() throws(SettingsError) -> IPv4Address {
    let text = try string()
    guard let address = IPv4Address(text) else { throw error("'\(text)' is not an IPv4 address") }
    return address
  }

  /// `80`, or `1024-65535`.
  func portRange(lowest: UInt16) throws(SettingsError) -> ClosedRange<UInt16> {
    let text = try string()
    let parts = text.split(separator: "-", omittingEmptySubsequences: false)
    guard (1...2).contains(parts.count), let low = parts[0].trimmed.port, let high = parts[parts.count - 1].trimmed.port,
      low <= high, low >= lowest
    else { throw error("'\(text)' is not a port or a range of ports such as 1024-65535 (from \(lowest))") }
    return low...high
  }

  /// `10.2.0.11:80`: an IPv4 address with a port other than 0.
  func ipv4Endpoint() throws(SettingsError) -> (address: IPv4Address, port: UInt16) {
    let text = try string()
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 2, let address = IPv4Address(String(parts[0])), let port = parts[1].port, port > 0 else {
      throw error("'\(text)' is not an IPv4 address with a port, such as 10.2.0.11:80")
    }
    return (address, port)
  }

  /// One value or a list of them.
  func oneOrMore() throws(SettingsError) -> [SettingsReader] {
    if case .list = settings.value { return try items() }
    return [self]
  }
}

extension Substring {
  /// Decimal digits only, no sign.
  var port: UInt16? { allSatisfy { $0.isASCII && $0.isNumber } ? UInt16(self) : nil }

  /// Without spaces at either end.
  var trimmed: Substring {
    guard let first = firstIndex(where: { $0 != " " }), let last = lastIndex(where: { $0 != " " }) else { return "" }
    return self[first...last]
  }
}
