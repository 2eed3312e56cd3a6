import FlowActors
import NetworkFunctions
import Wire

// What migrations ask of a runtime's flows. A flow goes with its record and its state; its functions learn of it by
// `flowMigratesOut` and `flowMigratesIn`, once each, and no function has to do anything for it.

extension RuntimeCore: DepartingFlows {
  public mutating func choose() -> UInt32? {
    for _ in 0..<flows.capacity {
      let slot = departureHand
      departureHand = Int(slot) + 1 < flows.capacity ? slot + 1 : 0
      if flows[slot].isUsed, flows[slot].knowsReverse, flows[slot].phase == .settled, flows[slot].actor.hasForwarded {
        return slot
      }
    }
    return nil
  }

  public func keys(of slot: UInt32) -> FlowKeyPair { flows.keys(of: slot) }

  public func travelling(_ slot: UInt32, now: Tick) -> TravellingFlow {
    let idle = UInt32(truncatingIfNeeded: now.milliseconds) &- flows[slot].lastSeen
    return TravellingFlow(timeoutClass: flows[slot].timeoutClass, idleMilliseconds: idle, actor: flows[slot].actor.travelling)
  }

  public func state(of slot: UInt32) -> UnsafeRawBufferPointer {
    unsafe UnsafeRawBufferPointer(start: flows.state(slot), count: chain.stateSize)
  }

  public func foresee(_ slot: UInt32) { flows.foresee(slot) }

  public mutating func setPhase(_ phase: MigrationPhase, of slot: UInt32) { flows[slot].phase = phase }

  public mutating func depart(_ slot: UInt32, to peer: UInt8) {
    unsafe chain.tell(.migratesOut, state: flows.state(slot))
    flows[slot].phase = MigrationPhase(.departed, peer: peer)
    flows[slot].lastSeen = UInt32(truncatingIfNeeded: moment.milliseconds)
    flows.setTimeoutClass(slot, TimeoutClass.departed, now: moment)
    departedNotes += 1
    flows.noteEnd(of: slot)
    counters.flowsMigratedOut &+= 1
  }

  public mutating func yield(_ slot: UInt32) -> Bool {
    let keys = flows.keys(of: slot)
    guard replicas.find(keys.forward) != nil else { return false }
    unsafe chain.tell(.migratesOut, state: flows.state(slot))
    discard(slot)
    return true
  }
}

extension RuntimeCore: ArrivingFlows {
  public func foresee(_ keys: FlowKeyPair, ahead: Int, _ step: Foresight) {
    flows.foresee(keys, step)
    if step == .buckets { flows.prefetchVacancy(ahead) }
  }

  public mutating func expect(_ keys: FlowKeyPair, timeoutClass: UInt8, peer: UInt8, now: Tick) -> UInt32? {
    guard isNews(keys.forward), isNews(keys.reverse) else { return nil }
    guard timeoutClass < TimeoutClass.departed,
      let slot = flows.create(keys, actor: FlowActor(travelling: 0), timeoutClass: timeoutClass, now: now)
    else { return nil }
    flows[slot].phase = MigrationPhase(.arriving, peer: peer)
    return slot
  }

  /// Whether a key is not known here; a flow that was here before, and comes back, is forgotten.
  mutating func isNews(_ key: FlowKey) -> Bool {
    guard let (slot, _) = flows.find(key) else { return true }
    guard flows[slot].phase.step == .departed else { return false }
    discard(slot)
    return true
  }

  /// The flow's source has died. If its flows have an heir, packets that come here all the same are sent there.
  public mutating func forget(_ slot: UInt32) {
    guard let heirOfSource else { return flows.remove(slot) }
    flows[slot].phase = MigrationPhase(.departed, peer: heirOfSource)
    departedNotes += 1
    flows[slot].lastSeen = UInt32(truncatingIfNeeded: moment.milliseconds)
    flows.setTimeoutClass(slot, TimeoutClass.departed, now: moment)
  }

  public mutating func install(_ slot: UInt32, _ flow: TravellingFlow, state: UnsafeRawBufferPointer, now: Tick) {
    unsafe flows.state(slot).copyMemory(from: state.baseAddress!, byteCount: state.count)
    flows[slot].actor = FlowActor(travelling: flow.actor)
    flows[slot].lastSeen = UInt32(truncatingIfNeeded: now.milliseconds) &- flow.idleMilliseconds
    flows[slot].phase = .settled
    if flow.timeoutClass < TimeoutClass.departed { flows.setTimeoutClass(slot, flow.timeoutClass, now: now) }
    unsafe chain.tell(.migratesIn, state: flows.state(slot))
    counters.flowsMigratedIn &+= 1
    if flows.logsEnds { arrived.append(slot) }
  }

  public mutating func process(_ frame: UnsafeRawBufferPointer, side: UInt8, now: Tick) {
    unsafe returns?.put(frame, side: side, now: now)
  }
}
