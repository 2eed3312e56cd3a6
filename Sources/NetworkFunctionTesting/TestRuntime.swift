import NetworkFunctions
import Wire

/// A runtime small enough for a unit test: one chain, its flows in a dictionary, packets one at a time.
///
/// It keeps the platform's promises to a network function, so that a test is a conversation:
///
///     let runtime = TestRuntime(nat)
///     let sent = runtime.send(.udp("10.0.0.1:5000", "8.8.8.8:53"))
///     #expect(sent.packet?.source == "203.0.113.1:5000")
///     #expect(runtime.send(sent.packet!.answered()).packet?.destination == "10.0.0.1:5000")
///
/// - A packet of no known flow opens one, forwards. If the chain drops it, the flow does not come to be,
///   and what the chain took for it is given back by `flowExpires`.
/// - The key of the answers is learned from the first packet as it left the chain.
/// - A packet of no known flow from the server side is handed to the chain backwards, and opens a flow if it passes.
/// - An ICMP error goes to the flow of the packet that it quotes, if the chain is said to relay errors.
/// - `expire`, `migrate` and `crash` are the flow's other fates.
public final class TestRuntime {
  public let chain: ServiceChain
  /// The arrival of the next packets.
  public var now = Tick.zero

  private var flows: [Key: Flow] = [:]

  /// Whether ICMP errors reach the chain, which then must know them from other packets.
  private let relaysErrors: Bool

  public init(_ chain: ServiceChain, relaysErrors: Bool = false) {
    self.chain = chain
    self.relaysErrors = relaysErrors
  }

  public convenience init<Function: NetworkFunction>(
    _ function: Function, share: RuntimeShare = .whole, relaysErrors: Bool = false
  ) {
    self.init(ServiceChain([ServiceStage("function", function, share: share)]), relaysErrors: relaysErrors)
  }

  // MARK: Packets

  public enum Outcome: Hashable, Sendable, CustomStringConvertible {
    case forwarded(TestPacket)
    /// Named as in `DropReasonDescription`.
    case dropped(String)

    public var packet: TestPacket? {
      if case .forwarded(let packet) = self { packet } else { nil }
    }

    public var reason: String? {
      if case .dropped(let reason) = self { reason } else { nil }
    }

    public var description: String {
      switch self {
      case .forwarded(let packet): "forwarded: \(packet)"
      case .dropped(let reason): "dropped: \(reason)"
      }
    }
  }

  /// Parses the packet, finds or makes its flow, and runs the chain.
  ///
  /// - Parameter side: where it comes from, `forward` being the client side; says only how a new flow is opened.
  @discardableResult
  public func send(_ packet: TestPacket, from side: Direction = .forward) -> Outcome {
    var packet = packet
    let quoted = relaysErrors ? packet.quotedPacketKey : nil
    let reason = packet.withFrame(arrival: now) { frame -> DropReason? in
      if let reason = frame.parse(checksums: .verify) { return reason }
      // An error travels as an answer to what it quotes.
      let key = quoted?.reversed ?? Key(frame)
      if let flow = flows[key] {
        frame.direction = key == flow.forwardKey ? .forward : .reverse
        return quoted == nil ? process(&frame, flow) : processError(&frame, flow)
      }
      return quoted == nil ? open(&frame, key, side) : .noFlow
    }
    return reason.map { .dropped(name(of: $0)) } ?? .forwarded(packet)
  }

  private func open(_ frame: inout Frame, _ key: Key, _ side: Direction) -> DropReason? {
    let flow = Flow(chain)
    frame.direction = side
    if let reason = process(&frame, flow) {
      flow.tell(chain, .expires(now))
      return reason
    }
    let otherKey = Key(frame).reversed
    guard flows[otherKey] == nil else {
      flow.tell(chain, .expires(now))
      return .keyTaken
    }
    flow.forwardKey = side == .forward ? key : otherKey
    flow.reverseKey = side == .forward ? otherKey : key
    flows[key] = flow
    flows[otherKey] = flow
    return nil
  }

  /// A burst of one frame.
  private func process(_ frame: inout Frame, _ flow: Flow) -> DropReason? {
    frame.slot = 0
    let direction = frame.direction
    return unsafe withUnsafeMutablePointer(to: &frame) { pointer in
      let kept = unsafe chain.process(pointer, mask: 1, states: flow.state, stride: flow.size)
      precondition(unsafe pointer.pointee.direction == direction, "a function does not turn a packet round")
      return kept == 1 ? nil : unsafe pointer.pointee.dropReason
    }
  }

  private func processError(_ frame: inout Frame, _ flow: Flow) -> DropReason? {
    frame.slot = 0
    return unsafe withUnsafeMutablePointer(to: &frame) { pointer in
      unsafe chain.processError(pointer, states: flow.state, stride: flow.size) ? nil : pointer.pointee.dropReason
    }
  }

