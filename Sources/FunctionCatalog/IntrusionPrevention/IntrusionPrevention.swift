import NetworkFunctions
import Wire

/// Looks for the signatures of rules in what flows carry; alerts, and drops what a rule says to drop.
///
/// ## Theory of operation
///
/// Every byte of payload goes once through one automaton that knows the rarest content (the *fast pattern*) of every rule
/// (`PatternAutomaton`). Only rules whose fast pattern was found are judged, in full: addresses, ports, fields, flowbits,
/// and the other contents (`ContentMatching`). Rules without such a content are judged for every packet of their
/// transport, but only in flows whose addresses and ports suit one of them, which is found out once per direction.
///
///     payload ─▶ automaton ─▶ rules to be judged ─▶ pass, drop, alert
///                  ▲   │
///       flow state ┘   ▼ four bytes per direction
///
/// TCP bytes are scanned in order as a stream (`DirectionState`): the automaton's state stays with the flow, so a content
/// that is split across segments is found. A rule with several contents finds them in the segment in which its fast pattern ends
/// and in the beginning of that pattern before it; contents further back are gone. Datagrams are scanned each on its own.
///
/// What a rule that says `pass` or `drop` has decided holds for the rest of a TCP connection; of other protocols for the packet.
///
/// The settings and the language of the rules: docs/intrusion-prevention.md.
public struct IntrusionPrevention: NetworkFunction {
  public struct Options: Hashable, Sendable {
    /// `false`: rules that say `drop` only alert.
    public var prevents = true
    /// Whether a TCP segment ahead of its stream is dropped, so that it comes again in order, instead of scanned on its own.
    public var dropsOutOfOrder = false
    /// Alerts that wait to be taken.
    public var alertCapacity = 4096
    /// Counts of rules with a threshold, of one rule and address each.
    public var thresholdCapacity = 16_384
    /// Bytes that are kept of a flow's streams: 0, 512, 2,048 or 8,192; `nil`: as many as suffice for most, if any rule needs them.
    public var streamMemory: Int?
    public init() {}
  }

  public let report: RuleSetReport
  public let options: Options
  let program: RuleProgram

  /// Whether some rule needs more of a stream than the automaton's state.
  public var needsStreams: Bool { program.speaksOfHTTP || program.hasSeveralContents }

  /// Bytes to keep of a flow's streams (`StreamInspection`).
  public var streamMemory: Int { options.streamMemory ?? (needsStreams ? 2_048 : 0) }

  /// What the rules take, once for all flows: in bytes.
  public var memory: (states: Int, automatonBytes: Int, ruleBytes: Int) {
    let (automaton, buffers) = (program.automaton.statistics, program.bufferAutomaton.statistics)
    return (automaton.states + buffers.states, automaton.bytes + buffers.bytes, program.byteCount)
  }

  public init(_ rules: RuleSet, options: Options = Options()) {
    report = rules.report
    self.options = options
    program = RuleProgram(rules)
  }

  // MARK: State

  public typealias FlowState = IntrusionPreventionState

  /// What the runtime keeps beside the rules: counters, alerts, thresholds, and room to work in.
  public struct SharedState {
    public internal(set) var alerts: AlertRing
    var thresholds: RuleThresholds
    var candidates: CandidateRules
    /// Alerts of every rule.
    let alertsByRule: FixedMemory<UInt64>
    /// Where the end of a stream's earlier bytes and a segment are put together.
    let joined: FixedMemory<UInt8>
    /// The head and the body of the HTTP message that is being looked at.
    var head: HTTPHead
    let body: FixedMemory<UInt8>
    var counters = Counters()

    struct Counters: BitwiseCopyable {
      var packets: UInt64 = 0
      var bytesScanned: UInt64 = 0
      var judged: UInt64 = 0
      var alerts: UInt64 = 0
      var packetsDropped: UInt64 = 0
      var retransmitted: UInt64 = 0
      var outOfOrder: UInt64 = 0
      var holesFilled: UInt64 = 0
      var searchesGivenUp: UInt64 = 0
      var foreignStates: UInt64 = 0
      var headsCut: UInt64 = 0
      var bodiesEncoded: UInt64 = 0
    }
  }

