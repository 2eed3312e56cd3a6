import ControlMessages
import NetworkFunctions
import Wire

/// Spreads the flows to a virtual address over the servers behind it.
///
/// ## Theory of operation
///
/// The first packet of a flow chooses the backend, by the fewest flows for its weight or by Maglev hashing; the
/// choice and both addresses are in the flow's own 16 bytes, so no table is looked at per packet.
///
///     client ──▶ forward: destination 10.1.0.100:80 becomes 10.2.0.11:80 ──▶ backend
///     client ◀── reverse: source becomes 10.1.0.100:80 again             ◀── backend
///
/// ## The counters
///
/// A backend's load is the number of flows that this runtime carries to it: +1 when one is opened, arrives
/// or is recovered, -1 when one expires or leaves. Their sum is at all times the number of balanced flows
/// here. Each runtime counts its own, and begins its search at a backend of its own, so that several
/// runtimes with few flows do not all choose the first one. A flow that arrives with a backend this runtime
/// has not been configured with keeps it, uncounted. The search is linear over the backends of one service,
/// once per flow.
///
/// ## Backends that come and go
///
/// A backend is `up`, `draining` or `down`; only one that is up gets new flows, and all keep theirs. Which they
/// are, and which services and backends there are, is a `LoadBalancerPlan`: a value that the control side makes, from
/// the configuration and from what its health checks say, and that replaces another between two bursts (`adopt`).
///
/// IPv6 services are those of `DualStackLoadBalancer`, which the catalog makes of the same settings where there is one: a flow's
/// state is three times as long there, which others need not carry.
///
/// Not supported: taking flows away from a dead backend.
///
/// Settings:
///
///     services:
///       - virtual: 10.1.0.100:80/tcp
///         policy: least-loaded   # or 'maglev'
///         backends: [10.2.0.11:80, {address: 10.2.0.12:80, weight: 2}, {address: 10.2.0.13:80, drain: true}]
///         health: {interval: 2s, timeout: 1s, rise: 2, fall: 3}   # no checks if left out
///       - virtual: "[2001:db8:1::100]:80/tcp"    # backends are of the same address family
///         backends: ["[2001:db8:2::11]:80", {address: "[2001:db8:2::12]:80", weight: 2}]
///     other: drop            # packets to no virtual address: 'drop' (if left out) or 'forward'
public struct LoadBalancer: NetworkFunction, Sendable {
  public enum Other: UInt8, Hashable, Sendable { case drop, forward }

  /// What it begins with; `SharedState.plan` says what there is now.
  public let services: [LoadBalancerService]
  public let other: Other

  public init(services: [LoadBalancerService], other: Other = .drop) {
    precondition(services.reduce(0) { $0 + $1.backends.count } <= 65_535, "a load balancer has at most 65535 backends")
    self.services = services
    self.other = other
  }

  public init(reader: SettingsReader) throws(SettingsError) {
    try reader.allow(["services", "other"])
    let services = try LoadBalancer.services(reader)
    let other = try reader.optional("other")?.choice(["drop": Other.drop, "forward": Other.forward]) ?? .drop
    self.init(services: services, other: other)
  }

  var hasIPv6Services: Bool { services.contains(where: \.isIPv6) }

  /// Reads `services`.
  public static func services(_ reader: SettingsReader) throws(SettingsError) -> [LoadBalancerService] {
    var services: [LoadBalancerService] = []
    let list = try reader.required("services")
    for item in try list.items() {
      let service = try LoadBalancerService(reader: item)
      guard !services.contains(where: { $0.name == service.name }) else { throw item.error("\(service.name) is a service twice") }
      services.append(service)
    }
    guard !services.isEmpty else { throw list.error("a load balancer needs at least one service") }
    guard services.count <= 1024, services.reduce(0, { $0 + $1.backends.count }) <= 65_535 else {
      throw list.error("at most 1024 services with at most 65535 backends together")
    }
    return services
  }

  // MARK: State

