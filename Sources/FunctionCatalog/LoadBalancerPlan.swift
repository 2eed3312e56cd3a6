import Wire

/// Which backends get new flows, and what follows from that for Maglev's tables: a value that replaces another
/// between two bursts (`LoadBalancer.adopt`).
public struct LoadBalancerPlan: Sendable {
  public enum BackendState: UInt8, Hashable, Sendable, CaseIterable {
    /// Gets new flows.
    case up
    /// Gets none because somebody wants it so; what it has shall finish.
    case draining
    /// Gets none because it does not answer.
    case down
  }

  /// By service and position of the backend.
  public private(set) var states: [[BackendState]]
  /// By service; `nil` where another policy chooses or no backend is left.
  private(set) var tables: [MaglevTable?]

  /// All backends are up.
  public init(_ services: [LoadBalancerService]) {
    states = services.map { $0.backends.map { _ in .up } }
    tables = services.map { _ in nil }
    for index in services.indices { makeTable(index, services) }
  }

  /// Sets the state of a backend, told by address and port, in every service that has it; `false` if none has.
  public mutating func setState(
    of backend: LoadBalancerService.Backend, _ state: BackendState, _ services: [LoadBalancerService]
  ) -> Bool {
    var isKnown = false
    for (index, service) in services.enumerated() {
      let position = service.backends.firstIndex { $0.address == backend.address && $0.port == backend.port }
      guard let position else { continue }
      isKnown = true
      guard states[index][position] != state else { continue }
      states[index][position] = state
      makeTable(index, services)
    }
    return isKnown
  }

  private mutating func makeTable(_ index: Int, _ services: [LoadBalancerService]) {
    let service = services[index]
    guard service.policy == .maglev else { return }
    tables[index] = MaglevTable(
      zip(service.backends, states[index]).map { backend, state in
        MaglevTable.Candidate(
          name: UInt64(backend.address.value) << 16 | UInt64(backend.port), weight: state == .up ? Int(backend.weight) : 0)
      })
  }
}
