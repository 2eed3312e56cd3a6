import ControlMessages
import NetworkFunctions
import Wire

/// Gives IPv4 clients addresses of a pool: source NAT of the forward direction, and back.
///
/// ## Theory of operation
///
/// The first packet of a flow finds its client's mapping or makes one; what is needed per packet is then in
/// the flow's own 20 bytes, and the table is not looked at again until the flow ends.
///
///     client 10.0.0.1:5000 ──▶ forward: source becomes 203.0.113.1:5000 ──▶ server
///     client 10.0.0.1:5000 ◀── reverse: destination becomes 10.0.0.1:5000 ◀── server
///
/// Mapping is endpoint-independent and paired, the port is kept or at least its parity, and two UDP ports of an
/// even-odd pair stay neighbours where that is possible (RFC 4787 REQ-1, 2, 3, 4; RFC 5382 REQ-1); an ICMP echo's
/// identifier is its port (RFC 5508 REQ-1). ICMP errors are translated with what they quote (`processError`).
/// TCP, UDP and ICMP echo are translated; anything else is dropped with a reason of its own. IPv6 is dropped, or passes
/// as it is: with addresses enough there is nothing to translate (RFC 4864).
///
/// ## From outside
///
/// An answer belongs to its flow. Of other packets to an external endpoint `filtering` says which open a flow to
/// the client behind it (RFC 4787 §5): none (`address-and-port-dependent`), those of an address that the client has
/// spoken to (`address-dependent`), or all (`endpoint-independent`). A virtual switch hands it to the runtime whose
/// share has the endpoint (`serverSideEndpoints`). A packet between two clients of this NAT is such a packet: the switch
/// sees where it goes and hands it in again (hairpinning, RFC 4787 REQ-9).
///
/// An endpoint that fell free rests for `hold` before another client gets it (RFC 6888 REQ-8). With the strictest
/// filtering there is no need, and none is the default; with the others it is two minutes. How long a flow, and
/// so its mapping, outlives its last packet is the platform's `flows.timeouts` (RFC 4787 REQ-5, RFC 5382 REQ-5).
///
/// With `nat64` IPv6 clients reach IPv4 servers through the same pool; that is `NAT64`, which the catalog makes of the same
/// settings.
///
/// ## The books
///
/// Every external endpoint belongs to one share of the pool, told by its number (`NATPool`). The runtime
/// with that share, its owner, keeps a record (`NATMappings`) with two counts: flows here, flows away.
///
///     event            endpoint of this share            endpoint of another share ("foreign")
///     first packet     here + 1 (record made if new)     never: new flows take own endpoints only
///     flowExpires      here - 1                          foreign - 1, and the owner is owed a return
///     flowMigratesOut  here - 1, away + 1                foreign - 1
///     flowMigratesIn   here + 1, away - 1 if it was away foreign + 1
///     flowRecovers     as flowMigratesIn                 as flowMigratesIn
///     a return arrives away - 1                          -
///
/// The endpoint is free again when both counts are zero. So an endpoint that left with a flow is not handed
/// out to somebody else, and is not lost, provided that returns reach the owner: the platform takes them one by
/// one (`takeReturn`) and brings each to the runtime that has the owning share (`takeBack`), once.
///
/// A return that was not sent before its runtime died is lost: the endpoint stays "away" until its owner
/// restarts. And a share that is given to a new runtime while flows of its old one live on elsewhere knows
/// nothing of their endpoints: a new runtime should get a share of its own.
///
/// An arriving endpoint of this share that has no record (this runtime was restarted) is taken from the
/// free ones. If it has gone to another client meanwhile, the arriving flow has lost it: its packets are
/// dropped with `nat-endpoint-lost` rather than delivered to a stranger.
///
/// Settings:
///
///     pool: [10.2.0.200-10.2.0.203]   # addresses, ranges, blocks; at most 256 addresses
///     ports: 1024-65535
///     mappings: 131072                # how many clients' ports can be mapped at once
///     per-client: 1000                # mappings of one client address; no limit if left out (RFC 6888 REQ-4)
///     filtering: address-and-port-dependent
///     hold: 120s
///     log: true                       # mapping log (RFC 6888 REQ-12); not kept if left out
///     ipv6: forward                   # IPv6 passes as it is; 'drop' if left out
///     nat64: 64:ff9b::/96             # IPv6 to these addresses becomes IPv4; nothing does if left out
public struct NAT: NetworkFunction, Sendable {
  public enum Filtering: UInt8, Hashable, Sendable { case endpointIndependent, addressDependent, addressAndPortDependent }

  public let addresses: [IPv4Address]
  public let ports: ClosedRange<UInt16>
  public let mappingCapacity: Int
  public let mappingsPerClient: Int
  public let filtering: Filtering
  /// Milliseconds that an endpoint rests.
  public let hold: UInt64
  public let keepsLog: Bool
  /// Whether IPv6 passes untranslated.
  public let passesIPv6: Bool
  /// What becomes of IPv6 to a prefix, if settings say so: `NAT64` does it.
  public private(set) var translation: NAT64.Rules?

  public init(
    pool addresses: [IPv4Address], ports: ClosedRange<UInt16> = 1024...65_535, mappings: Int = 131_072,
    perClient: Int = .max, filtering: Filtering = .addressAndPortDependent, hold: UInt64? = nil, keepsLog: Bool = false,
    passesIPv6: Bool = false
  ) {
    self.passesIPv6 = passesIPv6
    precondition(!addresses.isEmpty && addresses.count <= 256, "a pool has 1 to 256 addresses")
    precondition(mappings > 0, "a NAT without mappings translates nothing")
    self.addresses = addresses
    self.ports = ports
    mappingCapacity = mappings
    mappingsPerClient = perClient
    self.filtering = filtering
    self.hold = hold ?? (filtering == .addressAndPortDependent ? 0 : 120_000)
    self.keepsLog = keepsLog
  }

