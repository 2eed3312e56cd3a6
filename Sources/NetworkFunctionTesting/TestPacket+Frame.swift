import Wire

extension TestPacket {
  /// Lends the packet's bytes as a frame, not yet parsed; what `body` rewrites stays in this packet.
  public mutating func withFrame<Result>(arrival: Tick = .zero, _ body: (inout Frame) throws -> Result) rethrows -> Result {
    // Room for the frame to grow into, as every port provides it.
    let count = bytes.count
    var memory = [UInt8](repeating: 0xa5, count: Frame.headroom) + bytes
    defer { memory.removeAll() }
    return try memory.withUnsafeMutableBytes { room in
      guard let base = room.baseAddress else { preconditionFailure("an array with an element has an address") }
      let start = unsafe base + Frame.headroom
      var frame = unsafe Frame(bytes: start, length: count, buffer: nil, arrival: arrival)
      defer {
        let isWhole = unsafe frame.withBytes { $0.baseAddress == UnsafeRawPointer(start) } && count > 65_535
        bytes = unsafe isWhole ? Array(UnsafeRawBufferPointer(start: start, count: count)) : frame.withBytes { Array($0) }
      }
      return try body(&frame)
    }
  }

  /// What `Frame.parse` says of the packet.
  public func parsed(checksums: ChecksumPolicy = .verify) -> DropReason? {
    var copy = self
    return copy.withFrame { $0.parse(checksums: checksums) }
  }
}
