import ControlMessages
import NetworkFunctions
import Wire

/// The external endpoints that one runtime may hand out: its block of the ports of every pool address.
///
///     ports 1024 ... 65535 of each address, three runtimes:
///     | share 0          | share 1          | share 2          | rest, unused
///
/// Blocks of different shares are disjoint, so two runtimes cannot hand out the same endpoint, and the share
/// that owns an endpoint is known from its number. TCP, UDP and ICMP have port spaces of their own.
@usableFromInline
struct NATPool {
  let addresses: [IPv4Address]
  /// The ports of this share.
  let block: Range<Int>
  /// The pool's first port, and into how many shares it is cut.
  private let first: Int
  let shares: Int
  let free: PortSet
  /// Endpoints in use, per address and realm.
  let used: FixedMemory<UInt32>
  /// Where the search for a free port goes on, per lane: a port given back is not the next one taken.
  let cursor: FixedMemory<UInt16>

  init(addresses: [IPv4Address], ports: ClosedRange<UInt16>, share: RuntimeShare) {
    self.addresses = addresses
    first = Int(ports.lowerBound)
    shares = share.count
    block = ServerSideEndpoints(addresses: addresses, ports: ports).block(of: share)
    let size = block.count
    let lanes = addresses.count * NATRealm.count * 2
    free = PortSet(lanes: lanes, capacity: size / 2 + 1)
    used = FixedMemory(count: addresses.count * NATRealm.count, repeating: 0)
    cursor = FixedMemory(count: lanes, repeating: 0)
    for address in addresses.indices {
      for realm in 0..<NATRealm.count {
        for port in block { free.give(lane(address, realm, port), position(port)) }
      }
    }
  }

  /// The same client always gets the same address if it can, on every runtime (RFC 4787 REQ-2, "paired").
  /// Its own port is kept if it is free, else one of the same parity is taken, else any.
  ///
  /// - Parameter preferred: the endpoint that makes a pair with one that the client has already.
  @inline(__always)
  mutating func take(
    for client: IPv4Address, port: UInt16, _ realm: Int, preferred: (address: Int, port: UInt16)?
  ) -> (address: Int, port: UInt16)? {
    // What nearly all get.
    if preferred == nil, block.contains(Int(port)), case let home = home(of: client), take(home, realm, Int(port)) {
      return (home, port)
    }
    return search(for: client, port: port, realm, preferred: preferred)
  }

  @inline(never)
  private mutating func search(
    for client: IPv4Address, port: UInt16, _ realm: Int, preferred: (address: Int, port: UInt16)?
  ) -> (address: Int, port: UInt16)? {
    if let preferred, block.contains(Int(preferred.port)), take(preferred.address, realm, Int(preferred.port)) {
      return preferred
    }
    let wanted = Int(port)
    let home = home(of: client)
    for step in addresses.indices {
      let address = home + step < addresses.count ? home + step : home + step - addresses.count
      if block.contains(wanted), take(address, realm, wanted) { return (address, port) }
      for parity in [wanted, wanted + 1] {
        let lane = self.lane(address, realm, parity)
        if let position = free.first(lane, from: Int(cursor[lane])) {
          let found = portNumber(position, parity)
          guard take(address, realm, found) else { continue }
          cursor[lane] = UInt16(truncatingIfNeeded: position + 1)
          return (address, UInt16(truncatingIfNeeded: found))
        }
      }
    }
    return nil
  }

  /// Position of the address that the client gets first.
  @inline(__always)
  func home(of client: IPv4Address) -> Int { Int((UInt64(client.value &* 0x9e37_79b9) &* UInt64(addresses.count)) >> 32) }

  /// Takes this very endpoint if it is free.
  @inline(__always)
  func take(_ address: Int, _ realm: Int, _ port: Int) -> Bool {
    let lane = self.lane(address, realm, port)
    guard free.isFree(lane, position(port)) else { return false }
    free.take(lane, position(port))
    used[address * NATRealm.count + realm] &+= 1
    return true
  }

  @inline(__always)
  func give(_ address: Int, _ realm: Int, _ port: Int) {
    let lane = self.lane(address, realm, port)
    precondition(!free.isFree(lane, position(port)), "an endpoint is given back once")
    free.give(lane, position(port))
    used[address * NATRealm.count + realm] &-= 1
  }

  /// Asks for the memory that tells whether this endpoint is free.
  @inline(__always)
  func prefetch(_ address: Int, _ realm: Int, _ port: Int) {
    if block.contains(port) { free.prefetch(lane(address, realm, port), position(port)) }
  }

  /// Position of an address in the pool if this share owns that endpoint.
  func owns(_ address: IPv4Address, _ port: UInt16) -> Int? {
    block.contains(Int(port)) ? addresses.firstIndex(of: address) : nil
  }

  /// The share that may hand out a port; what is left over of the pool is nobody's.
  func share(of port: UInt16) -> Int? {
    let share = (Int(port) - first) / max(1, block.count)
    return Int(port) >= first && share < shares ? share : nil
  }

  // Lanes and positions: even and odd ports apart, each numbered from the block's beginning.
  private func lane(_ address: Int, _ realm: Int, _ port: Int) -> Int { (address * NATRealm.count + realm) * 2 + port & 1 }
  private func position(_ port: Int) -> Int { port / 2 - block.lowerBound / 2 }
  private func portNumber(_ position: Int, _ parity: Int) -> Int { (position + block.lowerBound / 2) * 2 + parity & 1 }
}

/// Port spaces: a TCP and a UDP port, and an ICMP identifier, of the same number are three endpoints.
@usableFromInline
enum NATRealm {
  @usableFromInline static let count = 3
  static let udp = 1

  /// `nil` for a packet that is not translated.
  @inlinable
  static func of(_ frame: borrowing Frame) -> Int? {
    switch frame.protocolNumber {
    case IPProtocol.tcp: 0
    case IPProtocol.udp: 1
    case IPProtocol.icmp: frame.isICMPEchoRequest ? 2 : nil
    default: nil
    }
  }

  /// The same of an IPv6 packet.
  static func ofIPv6(_ frame: borrowing Frame) -> Int? {
    switch frame.protocolNumber {
    case IPProtocol.tcp: 0
    case IPProtocol.udp: 1
    case IPProtocol.icmpv6: frame.isICMPEchoRequest ? 2 : nil
    default: nil
    }
  }

  static let names = ["tcp", "udp", "icmp"]
  static let protocolNumbers = [IPProtocol.tcp, IPProtocol.udp, IPProtocol.icmp]
}
