import CIntrinsics
import FixedContainers
import FlowActors
import ModuleGraphs
import NetworkFunctions
import Wire

/// A runtime's packet path: a burst goes in, and comes out rewritten or dropped.
///
///     parse all ─▶ hash all, ask for buckets ─▶ ask for actors and states ─▶ find, open ─▶ chain, in runs ─▶ learn
///
/// The chain runs over as many frames at once as it may: a *run* ends where two frames of one flow travel in
/// opposite directions, or where a frame belongs to a flow opened in the same run. So whatever comes out is what
/// would have come out one frame at a time.
@safe
public struct RuntimeCore: ~Copyable {
  public internal(set) var flows: FlowStore<FlowActor>
  public let chain: ServiceChain
  public var counters = Counters()
  public var drops = DropCounters()

  private let rules: FlowRules
  private let phases = PhaseTable()
  private let opensFromServerSide: Bool
  /// Frames to be run through the chain together.
  private var run: UInt64 = 0
  private var runNumber: UInt32 = 1
  /// Whether the run has opened flows whose answers cannot be recognised yet.
  private var runOpenedFlows = false
  /// Sees every flow's end, before its state goes; for tools that keep totals.
  public var flowEnded: ((borrowing FlowStore<FlowActor>, UInt32) -> Void)?
  /// Sees every frame that found its flow, before the chain rewrites it; for the same tools.
  public var frameFound: ((borrowing Frame) -> Void)?

  /// Frames of this call whose flow is not served here: on its way here, or gone.
  private var detoured: UInt64 = 0
  /// Where packets that were held for their flow come in again.
  var returns: ReturningPackets?
  /// The time of the present pass, for what a migration asks.
  var moment = Tick.zero
  /// Records that are only notes of where a flow has gone.
  var departedNotes = 0
  /// Where the search for a flow that may leave goes on.
  var departureHand: UInt32 = 0
  /// Flows that have arrived and are to have a replica before that is acknowledged.
  var arrived: [UInt32] = []
  /// Who has recovered the flows of a source that died, while flows are given up that were on their way from it.
  var heirOfSource: UInt8?
  /// Other runtimes' flows that this one stands in for.
  var replicas: HeldReplicas

  public init(chain: ServiceChain, rules: FlowRules, seed: UInt64, now: Tick, memory: MemorySource) {
    self.chain = chain
    self.rules = rules
    replicas = HeldReplicas(chain: chain, rules: rules, seed: seed, memory: memory)
    opensFromServerSide = chain.opensFromServerSide
    flows = FlowStore(
      capacity: rules.capacity, ipv6Capacity: rules.ipv6Capacity, stateSize: chain.stateSize, seed: seed,
      timeouts: rules.timeouts + [FlowRules.departedTimeout], now: now, memory: memory)
  }

  /// Processes the live frames of `batch`; those still live afterwards are to be sent on, each in its `direction`.
  ///
  /// - Parameters:
  ///   - clientSide: frames that may open a flow or belong to a forward direction.
  ///   - serverSide: frames that may belong to a reverse direction. A frame can be in both sets: a capture
  ///     does not say which side a packet came from.
  /// - Returns: frames of flows that this runtime does not serve, in their `slot`: neither live nor dropped.
  @discardableResult
  public mutating func process(_ batch: PacketBatch, clientSide: UInt64, serverSide: UInt64, now: Tick) -> UInt64 {
    var burst = Burst(batch)
    detoured = 0
    var strangers: UInt64 = 0
    // Some are parsed, then those before them are looked up: by then their buckets are here, and what is asked for next comes
    // while others are parsed. A core has only some ten lines on their way at once.
    var (some, before) = (Self.some, UInt64(0))
    repeat {
      parse(&burst, some)
      strangers |= lookUp(burst, before)
      (some, before) = (some << UInt64(Self.some.nonzeroBitCount), some)
    } while before & batch.all != 0
    if strangers != 0 { foreseeOpening(burst, strangers & clientSide) }
    let milliseconds = UInt32(truncatingIfNeeded: now.milliseconds)
    PacketBatch.forEach(in: burst.live) { index in
      let bit: UInt64 = 1 << UInt64(truncatingIfNeeded: index)
      guard
        joinCandidate(burst[index], bit, clientSide: clientSide, serverSide: serverSide)
          || findFlow(&burst, index, bit, clientSide: clientSide, serverSide: serverSide, now: now)
      else { return }
      flows[burst[index].slot].lastSeen = milliseconds
      run |= bit
    }
    finishRun(&burst, now: now)
    batch.live = burst.live
    return detoured
  }

