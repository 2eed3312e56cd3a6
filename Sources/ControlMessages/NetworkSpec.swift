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
    try reader.allow(["addresses", "gateway", "answers-for"])
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