  // MARK: State

  /// 20 bytes. All of it is meaningful elsewhere, except `mapping`.
  public struct FlowState: BitwiseCopyable, Sendable {
    public internal(set) var client = IPv4Address(0)
    public internal(set) var external = IPv4Address(0)
    public internal(set) var clientPort: UInt16 = 0
    public internal(set) var externalPort: UInt16 = 0
    /// Number of this runtime's record; 0 for a foreign endpoint. Written anew wherever the flow arrives.
    @usableFromInline var mapping: UInt32 = 0
    /// Realm and VLAN: what the mapping's key needs besides the client.
    @usableFromInline var vlan: UInt16 = 0
    @usableFromInline var realm: UInt8 = 0
    @usableFromInline var phase: UInt8 = Phase.new

    @usableFromInline
    enum Phase {
      @usableFromInline static let new: UInt8 = 0
      @usableFromInline static let translating: UInt8 = 1
      @usableFromInline static let lost: UInt8 = 2
      /// IPv6, and none of this function's business.
      @usableFromInline static let passing: UInt8 = 3
      /// Between an IPv6 client and an IPv4 server. As `translating` in the lower two bits, and nowhere else.
      @usableFromInline static let translatingIPv6: UInt8 = 5
    }

    @inlinable init() {}

    /// Whether it has taken one from a pool.
    var hasEndpoint: Bool { phase & 3 == Phase.translating }

    /// Of an IPv4 client.
    var key: NATClientKey { NATClientKey(client, port: clientPort, realm: Int(realm), vlan: vlan) }
  }

  public static let poolExhausted = DropReason.function(0)
  public static let notTranslatable = DropReason.function(1)
  public static let ipv6 = DropReason.function(2)
  public static let endpointLost = DropReason.function(3)
  public static let clientLimit = DropReason.function(4)
  public static let filtered = DropReason.function(5)
  public static let icmpErrorUnrelated = DropReason.function(6)

  public static var dropReasons: [DropReasonDescription] {
    [
      .init(poolExhausted, "nat-pool-exhausted", "The NAT has no free external port, or no room for another mapping."),
      .init(notTranslatable, "nat-not-translatable", "The NAT translates TCP, UDP and ICMP echo only."),
      .init(ipv6, "nat-ipv6", "The NAT translates IPv4 only."),
      .init(endpointLost, "nat-endpoint-lost", "The flow's external port went to another client while the flow was away."),
      .init(clientLimit, "nat-client-limit", "The client has as many mappings as one client may have."),
      .init(filtered, "nat-filtered", "A packet from outside to an external port that does not let its sender in."),
      .init(icmpErrorUnrelated, "nat-icmp-error-unrelated", "An ICMP error that quotes no packet of its flow."),
    ]
  }

  /// The same with IPv6 clients.
  func translatingIPv6(_ rules: NAT64.Rules?) -> NAT {
    var nat = self
    nat.translation = rules
    return nat
  }

  public func makeSharedState(for runtime: RuntimeShare) -> SharedState {
    SharedState(self, share: runtime)
  }

  @inlinable public func makeFlowState() -> FlowState { FlowState() }

  // MARK: Packets

  @inlinable @inline(__always)
  public func process(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    if flow.phase != FlowState.Phase.translating {
      let verdict = shared.open(&frame, &flow)
      guard verdict == .forward, flow.phase == FlowState.Phase.translating else { return verdict }
    }
    switch frame.direction {
    case .forward: frame.rewriteSource(flow.external, port: flow.externalPort)
    case .reverse: frame.rewriteDestination(flow.client, port: flow.clientPort)
    }
    return .forward
  }

  @inlinable @inline(__always)
  public func foresee(_ frame: borrowing Frame, shared: inout SharedState) {
    guard frame.direction == .forward, frame.family == .ipv4, let realm = NATRealm.of(frame) else { return }
    shared.foresee(frame.fiveTuple, realm)
  }

  @inlinable @inline(__always)
  public func foreseeEnd(_ flow: inout FlowState, shared: inout SharedState) {
    if flow.phase == FlowState.Phase.translating { shared.foreseeEnd(&flow) }
  }

  public var opensFromServerSide: Bool { filtering != .addressAndPortDependent }
  public var serverSideEndpoints: ServerSideEndpoints? { ServerSideEndpoints(addresses: addresses, ports: ports) }

  public func flowExpires(_ flow: inout FlowState, shared: inout SharedState, now: Tick) {
    shared.release(&flow, at: now)
  }
  public func flowMigratesOut(_ flow: inout FlowState, shared: inout SharedState) { shared.lend(&flow) }
  public func flowMigratesIn(_ flow: inout FlowState, shared: inout SharedState) { shared.welcome(&flow) }
  public func flowRecovers(_ flow: inout FlowState, shared: inout SharedState) { shared.welcome(&flow) }

  public func countBorrowed(_ shared: inout SharedState, _ count: (_ share: Int, _ flows: Int) -> Void) {
    for share in 0..<shared.foreignByShare.count where shared.foreignByShare[share] > 0 {
      count(share, Int(shared.foreignByShare[share]))
    }
  }

  public func takeReturn(_ shared: inout SharedState) -> SharedReturn? {
    guard let returned = shared.takeReturn(), let share = shared.pool.share(of: returned.externalPort) else { return nil }
    return SharedReturn(share: UInt16(share), words: returned.words)
  }

  public func takeBack(_ returned: SharedReturn, shared: inout SharedState) -> Bool { shared.accept(Return(words: returned.words)) }

  public func observe(_ shared: borrowing SharedState) -> [Observation] { shared.observations() }
}
