import FlowActors
import NetworkFunctions
import Wire

// What replication asks of a runtime's flows, and how the flows of a runtime that died become flows of this one. A flow's
// functions learn of it by `flowRecovers`, once, before its first packet here; none has to do anything for it.

extension RuntimeCore: ReplicatedFlows {
  public var slotCount: Int { flows.capacity }

  public func isReplicable(_ slot: UInt32) -> Bool {
    flows[slot].isUsed && flows[slot].knowsReverse && flows[slot].actor.hasForwarded && flows[slot].phase.isServing
  }

  public func replicaWord(of slot: UInt32) -> UInt64 {
    ReplicaWord.make(actor: flows[slot].actor.travelling, timeoutClass: flows[slot].timeoutClass)
  }

  public func birth(of slot: UInt32) -> UInt16 { flows[slot].birth }

  @inline(__always)
  public func firstEnded(_ reader: EndsReader) -> UInt32? { flows.firstEnded(reader) }
  public mutating func passOverEnded(_ reader: EndsReader) { flows.passOverEnded(reader) }
}

extension RuntimeCore {
  /// The flow of a frame that belongs to a runtime that died, taken over now.
  mutating func recover(_ frame: borrowing Frame, now: Tick) -> (slot: UInt32, direction: Direction)? {
    guard let (index, place) = replicas.find(frame), takeOver(index, place, onDemand: true, now: now) else { return nil }
    return flows.find(frame)
  }

  mutating func recover(_ key: FlowKey, now: Tick) -> (slot: UInt32, direction: Direction)? {
    guard let (index, place) = replicas.find(key), takeOver(index, place, onDemand: true, now: now) else { return nil }
    return flows.find(key)
  }

  /// Takes over flows that no packet has asked for yet.
  ///
  /// - Returns: how many replicas were looked at.
  mutating func recoverSome(limit: Int, now: Tick) -> Int {
    var count = 0
    while count < limit, let (index, place) = replicas.next() {
      _ = takeOver(index, place, onDemand: false, now: now)
      count += 1
    }
    return count
  }

  private mutating func takeOver(_ index: Int, _ place: UInt32, onDemand: Bool, now: Tick) -> Bool {
    let slot = install(replicas[index].keys(of: place), index, place, now: now)
    replicas.settle(index, place, isServed: slot != nil, onDemand: onDemand)
    return slot != nil
  }

  private mutating func install(_ keys: FlowKeyPair, _ index: Int, _ place: UInt32, now: Tick) -> UInt32? {
    guard isNews(keys.forward), isNews(keys.reverse) else { return nil }
    let flow = replicas[index].travelling(place, now: now)
    let timeoutClass = min(flow.timeoutClass, TimeoutClass.other)
    guard let slot = flows.create(keys, actor: FlowActor(travelling: flow.actor), timeoutClass: timeoutClass, now: now) else {
      return nil
    }
    unsafe flows.state(slot).copyMemory(from: replicas[index].state(of: place).baseAddress!, byteCount: chain.stateSize)
    flows[slot].lastSeen = UInt32(truncatingIfNeeded: now.milliseconds) &- flow.idleMilliseconds
    unsafe chain.tell(.recovers, state: flows.state(slot))
    counters.flowsRecovered &+= 1
    return slot
  }
}