  // MARK: Parsing, and asking for memory

  /// The first frames of a burst that are parsed before any is looked up.
  private static var some: UInt64 { 0xff }

  /// Parses the live ones of `frames`, and asks for the buckets that their keys belong in.
  // It changes nothing here, nor do the two behind it: but what is lent for reading only is copied, all of it.
  @inline(never)
  private mutating func parse(_ burst: inout Burst, _ frames: UInt64) {
    let checksums = rules.checksums
    PacketBatch.forEach(in: burst.live & frames) { index in
      if let reason = burst[index].parse(checksums: checksums) {
        burst.drop(index, reason)
      } else if burst[index].family == .arp {
        burst.drop(index, .unexpectedARP)
      } else {
        burst[index].hash = flows.hash(burst[index])
        flows.prefetchBucket(burst[index].hash)
      }
    }
  }

  /// Notes for the live ones of `frames` the flows that their tags suggest, and asks for their records and states.
  ///
  /// - Returns: those whose tags suggest none.
  @inline(__always)
  private mutating func lookUp(_ burst: Burst, _ frames: UInt64) -> UInt64 {
    var strangers: UInt64 = 0
    PacketBatch.forEach(in: burst.live & frames) { index in
      if let (slot, direction) = flows.prefetchCandidate(burst[index].hash) {
        burst[index].slot = slot
        burst[index].direction = direction
      } else {
        strangers |= 1 << UInt64(truncatingIfNeeded: index)
      }
    }
    return strangers
  }

  /// Asks for what the flows will need that these frames may open.
  @inline(never)
  private mutating func foreseeOpening(_ burst: Burst, _ frames: UInt64) {
    guard flows.count < flows.capacity else { return }
    for ahead in 0..<frames.nonzeroBitCount { flows.prefetchVacancy(ahead) }
    unsafe chain.foresee(burst.frames, mask: frames)
  }

  // MARK: Flows of a burst

  /// Whether the flow found by its tag is the frame's, and goes on in this run: what nearly every frame meets.
  @inline(__always)
  private mutating func joinCandidate(_ frame: borrowing Frame, _ bit: UInt64, clientSide: UInt64, serverSide: UInt64) -> Bool {
    let slot = frame.slot
    guard slot != .max, flows.holds(frame, slot, frame.direction), flows[slot].actor.hasForwarded, flows[slot].phase.isServing
    else { return false }
    guard (frame.direction == .forward ? clientSide : serverSide) & bit != 0 else { return false }
    let mark = flows[slot].burstMark
    guard mark >> 1 != runNumber || mark & 1 == UInt32(frame.direction.rawValue) else { return false }
    flows[slot].burstMark = runNumber << 1 | UInt32(frame.direction.rawValue)
    return true
  }

