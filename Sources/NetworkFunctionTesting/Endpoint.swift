import Wire

/// An address and a port the way people write them: `"10.0.0.1:80"`, `"[2001:db8::1]:80"`, `"10.0.0.1"`.
///
/// Where a test writes one as a literal, a wrong one stops the test: it is a mistake in the test.
public struct Endpoint: Hashable, Sendable, CustomStringConvertible, ExpressibleByStringLiteral {
  public var address: IPAddress
  /// For an ICMP echo: the identifier.
  public var port: UInt16

  public init(_ address: IPAddress, port: UInt16 = 0) {
    self.address = address
    self.port = port
  }

  public init(_ address: IPv4Address, port: UInt16 = 0) { self.init(IPAddress(address), port: port) }

  public init?(_ text: String) {
    var address = Substring(text)
    var port: UInt16 = 0
    if text.hasPrefix("[") {
      guard let end = text.firstIndex(of: "]") else { return nil }
      address = text[text.index(after: text.startIndex)..<end]
      let rest = text[text.index(after: end)...]
      guard rest.isEmpty || rest.hasPrefix(":") else { return nil }
      if !rest.isEmpty {
        guard let number = UInt16(rest.dropFirst()) else { return nil }
        port = number
      }
    } else if text.contains("."), let colon = text.lastIndex(of: ":"), text.firstIndex(of: ":") == colon {
      guard let number = UInt16(text[text.index(after: colon)...]) else { return nil }
      (address, port) = (text[..<colon], number)
    }
    guard let parsed = IPAddress(String(address)) else { return nil }
    self.init(parsed, port: port)
  }

  public init(stringLiteral text: String) {
    guard let parsed = Endpoint(text) else { preconditionFailure("'\(text)' is not an address with a port") }
    self = parsed
  }

  public var description: String {
    address.ipv4 != nil ? "\(address):\(port)" : "[\(address)]:\(port)"
  }
}
