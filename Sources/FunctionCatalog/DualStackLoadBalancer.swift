import NetworkFunctions
import Wire

/// A load balancer that has IPv6 services, too.
///
/// The same plan, counters, policies and states of backends as `LoadBalancer`, which serves the IPv4 flows; only what a flow
/// carries is longer, for two IPv6 addresses. The catalog makes this of a `load-balancer` with an IPv6 service.
public struct DualStackLoadBalancer: NetworkFunction, Sendable {
  public let ipv4: LoadBalancer

  public init(_ ipv4: LoadBalancer) { self.ipv4 = ipv4 }

  public init(services: [LoadBalancerService], other: LoadBalancer.Other = .drop) {
    self.init(LoadBalancer(services: services, other: other))
  }

  /// 48 bytes. Of an IPv6 flow `common` has the ports, the number and the phase.
  public struct FlowState: BitwiseCopyable, Sendable {
    @usableFromInline var common = LoadBalancer.FlowState()
    public internal(set) var virtual = IPAddress(high: 0, low: 0)
    public internal(set) var backend = IPAddress(high: 0, low: 0)

    @inlinable init() {}
  }

  public typealias SharedState = LoadBalancer.SharedState

  public static var dropReasons: [DropReasonDescription] { LoadBalancer.dropReasons }
  public func makeSharedState(for runtime: RuntimeShare) -> SharedState { ipv4.makeSharedState(for: runtime) }
  @inlinable public func makeFlowState() -> FlowState { FlowState() }

  // MARK: Packets

  @inlinable @inline(__always)
  public func process(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    guard flow.common.phase == LoadBalancer.FlowState.Phase.balanced else { return processOther(&frame, &flow, &shared) }
    return ipv4.process(&frame, flow: &flow.common, shared: &shared)
  }

  /// Any packet but those of balanced IPv4 flows.
  @usableFromInline @inline(never)
  func processOther(_ frame: inout Frame, _ flow: inout FlowState, _ shared: inout SharedState) -> Verdict {
    if flow.common.phase == LoadBalancer.FlowState.Phase.new, frame.family == .ipv6, frame.direction == .forward {
      let verdict = open(frame, &flow, &shared)
      guard verdict == .forward else { return verdict }
    }
    guard flow.common.phase == LoadBalancer.FlowState.Phase.balancedIPv6 else {
      return ipv4.process(&frame, flow: &flow.common, shared: &shared)
    }
    switch frame.direction {
    case .forward: frame.rewriteDestination(flow.backend, port: flow.common.backendPort)
    case .reverse: frame.rewriteSource(flow.virtual, port: flow.common.virtualPort)
    }
    return .forward
  }

  private func open(_ frame: borrowing Frame, _ flow: inout FlowState, _ shared: inout SharedState) -> Verdict {
    let (address, port, number) = (frame.destinationAddress, frame.destinationPort, frame.protocolNumber)
    let place = shared.plan.ipv6Fronts.firstIndex { $0.port == port && $0.address == address && $0.protocolNumber == number }
    guard let place else {
      guard ipv4.other == .forward else { return .drop(LoadBalancer.noService) }
      flow.common.phase = LoadBalancer.FlowState.Phase.other
      return .forward
    }
    let index = shared.plan.ipv6Fronts[place].index
    let front = shared.plan.fronts[index]
    let chosen: Int? =
      switch front.policy {
      case .leastLoaded: ipv4.leastLoaded(front, &shared)
      case .maglev: shared.plan.tables[index]?.backend(for: frame.ipv6FiveTuple)
      }
    guard let chosen else { return .drop(LoadBalancer.noBackend) }
    let candidate = shared.plan.candidates[Int(front.first) &+ chosen]
    flow.virtual = address
    flow.backend = shared.plan.ipv6Addresses[Int(front.first) &+ chosen]
    flow.common.virtualPort = port
    flow.common.backendPort = candidate.port
    flow.common.protocolNumber = number
    flow.common.number = candidate.number &+ 1
    flow.common.phase = LoadBalancer.FlowState.Phase.balancedIPv6
    shared.flows[Int(candidate.number)] &+= 1
    return .forward
  }

  /// As `LoadBalancer` does with IPv4.
  public func processError(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    guard flow.common.phase == LoadBalancer.FlowState.Phase.balancedIPv6 else {
      return ipv4.processError(&frame, flow: &flow.common, shared: &shared)
    }
    guard let error = ICMPError(frame), error.isIPv6 else { return .drop(LoadBalancer.icmpErrorUnrelated) }
    switch frame.direction {
    case .reverse:
      guard error.destination == flow.backend, error.destinationPort == flow.common.backendPort else {
        return .drop(LoadBalancer.icmpErrorUnrelated)
      }
      error.rewriteDestination(flow.virtual, port: flow.common.virtualPort)
      frame.rewriteSource(flow.virtual, port: 0)
    case .forward:
      guard error.source == flow.virtual, error.sourcePort == flow.common.virtualPort else {
        return .drop(LoadBalancer.icmpErrorUnrelated)
      }
      error.rewriteSource(flow.backend, port: flow.common.backendPort)
      frame.rewriteDestination(flow.backend, port: 0)
    }
    return .forward
  }

  // MARK: Counters

  public func flowExpires(_ flow: inout FlowState, shared: inout SharedState, now: Tick) { ipv4.leave(&flow.common, &shared) }
  public func flowMigratesOut(_ flow: inout FlowState, shared: inout SharedState) { ipv4.leave(&flow.common, &shared) }
  public func flowMigratesIn(_ flow: inout FlowState, shared: inout SharedState) { arrive(&flow, &shared) }
  public func flowRecovers(_ flow: inout FlowState, shared: inout SharedState) { arrive(&flow, &shared) }

  private func arrive(_ flow: inout FlowState, _ shared: inout SharedState) {
    guard flow.common.phase == LoadBalancer.FlowState.Phase.balancedIPv6 else {
      return ipv4.flowMigratesIn(&flow.common, shared: &shared)
    }
    flow.common.number = 0
    ipv4.count(&flow.common, from: flow.virtual, to: flow.backend, shared)
  }

  public func observe(_ shared: borrowing SharedState) -> [Observation] { ipv4.observe(shared) }

  /// Whoever changes plans knows `LoadBalancer` alone.
  public func accept(_ visitor: inout some FunctionVisitor, shared: inout SharedState) {
    visitor.visit(self, shared: &shared)
    visitor.visit(ipv4, shared: &shared)
  }
}