  /// Gives the frame its flow and direction, opening one if it may; `false` when it was dropped.
  @inline(never)
  private mutating func findFlow(
    _ burst: inout Burst, _ index: Int, _ bit: UInt64, clientSide: UInt64, serverSide: UInt64, now: Tick
  ) -> Bool {
    var found = unsafe flows.find(at: burst.frames + index)
    if found == nil, replicas.isRecovering { found = recover(burst[index], now: now) }
    // An answer to a flow that this very run opened (a capture, a simultaneous open): its key is known when the
    // run is finished. It can only answer packets that have not left yet if the chain does not rewrite them,
    // so the plain reversed key tells.
    if found == nil, runOpenedFlows, serverSide & bit != 0, flows.findReversed(burst[index]) != nil {
      finishRun(&burst, now: now)
      found = unsafe flows.find(at: burst.frames + index)
    }
    // A second packet of a flow that this very run opened: only when the chain has passed the first is there a flow.
    if let (slot, _) = found, !flows[slot].actor.hasForwarded {
      finishRun(&burst, now: now)
      found = unsafe flows.find(at: burst.frames + index)
    }
    if let (slot, direction) = found {
      guard (direction == .forward ? clientSide : serverSide) & bit != 0 else {
        burst.drop(index, .noFlow)
        return false
      }
      guard flows[slot].phase.isServing else {
        burst[index].slot = slot
        burst[index].direction = direction
        burst.live &= ~bit
        detoured |= bit
        return false
      }
      // The same flow the other way round in this run: what came before goes first.
      let mark = flows[slot].burstMark
      if mark >> 1 == runNumber, mark & 1 != UInt32(direction.rawValue) { finishRun(&burst, now: now) }
      burst[index].slot = slot
      burst[index].direction = direction
      flows[slot].burstMark = runNumber << 1 | UInt32(direction.rawValue)
      return true
    }
    // An error is about a flow, and is none of its own.
    if burst[index].icmpType != nil, let error = ICMPError(burst[index]) { return relay(error, &burst, index, bit, now: now) }
    guard clientSide & bit != 0 || opensFromServerSide else {
      burst.drop(index, .noFlow)
      return false
    }
    guard rules.acceptsMidstream || burst[index].protocolNumber != IPProtocol.tcp || isConnectionStart(burst[index]) else {
      burst.drop(index, .notConnectionStart)
      return false
    }
    if clientSide & bit == 0 { return openFromServerSide(&burst, index, now: now) }
    if replicas.isHolding, replicas.isAhead(burst[index], now: now) {
      burst.drop(index, .awaitsRecovery)
      return false
    }
    guard let slot = open(&burst, index, now: now) else {
      counters.flowsRefused &+= 1
      burst.drop(index, .flowTableFull)
      return false
    }
    burst[index].slot = slot
    burst[index].direction = .forward
    flows[slot].burstMark = runNumber << 1
    runOpenedFlows = true
    return true
  }

  /// The first packet of a flow that the server side opens goes through the chain by itself: only then both keys of the
  /// flow are known, that of the answers being the one that the client side sends with.
  ///
  /// - Returns: always `false`: it takes no part in a run.
  private mutating func openFromServerSide(_ burst: inout Burst, _ index: Int, now: Tick) -> Bool {
    finishRun(&burst, now: now)
    let actor = FlowActor(burst[index], opener: .reverse)
    guard flows.findReversed(burst[index]) == nil else {
      burst.drop(index, .keyTaken)
      return false
    }
    let timeoutClass = TimeoutClass.of(burst[index].protocolNumber, actor.phase)
    var slot = flows.createFromServerSide(burst[index], actor: actor, timeoutClass: timeoutClass, now: now)
    if slot == nil, evict(for: burst[index], now: now) {
      slot = flows.createFromServerSide(burst[index], actor: actor, timeoutClass: timeoutClass, now: now)
    }
    guard let slot else {
      counters.flowsRefused &+= 1
      burst.drop(index, .flowTableFull)
      return false
    }
    counters.flowsCreated &+= 1
    unsafe chain.tell(.begins, state: flows.state(slot))
    burst[index].slot = slot
    burst[index].direction = .reverse
    guard unsafe chain.process(burst.frames, mask: 1 << UInt64(index), states: flows.states, stride: flows.stride) != 0 else {
      burst.live &= ~(1 << UInt64(index))
      end(slot, now: now)
      return false
    }
    guard flows.learnForward(burst[index], slot: slot) else {
      burst.drop(index, .keyTaken)
      end(slot, now: now)
      return false
    }
    flows[slot].actor.hasForwarded = true
    return false
  }

