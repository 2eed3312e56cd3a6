import ControlMessages
import NetworkFunctions
import Wire

/// Lets flows begin that its rules allow, and of TCP lets through what belongs to a connection.
///
/// ## Theory of operation
///
/// The packet that opens a flow is classified; if it is denied, no flow comes to be and the next one is
/// classified again. If it is allowed, the flow's state remembers so, and no rule is looked at any more: ten
/// thousand rules cost a new flow, not a packet.
///
///     first packet ── may it open a flow? ── do the rules allow it? ── flow state ──▶ later packets
///
/// What may open a flow: a TCP SYN, a UDP datagram, an ICMP echo request, the first packet of any other
/// protocol that the rules allow. ICMP other than echo opens nothing; an ICMP error passes with the flow that it
/// quotes (`processError`). TCP is tracked by `TCPConnection`: states by `TCPState.step`, resets by their sequence
/// number; retransmissions, keep-alives, reordering, simultaneous open and close and the reuse of ports pass.
/// Of other protocols it is known whether they were answered.
///
/// The cost per packet of a flow is one comparison (of the rule set that admitted it), plus the bookkeeping of
/// sequence numbers for TCP. The first packet pays the classifier.
///
/// ## Other rules while flows live
///
/// `replaceRules` swaps the rule set between two bursts. Flows that live keep their verdict (`established: keep`),
/// or each is asked about once more at its next packet (`re-evaluate`), and so is a flow that arrives from another
/// runtime. One that is denied then is dropped from there on; its TCP state is kept, for the rules may change back.
///
/// Not supported: a TCP connection whose beginning this firewall has not seen is refused, whatever
/// `flows.midstream` says. Data outside the window passes: its receiver discards it (RFC 9293 §3.10.7.4).
///
/// Settings:
///
///     default: deny                 # for what no rule matches; 'deny' if left out
///     established: keep             # or 're-evaluate': live flows when the rules are replaced
///     half-open: {total: 65536, per-client: 256}    # TCP connections not completed; no limit if left out
///     rules:
///       - {action: allow, protocol: tcp, from: 10.0.0.0/8, to: 10.1.0.100, to-ports: 80-443, log: true}
public struct Firewall: NetworkFunction, Sendable {
  public enum Established: UInt8, Hashable, Sendable { case keep, reevaluate }

  public struct HalfOpenLimits: Hashable, Sendable {
    public var total: Int
    public var perClient: Int

    public init(total: Int = .max, perClient: Int = .max) {
      self.total = total
      self.perClient = perClient
    }
  }

  /// What it begins with; `SharedState.ruleSet` is what it has now.
  public let ruleSet: FirewallRuleSet
  public let established: Established
  public let halfOpenLimits: HalfOpenLimits

  public init(_ ruleSet: FirewallRuleSet, established: Established = .keep, halfOpen: HalfOpenLimits = HalfOpenLimits()) {
    self.ruleSet = ruleSet
    self.established = established
    halfOpenLimits = halfOpen
  }

  public init(rules: [FirewallRule], otherwise: FirewallRule.Action, established: Established = .keep) {
    self.init(FirewallRuleSet(rules: rules, otherwise: otherwise), established: established)
  }

  public init(
    reader: SettingsReader, compiler: RuleClassifier.Compiler = { RuleClassifier.linearScan($0) }
  ) throws(SettingsError) {
    try reader.allow(["default", "rules", "established", "half-open"])
    var limits = HalfOpenLimits()
    if let halfOpen = try reader.optional("half-open") {
      try halfOpen.allow(["total", "per-client"])
      limits.total = try halfOpen.optional("total")?.integer(in: 1...16_777_216) ?? .max
      limits.perClient = try halfOpen.optional("per-client")?.integer(in: 1...16_777_216) ?? .max
    }
    self.init(
      try FirewallRuleSet(reader: reader, compiler: compiler),
      established: try reader.optional("established")?.choice(["keep": .keep, "re-evaluate": .reevaluate]) ?? .keep,
      halfOpen: limits)
  }

  // MARK: State

  /// 28 bytes.
  public struct FlowState: BitwiseCopyable, Sendable {
    /// Of TCP; for other protocols its state says `PseudoState`.
    public var connection = TCPConnection()
    /// Which rule set admitted the flow: 0 for none, see `RuleGeneration`.
    @usableFromInline var generation: UInt16 = RuleGeneration.none
    /// Where the client's half-open connections are counted.
    var clientBucket: UInt16 = 0
    /// Not 0 when the server side opened the flow. A number, not a `Direction`: these bytes travel.
    @usableFromInline var openedInReverse: UInt8 = 0

    @inlinable init() {}

    /// The side that opened the flow.
    @inlinable var opener: Direction {
      @inline(__always) get { openedInReverse == 0 ? .forward : .reverse }
    }

    /// The way a packet travels as the connection sees it: `forward` is the opener's.
    @inlinable @inline(__always)
    func way(_ direction: Direction) -> Direction { openedInReverse == 0 ? direction : direction.opposite }
  }

