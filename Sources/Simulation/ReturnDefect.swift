import NetworkFunctions
import Wire

/// What must not happen to what flows give back to another runtime. The books have to show each.
public enum ReturnDefect: String, CaseIterable, Sendable {
  /// Every tenth is never sent.
  case forgetsSome
  /// Every third is sent twice.
  case sendsTwice
  /// The owner does not hear of any.
  case acceptsNone
}

/// A function whose returns are counted, and may have a defect; it is right in everything else.
struct CountingReturns<Function: NetworkFunction>: NetworkFunction {
  struct SharedState {
    var inner: Function.SharedState
    var taken: UInt64 = 0
    var accepted: UInt64 = 0
    var again: SharedReturn?
  }
  typealias FlowState = Function.FlowState

  let function: Function
  let defect: ReturnDefect?

  static var layoutVersion: UInt16 { Function.layoutVersion }
  static var dropReasons: [DropReasonDescription] { Function.dropReasons }
  func makeSharedState(for runtime: RuntimeShare) -> SharedState { SharedState(inner: function.makeSharedState(for: runtime)) }
  func makeFlowState() -> FlowState { function.makeFlowState() }
  func freeFlowState(_ flow: inout FlowState) { function.freeFlowState(&flow) }
  func process(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    function.process(&frame, flow: &flow, shared: &shared.inner)
  }
  func processError(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    function.processError(&frame, flow: &flow, shared: &shared.inner)
  }
  func flowExpires(_ flow: inout FlowState, shared: inout SharedState, now: Tick) {
    function.flowExpires(&flow, shared: &shared.inner, now: now)
  }
  func flowMigratesOut(_ flow: inout FlowState, shared: inout SharedState) {
    function.flowMigratesOut(&flow, shared: &shared.inner)
  }
  func flowMigratesIn(_ flow: inout FlowState, shared: inout SharedState) {
    function.flowMigratesIn(&flow, shared: &shared.inner)
  }
  func flowRecovers(_ flow: inout FlowState, shared: inout SharedState) { function.flowRecovers(&flow, shared: &shared.inner) }
  func observe(_ shared: borrowing SharedState) -> [Observation] {
    function.observe(shared.inner) + [
      Observation("returns.taken", shared.taken), Observation("returns.accepted", shared.accepted),
    ]
  }

  func takeReturn(_ shared: inout SharedState) -> SharedReturn? {
    if let again = shared.again {
      shared.again = nil
      return again
    }
    guard let returned = function.takeReturn(&shared.inner) else { return nil }
    shared.taken += 1
    switch defect {
    case .forgetsSome where shared.taken % 10 == 0: return nil
    case .sendsTwice where shared.taken % 3 == 0: shared.again = returned
    default: break
    }
    return returned
  }

  func takeBack(_ returned: SharedReturn, shared: inout SharedState) -> Bool {
    let isAccepted = defect == .acceptsNone || function.takeBack(returned, shared: &shared.inner)
    if isAccepted { shared.accepted += 1 }
    return isAccepted
  }
}
