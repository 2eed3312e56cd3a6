import ControlMessages
import NetworkFunctions
import Wire

/// Lets IPv6 clients reach IPv4 servers: stateful NAT64 (RFC 6146), with the NAT for IPv4 clients beside it.
///
/// ## Theory of operation
///
/// A name server (DNS64, RFC 6147) gives the client an IPv6 address in whose last 32 bits the server's IPv4 address stands (RFC
/// 6052). A packet to such an address leaves as IPv4, from an endpoint of the pool; what comes back to that endpoint leaves as
/// IPv6. Headers are translated by RFC 7915 (`Frame.translateToIPv4`, `translateToIPv6`), with what ICMP errors quote.
///
///     client 2001:db8::7, 5000 ─▶ 64:ff9b::192.0.2.33, 80   ══▶   203.0.113.1:5000 ─▶ 192.0.2.33:80   server
///     client 2001:db8::7, 5000 ◀─ 64:ff9b::192.0.2.33, 80   ◀══   203.0.113.1:5000 ◀─ 192.0.2.33:80   server
///
/// A flow so has an IPv6 key on the client's side and an IPv4 key on the server's. Functions before this one in the chain see
/// IPv6, those behind it IPv4, in both directions.
///
/// Pool, mappings, filtering, limits, log, travels and books are those of `NAT`, whose one `SharedState` serves both families;
/// an IPv6 client has a number there (`NAT64Clients`) where an IPv4 client has its address. IPv4 packets meet the code that they
/// meet without this. The limit per client is one per /64, since a client has all addresses in it.
///
/// Not translated, and dropped with a reason: other protocols than TCP, UDP and ICMP echo; what is to the well-known prefix
/// with an address that is not global (RFC 6052 §3.1). Time to live, Packet Too Big and Fragmentation Needed of the packets
/// themselves are the virtual switch's; fragments are put together before and cut again after (`LargePackets`).
///
/// Not supported: prefixes of other lengths than 96, simultaneous opens of TCP from outside (RFC 6146 §3.5.2.2, which is
/// optional), the algorithms for FTP (RFC 6384).
///
/// Settings, of `nat`:
///
///     nat64: 64:ff9b::/96
///     nat64: {prefix: 2001:db8:64::/96, traffic-class: copy, udp-without-checksum: compute}   # or 'zero', 'drop'
public struct NAT64: NetworkFunction, Sendable {
  public struct Rules: Hashable, Sendable {
    public var prefix: NAT64Prefix
    /// Or it is 0 in what is translated: RFC 7915 §4.1, §5.1.
    public var keepsTrafficClass = true
    /// UDP over IPv4 without a checksum gets one, or is dropped: RFC 7915 §4.5.
    public var computesUDPChecksums = true

    public init(prefix: NAT64Prefix) { self.prefix = prefix }
  }

  public let nat: NAT
  public let rules: Rules

  /// - Parameter nat: `passesIPv6` says what becomes of IPv6 that is not to the prefix.
  public init(_ nat: NAT, _ rules: Rules) {
    self.nat = nat
    self.rules = rules
  }

  // MARK: State

  /// 40 bytes. Of an IPv6 client's flow, `common` has a word instead of the client's address.
  public struct FlowState: BitwiseCopyable, Sendable {
    @usableFromInline var common = NAT.FlowState()
    /// The IPv6 client.
    public internal(set) var client = IPAddress(high: 0, low: 0)

    @inlinable init() {}
  }

  public typealias SharedState = NAT.SharedState

  public static let notADestination = DropReason.function(7)
  public static let untranslatableHeader = DropReason.function(8)
  public static let withoutChecksum = DropReason.function(9)

  public static var dropReasons: [DropReasonDescription] {
    NAT.dropReasons + [
      .init(
        notADestination, "nat64-not-a-destination",
        "To or from an address of the NAT64 prefix that stands for no IPv4 host, or with the well-known prefix for no global one."),
      .init(
        untranslatableHeader, "nat64-untranslatable-header",
        "The header prescribes a route or is authenticated, or the ICMP error says what the other family cannot."),
      .init(withoutChecksum, "nat64-udp-without-checksum", "UDP over IPv4 without a checksum, which IPv6 wants."),
    ]
  }

  public func makeSharedState(for runtime: RuntimeShare) -> SharedState {
    SharedState(nat, share: runtime, ipv6Clients: nat.mappingCapacity)
  }

