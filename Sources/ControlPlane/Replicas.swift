import ControlMessages

// Replicas of the control plane know each other from their beacons in the log. What they know only says who writes
// first; what is written does not depend on it.

extension ClusterState {
  public struct Replica: Hashable, Sendable {
    public let producer: ProducerID
    public package(set) var lastHeard: UInt64
    /// The newest decision rules it can follow.
    public package(set) var rules: UInt32

    package init(producer: ProducerID, lastHeard: UInt64, rules: UInt32) {
      self.producer = producer
      self.lastHeard = lastHeard
      self.rules = rules
    }
  }

  static let maximumReplicas = 16
  /// Beacons come every 100 ms.
  static let replicaSilence: UInt64 = 500

  /// Those heard lately, ascending by name.
  public var liveReplicas: [Replica] { replicas.filter { clock.elapsed - $0.lastHeard <= Self.replicaSilence } }

  /// How many live replicas write before `producer` does.
  public func rank(of producer: ProducerID) -> Int { liveReplicas.count { $0.producer < producer } }

  /// The rules that `rulesActivated` should name now; nil when all living replicas follow what is in force.
  public var activatableRules: UInt32? {
    guard let common = liveReplicas.map(\.rules).min() else { return nil }
    let newest = min(common, DecisionRules.newest)
    return newest > rules ? newest : nil
  }

  mutating func heard(replica producer: ProducerID, rules: UInt32) {
    if let index = replicas.firstIndex(where: { $0.producer == producer }) {
      replicas[index].lastHeard = clock.elapsed
      replicas[index].rules = rules
      return
    }
    if replicas.count == Self.maximumReplicas {
      guard let oldest = replicas.indices.min(by: { replicas[$0].lastHeard < replicas[$1].lastHeard }) else { return }
      replicas.remove(at: oldest)
    }
    let place = replicas.firstIndex { producer < $0.producer } ?? replicas.count
    replicas.insert(Replica(producer: producer, lastHeard: clock.elapsed, rules: rules), at: place)
  }
}

extension ProducerID {
  /// Whether it is named as coordinators are.
  var isCoordinator: Bool { name.utf8.starts(with: "coordinator/".utf8) }
}
