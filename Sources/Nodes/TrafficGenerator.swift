import ModuleGraphs
import Wire

/// Writes the frames of a plan, a burst at a time: one template per frame size, and per packet only what differs.
///
/// What differs is added to what is the same in sums, too: a checksum is the sum of the size's share, the flow's share, and a
/// few words of this packet, folded; nothing is read again that was written.
///
/// TCP flows open as connections do, so that stateful functions on the way believe them:
///
///     new ──SYN──▶ opening ──SYN-ACK seen──▶ open ──▶ data
///
/// The answer comes from the sink, if that is on a port of its own. Where nobody answers (a reflector, a capture)
/// data follows the SYN at once. A SYN that stays without an answer is sent again. The initial sequence number
/// of a flow is its number, so the acknowledgement says whose it is.
///
/// A value that one class holds: opened once per burst, not per packet.
@safe
struct TrafficGenerator: ~Copyable {
  let plan: TrafficPlan
  private let run: UInt16
  private let waitsForAnswers: Bool
  private let flows: UnsafeMutablePointer<TrafficFlow>
  private let templates: UnsafeMutablePointer<TrafficTemplate>
  private let lengths: UnsafeMutablePointer<UInt16>

  private var nextSize = 0
  /// Where the next packet of a flow that lasts is written.
  private(set) var nextPlace = 0
  private var nextShort = 0
  private var openingDebt = 0.0
  /// Flow numbers in use so far.
  private(set) var flowsBegun: UInt32

  static let answerTimeout: UInt64 = 200_000_000
  static let serverSequence: UInt32 = 0

  init(plan: TrafficPlan, run: UInt16, source: MACAddress, destination: MACAddress, waitsForAnswers: Bool) {
    self.plan = plan
    self.run = run
    self.waitsForAnswers = waitsForAnswers && plan.transport == .tcp
    flowsBegun = UInt32(plan.flows)
    unsafe flows = .allocate(capacity: plan.flows)
    for place in 0..<plan.flows { unsafe (flows + place).initialize(to: TrafficFlow(UInt32(place), plan)) }
    unsafe templates = .allocate(capacity: plan.sizes.count)
    for (index, size) in plan.sizes.enumerated() {
      unsafe (templates + index).initialize(
        to: TrafficTemplate(plan: plan, run: run, length: size - 4, source: source, destination: destination))
    }
    unsafe lengths = .allocate(capacity: PacketBatch.capacity)
  }

  deinit {
    unsafe flows.deallocate()
    unsafe templates.deallocate()
    unsafe lengths.deallocate()
  }

  /// Adds up to `count` frames to an empty batch; fewer when flows wait for answers or there is no memory.
  mutating func fill(_ batch: PacketBatch, from port: PacketPort, count: Int, now: Tick) {
    let sizes = plan.sizes.count
    let wanted = min(count, PacketBatch.capacity)
    var size = nextSize
    for index in 0..<wanted {
      unsafe lengths[index] = templates[size].length
      size = size + 1 == sizes ? 0 : size + 1
    }
    // Frames first: a place that was chosen must send.
    let made = unsafe port.makeFrames(in: batch, lengths: UnsafeBufferPointer(start: lengths, count: wanted), now: now)
    let isTCP = plan.transport == .tcp
    for index in 0..<made {
      guard let place = choosePlace(now) else {
        let rest = batch.all & ~((1 << UInt64(index)) - 1)
        port.release(batch, mask: rest)
        batch.keep(batch.all & ~rest)
        return
      }
      unsafe write(batch, index, flow: flows + place, size: nextSize, isTCP: isTCP, now: now)
      nextSize = nextSize + 1 == sizes ? 0 : nextSize + 1
    }
  }

  /// Adds one frame that only asks whether the sink is there.
  func greet(_ batch: PacketBatch, from port: PacketPort, now: Tick) {
    guard unsafe port.makeFrame(in: batch, length: Int(templates[0].length), now: now) else { return }
    var flow = TrafficFlow(TrafficRecord.greeting, plan)
    unsafe write(batch, batch.count - 1, flow: &flow, size: 0, isTCP: plan.transport == .tcp, now: now)
  }

  /// The server's side has acknowledged a SYN with this number.
  func opened(acknowledgement: UInt32) {
    let number = acknowledgement &- 1
    guard number < flowsBegun else { return }
    let flow = unsafe flows + plan.place(of: number)
    if unsafe flow.pointee.number == number, unsafe flow.pointee.phase == .opening { unsafe flow.pointee.phase = .open }
  }

