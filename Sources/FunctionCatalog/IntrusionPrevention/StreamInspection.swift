import NetworkFunctions
import Wire

/// Intrusion prevention with a memory for the streams of each flow (`StreamMemory`), for rules whose contents come in different
/// segments and for those that look into the parts of HTTP messages.
///
/// The rules, the counters and the alerts are those of `IntrusionPrevention`; a flow's state is larger by `room` bytes and the
/// notes that go with them.
public struct StreamInspection<let room: Int>: NetworkFunction {
  public let rules: IntrusionPrevention

  public init(_ rules: IntrusionPrevention) {
    precondition(room > 0 && room <= IntrusionPrevention.mostMemory, "no more is kept of a flow than there is room to look at")
    self.rules = rules
  }

  public struct FlowState: BitwiseCopyable, Sendable {
    var flow: IntrusionPreventionState
    var notes = FlowNotes()
    var bytes = InlineArray<room, UInt8>(repeating: 0)
  }

  public typealias SharedState = IntrusionPrevention.SharedState

  public static var dropReasons: [DropReasonDescription] { IntrusionPrevention.dropReasons }

  public func makeSharedState(for runtime: RuntimeShare) -> SharedState { rules.makeSharedState(for: runtime) }
  public func makeFlowState() -> FlowState { FlowState(flow: rules.makeFlowState()) }
  public func flowMigratesIn(_ flow: inout FlowState, shared: inout SharedState) { adopt(&flow, &shared) }
  public func flowRecovers(_ flow: inout FlowState, shared: inout SharedState) { adopt(&flow, &shared) }
  public func observe(_ shared: borrowing SharedState) -> [Observation] { rules.observe(shared) }
  public func accept(_ visitor: inout some FunctionVisitor, shared: inout SharedState) { visitor.visit(rules, shared: &shared) }

  private func adopt(_ flow: inout FlowState, _ shared: inout SharedState) {
    if rules.adopt(&flow.flow, &shared) { flow.notes = FlowNotes() }
  }

  public func process(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    unsafe withUnsafeMutablePointer(to: &flow) { state in
      let notes = unsafe withUnsafeMutablePointer(to: &state.pointee.notes) { unsafe $0 }
      let bytes = unsafe withUnsafeMutablePointer(to: &state.pointee.bytes) { UnsafeMutableRawPointer($0) }
      let memory = unsafe StreamMemory(notes, bytes.assumingMemoryBound(to: UInt8.self), count: room)
      return unsafe rules.inspect(frame, &state.pointee.flow, &shared, memory: memory)
    }
  }
}
