import CDPDK
import ModuleGraphs
import Wire

/// A DPDK device as a packet port: one queue each way, one C call per burst.
public final class DPDKPort: PacketPort {
  private let id: UInt16
  private let pool: MbufPool
  private let packets: UnsafeMutablePointer<nfv_packet>
  private let mbufs: UnsafeMutablePointer<UnsafeMutableRawPointer?>
  private var isOpen = true
  private var readsUntilCounters = 0
  private var lastMissed: UInt64 = 0

  /// Plugs the device in and starts it.
  public init(_ spec: PortSpec, number: Int, pool: MbufPool) throws(PortError) {
    self.pool = pool
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

  /// The device's own count, asked for every 64th time: it can be a system call.
  public override var missed: UInt64 {
    readsUntilCounters -= 1
    if readsUntilCounters <= 0 {
      readsUntilCounters = 64
      var counters = nfv_port_counters()
      unsafe nfv_port_read_counters(id, &counters)
      lastMissed = counters.missed
    }
    return lastMissed
  }

  public override func receive(into batch: PacketBatch, now: Tick) {
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
    PacketBatch.forEach(in: scattered) { batch.drop($0, .scattered) }
  }

  public override func transmit(_ batch: PacketBatch, mask: UInt64) -> UInt64 {
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
      unsafe mbufs[count] = batch[index].buffer
      count += 1
    }
    return count
  }
}

/// A pool of packet buffers (`rte_pktmbuf_pool_create`).
public final class MbufPool {
  let handle: UnsafeMutableRawPointer

  /// - Parameter count: buffers; enough for every descriptor of every port, and some in flight.
  public init(name: String, count: Int) throws(PortError) {
    guard let pool = unsafe nfv_pool_create(name, UInt32(count), 256, 2_048) else {
      throw PortError("there is no memory for \(count) packet buffers", hint: "provide more huge pages, or more ordinary memory")
    }
    unsafe handle = pool
  }
}
