/// An Ethernet/IPv4 ARP packet (RFC 826): 28 bytes behind the Ethernet header.
public struct ARPPacket: Equatable, Sendable {
  public enum Operation: UInt16, Sendable { case request = 1, reply = 2 }

  public static let frameLength = 60  // the shortest Ethernet frame, without its check sequence

  public var operation: Operation
  public var senderMAC: MACAddress
  public var sender: IPv4Address
  public var targetMAC: MACAddress
  public var target: IPv4Address

  public init(operation: Operation, senderMAC: MACAddress, sender: IPv4Address, targetMAC: MACAddress, target: IPv4Address) {
    self.operation = operation
    self.senderMAC = senderMAC
    self.sender = sender
    self.targetMAC = targetMAC
    self.target = target
  }

  /// Reads the ARP packet of a frame that `parse` found to be of family `.arp`; `nil` if malformed.
  public init?(_ frame: borrowing Frame) {
    let start = Int(frame.networkOffset)
    guard frame.family == .arp, Int(frame.length) >= start + 28 else { return nil }
    // Ethernet, IPv4, six and four byte addresses; and a sender that is one station.
    guard frame.load16(start) == 1, frame.load16(start + 2) == 0x0800, frame.load16(start + 4) == 0x0604 else { return nil }
    guard let operation = Operation(rawValue: frame.load16(start + 6)) else { return nil }
    self.operation = operation
    senderMAC = MACAddress(UInt64(frame.load16(start + 8)) << 32 | UInt64(frame.load32(start + 10)))
    sender = IPv4Address(frame.load32(start + 14))
    targetMAC = MACAddress(UInt64(frame.load16(start + 18)) << 32 | UInt64(frame.load32(start + 20)))
    target = IPv4Address(frame.load32(start + 24))
    guard !senderMAC.isGroup else { return nil }
  }

  /// Writes the whole frame, Ethernet header included, over `frame`'s first 42 bytes.
  public func write(to frame: borrowing Frame, destination: MACAddress) {
    precondition(frame.length >= 42, "an ARP frame has at least 42 bytes")
    frame.destinationMAC = destination
    frame.sourceMAC = senderMAC
    frame.store16(0x0806, 12)
    frame.store16(1, 14)
    frame.store16(0x0800, 16)
    frame.store16(0x0604, 18)
    frame.store16(operation.rawValue, 20)
    frame.store16(UInt16(truncatingIfNeeded: senderMAC.value >> 32), 22)
    frame.store32(UInt32(truncatingIfNeeded: senderMAC.value), 24)
    frame.store32(sender.value, 28)
    frame.store16(UInt16(truncatingIfNeeded: targetMAC.value >> 32), 32)
    frame.store32(UInt32(truncatingIfNeeded: targetMAC.value), 34)
    frame.store32(target.value, 38)
  }
}
