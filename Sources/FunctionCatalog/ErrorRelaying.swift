import NetworkFunctions
import Wire

/// A function that knows what to do with an ICMP error about a packet of one of its flows.
///
/// An error belongs to the flow of the packet that it quotes (`ICMPError.answerKey`), not to one of its own. It
/// meets the chain as an answer to that packet would, and tells nothing about the flow's liveliness: neither
/// is a timer refreshed by it nor a connection ended (RFC 5508 REQ-6, RFC 5927).
public protocol ErrorRelaying: NetworkFunction {
  /// Handles an error that found its flow; `frame.direction` is the way that the error travels.
  func processError(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict
}

extension Chain: ErrorRelaying where First: ErrorRelaying, Rest: ErrorRelaying {
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
}

extension Firewall: ErrorRelaying {
  /// Passes with an admitted flow; of TCP, only if the quoted segment can still be on its way (RFC 5927 §4.1).
  public func processError(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    guard flow.generation == shared.generation, let error = ICMPError(frame) else { return .drop(Firewall.icmpErrorUnrelated) }
    if let sequence = error.tcpSequence {
      // The quoted segment went the other way.
      guard flow.connection.isOnItsWay(sequence, from: flow.way(frame.direction.opposite)) else {
        return .drop(Firewall.icmpErrorUnrelated)
      }
    }
    return .forward
  }
}

extension NAT: ErrorRelaying {
  /// From outside, the client's endpoint is put back into the quotation and into the destination; from the client's
  /// side the external one, and the error seems to come from there, whoever inside sent it (RFC 5508 REQ-4, REQ-5).
  public func processError(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    guard flow.phase == FlowState.Phase.translating, let error = ICMPError(frame), !error.isIPv6 else {
      return .drop(NAT.icmpErrorUnrelated)
    }
    switch frame.direction {
    case .reverse:
      guard error.source.ipv4 == flow.external, error.sourcePort == flow.externalPort else {
        return .drop(NAT.icmpErrorUnrelated)
      }
      error.rewriteSource(flow.client, port: flow.clientPort)
      frame.rewriteDestination(flow.client, port: 0)
    case .forward:
      guard error.destination.ipv4 == flow.client, error.destinationPort == flow.clientPort else {
        return .drop(NAT.icmpErrorUnrelated)
      }
      error.rewriteDestination(flow.external, port: flow.externalPort)
      frame.rewriteSource(flow.external, port: 0)
    }
    shared.errorsRelayed &+= 1
    return .forward
  }
}

extension LoadBalancer: ErrorRelaying {
  /// What is quoted towards a client names the virtual address, as does the error's source; towards a backend
  /// both name the backend.
  public func processError(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    guard flow.phase == FlowState.Phase.balanced else { return .forward }
    guard let error = ICMPError(frame), !error.isIPv6 else { return .drop(LoadBalancer.icmpErrorUnrelated) }
    switch frame.direction {
    case .reverse:
      guard error.destination.ipv4 == flow.backend, error.destinationPort == flow.backendPort else {
        return .drop(LoadBalancer.icmpErrorUnrelated)
      }
      error.rewriteDestination(flow.virtual, port: flow.virtualPort)
      frame.rewriteSource(flow.virtual, port: 0)
    case .forward:
      guard error.source.ipv4 == flow.virtual, error.sourcePort == flow.virtualPort else {
        return .drop(LoadBalancer.icmpErrorUnrelated)
      }
      error.rewriteSource(flow.backend, port: flow.backendPort)
      frame.rewriteDestination(flow.backend, port: 0)
    }
    return .forward
  }
}

/// A function that is handed ICMP errors among a flow's other packets, and tells them apart itself.
///
/// For a runtime that finds an error's flow and knows no other call than `process`, such as a test's.
public struct RelayingErrors<Function: ErrorRelaying>: NetworkFunction {
  public let function: Function
  public init(_ function: Function) { self.function = function }

  public static var layoutVersion: UInt16 { Function.layoutVersion }
  public static var dropReasons: [DropReasonDescription] { Function.dropReasons }
  public func makeSharedState(for runtime: RuntimeShare) -> Function.SharedState { function.makeSharedState(for: runtime) }
  public func makeFlowState() -> Function.FlowState { function.makeFlowState() }
  public func freeFlowState(_ flow: inout Function.FlowState) { function.freeFlowState(&flow) }

  public func process(_ frame: inout Frame, flow: inout Function.FlowState, shared: inout Function.SharedState) -> Verdict {
    frame.icmpType != nil && !frame.isICMPEchoRequest && !frame.isICMPEchoReply
      ? function.processError(&frame, flow: &flow, shared: &shared) : function.process(&frame, flow: &flow, shared: &shared)
  }

  public func flowExpires(_ flow: inout Function.FlowState, shared: inout Function.SharedState) {
    function.flowExpires(&flow, shared: &shared)
  }
  public func flowMigratesOut(_ flow: inout Function.FlowState, shared: inout Function.SharedState) {
    function.flowMigratesOut(&flow, shared: &shared)
  }
  public func flowMigratesIn(_ flow: inout Function.FlowState, shared: inout Function.SharedState) {
    function.flowMigratesIn(&flow, shared: &shared)
  }
  public func flowRecovers(_ flow: inout Function.FlowState, shared: inout Function.SharedState) {
    function.flowRecovers(&flow, shared: &shared)
  }
  public func observe(_ shared: borrowing Function.SharedState) -> [Observation] { function.observe(shared) }
}
