import CDPDK
import ModuleGraphs
import Wire

/// A DPDK device as a packet port: one queue each way, one C call per burst.
public final class DPDKPort: PacketPort {
  private let id: UInt16
  private let pool: MbufPool
  private let large: LargePackets?
  private let linkMTU: Int
  private let packets: UnsafeMutablePointer<nfv_packet>
  private let mbufs: UnsafeMutablePointer<UnsafeMutableRawPointer?>
  private var isOpen = true
  /// Whether frames may be longer or shorter than their buffers say.
  private var framesAreResized = false
  private var lastReceive = Tick.zero
  private var nextReading = Tick.zero
  private var lastMissed: UInt64 = 0

  /// Plugs the device in and starts it.
  ///
  /// - Parameter large: for fragments and jumbo frames; without it they are dropped.
  public init(_ spec: PortSpec, number: Int, pool: MbufPool, large: LargePackets? = nil) throws(PortError) {
    self.pool = pool
    self.large = large
    let attached = try nfv_port_attach(spec.devargs(number: number))
    guard attached >= 0 else {
      throw PortError(
        "port \(spec) cannot be opened (\(errorText(-attached)))",
        hint: "check that the interface, socket directory or device exists and that this runs as root")
    }
    id = UInt16(attached)
    let started = unsafe nfv_port_start(id, pool.handle, 1_024, 1_024)
    guard started == 0 else {
      nfv_port_close(id)
      throw PortError("port \(spec) cannot be started (\(errorText(-started)))", hint: "is another process using it?")
    }
    var bytes: (UInt8, UInt8, UInt8, UInt8, UInt8, UInt8) = (0, 0, 0, 0, 0, 0)
    let address = unsafe withUnsafeMutableBytes(of: &bytes) { bytes in
      unsafe nfv_port_address(UInt16(attached), bytes.baseAddress!.assumingMemoryBound(to: UInt8.self))
      return unsafe bytes.reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    }
    linkMTU = Int(nfv_port_mtu(id))
    if let large { large.largestMTU = max(large.largestMTU, linkMTU) }
    unsafe packets = .allocate(capacity: PacketBatch.capacity)
    unsafe mbufs = .allocate(capacity: PacketBatch.capacity)
    super.init(name: spec.description, address: MACAddress(address))
  }

  deinit {
    close()
    unsafe packets.deallocate()
    unsafe mbufs.deallocate()
  }

  public func close() {
    if isOpen { nfv_port_close(id) }
    isOpen = false
  }

  /// The device's own count, asked for every 20 ms: it can be a system call.
  public override var missed: UInt64 {
    if lastReceive >= nextReading {
      nextReading = lastReceive.advanced(byMilliseconds: 20)
      var counters = nfv_port_counters()
      unsafe nfv_port_read_counters(id, &counters)
      lastMissed = counters.missed
    }
    return lastMissed
  }

  public override func receive(into batch: PacketBatch, now: Tick) {
    lastReceive = now
    var scattered: UInt64 = 0
    unsafe batch.fill { frames in
      let count = unsafe Int(nfv_receive(id, packets, 32))
      for index in 0..<count {
        let packet = unsafe packets[index]
        unsafe (frames + index).initialize(
          to: Frame(bytes: packet.data, length: Int(packet.length), buffer: packet.mbuf, arrival: now))
        if packet.segments != 1 { scattered |= 1 << UInt64(index) }
      }
      return count
    }
    if scattered != 0 { flatten(batch, scattered, now: now) }
  }

  /// Puts chains of buffers into one each. What is lost on the way becomes an empty frame.
  private func flatten(_ batch: PacketBatch, _ scattered: UInt64, now: Tick) {
    PacketBatch.forEach(in: scattered) { index in
      guard let large, let chain = unsafe batch[index].buffer else { return batch.drop(index, .scattered) }
      if let whole = unsafe large.flatten(chain) {
        unsafe batch.replace(index, bytes: whole.data, length: Int(whole.length), buffer: whole.mbuf, arrival: now)
      } else {
        unsafe batch.replace(index, bytes: batch.frames, length: 0, buffer: nil, arrival: now)
        batch.drop(index, .scattered)
      }
    }
  }

  public override var mtu: Int { linkMTU }

  public override func reassemble(
    _ batch: PacketBatch, mask: UInt64, into whole: PacketBatch, now: Tick
  ) -> (taken: UInt64, refused: UInt64) {
    guard let large else { return (0, 0) }
    var (taken, refused) = (UInt64(0), UInt64(0))
    PacketBatch.forEach(in: mask) { index in
      guard !whole.isFull, let mbuf = unsafe batch[index].buffer else { return }
      taken |= 1 << UInt64(index)
      switch unsafe large.add(mbuf) {
      case .whole(let packet): unsafe whole.append(bytes: packet.data, length: Int(packet.length), buffer: packet.mbuf, arrival: now)
      case .waiting: break
      case .refused: refused |= 1 << UInt64(index)
      }
    }
    return (taken, refused)
  }