  func name(of reason: DropReason) -> String {
    (chain.dropReasons + DropReason.platform).first { $0.reason == reason }?.name ?? "undescribed reason \(reason.code)"
  }

  // MARK: Fates of a flow

  public var flowCount: Int { flows.count / 2 }

  public func hasFlow(of packet: TestPacket) -> Bool { flow(of: packet) != nil }

  /// The flow's idle time has passed. `false` if there is no such flow.
  @discardableResult
  public func expire(flowOf packet: TestPacket) -> Bool {
    guard let flow = remove(flowOf: packet) else { return false }
    flow.tell(chain, .expires(now))
    return true
  }

  public func expireAll() {
    for flow in removeAll() { flow.tell(chain, .expires(now)) }
  }

  /// The flow moves to another runtime of the same chain.
  @discardableResult
  public func migrate(flowOf packet: TestPacket, to target: TestRuntime) -> Bool {
    guard let flow = remove(flowOf: packet) else { return false }
    flow.tell(chain, .migratesOut)
    target.adopt(flow, .migratesIn)
    return true
  }

  /// This runtime dies; every flow recovers on `replica` from its last state.
  public func crash(recoveringOn replica: TestRuntime) {
    for flow in removeAll() { replica.adopt(flow, .recovers) }
  }

  /// The flow state of a chain's first stage, as the function's type.
  public func state<State: BitwiseCopyable>(ofFlowOf packet: TestPacket, as type: State.Type) -> State? {
    flow(of: packet).map { flow in unsafe flow.state.loadUnaligned(as: type) }
  }

  /// One number of `observe()`.
  public func observed(_ name: String) -> UInt64? { chain.observe().first { $0.name == name }?.value }

  private func adopt(_ flow: Flow, _ event: FlowEvent) {
    precondition(chain.stateSize == flow.size, "flows move only between runtimes of the same chain")
    let copy = Flow(flow)
    copy.tell(chain, event)
    for case let key? in [copy.forwardKey, copy.reverseKey] { flows[key] = copy }
  }

  private func flow(of packet: TestPacket) -> Flow? {
    var packet = packet
    return packet.withFrame { frame in frame.parse(checksums: .trust) == nil ? flows[Key(frame)] : nil }
  }

  private func remove(flowOf packet: TestPacket) -> Flow? {
    guard let flow = flow(of: packet) else { return nil }
    for case let key? in [flow.forwardKey, flow.reverseKey] { flows[key] = nil }
    return flow
  }

  /// In an order of their own keys, so that a run repeats.
  private func removeAll() -> [Flow] {
    defer { flows = [:] }
    return flows.filter { $0.key == $0.value.forwardKey }.values.sorted { "\($0.forwardKey!)" < "\($1.forwardKey!)" }
  }
}

extension TestPacket {
  /// The key of the packet that an ICMP error quotes, read by the test kit's own reader; `nil` for another packet.
  var quotedPacketKey: Key? {
    guard parsed(checksums: .trust) == nil, let quoted = quotedPacket else { return nil }
    return quoted.plainKey
  }

  private var plainKey: Key {
    let (from, to) = (source, destination)
    let transport = TransportKey(source: from.port, destination: to.port, protocolNumber: protocolNumber, vlan: 0)
    guard let source = from.address.ipv4, let destination = to.address.ipv4 else {
      return .ipv6(IPv6FiveTuple(source: from.address, destination: to.address, transport: transport))
    }
    return .ipv4(IPv4FiveTuple(source: source, destination: destination, transport: transport))
  }
}

/// Either form of a flow's key.
enum Key: Hashable {
  case ipv4(IPv4FiveTuple)
  case ipv6(IPv6FiveTuple)

  init(_ frame: borrowing Frame) {
    self = frame.family == .ipv6 ? .ipv6(frame.ipv6FiveTuple) : .ipv4(frame.fiveTuple)
  }

  var reversed: Key {
    switch self {
    case .ipv4(let key): .ipv4(key.reversed)
    case .ipv6(let key): .ipv6(key.reversed)
    }
  }
}

/// One flow's block of state, where a runtime would have a slot.
final class Flow {
  var forwardKey: Key?
  var reverseKey: Key?
  let size: Int
  let state: UnsafeMutableRawPointer

  init(_ chain: ServiceChain) {
    size = chain.stateSize
    unsafe state = .allocate(byteCount: size, alignment: 16)
    unsafe state.initializeMemory(as: UInt8.self, repeating: 0, count: size)
    tell(chain, .begins)
  }

  /// What a migration or a replica's channel delivers: the same bytes elsewhere.
  init(_ other: Flow) {
    forwardKey = other.forwardKey
    reverseKey = other.reverseKey
    size = other.size
    unsafe state = .allocate(byteCount: size, alignment: 16)
    unsafe state.copyMemory(from: other.state, byteCount: size)
  }

  deinit { unsafe state.deallocate() }

  func tell(_ chain: ServiceChain, _ event: FlowEvent) { unsafe chain.tell(event, state: state) }
}
