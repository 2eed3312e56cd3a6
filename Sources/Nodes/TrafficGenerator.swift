import ModuleGraphs
import Wire

/// Writes the frames of a plan, a batch at a time: one prebuilt template per frame size, and per packet only what differs.
///
/// TCP flows open as connections do, so that stateful functions on the way believe them:
///
///     new ──SYN──▶ opening ──SYN-ACK seen──▶ open ──▶ data
///
/// The answer comes from the sink, if that is on a port of its own. Where nobody answers (a reflector, a capture)
/// data follows the SYN at once. A SYN that stays without an answer is sent again. The initial sequence number
/// of a flow is its number, so the acknowledgement says whose it is.
@safe
final class TrafficGenerator {
  let plan: TrafficPlan
  private let run: UInt16
  private let waitsForAnswers: Bool
  private let flows: UnsafeMutablePointer<TrafficFlow>
  /// One template of 64 bytes for each of the plan's sizes.
  private let templates: UnsafeMutableRawPointer
  /// Frame lengths without check sequences.
  private let lengths: [Int]

  private var nextSize = 0
  private var nextPlace = 0
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
    lengths = plan.sizes.map { $0 - 4 }
    flowsBegun = UInt32(plan.flows)
    unsafe flows = .allocate(capacity: plan.flows)
    for place in 0..<plan.flows { unsafe (flows + place).initialize(to: TrafficFlow(UInt32(place), plan)) }
    unsafe templates = .allocate(byteCount: 64 * plan.sizes.count, alignment: 64)
    for (index, size) in lengths.enumerated() {
      unsafe Self.writeTemplate(templates + 64 * index, plan: plan, length: size, source: source, destination: destination)
    }
  }

  deinit {
    unsafe flows.deallocate()
    unsafe templates.deallocate()
  }

  /// Adds up to `count` frames to an empty batch; fewer when flows wait for answers or there is no memory.
  func fill(_ batch: PacketBatch, from port: PacketPort, count: Int, now: Tick) {
    for _ in 0..<min(count, PacketBatch.capacity) {
      let size = nextSize
      // The frame first: a place that was chosen must send.
      guard port.makeFrame(in: batch, length: lengths[size], now: now) else { return }
      guard let place = choosePlace(now) else {
        let last = UInt64(1) << UInt64(batch.count - 1)
        port.release(batch, mask: last)
        batch.keep(batch.all & ~last)
        return
      }
      unsafe write(batch, flow: flows + place, size: size, now: now)
      nextSize = size + 1 == lengths.count ? 0 : size + 1
    }
  }

  /// Adds one frame that only asks whether the sink is there.
  func greet(_ batch: PacketBatch, from port: PacketPort, now: Tick) {
    guard port.makeFrame(in: batch, length: lengths[0], now: now) else { return }
    var flow = TrafficFlow(0, plan)
    flow.number = TrafficRecord.greeting
    unsafe write(batch, flow: &flow, size: 0, now: now)
  }

  /// The server's side has acknowledged a SYN with this number.
  func opened(acknowledgement: UInt32) {
    let number = acknowledgement &- 1
    guard number < flowsBegun else { return }
    let flow = unsafe flows + plan.place(of: number)
    if unsafe flow.pointee.number == number, unsafe flow.pointee.phase == .opening { unsafe flow.pointee.phase = .open }
  }

  /// The next flow in turn that may send.
  private func choosePlace(_ now: Tick) -> Int? {
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
  private func write(_ batch: PacketBatch, flow: UnsafeMutablePointer<TrafficFlow>, size: Int, now: Tick) {
    let length = lengths[size]
    let template = unsafe templates + 64 * size
    batch[batch.count - 1].withBytes { frame in
      let bytes = unsafe UnsafeMutableRawPointer(mutating: frame.baseAddress!)
      unsafe bytes.copyMemory(from: template, byteCount: plan.payloadOffset)
      let endpoints = unsafe flow.pointee.endpoints
      unsafe bytes.storeBytes(of: endpoints.source.bigEndian, toByteOffset: 26, as: UInt32.self)
      unsafe bytes.storeBytes(of: endpoints.destination.bigEndian, toByteOffset: 30, as: UInt32.self)
      unsafe bytes.storeBytes(of: endpoints.sourcePort.bigEndian, toByteOffset: 34, as: UInt16.self)
      unsafe bytes.storeBytes(of: endpoints.destinationPort.bigEndian, toByteOffset: 36, as: UInt16.self)
      if plan.transport == .tcp { unsafe writeTCP(bytes, flow, payload: length - plan.payloadOffset, now: now) }
      let record = unsafe TrafficRecord(
        run: run, flow: flow.pointee.number, sequence: flow.pointee.sequence, time: now.nanoseconds)
      unsafe record.write(to: bytes + plan.payloadOffset)
      unsafe flow.pointee.sequence &+= 1
      unsafe Self.writeChecksums(bytes, plan: plan, length: length)
    }
  }

  @inline(__always)
  private func writeTCP(_ bytes: UnsafeMutableRawPointer, _ flow: UnsafeMutablePointer<TrafficFlow>, payload: Int, now: Tick) {
    var flags: TCPFlags = [.ack, .psh]
    var acknowledgement = Self.serverSequence &+ 1
    if unsafe flow.pointee.phase == .new {
      flags = .syn
      acknowledgement = 0
      unsafe flow.pointee.phase = waitsForAnswers ? .opening : .open
      unsafe flow.pointee.asked = now.nanoseconds
      unsafe flow.pointee.tcpSequence = flow.pointee.number
    }
    unsafe bytes.storeBytes(of: flow.pointee.tcpSequence.bigEndian, toByteOffset: 38, as: UInt32.self)
    unsafe bytes.storeBytes(of: acknowledgement.bigEndian, toByteOffset: 42, as: UInt32.self)
    unsafe bytes.storeBytes(of: flags.rawValue, toByteOffset: 47, as: UInt8.self)
    // The answer acknowledges the SYN alone, not the record in it: the stream begins behind the SYN.
    unsafe flow.pointee.tcpSequence &+= flags == .syn ? 1 : UInt32(payload)
  }

  /// All that frames of one size have in common; checksums are zero.
  private static func writeTemplate(
    _ bytes: UnsafeMutableRawPointer, plan: TrafficPlan, length: Int, source: MACAddress, destination: MACAddress
  ) {
    unsafe bytes.initializeMemory(as: UInt8.self, repeating: 0, count: 64)
    for index in 0..<6 {
      unsafe bytes.storeBytes(
        of: UInt8(truncatingIfNeeded: destination.value >> UInt64(40 - 8 * index)), toByteOffset: index, as: UInt8.self)
      unsafe bytes.storeBytes(
        of: UInt8(truncatingIfNeeded: source.value >> UInt64(40 - 8 * index)), toByteOffset: 6 + index, as: UInt8.self)
    }
    unsafe bytes.storeBytes(of: UInt16(0x0800).bigEndian, toByteOffset: 12, as: UInt16.self)
    unsafe bytes.storeBytes(of: 0x45, toByteOffset: 14, as: UInt8.self)
    unsafe bytes.storeBytes(of: UInt16(length - 14).bigEndian, toByteOffset: 16, as: UInt16.self)
    unsafe bytes.storeBytes(of: UInt16(0x4000).bigEndian, toByteOffset: 20, as: UInt16.self)  // do not fragment
    unsafe bytes.storeBytes(of: 64, toByteOffset: 22, as: UInt8.self)
    unsafe bytes.storeBytes(of: plan.protocolNumber, toByteOffset: 23, as: UInt8.self)
    switch plan.transport {
    case .udp: unsafe bytes.storeBytes(of: UInt16(length - 34).bigEndian, toByteOffset: 38, as: UInt16.self)
    case .tcp:
      unsafe bytes.storeBytes(of: 0x50, toByteOffset: 46, as: UInt8.self)
      unsafe bytes.storeBytes(of: UInt16(65_535).bigEndian, toByteOffset: 48, as: UInt16.self)
    }
  }

  /// Both checksums, from scratch. The payload behind the record is zero and adds nothing.
  @inline(__always)
  static func writeChecksums(_ bytes: UnsafeMutableRawPointer, plan: TrafficPlan, length: Int) {
    unsafe bytes.storeBytes(of: ~Checksum.fold(Checksum.sum(bytes + 14, count: 20)), toByteOffset: 24, as: UInt16.self)
    let pseudoHeader = unsafe Checksum.pseudoHeader(
      addresses: bytes + 26, protocolNumber: plan.protocolNumber, length: length - 34)
    let sum = unsafe ~Checksum.fold(
      Checksum.sum(bytes + 34, count: plan.headerLength + TrafficRecord.size, initial: pseudoHeader))
    switch plan.transport {
    // RFC 768: a sum of zero is written as all ones.
    case .udp: unsafe bytes.storeBytes(of: sum == 0 ? 0xffff : sum, toByteOffset: 40, as: UInt16.self)
    case .tcp: unsafe bytes.storeBytes(of: sum, toByteOffset: 50, as: UInt16.self)
    }
  }
}

extension TrafficPlan {
  var protocolNumber: UInt8 { transport == .tcp ? IPProtocol.tcp : IPProtocol.udp }
}

/// One flow of a generator: who talks to whom, and how far it is.
struct TrafficFlow {
  enum Phase: UInt8 { case new, opening, open }

  var number: UInt32
  var sequence: UInt32 = 0
  var tcpSequence: UInt32 = 0
  var endpoints: TrafficPlan.Endpoints
  var phase = Phase.new
  /// When the last SYN was sent.
  var asked: UInt64 = 0

  init(_ number: UInt32, _ plan: TrafficPlan) {
    self.number = number
    endpoints = plan.endpoints(of: number)
  }
}