  /// Sends the packets of `mask` that the link does not take whole in fragments, gives their memory back, and returns
  /// which they were, and which of them could not be sent.
  private func cut(_ batch: PacketBatch, _ mask: UInt64, _ large: LargePackets) -> (large: UInt64, refused: UInt64) {
    var (found, refused) = (UInt64(0), UInt64(0))
    PacketBatch.forEach(in: mask) { index in
      // The Ethernet header, and two tags at most, are not the packet's.
      guard Int(batch[index].length) > linkMTU + 14, let mbuf = unsafe batch[index].buffer else { return }
      guard batch[index].networkLength > linkMTU else { return }
      found |= 1 << UInt64(index)
      let isSent = unsafe large.cut(mbuf, mtu: linkMTU) { [id] pieces, count in
        unsafe Int(nfv_transmit(id, pieces, UInt16(count)))
      }
      if !isSent { refused |= 1 << UInt64(index) }
    }
    release(batch, mask: found & ~refused)
    return (found, refused)
  }

  /// Buffers have DPDK's own headroom, which is twice what frames want.
  public override func allowResizing() -> Bool {
    framesAreResized = true
    return true
  }

  private func resize(_ batch: PacketBatch, _ mask: UInt64) {
    PacketBatch.forEach(in: mask) { index in
      guard let mbuf = unsafe batch[index].buffer else { return }
      unsafe batch[index].withBytes { nfv_resize(mbuf, $0.baseAddress, UInt16($0.count)) }
    }
  }

  public override func transmit(_ batch: PacketBatch, mask: UInt64) -> UInt64 {
    if framesAreResized { resize(batch, mask) }
    guard let large, large.haveCome || large.largestMTU > linkMTU || framesAreResized else {
      return transmitAsTheyAre(batch, mask)
    }
    let cut = cut(batch, mask, large)
    return transmitAsTheyAre(batch, mask & ~cut.large) | cut.refused
  }

  private func transmitAsTheyAre(_ batch: PacketBatch, _ mask: UInt64) -> UInt64 {
    let count = gather(batch, mask)
    guard count > 0 else { return 0 }
    var sent = unsafe Int(nfv_transmit(id, mbufs, UInt16(count)))
    // A device that took part of a burst may take the rest at once (af_packet wakes the kernel per call).
    if sent < count { unsafe sent += Int(nfv_transmit(id, mbufs + sent, UInt16(count - sent))) }
    var refused = mask
    for _ in 0..<sent { refused &= refused &- 1 }
    return refused
  }

  public override func release(_ batch: PacketBatch, mask: UInt64) {
    let count = gather(batch, mask)
    if count > 0 { unsafe nfv_release(mbufs, UInt16(count)) }
  }

  public override func makeFrame(in batch: PacketBatch, length: Int, now: Tick) -> Bool {
    var packet = nfv_packet()
    guard unsafe nfv_make(pool.handle, UInt16(length), &packet) == 0 else { return false }
    unsafe batch.append(bytes: packet.data, length: length, buffer: packet.mbuf, arrival: now)
    return true
  }

  public override func makeFrames(in batch: PacketBatch, lengths: UnsafeBufferPointer<UInt16>, now: Tick) -> Int {
    guard lengths.count > 0,
      unsafe nfv_make_burst(pool.handle, lengths.baseAddress, packets, UInt16(lengths.count)) == 0
    else { return 0 }
    for index in 0..<lengths.count {
      let packet = unsafe packets[index]
      unsafe batch.append(bytes: packet.data, length: Int(packet.length), buffer: packet.mbuf, arrival: now)
    }
    return lengths.count
  }

  private func gather(_ batch: PacketBatch, _ mask: UInt64) -> Int {
    var count = 0
    PacketBatch.forEach(in: mask) { index in
      guard let buffer = unsafe batch[index].buffer else { return }
      unsafe mbufs[count] = buffer
      count += 1
    }
    return count
  }
}

/// A pool of packet buffers (`rte_pktmbuf_pool_create`).
public final class MbufPool {
  let handle: UnsafeMutableRawPointer
  /// Jumbo frames, and eight fragments of an ordinary link.
  public static let largeRoom = 16_384

  /// - Parameters:
  ///   - count: buffers; enough for every descriptor of every port, and some in flight.
  ///   - room: bytes of a packet that one buffer takes.
  public init(name: String, count: Int, room: Int = 2_048, cache: Int = 256) throws(PortError) {
    guard let pool = unsafe nfv_pool_create(name, UInt32(count), UInt32(cache), UInt16(room)) else {
      throw PortError("there is no memory for \(count) packet buffers", hint: "provide more huge pages, or more ordinary memory")
    }
    unsafe handle = pool
  }
}
