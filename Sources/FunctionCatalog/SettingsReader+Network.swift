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

  /// `10.2.0.11:80` or `[2001:db8::11]:80`: an address with a port other than 0. YAML wants the latter in quotes.
  func endpoint() throws(SettingsError) -> (address: IPAddress, port: UInt16) {
    let text = try string()
    if let colon = text.lastIndex(of: ":"), let port = text[text.index(after: colon)...].port, port > 0 {
      let host = text[..<colon]
      if let address = IPv4Address(String(host)) { return (IPAddress(address), port) }
      if host.first == "[", host.last == "]", let address = IPAddress(String(host.dropFirst().dropLast())), address.ipv4 == nil {
        return (address, port)
      }
    }
    throw error("'\(text)' is not an address with a port, such as 10.2.0.11:80 or \"[2001:db8::11]:80\"")
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