  /// An ICMP error goes the way of an answer to the packet that it quotes: by itself, after what came before it, and
  /// leaves flow and timers as they are.
  ///
  /// - Returns: always `false`: it takes no part in a run.
  private mutating func relay(_ error: borrowing ICMPError, _ burst: inout Burst, _ index: Int, _ bit: UInt64, now: Tick) -> Bool
  {
    finishRun(&burst, now: now)
    var found = flows.find(error.answerFlowKey)
    if found == nil, replicas.isRecovering { found = recover(error.answerFlowKey, now: now) }
    guard let (slot, direction) = found else {
      burst.drop(index, .icmpErrorWithoutFlow)
      return false
    }
    burst[index].slot = slot
    burst[index].direction = direction
    guard flows[slot].phase.isServing else {
      burst.live &= ~bit
      detoured |= bit
      return false
    }
    if unsafe !chain.processError(burst.frames + index, states: flows.states, stride: flows.stride) { burst.live &= ~bit }
    return false
  }

  @inline(__always)
  private func isConnectionStart(_ frame: borrowing Frame) -> Bool {
    frame.protocolNumber == IPProtocol.tcp && frame.tcpFlags.isDisjoint(with: [.ack, .rst, .fin]) && frame.tcpFlags.contains(.syn)
  }

  @inline(__always)
  private mutating func open(_ burst: inout Burst, _ index: Int, now: Tick) -> UInt32? {
    let actor = FlowActor(burst[index])
    let timeoutClass = TimeoutClass.of(burst[index].protocolNumber, actor.phase)
    var slot = flows.create(burst[index], actor: actor, timeoutClass: timeoutClass, now: now)
    if slot == nil {
      guard evict(for: burst[index], now: now) else { return nil }
      slot = flows.create(burst[index], actor: actor, timeoutClass: timeoutClass, now: now)
    }
    guard let slot else { return nil }
    counters.flowsCreated &+= 1
    unsafe chain.tell(.begins, state: flows.state(slot))
    return slot
  }

  /// Makes room: a connection that is closing has to go, or one that is half open and has had its time, but none that is in the
  /// present run.
  private mutating func evict(for frame: borrowing Frame, now: Tick) -> Bool {
    let patience = rules.halfOpenPatience
    let victim = flows.victim(for: frame, timeoutClass: TimeoutClass.tcpTransitory, sparing: runNumber, now: now) { actor, idle in
      actor.phase != .opening || idle >= patience
    }
    guard let slot = victim else { return false }
    counters.flowsEvicted &+= 1
    end(slot, now: now)
    return true
  }

  private mutating func end(_ slot: UInt32, now: Tick) {
    // What has left is another runtime's flow: only its record is still here.
    if flows[slot].phase == .settled {
      flowEnded?(flows, slot)
      unsafe chain.tell(.expires(now), state: flows.state(slot))
    }
    discard(slot)
  }

  /// Removes a record, without any hook.
  mutating func discard(_ slot: UInt32) {
    if flows[slot].phase.step == .departed { departedNotes -= 1 }
    flows.remove(slot)
  }

  // MARK: Runs

  /// Runs the collected frames through the chain and draws the consequences for their flows.
  private mutating func finishRun(_ burst: inout Burst, now: Tick) {
    guard run != 0 else { return }
    if let frameFound { PacketBatch.forEach(in: run) { frameFound(burst[$0]) } }
    let kept = unsafe chain.process(burst.frames, mask: run, states: flows.states, stride: flows.stride)
    var learning: UInt64 = 0
    PacketBatch.forEach(in: kept) { index in
      let slot = burst[index].slot
      if flows[slot].actor.follow(burst[index], phases) { setTimeout(slot, burst[index].protocolNumber, now: now) }
      flows[slot].actor.hasForwarded = true
      guard !flows[slot].knowsReverse else { return }
      // The frame's own hash has served its purpose.
      burst[index].hash = flows.prefetchReverse(burst[index])
      learning |= 1 << UInt64(truncatingIfNeeded: index)
    }
    learnReverse(&burst, learning, now: now)
    PacketBatch.forEach(in: run & ~kept) { index in
      let slot = burst[index].slot
      burst.live &= ~(1 << UInt64(truncatingIfNeeded: index))
      if flows[slot].isUsed, !flows[slot].actor.hasForwarded { end(slot, now: now) }
    }
    run = 0
    runNumber = (runNumber &+ 1) & 0x7fff_ffff
    runOpenedFlows = false
  }

