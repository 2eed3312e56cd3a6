import NetworkFunctions
import Wire

/// What the platform does between two bursts, for a test that drives a function through a `TestRuntime`: runs what the
/// test asks for before the next packet, on the function and its shared state.
final class Steering<Function: NetworkFunction> {
  fileprivate var pending: [(Function, inout Function.SharedState) -> Void] = []

  func betweenBursts(_ action: @escaping (Function, inout Function.SharedState) -> Void) { pending.append(action) }
}

struct Steered<Function: NetworkFunction>: NetworkFunction {
  let function: Function
  let steering: Steering<Function>

  init(_ function: Function, _ steering: Steering<Function>) {
    self.function = function
    self.steering = steering
  }

  static var dropReasons: [DropReasonDescription] { Function.dropReasons }
  func makeSharedState(for runtime: RuntimeShare) -> Function.SharedState { function.makeSharedState(for: runtime) }
  func makeFlowState() -> Function.FlowState { function.makeFlowState() }
  func process(_ frame: inout Frame, flow: inout Function.FlowState, shared: inout Function.SharedState) -> Verdict {
    for action in steering.pending { action(function, &shared) }
    steering.pending = []
    return function.process(&frame, flow: &flow, shared: &shared)
  }
  func flowExpires(_ flow: inout Function.FlowState, shared: inout Function.SharedState) {
    function.flowExpires(&flow, shared: &shared)
  }
  func flowMigratesOut(_ flow: inout Function.FlowState, shared: inout Function.SharedState) {
    function.flowMigratesOut(&flow, shared: &shared)
  }
  func flowMigratesIn(_ flow: inout Function.FlowState, shared: inout Function.SharedState) {
    function.flowMigratesIn(&flow, shared: &shared)
  }
  func flowRecovers(_ flow: inout Function.FlowState, shared: inout Function.SharedState) {
    function.flowRecovers(&flow, shared: &shared)
  }
  func observe(_ shared: borrowing Function.SharedState) -> [Observation] { function.observe(shared) }
}