  /// 16 bytes.
  public struct FlowState: BitwiseCopyable, Sendable {
    public internal(set) var virtual = IPv4Address(0)
    public internal(set) var backend = IPv4Address(0)
    public internal(set) var virtualPort: UInt16 = 0
    public internal(set) var backendPort: UInt16 = 0
    /// Number of the backend among all of this runtime, from 1; 0 when it has none. Checked on arrival.
    @usableFromInline var number: UInt16 = 0
    @usableFromInline var phase: UInt8 = Phase.new
    @usableFromInline var protocolNumber: UInt8 = 0

    @usableFromInline
    enum Phase {
      @usableFromInline static let new: UInt8 = 0
      @usableFromInline static let balanced: UInt8 = 1
      /// To no virtual address, and let through unchanged.
      @usableFromInline static let other: UInt8 = 2
      /// Between IPv6 addresses, which are not in here.
      @usableFromInline static let balancedIPv6: UInt8 = 3
    }

    @inlinable init() {}
  }

  public struct SharedState {
    /// Flows of every backend, by its number in the plan.
    let flows: FixedMemory<UInt32>
    let share: Int
    public internal(set) var plan: LoadBalancerPlan
  }

  public static let noService = DropReason.function(0)
  public static let noBackend = DropReason.function(1)
  public static let icmpErrorUnrelated = DropReason.function(2)

  public static var dropReasons: [DropReasonDescription] {
    [
      .init(noService, "no-service", "The packet is to no virtual address of the load balancer."),
      .init(noBackend, "no-backend", "The service has no backend that takes new flows."),
      .init(icmpErrorUnrelated, "lb-icmp-error-unrelated", "An ICMP error that quotes no packet of its flow."),
    ]
  }

  public func makeSharedState(for runtime: RuntimeShare) -> SharedState {
    SharedState(
      flows: FixedMemory(count: LoadBalancerPlan.capacity(for: services), repeating: 0), share: runtime.index,
      plan: LoadBalancerPlan(services))
  }

  @inlinable public func makeFlowState() -> FlowState { FlowState() }

  // MARK: Packets

  @inlinable @inline(__always)
  public func process(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    if flow.phase != FlowState.Phase.balanced {
      let verdict = open(&frame, &flow, &shared)
      guard verdict == .forward, flow.phase == FlowState.Phase.balanced else { return verdict }
    }
    switch frame.direction {
    case .forward: frame.rewriteDestination(flow.backend, port: flow.backendPort)
    case .reverse: frame.rewriteSource(flow.virtual, port: flow.virtualPort)
    }
    return .forward
  }

  @usableFromInline @inline(never)
  func open(_ frame: inout Frame, _ flow: inout FlowState, _ shared: inout SharedState) -> Verdict {
    if flow.phase == FlowState.Phase.other { return .forward }
    // What the server side opens is to no virtual address.
    if frame.direction == .reverse {
      flow.phase = FlowState.Phase.other
      return .forward
    }
    guard frame.family == .ipv4, let index = service(of: frame, &shared) else {
      guard other == .forward else { return .drop(LoadBalancer.noService) }
      flow.phase = FlowState.Phase.other
      return .forward
    }
    let front = shared.plan.fronts[index]
    let chosen: Int? =
      switch front.policy {
      case .leastLoaded: leastLoaded(front, &shared)
      case .maglev: shared.plan.tables[index]?.backend(for: frame.fiveTuple)
      }
    guard let chosen else { return .drop(LoadBalancer.noBackend) }
    let candidate = shared.plan.candidates[Int(front.first) &+ chosen]
    flow.virtual = front.address
    flow.virtualPort = front.port
    flow.backend = candidate.address
    flow.backendPort = candidate.port
    flow.protocolNumber = front.protocolNumber
    flow.number = candidate.number &+ 1
    flow.phase = FlowState.Phase.balanced
    shared.flows[Int(candidate.number)] &+= 1
    return .forward
  }

  @inline(__always)
  func service(of frame: borrowing Frame, _ shared: inout SharedState) -> Int? {
    let (address, port, number) = (frame.fiveTuple.destination, frame.destinationPort, frame.protocolNumber)
    for index in 0..<shared.plan.fronts.count {
      let front = shared.plan.fronts[index]
      let differences = front.address.value ^ address.value | UInt32(front.port ^ port) | UInt32(front.protocolNumber ^ number)
      if differences == 0 { return index }
    }
    return nil
  }

