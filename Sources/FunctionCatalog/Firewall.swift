import ControlMessages
import NetworkFunctions
import Wire

/// Lets flows begin that its rules allow, and of TCP lets through what belongs to a connection.
///
/// ## Theory of operation
///
/// The client side is the forward direction: only a packet from there opens a flow, and the rules speak of
/// that packet. The first packet is classified; if it is denied, no flow comes to be and the next one is
/// classified again. If it is allowed, the flow's state remembers so, and no rule is looked at any more.
///
///     first packet ── may it open a flow? ── do the rules allow it? ── flow state ──▶ later packets
///
/// What may open a flow: a TCP SYN, a UDP datagram, an ICMP echo request, the first packet of any other
/// protocol that the rules allow. ICMP other than echo opens nothing. The answers of the server side belong
/// to the flow. TCP is tracked by `TCPConnection`: states by `TCPState.step`, resets by their sequence
/// number; retransmissions, keep-alives, reordering, simultaneous open and close and the reuse of ports pass.
///
/// The cost per packet of a flow is one comparison of the state, plus the bookkeeping of sequence numbers
/// for TCP. The first packet pays the classifier.
///
/// Not supported: ICMP errors that refer to a flow are dropped; a TCP connection whose beginning this
/// firewall has not seen is refused, whatever `flows.midstream` says.
///
/// Settings:
///
///     default: deny                 # for what no rule matches; 'deny' if left out
///     rules:
///       - {action: allow, protocol: tcp, from: 10.0.0.0/8, to: 10.1.0.100, to-ports: 80-443}
public struct Firewall: NetworkFunction {
  public let rules: [FirewallRule]
  public let otherwise: FirewallRule.Action
  @usableFromInline let classifier: RuleClassifier

  public init(
    rules: [FirewallRule], otherwise: FirewallRule.Action,
    compiler: RuleClassifier.Compiler = { RuleClassifier.linearScan($0, otherwise: $1) }
  ) {
    self.rules = rules
    self.otherwise = otherwise
    classifier = compiler(rules, otherwise)
  }

  public init(
    reader: SettingsReader, compiler: RuleClassifier.Compiler = { RuleClassifier.linearScan($0, otherwise: $1) }
  ) throws(SettingsError) {
    try reader.allow(["default", "rules"])
    var rules: [FirewallRule] = []
    for item in try reader.optional("rules")?.items() ?? [] { rules.append(try FirewallRule(reader: item)) }
    guard rules.count <= 65_536 else { throw reader.error("at most 65536 rules, not \(rules.count)") }
    let otherwise: FirewallRule.Action =
      try reader.optional("default")?.choice(["allow": .allow, "deny": .deny]) ?? .deny
    self.init(rules: rules, otherwise: otherwise, compiler: compiler)
  }

  // MARK: State

  /// 24 bytes.
  public struct FlowState: BitwiseCopyable, Sendable {
    /// For a protocol without connections its state is `established` from the first packet on.
    public var connection = TCPConnection()
    @inlinable init() {}
  }

  /// How often the rules were asked, and what they said.
  public struct SharedState {
    public var allowed: UInt64 = 0
    public var denied: UInt64 = 0
    @inlinable init() {}
  }

  public static let deniedByRule = DropReason.function(0)
  public static let invalidTCPState = DropReason.function(1)
  public static let invalidTCPFlags = DropReason.function(2)
  public static let resetOutOfWindow = DropReason.function(3)
  public static let icmpNotEcho = DropReason.function(4)

  public static var dropReasons: [DropReasonDescription] {
    [
      .init(deniedByRule, "denied-by-rule", "A rule of the firewall, or its default, denies this flow."),
      .init(invalidTCPState, "invalid-tcp-state", "The TCP segment has no place in the state its connection is in."),
      .init(invalidTCPFlags, "invalid-tcp-flags", "The TCP flags contradict each other, or none is set."),
      .init(resetOutOfWindow, "rst-out-of-window", "A TCP reset with a sequence number that its receiver would not believe."),
      .init(icmpNotEcho, "icmp-not-echo", "An ICMP message other than an echo request cannot open a flow."),
    ]
  }

  public func makeSharedState(for runtime: RuntimeShare) -> SharedState { SharedState() }
  @inlinable public func makeFlowState() -> FlowState { FlowState() }

  // MARK: Packets

  @inlinable @inline(__always)
  public func process(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    // The middle of a connection's life; all there is of other protocols after the first packet.
    if flow.connection.stateCode == TCPState.established.rawValue {
      if frame.protocolNumber != IPProtocol.tcp { return .forward }
      if TCPSegment.isPlainAcknowledgement(frame.tcpFlags) {
        flow.connection.learn(TCPSegment(plainAcknowledgement: frame), frame.direction)
        return .forward
      }
    }
    return judge(&frame, &flow, &shared)
  }

  /// Everything else. Not inlined: a borrowed frame is copied where calls are many.
  @inlinable @inline(never)
  func judge(_ frame: inout Frame, _ flow: inout FlowState, _ shared: inout SharedState) -> Verdict {
    if flow.connection.stateCode == TCPState.none.rawValue {
      let verdict = admit(&frame, &shared)
      guard verdict == .forward else { return verdict }
      guard frame.protocolNumber == IPProtocol.tcp else {
        flow.connection.state = .established
        return .forward
      }
    }
    guard frame.protocolNumber == IPProtocol.tcp else { return .forward }
    switch flow.connection.handle(TCPSegment(frame), frame.direction) {
    case .accept: return .forward
    case .notConnectionStart: return .drop(.notConnectionStart)
    case .invalidState: return .drop(Firewall.invalidTCPState)
    case .invalidFlags: return .drop(Firewall.invalidTCPFlags)
    case .resetOutOfWindow: return .drop(Firewall.resetOutOfWindow)
    }
  }

  /// Whether a first packet may open its flow. What is no beginning is not worth a look at the rules.
  @inlinable @inline(never)
  func admit(_ frame: inout Frame, _ shared: inout SharedState) -> Verdict {
    switch frame.protocolNumber {
    case IPProtocol.tcp:
      let kind = TCPSegment.kind(of: frame.tcpFlags)
      if kind == .malformed { return .drop(Firewall.invalidTCPFlags) }
      if kind != .syn || frame.direction == .reverse { return .drop(.notConnectionStart) }
    case IPProtocol.icmp, IPProtocol.icmpv6:
      if !frame.isICMPEchoRequest { return .drop(Firewall.icmpNotEcho) }
    default: break
    }
    guard classifier.action(ClassificationKey(frame)) == .allow else {
      shared.denied &+= 1
      return .drop(Firewall.deniedByRule)
    }
    shared.allowed &+= 1
    return .forward
  }

  public func observe(_ shared: borrowing SharedState) -> [Observation] {
    [Observation("firewall.allowed", shared.allowed), Observation("firewall.denied", shared.denied)]
  }
}