  /// Numbers of rule sets within a runtime. The highest bit marks a flow that this rule set has denied.
  @usableFromInline
  enum RuleGeneration {
    @usableFromInline static let none: UInt16 = 0
    static let first: UInt16 = 1
    static let last: UInt16 = 0x7ffe
    /// Of a flow that arrived and is to be asked about.
    static let unknown: UInt16 = 0x7fff
    static let denied: UInt16 = 0x8000
  }

  public struct SharedState {
    public internal(set) var ruleSet: FirewallRuleSet
    @usableFromInline var generation = RuleGeneration.first
    /// How often the rules were asked, and what they said.
    public internal(set) var allowed: UInt64 = 0
    public internal(set) var denied: UInt64 = 0
    /// Live flows that a new rule set has denied.
    public internal(set) var revoked: UInt64 = 0
    public internal(set) var replacements: UInt64 = 0
    public internal(set) var halfOpen: HalfOpenConnections
    public internal(set) var log = FirewallLog()
    let steps = TCPStepTable()
  }

  public static let deniedByRule = DropReason.function(0)
  public static let invalidTCPState = DropReason.function(1)
  public static let invalidTCPFlags = DropReason.function(2)
  public static let resetOutOfWindow = DropReason.function(3)
  public static let icmpNotEcho = DropReason.function(4)
  public static let halfOpenLimit = DropReason.function(5)
  public static let icmpErrorUnrelated = DropReason.function(6)

  public static var dropReasons: [DropReasonDescription] {
    [
      .init(deniedByRule, "denied-by-rule", "A rule of the firewall, or its default, denies this flow."),
      .init(invalidTCPState, "invalid-tcp-state", "The TCP segment has no place in the state its connection is in."),
      .init(invalidTCPFlags, "invalid-tcp-flags", "The TCP flags contradict each other, or none is set."),
      .init(resetOutOfWindow, "rst-out-of-window", "A TCP reset with a sequence number that its receiver would not believe."),
      .init(icmpNotEcho, "icmp-not-echo", "An ICMP message other than an echo request cannot open a flow."),
      .init(halfOpenLimit, "half-open-limit", "Too many TCP connections of this client, or of all, are not completed."),
      .init(icmpErrorUnrelated, "icmp-error-unrelated", "An ICMP error that quotes no packet its flow may have on its way."),
    ]
  }

  public static var layoutVersion: UInt16 { 2 }

  public func makeSharedState(for runtime: RuntimeShare) -> SharedState {
    SharedState(
      ruleSet: ruleSet, halfOpen: HalfOpenConnections(limit: halfOpenLimits.total, perClient: halfOpenLimits.perClient))
  }

  @inlinable public func makeFlowState() -> FlowState { FlowState() }

  // MARK: Packets

  @inlinable @inline(__always)
  public func process(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    // The middle of a TCP connection's life, told by one jump instead of four.
    let differences =
      flow.generation ^ shared.generation | UInt16(frame.protocolNumber ^ IPProtocol.tcp)
      | UInt16(flow.connection.stateCode ^ TCPState.established.code) | UInt16(frame.tcpFlags.rawValue & 0b01_0111 ^ 0b01_0000)
    if differences == 0 {
      flow.connection.learn(TCPSegment(plainAcknowledgement: frame), flow.way(frame.direction))
      return .forward
    }
    return judge(&frame, &flow, &shared)
  }

  /// Everything else. Not inlined: a borrowed frame is copied where calls are many.
  @usableFromInline @inline(never)
  func judge(_ frame: inout Frame, _ flow: inout FlowState, _ shared: inout SharedState) -> Verdict {
    if flow.generation != shared.generation {
      let verdict = admit(&frame, &flow, &shared)
      guard verdict == .forward else { return verdict }
    }
    guard frame.protocolNumber == IPProtocol.tcp else {
      if frame.direction != flow.opener { flow.connection.stateCode = PseudoState.answered.rawValue }
      return .forward
    }
    return change(TCPSegment(frame), flow.way(frame.direction), &flow, &shared)
  }

  /// Fixed when the runtime starts: rules that replace others cannot let the server side begin where it could not.
  public var opensFromServerSide: Bool { ruleSet.admitsFromServerSide }

  public func observe(_ shared: borrowing SharedState) -> [Observation] {
    [
      Observation("firewall.allowed", shared.allowed), Observation("firewall.denied", shared.denied),
      Observation("firewall.revoked", shared.revoked), Observation("firewall.rules", UInt64(shared.ruleSet.rules.count)),
      Observation("firewall.rules.replaced", shared.replacements),
      Observation("firewall.half-open", UInt64(shared.halfOpen.count)),
      Observation("firewall.half-open.refused", shared.halfOpen.refused),
      Observation("firewall.log.written", shared.log.written), Observation("firewall.log.lost", shared.log.lost),
    ]
  }
}

/// What is known of a flow without connections, such as UDP and ICMP echo: whether its server has answered.
///
/// Its numbers are beyond those of `TCPState`, whose place in the flow's bytes they take.
public enum PseudoState: UInt8, Sendable {
  case unanswered = 32
  case answered = 33
}
