// Link and network addresses as values. Host byte order inside, network order only on the wire.

/// A 48-bit Ethernet address.
public struct MACAddress: Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
  /// The six bytes, first on the wire = most significant.
  public let value: UInt64

  @inlinable public init(_ value: UInt64) { self.value = value & 0xffff_ffff_ffff }

  public static let broadcast = MACAddress(0xffff_ffff_ffff)
  public static let zero = MACAddress(0)

  /// Group addresses (broadcast and multicast) have the lowest bit of the first byte set.
  @inlinable public var isGroup: Bool { value & 0x0100_0000_0000 != 0 }

  public init?(_ text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 6 else { return nil }
    var value: UInt64 = 0
    for part in parts {
      guard part.count == 2, let byte = hexadecimal(part, UInt8.self) else { return nil }
      value = value << 8 | UInt64(byte)
    }
    self.value = value
  }

  public var description: String {
    (0..<6).map { index in
      let byte = UInt8(truncatingIfNeeded: value >> (40 - 8 * UInt64(index)))
      return (byte < 16 ? "0" : "") + String(byte, radix: 16)
    }.joined(separator: ":")
  }
}

/// Digits only: the standard library would also read a sign.
private func hexadecimal<Number: FixedWidthInteger>(_ text: Substring, _ type: Number.Type) -> Number? {
  text.allSatisfy { $0.isASCII && $0.isHexDigit } ? Number(text, radix: 16) : nil
}

/// An IPv4 address.
public struct IPv4Address: Hashable, Comparable, Sendable, BitwiseCopyable, CustomStringConvertible {
  public let value: UInt32

  @inlinable public init(_ value: UInt32) { self.value = value }

  /// Four decimal numbers with dots, nothing else.
  public init?(_ text: String) {
    let parts = text.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 4 else { return nil }
    var value: UInt32 = 0
    for part in parts {
      guard part.count <= 3, part.allSatisfy({ $0.isASCII && $0.isNumber }), let byte = UInt8(part) else { return nil }
      value = value << 8 | UInt32(byte)
    }
    self.value = value
  }

  @inlinable public static func < (a: IPv4Address, b: IPv4Address) -> Bool { a.value < b.value }

  public var description: String {
    "\(value >> 24).\(value >> 16 & 255).\(value >> 8 & 255).\(value & 255)"
  }
}

/// An IPv4 or IPv6 address in one 128-bit form; IPv4 as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
public struct IPAddress: Hashable, Comparable, Sendable, BitwiseCopyable, CustomStringConvertible {
  public let high: UInt64
  public let low: UInt64

  @inlinable public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  @inlinable public init(_ address: IPv4Address) {
    self.init(high: 0, low: 0xffff_0000_0000 | UInt64(address.value))
  }

  @inlinable public var ipv4: IPv4Address? {
    high == 0 && low >> 32 == 0xffff ? IPv4Address(UInt32(truncatingIfNeeded: low)) : nil
  }

  @inlinable public static func < (a: IPAddress, b: IPAddress) -> Bool {
    a.high != b.high ? a.high < b.high : a.low < b.low
  }

  public init?(_ text: String) {
    if let ipv4 = IPv4Address(text) {
      self.init(ipv4)
      return
    }
    // RFC 4291 §2.2: groups of hexadecimal digits, at most one "::", a dotted quad in the last place.
    let halves = text.split(separator: "::", maxSplits: 2, omittingEmptySubsequences: false)
    guard halves.count <= 2, text.contains(":") else { return nil }
    func groups(_ half: Substring) -> [UInt16]? {
      if half.isEmpty { return [] }
      var result: [UInt16] = []
      let parts = half.split(separator: ":", omittingEmptySubsequences: false)
      for (index, part) in parts.enumerated() {
        if part.contains("."), index == parts.count - 1, let quad = IPv4Address(String(part)) {
          result += [UInt16(quad.value >> 16), UInt16(quad.value & 0xffff)]
        } else {
          guard (1...4).contains(part.count), let group = hexadecimal(part, UInt16.self) else { return nil }
          result.append(group)
        }
      }
      return result
    }
    guard let front = groups(halves[0]), let back = halves.count == 2 ? groups(halves[1]) : [] else { return nil }
    let count = front.count + back.count
    guard halves.count == 2 ? count < 8 : count == 8 else { return nil }
    let all = front + Array(repeating: 0, count: 8 - count) + back
    self.init(
      high: all[0..<4].reduce(0) { $0 << 16 | UInt64($1) },
      low: all[4..<8].reduce(0) { $0 << 16 | UInt64($1) })
  }

  /// `10.0.0.1:80`, `[2001:db8::1]:80` (RFC 5952 §6).
  public func description(withPort port: UInt16) -> String { ipv4 == nil ? "[\(self)]:\(port)" : "\(self):\(port)" }

  public var description: String {
    if let ipv4 { return ipv4.description }
    let groups = (0..<8).map { UInt16(truncatingIfNeeded: ($0 < 4 ? high : low) >> UInt64(48 - 16 * ($0 % 4))) }
    // RFC 5952 §4.2: the first longest run of two or more zero groups becomes "::".
    var best = 0..<0
    var start = 0
    while start < 8 {
      var end = start
      while end < 8, groups[end] == 0 { end += 1 }
      if end - start >= 2, end - start > best.count { best = start..<end }
      start = max(end, start + 1)
    }
    func text(_ range: Range<Int>) -> String { range.map { String(groups[$0], radix: 16) }.joined(separator: ":") }
    return best.isEmpty ? text(0..<8) : text(0..<best.lowerBound) + "::" + text(best.upperBound..<8)
  }
}

/// An address block: all addresses whose first `length` bits are those of `base`.
public struct AddressBlock: Hashable, Sendable, CustomStringConvertible {
  public let base: IPAddress
  /// Prefix length over the 128-bit form: an IPv4 /24 is 120 here.
  public let length: Int

  /// `10.0.0.0/8`, `2001:db8::/32`, or a single address. `nil` for bits set behind the prefix.
  public init?(_ text: String) {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard (1...2).contains(parts.count), let address = IPAddress(String(parts[0])) else { return nil }
    let width = address.ipv4 == nil ? 128 : 32
    var prefix = width
    if parts.count == 2 {
      guard parts[1].allSatisfy({ $0.isASCII && $0.isNumber }), let given = Int(parts[1]), given <= width else { return nil }
      prefix = given
    }
    base = address
    length = 128 - width + prefix
    guard base.high & ~highMask == 0, base.low & ~lowMask == 0 else { return nil }
  }

  /// The block of this length that an address is in.
  public init(around address: IPAddress, length: Int) {
    precondition((0...128).contains(length), "a prefix has 0 to 128 bits")
    let masks = (
      high: length >= 64 ? UInt64.max : length == 0 ? 0 : .max << UInt64(64 - length),
      low: length <= 64 ? UInt64(0) : .max << UInt64(128 - length)
    )
    base = IPAddress(high: address.high & masks.high, low: address.low & masks.low)
    self.length = length
  }

  @inlinable public func contains(_ address: IPAddress) -> Bool {
    (address.high ^ base.high) & highMask == 0 && (address.low ^ base.low) & lowMask == 0
  }

  /// The bits of either half that are compared.
  @inlinable public var highMask: UInt64 { length >= 64 ? .max : length == 0 ? 0 : .max << UInt64(64 - length) }
  @inlinable public var lowMask: UInt64 { length <= 64 ? 0 : .max << UInt64(128 - length) }

  public var description: String {
    base.ipv4 != nil ? "\(base)/\(length - 96)" : "\(base)/\(length)"
  }
}
