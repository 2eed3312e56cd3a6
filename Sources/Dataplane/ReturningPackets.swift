import ModuleGraphs
import Wire

/// Packets that come in a second time: those that waited here for their flow, and those that its former runtime sent
/// after it. They go through the packet path like packets of the port, in the order they were put.
final class ReturningPackets {
  private let port: PacketPort
  private let address: FabricAddress
  private var batches: [PacketBatch] = []
  private var first = 0
  private var last = 0
  /// There was no buffer for them.
  private(set) var lost: UInt64 = 0

  init(port: PacketPort, address: FabricAddress) {
    self.port = port
    self.address = address
  }

  /// - Parameter side: where it came from, 0 the clients' and 1 the servers'.
  func put(_ frame: UnsafeRawBufferPointer, side: UInt8, now: Tick) {
    if last == batches.count { batches.append(PacketBatch()) }
    let batch = batches[last]
    guard let base = frame.baseAddress, port.makeFrame(in: batch, length: frame.count, now: now) else {
      lost &+= 1
      return
    }
    let index = batch.count - 1
    unsafe batch[index].write(base, count: frame.count)
    // It may have been addressed to another runtime; the answer goes out in this one's name.
    batch[index].destinationMAC = address.address(of: side == 0 ? .client : .server)
    if batch.isFull { last += 1 }
  }

  /// The oldest packets, to be processed and then emptied; `nil` when there are none.
  func next() -> PacketBatch? {
    guard first < batches.count, !batches[first].isEmpty else {
      (first, last) = (0, 0)
      return nil
    }
    defer { first += 1 }
    return batches[first]
  }
}
