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
  public private(set) var flows: FlowStore<FlowActor>
  public let chain: ServiceChain
  public var counters = Counters()
  public var drops = DropCounters()

  private let states: UnsafeMutableRawPointer
  private let stateSize: Int
  private let rules: FlowRules
  /// Frames to be run through the chain together.
  private var run: UInt64 = 0
  private var runNumber: UInt32 = 1
  /// Whether the run has opened flows whose answers cannot be recognised yet.
  private var runOpenedFlows = false
  /// Sees every flow's end, before its state goes; for tools that keep totals.
  public var flowEnded: ((borrowing FlowStore<FlowActor>, UInt32) -> Void)?
  /// Sees every frame that found its flow, before the chain rewrites it; for the same tools.
  public var frameFound: ((borrowing Frame) -> Void)?

  public init(chain: ServiceChain, rules: FlowRules, seed: UInt64, now: Tick, memory: MemorySource) {
    self.chain = chain
    self.rules = rules
    flows = FlowStore(
      capacity: rules.capacity, ipv6Capacity: rules.ipv6Capacity, seed: seed, timeouts: rules.timeouts, now: now, memory: memory)
    stateSize = chain.stateSize
    unsafe states = UnsafeMutableRawPointer(memory.allocate(SIMD16<UInt8>.self, count: rules.capacity * chain.stateSize / 16))
  }

  /// Processes the live frames of `batch`; those still live afterwards are to be sent on, each in its `direction`.
  ///
  /// - Parameters:
  ///   - clientSide: frames that may open a flow or belong to a forward direction.
  ///   - serverSide: frames that may belong to a reverse direction. A frame can be in both sets: a capture
  ///     does not say which side a packet came from.
  public mutating func process(_ batch: PacketBatch, clientSide: UInt64, serverSide: UInt64, now: Tick) {
    PacketBatch.forEach(in: batch.live) { index in
      if let reason = batch[index].parse(checksums: rules.checksums) {
        batch.drop(index, reason)
      } else if batch[index].family == .arp {
        batch.drop(index, .unexpectedARP)
      } else {
        batch[index].hash = flows.hash(batch[index])
        flows.prefetchBucket(batch[index].hash)
      }
    }
    PacketBatch.forEach(in: batch.live) { index in
      if let slot = flows.prefetchCandidate(batch[index].hash) {
        unsafe nfv_prefetch(states + Int(slot) &* stateSize)
      }
    }
    PacketBatch.forEach(in: batch.live) { index in
      let bit: UInt64 = 1 << UInt64(index)
      if !findFlow(batch, index, bit, clientSide: clientSide, serverSide: serverSide, now: now) { return }
      flows[batch[index].slot].lastSeen = UInt32(truncatingIfNeeded: now.milliseconds)
      frameFound?(batch[index])
      run |= bit
    }
    finishRun(batch, now: now)
  }

  // MARK: Flows of a burst

  /// Gives the frame its flow and direction, opening one if it may; `false` when it was dropped.
  private mutating func findFlow(
    _ batch: PacketBatch, _ index: Int, _ bit: UInt64, clientSide: UInt64, serverSide: UInt64, now: Tick
  ) -> Bool {
    var found = flows.find(batch[index])
    // An answer to a flow that this very run opened (a capture, a simultaneous open): its key is known when the
    // run is finished. It can only answer packets that have not left yet if the chain does not rewrite them,
    // so the plain reversed key tells.
    if found == nil, runOpenedFlows, flows.findReversed(batch[index]) != nil {
      finishRun(batch, now: now)
      found = flows.find(batch[index])
    }
    // A second packet of a flow that this very run opened: only when the chain has passed the first is there a flow.
    if let (slot, _) = found, !flows[slot].actor.hasForwarded {
      finishRun(batch, now: now)
      found = flows.find(batch[index])
    }
    if let (slot, direction) = found {
      guard (direction == .forward ? clientSide : serverSide) & bit != 0 else {
        batch.drop(index, .noFlow)
        return false
      }
      // The same flow the other way round in this run: what came before goes first.
      let mark = flows[slot].burstMark
      if mark >> 1 == runNumber, mark & 1 != UInt32(direction.rawValue) { finishRun(batch, now: now) }
      batch[index].slot = slot
      batch[index].direction = direction
      flows[slot].burstMark = runNumber << 1 | UInt32(direction.rawValue)
      return true
    }
    guard clientSide & bit != 0 else {
      batch.drop(index, .noFlow)
      return false
    }
    guard rules.acceptsMidstream || batch[index].protocolNumber != IPProtocol.tcp || isConnectionStart(batch[index]) else {
      batch.drop(index, .notConnectionStart)
      return false
    }
    guard let slot = open(batch, index, now: now) else {
      counters.flowsRefused &+= 1
      batch.drop(index, .flowTableFull)
      return false
    }
    batch[index].slot = slot
    batch[index].direction = .forward
    flows[slot].burstMark = runNumber << 1
    runOpenedFlows = true
    return true
  }

  private func isConnectionStart(_ frame: borrowing Frame) -> Bool {
    frame.protocolNumber == IPProtocol.tcp && frame.tcpFlags.isDisjoint(with: [.ack, .rst, .fin]) && frame.tcpFlags.contains(.syn)
  }

  private mutating func open(_ batch: PacketBatch, _ index: Int, now: Tick) -> UInt32? {
    let actor = FlowActor(batch[index])
    let timeoutClass = TimeoutClass.of(batch[index].protocolNumber, actor.phase)
    var slot = flows.create(batch[index], actor: actor, timeoutClass: timeoutClass, now: now)
    if slot == nil {
      finishRun(batch, now: now)
      guard evict(for: batch[index]) else { return nil }
      slot = flows.create(batch[index], actor: actor, timeoutClass: timeoutClass, now: now)
    }
    guard let slot else { return nil }
    counters.flowsCreated &+= 1
    unsafe chain.tell(.begins, state: states + Int(slot) &* stateSize)
    return slot
  }

  /// Makes room: a connection that is half open or closing has to go.
  private mutating func evict(for frame: borrowing Frame) -> Bool {
    guard let slot = flows.victim(for: frame, timeoutClass: TimeoutClass.tcpTransitory) else { return false }
    counters.flowsEvicted &+= 1
    end(slot)
    return true
  }

  private mutating func end(_ slot: UInt32) {
    flowEnded?(flows, slot)
    unsafe chain.tell(.expires, state: states + Int(slot) &* stateSize)
    flows.remove(slot)
  }

  // MARK: Runs

  /// Runs the collected frames through the chain and draws the consequences for their flows.
  private mutating func finishRun(_ batch: PacketBatch, now: Tick) {
    guard run != 0 else { return }
    let kept = unsafe chain.process(batch.frames, mask: run, states: states)
    PacketBatch.forEach(in: kept) { index in
      let slot = batch[index].slot
      guard flows[slot].isUsed else {
        batch.drop(index, .keyTaken)
        return
      }
      if flows[slot].actor.follow(batch[index]) {
        flows.setTimeoutClass(slot, TimeoutClass.of(batch[index].protocolNumber, flows[slot].actor.phase), now: now)
      }
      flows[slot].actor.hasForwarded = true
      if !flows[slot].knowsReverse, batch[index].direction == .forward, !flows.learnReverse(batch[index], slot: slot) {
        batch.drop(index, .keyTaken)
        end(slot)
      }
    }
    PacketBatch.forEach(in: run & ~kept) { index in
      let slot = batch[index].slot
      batch.live &= ~(1 << UInt64(index))
      if flows[slot].isUsed, !flows[slot].actor.hasForwarded { end(slot) }
    }
    run = 0
    runNumber = (runNumber &+ 1) & 0x7fff_ffff
    runOpenedFlows = false
  }

  /// Counts the batch and what became of it: every frame that is not live any more was dropped for its reason.
  public mutating func settle(_ batch: PacketBatch) {
    counters.receive(batch)
    PacketBatch.forEach(in: batch.all & ~batch.live) { index in
      counters.dropped &+= 1
      drops.add(batch[index].dropReason)
    }
  }

  // MARK: Time

  /// Ends flows that were idle for too long; looks at no more than `limit` timers.
  public mutating func expireIdle(now: Tick, limit: Int) -> Int {
    let (states, stateSize, chain, flowEnded) = unsafe (states, stateSize, chain, flowEnded)
    var expired: UInt64 = 0
    let fired = flows.advance(to: now, limit: limit) { flows, slot in
      flowEnded?(flows, slot)
      unsafe chain.tell(.expires, state: states + Int(slot) &* stateSize)
      flows.remove(slot)
      expired += 1
    }
    counters.flowsExpired &+= expired
    counters.activeFlows = UInt64(flows.count)
    return fired
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

  public init() {}
}
