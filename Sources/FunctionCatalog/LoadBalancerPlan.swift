import Wire

/// What a load balancer balances now: services, which of their backends get new flows, and what follows from that for
/// Maglev's tables. A value that replaces another between two bursts (`LoadBalancer.adopt`).
///
/// Every backend of a service has a number, under which its flows are counted. It keeps the number for as long as the
/// runtime lives, also while it is in no service: flows that it has are counted off under it.
public struct LoadBalancerPlan: Sendable {
  public enum BackendState: UInt8, Hashable, Sendable, CaseIterable {
    /// Gets new flows.
    case up
    /// Gets none because somebody wants it so; what it has shall finish.
    case draining
    /// Gets none because it does not answer.
    case down
  }

  /// A backend of one service, whatever its weight.
  private struct Place: Hashable {
    let service: String
    let backend: String

    init(_ service: LoadBalancerService, _ backend: LoadBalancerService.Backend) {
      self.service = service.name
      self.backend = "\(backend)"
    }
  }

  public private(set) var services: [LoadBalancerService]
  /// By service and position of the backend.
  public private(set) var states: [[BackendState]]
  /// By service and position: where the flows are counted, from 0.
  private(set) var numbers: [[UInt16]]
  /// By service; `nil` where another policy chooses or no backend is left.
  private(set) var tables: [MaglevTable?]
  private var known: [Place: UInt16] = [:]

  /// A service, as a new flow looks for it. An IPv6 service has one, too, which no IPv4 packet is to: its port is 0.
  struct Front: BitwiseCopyable {
    let address: IPv4Address
    let port: UInt16
    let protocolNumber: UInt8
    let policy: LoadBalancerService.Policy
    /// Its backends are `count` candidates from `first` on.
    let first: UInt32
    let count: UInt32
  }

  /// A backend, as a new flow chooses it.
  struct Candidate: BitwiseCopyable {
    let address: IPv4Address
    let port: UInt16
    let number: UInt16
    /// 0 unless it gets new flows.
    let weight: UInt16
  }

  /// An IPv6 service, as a new flow looks for it.
  struct IPv6Front: BitwiseCopyable {
    let address: IPAddress
    let port: UInt16
    let protocolNumber: UInt8
    /// Its place among all services.
    let index: Int
  }

  /// What choosing reads of all this: plain values in two rows, where an array of arrays would be retained for every new flow.
  private(set) var fronts: [Front] = []
  private(set) var candidates: [Candidate] = []
  private(set) var ipv6Fronts: [IPv6Front] = []
  /// Of the candidates of IPv6 services; as many as candidates where there is such a service.
  private(set) var ipv6Addresses: [IPAddress] = []
  /// How many numbers there are to give, for all backends that there ever were.
  public let capacity: Int

  /// What a runtime that begins with these services sets aside.
  static func capacity(for services: [LoadBalancerService]) -> Int {
    min(65_535, max(1_024, services.reduce(0) { $0 + $1.backends.count } * 4))
  }

  /// Every backend is up, unless its settings say that it drains.
  public init(_ services: [LoadBalancerService]) {
    self.services = []
    capacity = Self.capacity(for: services)
    (states, numbers, tables) = ([], [], [])
    let isNumbered = change(to: services)
    precondition(isNumbered, "a load balancer has at most 65535 backends")
  }

  /// Goes over to other services. A backend that both have keeps its number, and its state unless its settings differ.
  ///
  /// - Returns: `false`, and no change, when there are not numbers for all.
  public mutating func change(to new: [LoadBalancerService]) -> Bool {
    var known = known
    for service in new {
      for backend in service.backends where known[Place(service, backend)] == nil {
        guard known.count < capacity else { return false }
        known[Place(service, backend)] = UInt16(known.count)
      }
    }
    self.known = known
    let old = self
    services = new
    numbers = new.map { service in service.backends.map { known[Place(service, $0)]! } }
    states = new.map { service in service.backends.map { old.state(of: $0, in: service) } }
    tables = new.map { _ in nil }
    for index in new.indices {
      let before = old.services.firstIndex { $0.name == new[index].name }
      if let before, old.services[before] == new[index], old.states[before] == states[index] {
        tables[index] = old.tables[before]
      } else {
        makeTable(index)
      }
    }
    prepareChoices()
    return true
  }

  private mutating func prepareChoices() {
    fronts = []
    candidates = []
    ipv6Fronts = []
    for (index, service) in services.enumerated() {
      fronts.append(
        Front(
          address: service.address.ipv4 ?? IPv4Address(0), port: service.isIPv6 ? 0 : service.port,
          protocolNumber: service.protocolNumber, policy: service.policy, first: UInt32(candidates.count),
          count: UInt32(service.backends.count)))
      if service.isIPv6 {
        ipv6Fronts.append(
          IPv6Front(address: service.address, port: service.port, protocolNumber: service.protocolNumber, index: index))
      }
      for (position, backend) in service.backends.enumerated() {
        candidates.append(
          Candidate(
            address: backend.address.ipv4 ?? IPv4Address(0), port: backend.port, number: numbers[index][position],
            weight: states[index][position] == .up ? backend.weight : 0))
      }
    }
    ipv6Addresses = ipv6Fronts.isEmpty ? [] : services.flatMap { $0.backends.map(\.address) }
  }

  private func state(of backend: LoadBalancerService.Backend, in service: LoadBalancerService) -> BackendState {
    let intended: BackendState = backend.isDraining ? .draining : .up
    guard let index = services.firstIndex(where: { $0.name == service.name }),
      let position = services[index].backends.firstIndex(where: { $0.isSameServer(as: backend) }),
      services[index].backends[position].isDraining == backend.isDraining
    else { return intended }
    return states[index][position]
  }

  /// Sets the state of a backend, told by address and port, in every service that has it; `false` if none has.
  @discardableResult
  public mutating func setState(of backend: LoadBalancerService.Backend, _ state: BackendState) -> Bool {
    var isKnown = false
    for index in services.indices { if setState(of: backend, in: index, state) { isKnown = true } }
    return isKnown
  }

  /// The same in one service, by its position.
  @discardableResult
  public mutating func setState(of backend: LoadBalancerService.Backend, in index: Int, _ state: BackendState) -> Bool {
    guard let position = services[index].backends.firstIndex(where: { $0.isSameServer(as: backend) }) else { return false }
    guard states[index][position] != state else { return true }
    states[index][position] = state
    makeTable(index)
    prepareChoices()
    return true
  }

  private mutating func makeTable(_ index: Int) {
    let service = services[index]
    guard service.policy == .maglev else { return }
    tables[index] = MaglevTable(
      zip(service.backends, states[index]).map { backend, state in
        MaglevTable.Candidate(
          name: MaglevTable.name(of: backend.address, port: backend.port), weight: state == .up ? Int(backend.weight) : 0)
      })
  }
}