  @inlinable public func makeFlowState() -> FlowState { FlowState() }

  // MARK: Packets

  @inlinable @inline(__always)
  public func process(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    guard flow.common.phase == NAT.FlowState.Phase.translating else { return processOther(&frame, &flow, &shared) }
    return nat.process(&frame, flow: &flow.common, shared: &shared)
  }

  /// Any packet but those of the translated flows of IPv4 clients.
  @usableFromInline @inline(never)
  func processOther(_ frame: inout Frame, _ flow: inout FlowState, _ shared: inout SharedState) -> Verdict {
    if flow.common.phase == NAT.FlowState.Phase.new {
      if frame.family == .ipv6, frame.direction == .forward, let refusal = open(frame, &flow, &shared) { return .drop(refusal) }
      if frame.family == .ipv4, frame.direction == .reverse {
        shared.know(frame.arrival)
        if let refusal = openFromOutside(frame, &flow, &shared) { return .drop(refusal) }
      }
    }
    guard flow.common.phase == NAT.FlowState.Phase.translatingIPv6 else {
      return nat.process(&frame, flow: &flow.common, shared: &shared)
    }
    return translate(&frame, flow, &shared)
  }

  private func translate(_ frame: inout Frame, _ flow: FlowState, _ shared: inout SharedState) -> Verdict {
    let isTranslated: Bool
    switch frame.direction {
    case .forward:
      guard let server = rules.prefix.ipv4(in: frame.destinationAddress) else { return .drop(NAT64.notADestination) }
      isTranslated = frame.translateToIPv4(
        source: flow.common.external, sourcePort: flow.common.externalPort, destination: server,
        identification: shared.nextIdentification(), keepsTrafficClass: rules.keepsTrafficClass)
    case .reverse:
      if frame.lacksUDPChecksum, !rules.computesUDPChecksums { return .drop(NAT64.withoutChecksum) }
      isTranslated = frame.translateToIPv6(
        source: rules.prefix.address(of: frame.fiveTuple.source), destination: flow.client,
        destinationPort: flow.common.clientPort, keepsTrafficClass: rules.keepsTrafficClass)
    }
    return isTranslated ? .forward : .drop(NAT64.untranslatableHeader)
  }

  /// The first packet of an IPv6 flow. One that is not to the prefix is left to `nat`, which drops or passes it.
  private func open(_ frame: borrowing Frame, _ flow: inout FlowState, _ shared: inout SharedState) -> DropReason? {
    guard rules.prefix.contains(frame.destinationAddress) else { return nil }
    // A source in the prefix is an IPv4 host that would be translated twice (RFC 6146 §3.5).
    guard let server = rules.prefix.ipv4(in: frame.destinationAddress), rules.prefix.stands(for: server),
      !rules.prefix.contains(frame.sourceAddress)
    else { return NAT64.notADestination }
    shared.know(frame.arrival)
    switch shared.mapping(of: frame.sourceAddress, frame, to: server) {
    case .found(let index): use(index, &flow, &shared)
    case .refused(let reason): return reason
    }
    return nil
  }

  private func openFromOutside(_ frame: borrowing Frame, _ flow: inout FlowState, _ shared: inout SharedState) -> DropReason? {
    switch shared.mappingFromOutside(frame) {
    case .found(let index): use(index, &flow, &shared)
    case .refused(let reason): return reason
    }
    return nil
  }

  private func use(_ index: UInt32, _ flow: inout FlowState, _ shared: inout SharedState) {
    shared.use(index, &flow.common)
    guard let client = shared.ipv6Client(of: index) else { return }
    flow.client = client
    flow.common.client = NAT64Clients.word(of: client)
    flow.common.phase = NAT.FlowState.Phase.translatingIPv6
  }

