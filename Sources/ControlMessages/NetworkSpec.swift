/// The two networks a virtual switch stands between, client side and server side, as the operator wrote them.
///
/// IPv4 addresses are numbers here, the first octet highest: packets and their types belong to the data plane.
public struct NetworkSpec: Hashable, Sendable {
  public struct Side: Hashable, Sendable {
    /// Addresses of the interface, each with its on-link prefix.
    public var addresses: [InterfaceAddress]
    /// Next hop for destinations that are on no link of this side.
    public var gateway: UInt32?
    /// Addresses this side answers ARP for besides its own: entry addresses and virtual IPs towards the
    /// clients, the NAT pool towards the servers.
    public var answersFor: [AddressRange]
    /// None: packets of IPv6 find no way out on this side.
    public var ipv6 = IPv6Side()

    public init(addresses: [InterfaceAddress] = [], gateway: UInt32? = nil, answersFor: [AddressRange] = []) {
      self.addresses = addresses
      self.gateway = gateway
      self.answersFor = answersFor
    }
  }

  public var client: Side
  public var server: Side

  public init(client: Side = Side(), server: Side = Side()) {
    self.client = client
    self.server = server
  }
}

/// What a side has of IPv6.
public struct IPv6Side: Hashable, Sendable {
  /// Addresses of the interface, each with its on-link prefix.
  public var addresses: [IPv6Prefix] = []
  public var gateway: IPv6Prefix?
  /// Addresses and prefixes that this side answers neighbor solicitations for besides its own.
  public var answersFor: [IPv6Prefix] = []

  public init() {}
}

/// An IPv6 address with a prefix length, 128 for the address alone.
public struct IPv6Prefix: Hashable, Sendable, CustomStringConvertible {
  public let high: UInt64
  public let low: UInt64
  public let length: UInt8

  public init?(high: UInt64, low: UInt64, length: UInt8 = 128) {
    guard length <= 128 else { return nil }
    self.high = high
    self.low = low
    self.length = length
  }

  /// `2001:db8::1` or `2001:db8::1/64`: groups of hexadecimal digits, at most one `::` (RFC 4291 §2.2).
  public init?(_ text: String) {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard (1...2).contains(parts.count), let length = parts.count == 2 ? UInt8(parts[1]) : 128, length <= 128 else { return nil }
    let halves = parts[0].split(separator: "::", maxSplits: 2, omittingEmptySubsequences: false)
    func groups(_ half: Substring) -> [UInt64]? {
      if half.isEmpty { return [] }
      var result: [UInt64] = []
      for part in half.split(separator: ":", omittingEmptySubsequences: false) {
        guard (1...4).contains(part.utf8.count), part.allSatisfy({ $0.isASCII && $0.isHexDigit }), let group = UInt64(part, radix: 16)
        else { return nil }
        result.append(group)
      }
      return result
    }
    guard halves.count <= 2, let front = groups(halves[0]), let back = halves.count == 2 ? groups(halves[1]) : [] else { return nil }
    let count = front.count + back.count
    guard halves.count == 2 ? count < 8 : count == 8 else { return nil }
    let all = front + Array(repeating: 0, count: 8 - count) + back
    high = all[0..<4].reduce(0) { $0 << 16 | $1 }
    low = all[4..<8].reduce(0) { $0 << 16 | $1 }
    self.length = length
  }

  /// Whether an address has the same first bits.
  public func contains(_ other: IPv6Prefix) -> Bool {
    let (upper, lower) = (min(length, 64), length > 64 ? length - 64 : 0)
    let mask = { (bits: UInt8) -> UInt64 in bits == 0 ? 0 : ~0 << UInt64(64 - bits) }
    return (high ^ other.high) & mask(upper) == 0 && (low ^ other.low) & mask(lower) == 0
  }

  public var description: String {
    let groups = (0..<8).map { String(($0 < 4 ? high : low) >> UInt64(48 - 16 * ($0 % 4)) & 0xffff, radix: 16) }
    return groups.joined(separator: ":") + (length == 128 ? "" : "/\(length)")
  }
}

/// An address of an interface and the length of its on-link prefix, such as `10.0.0.1/24`.
public struct InterfaceAddress: Hashable, Sendable, CustomStringConvertible {
  public let address: UInt32
  /// 0 to 32.
  public let prefixLength: UInt8

  public init?(address: UInt32, prefixLength: UInt8) {
    guard prefixLength <= 32 else { return nil }
    self.address = address
    self.prefixLength = prefixLength
  }

  public var mask: UInt32 { prefixLength == 0 ? 0 : ~0 << (32 - UInt32(prefixLength)) }
  public func isOnLink(_ other: UInt32) -> Bool { (address ^ other) & mask == 0 }
  public var description: String { "\(AddressRange.text(address))/\(prefixLength)" }
}

/// Addresses from `first` to `last`, both included.
public struct AddressRange: Hashable, Sendable, CustomStringConvertible {
  public let first: UInt32
  public let last: UInt32

  public init?(first: UInt32, last: UInt32) {
    guard first <= last else { return nil }
    self.first = first
    self.last = last
  }

  public func contains(_ address: UInt32) -> Bool { first <= address && address <= last }
  public var description: String { first == last ? Self.text(first) : "\(Self.text(first))-\(Self.text(last))" }