  public static let droppedByRule = DropReason.function(0)
  public static let flowDroppedByRule = DropReason.function(1)
  public static let outOfOrder = DropReason.function(2)

  public static var dropReasons: [DropReasonDescription] {
    [
      .init(droppedByRule, "dropped-by-rule", "A rule of the intrusion prevention drops packets like this one."),
      .init(
        flowDroppedByRule, "flow-dropped-by-rule",
        "A rule of the intrusion prevention has dropped an earlier packet of this connection."),
      .init(
        outOfOrder, "ips-out-of-order", "The TCP segment is ahead of its stream; it will be inspected when it comes in order."),
    ]
  }

  public func makeSharedState(for runtime: RuntimeShare) -> SharedState {
    let hasThresholds = (0..<program.rules.count).contains { program.rules[$0].threshold != nil }
    return SharedState(
      alerts: AlertRing(capacity: options.alertCapacity),
      thresholds: RuleThresholds(capacity: hasThresholds ? options.thresholdCapacity : 0),
      candidates: CandidateRules(capacity: program.rules.count),
      alertsByRule: FixedMemory(count: program.rules.count, repeating: 0),
      joined: FixedMemory(count: Self.mostMemory + 65_536, repeating: 0), head: HTTPHead(isNeeded: program.speaksOfHTTP),
      body: FixedMemory(count: program.speaksOfHTTP ? Self.mostMemory + 65_536 : 0, repeating: 0))
  }

  public func makeFlowState() -> FlowState { IntrusionPreventionState(fingerprint: program.fingerprint) }

  /// A state of other rules means nothing here; the connection goes on as one met in its middle.
  ///
  /// - Returns: whether it was one.
  @discardableResult
  func adopt(_ flow: inout FlowState, _ shared: inout SharedState) -> Bool {
    guard flow.fingerprint != program.fingerprint else { return false }
    shared.counters.foreignStates &+= 1
    flow = makeFlowState()
    return true
  }

  public func flowMigratesIn(_ flow: inout FlowState, shared: inout SharedState) { adopt(&flow, &shared) }
  public func flowRecovers(_ flow: inout FlowState, shared: inout SharedState) { adopt(&flow, &shared) }

  /// Bytes that are kept of a flow's streams at most.
  static let mostMemory = 8_192

  // MARK: Alerts

  /// Takes the alerts that wait, oldest first.
  public func takeAlerts(from shared: inout SharedState) -> [RuleAlert] {
    var alerts: [RuleAlert] = []
    while let alert = shared.alerts.ring.take() { alerts.append(alert) }
    return alerts
  }

  public func observe(_ shared: borrowing SharedState) -> [Observation] {
    let counters = shared.counters
    var observations = [
      Observation("ips.rules.loaded", UInt64(report.loaded)), Observation("ips.rules.refused", UInt64(report.refused.count)),
      Observation("ips.packets", counters.packets), Observation("ips.bytes.scanned", counters.bytesScanned),
      Observation("ips.rules.judged", counters.judged), Observation("ips.alerts", counters.alerts),
      Observation("ips.alerts.lost", shared.alerts.lost), Observation("ips.packets.dropped", counters.packetsDropped),
      Observation("ips.tcp.retransmitted", counters.retransmitted), Observation("ips.tcp.out-of-order", counters.outOfOrder),
      Observation("ips.tcp.holes-filled", counters.holesFilled), Observation("ips.searches.given-up", counters.searchesGivenUp),
      Observation("ips.thresholds.displaced", shared.thresholds.displaced),
      Observation("ips.flows.foreign", counters.foreignStates), Observation("ips.http.heads-cut", counters.headsCut),
      Observation("ips.http.bodies-encoded", counters.bodiesEncoded),
    ]
    for index in 0..<program.rules.count where shared.alertsByRule[index] > 0 {
      let rule = program.rules[index]
      observations.append(Observation("ips.alerts.\(rule.gid):\(rule.sid)", shared.alertsByRule[index]))
    }
    return observations
  }

  // MARK: Packets

  @inlinable @inline(__always)
  public func process(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    inspect(frame, &flow, &shared)
  }
}
