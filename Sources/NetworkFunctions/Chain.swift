import Wire

/// Two functions in sequence are again a function.
///
/// The forward direction meets `first`, then `rest`; the reverse direction the other way round. The flow
/// state of a chain is one flat struct: exactly what a migration sends. Because the whole chain is one
/// type, the compiler opens it up into one loop body (`Firewall(...).then(NAT(...))`).
public struct Chain<First: NetworkFunction, Rest: NetworkFunction>: NetworkFunction {
  public struct FlowState: BitwiseCopyable, Sendable {
    public var first: First.FlowState
    public var rest: Rest.FlowState

    @inlinable init(first: First.FlowState, rest: Rest.FlowState) {
      self.first = first
      self.rest = rest
    }
  }

  public struct SharedState {
    public var first: First.SharedState
    public var rest: Rest.SharedState
  }

  public let first: First
  public let rest: Rest

  @inlinable public init(_ first: First, _ rest: Rest) {
    self.first = first
    self.rest = rest
  }

  public static var layoutVersion: UInt16 { First.layoutVersion &* 257 &+ Rest.layoutVersion }
  public static var dropReasons: [DropReasonDescription] {
    First.dropReasons + Rest.dropReasons.map { $0.shifted(by: First.dropReasons.count) }
  }

  public func makeSharedState(for runtime: RuntimeShare) -> SharedState {
    SharedState(first: first.makeSharedState(for: runtime), rest: rest.makeSharedState(for: runtime))
  }

  @inlinable public func makeFlowState() -> FlowState {
    FlowState(first: first.makeFlowState(), rest: rest.makeFlowState())
  }

  @inlinable public func freeFlowState(_ flow: inout FlowState) {
    first.freeFlowState(&flow.first)
    rest.freeFlowState(&flow.rest)
  }

  @inlinable @inline(__always)
  public func process(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    switch frame.direction {
    case .forward:
      let verdict = first.process(&frame, flow: &flow.first, shared: &shared.first)
      return verdict == .forward ? processRest(&frame, flow: &flow.rest, shared: &shared.rest) : verdict
    case .reverse:
      let verdict = processRest(&frame, flow: &flow.rest, shared: &shared.rest)
      return verdict == .forward ? first.process(&frame, flow: &flow.first, shared: &shared.first) : verdict
    }
  }

  @inlinable @inline(__always)
  func processRest(_ frame: inout Frame, flow: inout Rest.FlowState, shared: inout Rest.SharedState) -> Verdict {
    switch rest.process(&frame, flow: &flow, shared: &shared) {
    case .forward: .forward
    case .drop(let reason): .drop(reason.shifted(by: First.dropReasons.count))
    }
  }

  @inlinable @inline(__always)
  public func foresee(_ frame: borrowing Frame, shared: inout SharedState) {
    first.foresee(frame, shared: &shared.first)
    rest.foresee(frame, shared: &shared.rest)
  }

  @inlinable @inline(__always)
  public func foreseeEnd(_ flow: inout FlowState, shared: inout SharedState) {
    first.foreseeEnd(&flow.first, shared: &shared.first)
    rest.foreseeEnd(&flow.rest, shared: &shared.rest)
  }

  public func processError(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    let isForward = frame.direction == .forward
    let verdict =
      isForward
      ? first.processError(&frame, flow: &flow.first, shared: &shared.first)
      : shifted(rest.processError(&frame, flow: &flow.rest, shared: &shared.rest))
    guard verdict == .forward else { return verdict }
    return isForward
      ? shifted(rest.processError(&frame, flow: &flow.rest, shared: &shared.rest))
      : first.processError(&frame, flow: &flow.first, shared: &shared.first)
  }

  private func shifted(_ verdict: Verdict) -> Verdict {
    guard case .drop(let reason) = verdict else { return verdict }
    return .drop(reason.shifted(by: First.dropReasons.count))
  }

  @inlinable public func flowExpires(_ flow: inout FlowState, shared: inout SharedState, now: Tick) {
    first.flowExpires(&flow.first, shared: &shared.first, now: now)
    rest.flowExpires(&flow.rest, shared: &shared.rest, now: now)
  }

  @inlinable public func flowMigratesOut(_ flow: inout FlowState, shared: inout SharedState) {
    first.flowMigratesOut(&flow.first, shared: &shared.first)
    rest.flowMigratesOut(&flow.rest, shared: &shared.rest)
  }

  @inlinable public func flowMigratesIn(_ flow: inout FlowState, shared: inout SharedState) {
    first.flowMigratesIn(&flow.first, shared: &shared.first)
    rest.flowMigratesIn(&flow.rest, shared: &shared.rest)
  }

  @inlinable public func flowRecovers(_ flow: inout FlowState, shared: inout SharedState) {
    first.flowRecovers(&flow.first, shared: &shared.first)
    rest.flowRecovers(&flow.rest, shared: &shared.rest)
  }

  public func countBorrowed(_ shared: inout SharedState, _ count: (_ share: Int, _ flows: Int) -> Void) {
    first.countBorrowed(&shared.first, count)
    rest.countBorrowed(&shared.rest, count)
  }

  // A place in a chain is a path: the lowest bit says `first` or `rest`, those above it the place in there.

  public func takeReturn(_ shared: inout SharedState) -> SharedReturn? {
    if var returned = first.takeReturn(&shared.first) {
      returned.place <<= 1
      return returned
    }
    guard var returned = rest.takeReturn(&shared.rest) else { return nil }
    returned.place = returned.place << 1 | 1
    return returned
  }

  public func takeBack(_ returned: SharedReturn, shared: inout SharedState) -> Bool {
    var inner = returned
    inner.place >>= 1
    return returned.place & 1 == 0 ? first.takeBack(inner, shared: &shared.first) : rest.takeBack(inner, shared: &shared.rest)
  }

  public func observe(_ shared: borrowing SharedState) -> [Observation] {
    first.observe(shared.first) + rest.observe(shared.rest)
  }

  public var opensFromServerSide: Bool { first.opensFromServerSide || rest.opensFromServerSide }

  public var growth: Int { first.growth + rest.growth }

  /// Of the first function that has some.
  public var serverSideEndpoints: ServerSideEndpoints? { first.serverSideEndpoints ?? rest.serverSideEndpoints }

  public func accept(_ visitor: inout some FunctionVisitor, shared: inout SharedState) {
    first.accept(&visitor, shared: &shared.first)
    rest.accept(&visitor, shared: &shared.rest)
  }
}

extension NetworkFunction {
  /// This function, then `next`: `firewall.then(nat).then(loadBalancer)`.
  @inlinable public func then<Next: NetworkFunction>(_ next: Next) -> Chain<Self, Next> { Chain(self, next) }
}
