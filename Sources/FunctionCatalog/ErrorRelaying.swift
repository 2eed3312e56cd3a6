// What the functions do with an ICMP error about a packet of one of their flows: see `NetworkFunction.processError`.

import NetworkFunctions
import Wire

extension Firewall {
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

extension NAT {
  /// From outside, the client's endpoint is put back into the quotation and into the destination; from the client's
  /// side the external one, and the error seems to come from there, whoever inside sent it (RFC 5508 REQ-4, REQ-5).
  public func processError(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    if flow.phase == FlowState.Phase.passing { return .forward }
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

extension LoadBalancer {
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
