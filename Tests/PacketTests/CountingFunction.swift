import NetworkFunctions
import Wire

/// The witness of what the platform promises a network function: counts packets of each flow, and the flows
/// that began, ended and were freed.
///
/// Writes into every packet how many came before it, in its direction and in both (where the source's link
/// address was), so that packets of one flow that overtook one another do not look the same. Refuses port 666.
struct CountingFunction: NetworkFunction {
  struct FlowState: BitwiseCopyable, Sendable {
    var forward: UInt16 = 0
    var reverse: UInt16 = 0
    var began: UInt32 = 0x600d
  }

  final class Books {
    var begun = 0
    var expired = 0
    var freed = 0
    var strangeStates = 0
  }

  static let refused = DropReason.function(0)
  static var dropReasons: [DropReasonDescription] { [.init(refused, "refused", "Port 666 is refused.")] }

  let books: Books

  func makeSharedState(for runtime: RuntimeShare) -> Books { books }

  func makeFlowState() -> FlowState {
    books.begun += 1
    return FlowState()
  }

  func freeFlowState(_ flow: inout FlowState) { books.freed += 1 }

  func flowExpires(_ flow: inout FlowState, shared: inout Books, now: Tick) {
    if flow.began != 0x600d { shared.strangeStates += 1 }
    shared.expired += 1
  }

  func process(_ frame: inout Frame, flow: inout FlowState, shared: inout Books) -> Verdict {
    if flow.began != 0x600d { shared.strangeStates += 1 }
    guard frame.destinationPort != 666 else { return .drop(Self.refused) }
    let count: UInt16
    switch frame.direction {
    case .forward:
      flow.forward &+= 1
      count = flow.forward
    case .reverse:
      flow.reverse &+= 1
      count = flow.reverse
    }
    frame.sourceMAC = MACAddress(UInt64(count) | UInt64(flow.forward &+ flow.reverse) << 16)
    return .forward
  }
}
