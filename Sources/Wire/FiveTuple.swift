// The key of a flow: addresses, ports, protocol and VLAN. Two forms, because nearly all flows are IPv4
// and sixteen bytes, compared as two words, are what lets a flow and both its keys share a cache line.

/// Protocol numbers that the platform treats by name.
public enum IPProtocol {
  public static let icmp: UInt8 = 1
  public static let tcp: UInt8 = 6
  public static let udp: UInt8 = 17
  public static let icmpv6: UInt8 = 58
}

/// The part of a key that both address families share, packed into one word.
///
/// An ICMP echo has its identifier where a client's port would be: the source port of a request, the
/// destination port of a reply (RFC 5508 §3.1). Protocols without ports have zeros.
public struct TransportKey: Hashable, Sendable, BitwiseCopyable {
  public let word: UInt64

  @inlinable public init(source: UInt16, destination: UInt16, protocolNumber: UInt8, vlan: UInt16) {
    word = UInt64(source) | UInt64(destination) << 16 | UInt64(protocolNumber) << 32 | UInt64(vlan) << 40
  }

  @inlinable init(word: UInt64) { self.word = word }

  @inlinable public var sourcePort: UInt16 { UInt16(truncatingIfNeeded: word) }
  @inlinable public var destinationPort: UInt16 { UInt16(truncatingIfNeeded: word >> 16) }
  @inlinable public var protocolNumber: UInt8 { UInt8(truncatingIfNeeded: word >> 32) }
  @inlinable public var vlan: UInt16 { UInt16(truncatingIfNeeded: word >> 40) }

  @inlinable public var reversed: TransportKey {
    TransportKey(word: word & ~0xffff_ffff | UInt64(destinationPort) | UInt64(sourcePort) << 16)
  }
}

public struct IPv4FiveTuple: Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
  public var addresses: UInt64
  public var transport: TransportKey

  @inlinable public init(source: IPv4Address, destination: IPv4Address, transport: TransportKey) {
    addresses = UInt64(source.value) | UInt64(destination.value) << 32
    self.transport = transport
  }

  /// A key that no packet has: its VLAN has more than twelve bits.
  @inlinable public static var none: IPv4FiveTuple {
    IPv4FiveTuple(
      source: IPv4Address(0), destination: IPv4Address(0),
      transport: TransportKey(source: 0, destination: 0, protocolNumber: 255, vlan: 0xffff))
  }

  @inlinable public var source: IPv4Address { IPv4Address(UInt32(truncatingIfNeeded: addresses)) }
  @inlinable public var destination: IPv4Address { IPv4Address(UInt32(truncatingIfNeeded: addresses >> 32)) }

  /// The key of the packets that answer.
  @inlinable public var reversed: IPv4FiveTuple {
    IPv4FiveTuple(source: destination, destination: source, transport: transport.reversed)
  }

  /// A keyed hash: without the seed nobody can choose packets that share a bucket.
  ///
  /// Addresses and ports are multiplied by constants, never by each other: a pair of addresses that happened
  /// to be a poor multiplier (many zero bits at either end) would put consecutive ports into one bucket.
  @inlinable public func hash(seed: UInt64) -> UInt64 {
    foldedProduct(foldedProduct(addresses ^ seed, 0x9e37_79b9_7f4a_7c15) ^ transport.word, 0x8ebc_6af0_9c88_c6e3)
  }

  public var description: String {
    "\(transport.protocolNumber) \(source):\(transport.sourcePort) > \(destination):\(transport.destinationPort)"
  }
}

public struct IPv6FiveTuple: Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
  public var sourceHigh: UInt64
  public var sourceLow: UInt64
  public var destinationHigh: UInt64
  public var destinationLow: UInt64
  public var transport: TransportKey

  @inlinable public init(source: IPAddress, destination: IPAddress, transport: TransportKey) {
    sourceHigh = source.high
    sourceLow = source.low
    destinationHigh = destination.high
    destinationLow = destination.low
    self.transport = transport
  }

  /// A key that no packet has, as with IPv4.
  @inlinable public static var none: IPv6FiveTuple {
    IPv6FiveTuple(
      source: IPAddress(high: 0, low: 0), destination: IPAddress(high: 0, low: 0), transport: IPv4FiveTuple.none.transport)
  }

  @inlinable public var source: IPAddress { IPAddress(high: sourceHigh, low: sourceLow) }
  @inlinable public var destination: IPAddress { IPAddress(high: destinationHigh, low: destinationLow) }

  @inlinable public var reversed: IPv6FiveTuple {
    IPv6FiveTuple(source: destination, destination: source, transport: transport.reversed)
  }

  @inlinable public func hash(seed: UInt64) -> UInt64 {
    let a = foldedProduct(sourceHigh ^ seed, sourceLow ^ 0x9e37_79b9_7f4a_7c15)
    let b = foldedProduct(destinationHigh ^ a, destinationLow ^ 0xe703_7ed1_a0b4_28db)
    return foldedProduct(b ^ transport.word, 0x8ebc_6af0_9c88_c6e3)
  }

  public var description: String {
    "\(transport.protocolNumber) [\(source)]:\(transport.sourcePort) > [\(destination)]:\(transport.destinationPort)"
  }
}

/// Both halves of a 64x64 multiplication folded into one word: two instructions, every input bit
/// reaches every output bit (the mixing step of wyhash).
@inlinable @inline(__always)
func foldedProduct(_ a: UInt64, _ b: UInt64) -> UInt64 {
  let product = a.multipliedFullWidth(by: b)
  return product.high ^ product.low
}
