// Three replicas and a bad bus, by seeds; and what is broken on purpose is noticed.
import ControlMessages
import ControlPlane
import Testing

@Suite struct ReplicaTests {
  @Test(arguments: 1...8 as ClosedRange<UInt64>)
  func `whatever happens to replicas and bus, each command is there once, and all come to the same`(seed: UInt64) {
    let simulation = ReplicaSimulation.run(seed: seed)
    #expect(simulation.violations == [], "ReplicaSimulation.run(seed: \(seed))")
    #expect(simulation.slots > 30 && simulation.kills + simulation.pauses > 5 && simulation.stalls > 0)
    #expect(simulation.copies > 0, "nobody ever wrote a slot twice: the harm is too little")
    // Two hedges, the bus's four milliseconds, and a turn at either end.
    #expect(simulation.delays.count > 5)
    #expect(simulation.delays.allSatisfy { $0 <= 2 * ReplicaSimulation.hedge + 4 + 2 }, "\(simulation.delays)")
  }

  @Test(arguments: [1, 2]) func `one replica or two come through the same`(replicas: Int) {
    let simulation = ReplicaSimulation.run(seed: 11, replicas: replicas)
    #expect(simulation.violations == [])
    #expect(simulation.slots > 20)
  }

  @Test(arguments: Mutant.allCases) func `what is broken on purpose is noticed`(mutant: Mutant) {
    let isNoticed = (1...8 as ClosedRange<UInt64>).contains { seed in
      let simulation = ReplicaSimulation.run(seed: seed, seconds: 20, mutant: mutant)
      return !simulation.violations.isEmpty || simulation.delays.contains { $0 > 2 * ReplicaSimulation.hedge + 6 }
    }
    #expect(isNoticed)
  }

  @Test func `the rank is the order of those heard lately`() {
    var simulation = ClusterStory()
    let names = ["b", "a", "c"].map { ProducerID.coordinator(HostID($0)!) }
    func beacon() -> Event.Body { .beacon(Beacon(position: nil, stateHash: 0, logHash: 0, rules: 2)) }
    for name in names { simulation.say(beacon(), by: name) }
    #expect(names.map { simulation.core.state.rank(of: $0) } == [1, 0, 2])
    for _ in 0..<6 { for name in names where name != names[1] { simulation.say(beacon(), by: name, after: 50) } }
    #expect(names.map { simulation.core.state.rank(of: $0) } == [0, 0, 1], "the silent one counts itself only")
  }

  @Test func `the odd one out falls silent, and of two the first by name goes on`() {
    let own = ProducerID.coordinator(HostID("m")!)
    func objection(_ others: [(name: String, isEqual: Bool)]) -> Agreement.Disagreement? {
      var core = ClusterCore(cluster: Samples.cluster)
      var agreement = Agreement(own: own)
      var offset: UInt64 = 0
      func record(_ body: Event.Body, by producer: ProducerID) -> EventRecord {
        defer { offset += 1 }
        return EventRecord(
          offset: Offset(offset), timestamp: Timestamp(milliseconds: 1_000 + offset),
          event: Event(producer: producer, incarnation: Incarnation(1), sequence: offset + 1, body: body))
      }
      let first = record(.clusterApplied(Samples.spec), by: .tool(1))
      _ = core.apply(first)
      agreement.note(core, first)
      let hash = core.hash.value, logHash = core.logHash.value
      for other in others {
        let beacon = Beacon(position: Offset(0), stateHash: other.isEqual ? hash : hash &+ 1, logHash: logHash, rules: 2)
        let next = record(.beacon(beacon), by: .coordinator(HostID(other.name)!))
        _ = core.apply(next)
        agreement.note(core, next)
      }
      return agreement.objection(among: core.state.liveReplicas)
    }
    #expect(objection([("a", true), ("z", true)]) == nil)
    #expect(objection([("a", true), ("z", false)]) == nil, "the other one is odd")
    #expect(objection([("a", false), ("z", false)])?.isOfLogs == false)
    #expect(objection([("z", false)]) == nil)
    #expect(objection([("a", false)]) != nil)
  }
}