  /// The position of the backend for which (flows + 1) / weight is smallest, compared without dividing.
  @inline(__always)
  func leastLoaded(_ front: LoadBalancerPlan.Front, _ shared: inout SharedState) -> Int? {
    let count = Int(front.count)
    guard count > 0 else { return nil }
    var position = shared.share < count ? shared.share : shared.share % count
    // A weight of 0 is never the better one, and always the worse.
    var best: (position: Int, load: UInt64, weight: UInt64) = (-1, 1, 0)
    for _ in 0..<count {
      let candidate = shared.plan.candidates[Int(front.first) &+ position]
      let (load, weight) = (UInt64(shared.flows[Int(candidate.number)]) &+ 1, UInt64(candidate.weight))
      let isBetter = load &* best.weight < best.load &* weight
      best = isBetter ? (position, load, weight) : best
      position &+= 1
      if position == count { position = 0 }
    }
    return best.position < 0 ? nil : best.position
  }

  // MARK: Counters

  public func flowExpires(_ flow: inout FlowState, shared: inout SharedState, now: Tick) { leave(&flow, &shared) }
  public func flowMigratesOut(_ flow: inout FlowState, shared: inout SharedState) { leave(&flow, &shared) }
  public func flowMigratesIn(_ flow: inout FlowState, shared: inout SharedState) { arrive(&flow, shared) }
  public func flowRecovers(_ flow: inout FlowState, shared: inout SharedState) { arrive(&flow, shared) }

  @inline(__always)
  func leave(_ flow: inout FlowState, _ shared: inout SharedState) {
    guard flow.number > 0 else { return }
    shared.flows[Int(flow.number) - 1] &-= 1
    flow.number = 0
  }

  private func arrive(_ flow: inout FlowState, _ shared: SharedState) {
    flow.number = 0
    guard flow.phase == FlowState.Phase.balanced else { return }
    count(&flow, from: IPAddress(flow.virtual), to: IPAddress(flow.backend), shared)
  }

  /// Counts a flow that arrived, if it has a backend that is known here.
  func count(_ flow: inout FlowState, from virtual: IPAddress, to backend: IPAddress, _ shared: SharedState) {
    for (service, numbers) in zip(shared.plan.services, shared.plan.numbers)
    where service.address == virtual && service.port == flow.virtualPort && service.protocolNumber == flow.protocolNumber {
      guard let position = service.backends.firstIndex(where: { $0.address == backend && $0.port == flow.backendPort })
      else { return }
      flow.number = numbers[position] &+ 1
      shared.flows[Int(numbers[position])] &+= 1
      return
    }
  }

  // MARK: Backends

  /// Puts another plan in the place of the present one. Called between two bursts, by the worker's thread.
  public func adopt(_ plan: LoadBalancerPlan, shared: inout SharedState) {
    var plan = plan
    exchange(&plan, shared: &shared)
  }

  /// The same, and hands back the plan that there was, to be freed elsewhere.
  public func exchange(_ plan: inout LoadBalancerPlan, shared: inout SharedState) {
    precondition(plan.numbers.allSatisfy { $0.allSatisfy { $0 < shared.flows.count } }, "every backend has a place to be counted")
    swap(&shared.plan, &plan)
  }

  /// Sets the state of a backend in every service that has it; `false` if none has.
  ///
  /// Makes the tables of those services anew, a few milliseconds each with Maglev: with traffic, make the plan
  /// elsewhere and `adopt` it.
  @discardableResult
  public func setState(
    of backend: LoadBalancerService.Backend, _ state: LoadBalancerPlan.BackendState, shared: inout SharedState
  ) -> Bool {
    var plan = shared.plan
    guard plan.setState(of: backend, state) else { return false }
    adopt(plan, shared: &shared)
    return true
  }

  public func observe(_ shared: borrowing SharedState) -> [Observation] {
    let plan = shared.plan
    return plan.services.indices.flatMap { service in
      plan.services[service].backends.enumerated().flatMap { position, backend in
        let name = "load-balancer.\(plan.services[service].name).\(backend)"
        return [
          Observation("\(name).flows", UInt64(shared.flows[Int(plan.numbers[service][position])])),
          Observation("\(name).up", plan.states[service][position] == .up ? 1 : 0),
        ]
      }
    }
  }
}
