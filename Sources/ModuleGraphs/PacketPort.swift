import Wire

/// Where batches enter and leave: a DPDK device, a capture file, a wire in a test.
///
/// One call per burst. A port owns the memory of the frames it received until they are transmitted or
/// given back; frames may be transmitted through another port of the same kind.
open class PacketPort {
  public let name: String
  /// The device's own address; the node may use others besides.
  public let address: MACAddress
  /// Frames the device itself lost because they were not fetched in time.
  open var missed: UInt64 { 0 }

  public init(name: String, address: MACAddress) {
    self.name = name
    self.address = address
  }

  /// Fills an empty batch with what has arrived.
  open func receive(into batch: PacketBatch, now: Tick) { fatalError("a port implements receive") }

  /// Sends the frames of `mask` and returns those that were not accepted, still owned by the batch.
  open func transmit(_ batch: PacketBatch, mask: UInt64) -> UInt64 { fatalError("a port implements transmit") }

  /// Gives the memory of the frames of `mask` back.
  open func release(_ batch: PacketBatch, mask: UInt64) { fatalError("a port implements release") }

  /// Takes over the fragments of `mask`, and appends what they complete to `whole`, which has room for as many.
  ///
  /// - Returns: the frames that are not the batch's any more; of these, the ones that were refused with all that they came to
  ///   because they are tiny, overlap, or contradict each other.
  open func reassemble(
    _ batch: PacketBatch, mask: UInt64, into whole: PacketBatch, now: Tick
  ) -> (taken: UInt64, refused: UInt64) { (0, 0) }

  /// Bytes of an IP packet that a frame of this port can have.
  open var mtu: Int { 65_535 }

  /// Lets frames leave longer or shorter than they came, and provides `Frame.headroom` before each; `false` if it cannot.
  open func allowResizing() -> Bool { false }

  /// Adds a new frame of `length` zeroed bytes to `batch`, to be written and transmitted; `false` when there is no memory.
  open func makeFrame(in batch: PacketBatch, length: Int, now: Tick) -> Bool { fatalError("a port implements makeFrame") }

  /// Adds new frames of these lengths to `batch`, as many as there is memory for, and returns how many. What is in them is
  /// whatever was there before: every byte is to be written.
  open func makeFrames(in batch: PacketBatch, lengths: UnsafeBufferPointer<UInt16>, now: Tick) -> Int {
    for made in 0..<lengths.count {
      guard makeFrame(in: batch, length: Int(lengths[made]), now: now) else { return made }
    }
    return lengths.count
  }
}