  /// The next flow in turn that may send.
  private mutating func choosePlace(_ now: Tick) -> Int? {
    if plan.newFlowShare > 0 {
      openingDebt += plan.newFlowShare
      if openingDebt >= 1, flowsBegun < TrafficRecord.greeting - 1 {
        openingDebt -= 1
        let place = plan.flows - plan.shortFlows + nextShort
        nextShort = nextShort + 1 == plan.shortFlows ? 0 : nextShort + 1
        unsafe flows[place] = TrafficFlow(flowsBegun, plan)
        flowsBegun += 1
        return place
      }
    }
    for _ in 0..<PacketBatch.capacity {
      let place = nextPlace
      nextPlace = nextPlace + 1 == plan.flows ? 0 : nextPlace + 1
      if unsafe flows[place].phase != .opening { return place }
      if unsafe now.nanoseconds &- flows[place].asked > Self.answerTimeout {
        unsafe flows[place].phase = .new
        return place
      }
    }
    return nil
  }

  @inline(__always)
  private func write(
    _ batch: PacketBatch, _ index: Int, flow: UnsafeMutablePointer<TrafficFlow>, size: Int, isTCP: Bool, now: Tick
  ) {
    let template = unsafe templates + size
    let record = unsafe TrafficRecord(run: run, flow: flow.pointee.number, sequence: flow.pointee.sequence, time: now.nanoseconds)
    unsafe flow.pointee.sequence &+= 1
    batch[index].withBytes { frame in
      let bytes = unsafe UnsafeMutableRawPointer(mutating: frame.baseAddress!)
      var sum = unsafe template.pointee.transportSum &+ flow.pointee.transportSum &+ record.changingSum
      unsafe template.pointee.write(to: bytes)
      unsafe flow.pointee.writeEndpoints(to: bytes)
      if isTCP { unsafe sum &+= writeTCP(bytes, flow, payload: template.pointee.payload, now: now) }
      unsafe record.write(to: bytes + (isTCP ? 54 : 42))
      let header = unsafe ~folded(template.pointee.networkSum &+ flow.pointee.addressSum)
      unsafe bytes.storeBytes(of: header.bigEndian, toByteOffset: 24, as: UInt16.self)
      let transport = ~folded(sum)
      // RFC 768: a sum of zero is written as all ones.
      unsafe bytes.storeBytes(
        of: (transport == 0 && !isTCP ? 0xffff : transport).bigEndian, toByteOffset: isTCP ? 50 : 40, as: UInt16.self)
    }
  }

  /// Writes what differs between packets of a connection; returns its sum.
  @inline(__always)
  private func writeTCP(
    _ bytes: UnsafeMutableRawPointer, _ flow: UnsafeMutablePointer<TrafficFlow>, payload: UInt32, now: Tick
  ) -> UInt64 {
    var flags: TCPFlags = [.ack, .psh]
    var acknowledgement = Self.serverSequence &+ 1
    if unsafe flow.pointee.phase == .new {
      flags = .syn
      acknowledgement = 0
      unsafe flow.pointee.phase = waitsForAnswers ? .opening : .open
      unsafe flow.pointee.asked = now.nanoseconds
      unsafe flow.pointee.tcpSequence = flow.pointee.number
    }
    let sequence = unsafe flow.pointee.tcpSequence
    unsafe bytes.storeBytes(of: sequence.bigEndian, toByteOffset: 38, as: UInt32.self)
    unsafe bytes.storeBytes(of: acknowledgement.bigEndian, toByteOffset: 42, as: UInt32.self)
    unsafe bytes.storeBytes(of: flags.rawValue, toByteOffset: 47, as: UInt8.self)
    // The answer acknowledges the SYN alone, not the record in it: the stream begins behind the SYN.
    unsafe flow.pointee.tcpSequence &+= flags == .syn ? 1 : payload
    return words(sequence) &+ words(acknowledgement) &+ UInt64(flags.rawValue)
  }
}

/// The 16-bit words of a number, added.
@inline(__always)
func words(_ value: UInt32) -> UInt64 { UInt64(value >> 16) &+ UInt64(value & 0xffff) }

/// A sum of 16-bit words in host order, carries added in (RFC 1071).
@inline(__always)
private func folded(_ sum: UInt64) -> UInt16 {
  var sum = (sum & 0xffff) &+ (sum >> 16)
  sum = (sum & 0xffff) &+ (sum >> 16)
  return UInt16(truncatingIfNeeded: (sum & 0xffff) &+ (sum >> 16))
}