  @inline(never)
  private mutating func setTimeout(_ slot: UInt32, _ protocolNumber: UInt8, now: Tick) {
    flows.setTimeoutClass(slot, TimeoutClass.of(protocolNumber, flows[slot].actor.phase), now: now)
  }

  /// Makes the flows of `frames`, as the chain has left them, known by the key of their answers. A flow whose
  /// answers would be taken for another's cannot be.
  private mutating func learnReverse(_ burst: inout Burst, _ frames: UInt64, now: Tick) {
    PacketBatch.forEach(in: frames) { index in
      let slot = burst[index].slot
      guard flows[slot].isUsed else {  // ended with an earlier frame of this loop
        burst.drop(index, .keyTaken)
        return
      }
      guard !flows[slot].knowsReverse, burst[index].direction == .forward,
        !flows.learnReverse(burst[index], hash: burst[index].hash, slot: slot), !displaceDeparted(burst[index])
      else { return }
      burst.drop(index, .keyTaken)
      end(slot, now: now)
    }
  }

  /// Makes a frame's flow known by the key of its answers where that is taken by the note of a flow that has left: what has
  /// come back from there belongs to this flow.
  private mutating func displaceDeparted(_ frame: borrowing Frame) -> Bool {
    guard let note = flows.findReversed(frame), flows[note].phase.step == .departed else { return false }
    discard(note)
    return flows.learnReverse(frame, hash: frame.hash, slot: frame.slot)
  }

  /// Counts the batch and what became of it: frames still live were sent on, every other was dropped for its reason.
  ///
  /// - Parameter consumed: frames that were for the node itself, or are held, or were sent after their flow.
  public mutating func settle(_ batch: PacketBatch, consumed: UInt64 = 0) {
    let lost = batch.all & ~batch.live & ~consumed
    counters.settle(batch, dropped: lost, consumed: consumed)
    let burst = Burst(batch)
    PacketBatch.forEach(in: lost) { drops.add(burst[$0].dropReason) }
  }

  // MARK: Time

  /// Ends flows that were idle for too long; looks at no more than `limit` timers.
  public mutating func expireIdle(now: Tick, limit: Int) -> Int {
    var fired = 0
    while fired < limit {
      let wanted = min(limit - fired, FlowStore<FlowActor>.longestAdvance)
      let some = flows.advance(to: now, limit: wanted)
      fired += some
      endIdle(now: now)
      if some < wanted { break }
    }
    counters.activeFlows = UInt64(flows.count - departedNotes)
    return fired
  }

  /// Ends the flows that the last look at the timers found idle.
  private mutating func endIdle(now: Tick) {
    flows.forEachIdle { unsafe chain.foreseeEnd(flows.state($0)) }
    while let slot = flows.nextIdle() {
      if flows[slot].phase.isPinned {
        flows.postpone(slot, now: now)
        continue
      }
      if flows[slot].phase == .settled { counters.flowsExpired &+= 1 }
      end(slot, now: now)
    }
  }
}

/// The rules of a runtime's flow table, as the worker uses them.
public struct FlowRules: Sendable {
  public var capacity = 65_536
  public var ipv6Capacity = 16_384
  /// Whether a TCP packet without SYN may open a flow.
  public var acceptsMidstream = false
  public var checksums = ChecksumPolicy.verify
  /// Idle timeouts in milliseconds, by `TimeoutClass`.
  public var timeouts: [UInt32] = [240_000, 7_440_000, 300_000, 60_000, 60_000]
  /// How long a connection that is half open has before it may have to make room, in milliseconds: TCP's first wait for an answer
  /// (RFC 6298 §2.1). Without it a flood of SYNs would leave none the time for its handshake.
  public var halfOpenPatience: UInt32 = 1_000
  /// How long after the last late packet the record of a flow that left is kept, in milliseconds.
  static var departedTimeout: UInt32 { 2_000 }

  public init() {}
}
