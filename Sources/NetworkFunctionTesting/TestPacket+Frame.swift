import Wire

extension TestPacket {
  /// Lends the packet's bytes as a frame, not yet parsed; what `body` rewrites stays in this packet.
  public mutating func withFrame<Result>(arrival: Tick = .zero, _ body: (inout Frame) throws -> Result) rethrows -> Result {
    let count = bytes.count
    // An empty array lends no address; a frame of no bytes still wants one.
    if count == 0 { bytes.append(0) }
    defer { if count == 0 { bytes.removeLast() } }
    return try bytes.withUnsafeMutableBytes { memory in
      guard let start = memory.baseAddress else { preconditionFailure("an array with an element has an address") }
      var frame = unsafe Frame(bytes: start, length: count, buffer: nil, arrival: arrival)
      return try body(&frame)
    }
  }

  /// What `Frame.parse` says of the packet.
  public func parsed(checksums: ChecksumPolicy = .verify) -> DropReason? {
    var copy = self
    return copy.withFrame { $0.parse(checksums: checksums) }
  }
}
