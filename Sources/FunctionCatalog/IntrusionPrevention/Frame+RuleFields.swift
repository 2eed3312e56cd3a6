import Wire

extension Frame {
  /// The number that a rule compares; 0 where the packet has none.
  func value(of field: Rule.FieldTest.Field) -> UInt32 {
    switch field {
    case .payloadLength: UInt32(payloadLength)
    // All eight, those of ECN too (RFC 3168 §6.1).
    case .tcpFlags: transportByte(13)
    case .tcpSequence: tcpSequence
    case .tcpAcknowledgement: tcpAcknowledgement
    case .tcpWindow: UInt32(tcpWindow)
    case .timeToLive: networkByte(family == .ipv4 ? 8 : 7)
    case .typeOfService: family == .ipv4 ? networkByte(1) : (networkByte(0) & 15) << 4 | networkByte(1) >> 4
    case .identification: family == .ipv4 ? networkByte(4) << 8 | networkByte(5) : 0
    // More fragments, don't fragment, reserved.
    case .fragmentBits: family == .ipv4 ? networkByte(6) >> 5 : 0
    case .ipProtocol: UInt32(protocolNumber)
    case .addressFamily: family == .ipv4 ? 4 : 6
    case .sameAddress: sourceAddress == destinationAddress ? 1 : 0
    case .icmpType: transportByte(0)
    case .icmpCode: transportByte(1)
    case .icmpIdentifier: transportByte(4) << 8 | transportByte(5)
    case .icmpSequence: transportByte(6) << 8 | transportByte(7)
    }
  }

  private func networkByte(_ offset: Int) -> UInt32 {
    withNetworkHeader { offset < $0.byteCount ? UInt32($0.unsafeLoad(fromByteOffset: offset, as: UInt8.self)) : 0 }
  }

  private func transportByte(_ offset: Int) -> UInt32 {
    withTransportHeader { offset < $0.byteCount ? UInt32($0.unsafeLoad(fromByteOffset: offset, as: UInt8.self)) : 0 }
  }
}