  /// As `NAT` does with IPv4; with the header of the packet that is quoted, and addresses of the other family.
  public func processError(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    guard flow.common.phase == NAT.FlowState.Phase.translatingIPv6 else {
      return nat.processError(&frame, flow: &flow.common, shared: &shared)
    }
    guard let error = ICMPError(frame) else { return .drop(NAT.icmpErrorUnrelated) }
    let isTranslated: Bool
    switch frame.direction {
    case .reverse:
      guard let server = error.destination.ipv4, let reporter = frame.sourceAddress.ipv4,
        error.source.ipv4 == flow.common.external, error.sourcePort == flow.common.externalPort
      else { return .drop(NAT.icmpErrorUnrelated) }
      let ends = Frame.ErrorEnds(
        source: rules.prefix.address(of: reporter), destination: flow.client, quotedSource: flow.client,
        quotedDestination: rules.prefix.address(of: server), port: flow.common.clientPort)
      isTranslated = frame.translateErrorToIPv6(ends, keepsTrafficClass: rules.keepsTrafficClass)
    case .forward:
      guard error.isIPv6, error.destination == flow.client, error.destinationPort == flow.common.clientPort,
        let server = rules.prefix.ipv4(in: error.source)
      else { return .drop(NAT.icmpErrorUnrelated) }
      let ends = Frame.ErrorEnds(
        source: flow.common.external, destination: server, quotedSource: server, quotedDestination: flow.common.external,
        port: flow.common.externalPort)
      isTranslated = frame.translateErrorToIPv4(
        ends, identification: shared.nextIdentification(), keepsTrafficClass: rules.keepsTrafficClass)
    }
    guard isTranslated else { return .drop(NAT64.untranslatableHeader) }
    shared.errorsRelayed &+= 1
    return .forward
  }

  // MARK: As of `NAT`

  @inlinable @inline(__always)
  public func foresee(_ frame: borrowing Frame, shared: inout SharedState) { nat.foresee(frame, shared: &shared) }

  @inlinable @inline(__always)
  public func foreseeEnd(_ flow: inout FlowState, shared: inout SharedState) { nat.foreseeEnd(&flow.common, shared: &shared) }

  public var opensFromServerSide: Bool { nat.opensFromServerSide }
  public var serverSideEndpoints: ServerSideEndpoints? { nat.serverSideEndpoints }
  /// An IPv6 header is so much longer.
  public var growth: Int { 20 }

  public func flowExpires(_ flow: inout FlowState, shared: inout SharedState, now: Tick) {
    shared.release(&flow.common, at: now)
  }

  public func flowMigratesOut(_ flow: inout FlowState, shared: inout SharedState) { shared.lend(&flow.common) }
  public func flowMigratesIn(_ flow: inout FlowState, shared: inout SharedState) { arrive(&flow, &shared) }
  public func flowRecovers(_ flow: inout FlowState, shared: inout SharedState) { arrive(&flow, &shared) }

  private func arrive(_ flow: inout FlowState, _ shared: inout SharedState) {
    let isIPv6 = flow.common.phase == NAT.FlowState.Phase.translatingIPv6
    shared.welcome(&flow.common, ipv6Client: isIPv6 ? flow.client : nil)
  }

  public func countBorrowed(_ shared: inout SharedState, _ count: (_ share: Int, _ flows: Int) -> Void) {
    nat.countBorrowed(&shared, count)
  }

  public func takeReturn(_ shared: inout SharedState) -> SharedReturn? { nat.takeReturn(&shared) }
  public func takeBack(_ returned: SharedReturn, shared: inout SharedState) -> Bool { nat.takeBack(returned, shared: &shared) }

  public func observe(_ shared: borrowing SharedState) -> [Observation] {
    nat.observe(shared) + [Observation("nat64.clients", UInt64(shared.ipv6Clients.count))]
  }

  /// Whoever takes logs knows `NAT` alone.
  public func accept(_ visitor: inout some FunctionVisitor, shared: inout SharedState) {
    visitor.visit(self, shared: &shared)
    visitor.visit(nat, shared: &shared)
  }
}

extension NAT64.Rules {
  /// `64:ff9b::/96`, or `{prefix: 64:ff9b::/96, traffic-class: copy, udp-without-checksum: compute}`.
  public init(reader: SettingsReader) throws(SettingsError) {
    if case .scalar = reader.settings.value {
      self.init(prefix: try NAT64Prefix(reader: reader))
      return
    }
    try reader.allow(["prefix", "traffic-class", "udp-without-checksum"])
    self.init(prefix: try NAT64Prefix(reader: try reader.required("prefix")))
    keepsTrafficClass = try reader.optional("traffic-class")?.choice(["copy": true, "zero": false]) ?? true
    computesUDPChecksums = try reader.optional("udp-without-checksum")?.choice(["compute": true, "drop": false]) ?? true
  }
}