  /// Dotted quad.
  public static func text(_ address: UInt32) -> String {
    "\(address >> 24).\(address >> 16 & 255).\(address >> 8 & 255).\(address & 255)"
  }

  /// The number of a dotted quad; nil when it is none. Leading zeros are refused: some readers take them for octal.
  public static func address(_ text: some StringProtocol) -> UInt32? {
    var address: UInt32 = 0
    let parts = text.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 4 else { return nil }
    for part in parts {
      guard (1...3).contains(part.utf8.count), part.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let octet = UInt8(part),
        part.utf8.count == 1 || part.utf8.first != 0x30
      else { return nil }
      address = address << 8 | UInt32(octet)
    }
    return address
  }
}

extension SettingsReader {
  /// An IPv4 address such as `10.0.0.1`, as a number.
  public func hostAddress() throws(SettingsError) -> UInt32 {
    let text = try string()
    guard let address = AddressRange.address(text) else {
      throw error("'\(text)' is not an IPv4 address, such as 10.0.0.1")
    }
    return address
  }

  /// An address with its prefix length, such as `10.0.0.1/24`.
  public func interfaceAddress() throws(SettingsError) -> InterfaceAddress {
    let text = try string()
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 2, let address = AddressRange.address(parts[0]), let length = UInt8(parts[1]),
      let found = InterfaceAddress(address: address, prefixLength: length)
    else { throw error("'\(text)' is not an IPv4 address with a prefix length, such as 10.0.0.1/24") }
    return found
  }

  /// One address, a range `10.0.0.1-10.0.0.9`, or a prefix `10.0.0.0/28`.
  public func addressRange() throws(SettingsError) -> AddressRange {
    let text = try string()
    if text.utf8.contains(UInt8(ascii: "/")) {
      let prefix = try interfaceAddress()
      guard prefix.address & ~prefix.mask == 0 else { throw error("'\(text)' has bits set after its prefix") }
      return AddressRange(first: prefix.address, last: prefix.address | ~prefix.mask)!
    }
    let ends = text.split(separator: "-", omittingEmptySubsequences: false)
    guard ends.count <= 2, let first = AddressRange.address(ends[0]), let last = AddressRange.address(ends[ends.count - 1]),
      let range = AddressRange(first: first, last: last)
    else { throw error("'\(text)' is not an address, a range such as 10.0.0.1-10.0.0.9, or a prefix such as 10.0.0.0/28") }
    return range
  }
}

extension NetworkSpec {
  public init(reader: SettingsReader) throws(SettingsError) {
    try reader.allow(["client", "server"])
    client = try Side(reader: reader.required("client"))
    server = try Side(reader: reader.required("server"))
  }
}

extension NetworkSpec.Side {
  /// More than any sane side has, and few enough for a command to stay small.
  public static let maximumEntries = 256

  public init(reader: SettingsReader) throws(SettingsError) {
    self.init()
    try reader.allow(["addresses", "gateway", "answers-for", "ipv6"])
    if let value = try reader.optional("ipv6") { ipv6 = try IPv6Side(reader: value) }
    for item in try reader.required("addresses").items() { addresses.append(try item.interfaceAddress()) }
    guard !addresses.isEmpty else { throw try reader.required("addresses").error("a side needs at least one address") }
    if let value = try reader.optional("gateway") {
      let hop = try value.hostAddress()
      guard addresses.contains(where: { $0.isOnLink(hop) }) else {
        throw value.error("the gateway \(AddressRange.text(hop)) is in none of the prefixes of 'addresses'")
      }
      gateway = hop
    }
    for item in try reader.optional("answers-for")?.items() ?? [] { answersFor.append(try item.addressRange()) }
    guard addresses.count <= Self.maximumEntries, answersFor.count <= Self.maximumEntries else {
      throw reader.error("a side has at most \(Self.maximumEntries) addresses and \(Self.maximumEntries) ranges")
    }
  }
}

extension IPv6Side {
  public init(reader: SettingsReader) throws(SettingsError) {
    try reader.allow(["addresses", "gateway", "answers-for"])
    for item in try reader.required("addresses").items() { addresses.append(try item.ipv6Prefix()) }
    guard !addresses.isEmpty else { throw try reader.required("addresses").error("a side needs at least one address") }
    if let value = try reader.optional("gateway") {
      let hop = try value.ipv6Prefix()
      guard hop.length == 128, addresses.contains(where: { $0.contains(hop) }) else {
        throw value.error("the gateway is an address in one of the prefixes of 'addresses'")
      }
      gateway = hop
    }
    for item in try reader.optional("answers-for")?.items() ?? [] { answersFor.append(try item.ipv6Prefix()) }
    guard addresses.count <= NetworkSpec.Side.maximumEntries, answersFor.count <= NetworkSpec.Side.maximumEntries else {
      throw reader.error("a side has at most \(NetworkSpec.Side.maximumEntries) addresses")
    }
  }
}

extension SettingsReader {
  /// An IPv6 address such as `2001:db8::1`, with a prefix length or without.
  func ipv6Prefix() throws(SettingsError) -> IPv6Prefix {
    let text = try string()
    guard let prefix = IPv6Prefix(text) else { throw error("'\(text)' is not an IPv6 address, such as 2001:db8::1 or 2001:db8::1/64") }
    return prefix
  }
}
