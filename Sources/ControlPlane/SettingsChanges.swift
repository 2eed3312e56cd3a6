import ControlMessages

// Settings of functions that change while their runtimes live, and what runtimes tell of the backends behind them.

extension ClusterState {
  /// Backends that are remembered per runtime.
  package static let maximumBackends = 1_024

  /// What a runtime's checks say of a backend.
  public struct Backend: Hashable, Sendable {
    public let service: String
    public let backend: String
    public package(set) var isUp: Bool
    public package(set) var reason: String
    public package(set) var since: Timestamp

    package init(service: String, backend: String, isUp: Bool, reason: String, since: Timestamp) {
      self.service = service
      self.backend = backend
      self.isUp = isUp
      self.reason = reason
      self.since = since
    }
  }

  /// Whether a chain can become another while its runtimes live.
  func canChange(_ old: ClusterSpec, to new: ClusterSpec) -> Bool {
    rules >= DecisionRules.liveSettings && old.chain.hasSameFixedSettings(as: new.chain)
  }

  /// The next decision about settings: to tell the runtimes that have older ones.
  func nextSettings() -> Decision? {
    guard rules >= DecisionRules.liveSettings, settingsTold < settingsVersion, !isDeleted,
      nodes.contains(where: { $0.kind == .runtime && $0.isAlive && $0.settingsVersion < settingsVersion })
    else { return nil }
    return .changeSettings(settingsVersion)
  }

  mutating func changeSettings(_ version: UInt64, _ slot: Slot) -> Order? {
    guard let spec, version == settingsVersion else { return nil }
    settingsTold = version
    settingsSlot = slot
    return Order(
      target: .cluster, patience: Patience.launch, reason: "settings \(version) of the chain were applied",
      body: .changeSettings(SettingsChange(version: version, functions: spec.chain.functions)))
  }

  /// A runtime's answer to a change of settings, if it is one.
  mutating func noteSettings(of node: NodeID, _ acknowledgement: CommandAcknowledgement) {
    guard acknowledgement.slot == settingsSlot, settingsSlot != .none, let index = nodeIndex(node) else { return }
    switch acknowledgement.outcome {
    case .applied:
      nodes[index].settingsVersion = settingsTold
      nodes[index].settingsProblem = ""
    case .rejected(let reason): nodes[index].settingsProblem = reason
    case .received, .progress, .completed: break
    }
  }

  mutating func note(_ change: BackendChanged, by incarnation: Incarnation) {
    guard let index = nodeIndex(change.node, incarnation) else { return misdirected() }
    let place = nodes[index].backends.firstIndex { $0.service == change.service && $0.backend == change.backend }
    let backend = Backend(
      service: change.service, backend: change.backend, isUp: change.isUp, reason: change.reason, since: clock.now)
    if let place {
      nodes[index].backends[place] = backend
    } else if nodes[index].backends.count < Self.maximumBackends {
      nodes[index].backends.append(backend)
    }
  }
}
