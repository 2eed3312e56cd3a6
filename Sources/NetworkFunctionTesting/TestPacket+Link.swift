import Wire

// Link addresses and ARP, for tests of what stands between networks.

extension TestPacket {
  /// The same packet between other stations.
  public func link(to destination: MACAddress, from source: MACAddress) -> TestPacket {
    var changed = self
    changed.bytes.replaceSubrange(0..<12, with: TestPacket.octets(destination) + TestPacket.octets(source))
    return changed
  }

  public var destinationMAC: MACAddress { mac(0) }
  public var sourceMAC: MACAddress { mac(6) }

  /// A datagram or an acknowledgement the other way round, whatever this packet is.
  public var answeredPlainly: TestPacket {
    protocolNumber == IPProtocol.udp ? .udp(destination, source) : .tcp(destination, source, .ack)
  }

  /// An ARP packet, written byte by byte (RFC 826).
  public static func arp(
    _ operation: ARPPacket.Operation, from sender: MACAddress, _ senderAddress: String, to target: MACAddress,
    _ targetAddress: String
  ) -> TestPacket {
    var bytes =
      octets(target == .zero ? .broadcast : target) + octets(sender) + [8, 6, 0, 1, 8, 0, 6, 4, 0, UInt8(operation.rawValue)]
    bytes += octets(sender) + octets(senderAddress) + octets(target) + octets(targetAddress)
    return TestPacket(bytes: bytes + Array(repeating: 0, count: 60 - bytes.count))
  }

  private func mac(_ offset: Int) -> MACAddress { MACAddress(bytes[offset..<offset + 6].reduce(0) { $0 << 8 | UInt64($1) }) }
  private static func octets(_ address: MACAddress) -> [UInt8] {
    (0..<6).map { UInt8(truncatingIfNeeded: address.value >> (40 - 8 * UInt64($0))) }
  }
  private static func octets(_ address: String) -> [UInt8] { address.split(separator: ".").map { UInt8($0)! } }
}
