import FixedContainers
import Wire

/// What the source's half of a migration asks of the flows of its runtime.
public protocol DepartingFlows: ~Copyable {
  /// A flow that may leave: settled, and with both keys known. `nil` when there is none left.
  mutating func choose() -> UInt32?
  func keys(of slot: UInt32) -> FlowKeyPair
  func travelling(_ slot: UInt32, now: Tick) -> TravellingFlow
  /// The flow state of the chain.
  func state(of slot: UInt32) -> UnsafeRawBufferPointer
  mutating func setPhase(_ phase: MigrationPhase, of slot: UInt32)
  /// This flow is about to depart: asks for the memory that this takes.
  func foresee(_ slot: UInt32)
  /// The flow is the target's: calls `flowMigratesOut`, and keeps the record for late packets in phase `departed`.
  mutating func depart(_ slot: UInt32, to peer: UInt8)
  /// Gives a flow up whose replica, as its target left it, is among those that this runtime recovers; `false`: there is none.
  mutating func yield(_ slot: UInt32) -> Bool
}

extension DepartingFlows where Self: ~Copyable {
  public mutating func yield(_ slot: UInt32) -> Bool { false }
}

/// Moves many flows from this runtime to another: the source's half of the protocol (paper §V-B, Fig. 4).
///
/// Flows move in batches; each batch goes through three steps, and a bounded number of batches is under way. Fewer still may be in
/// the last two steps, in which packets wait: those that are prepared take their turn (`MigrationSettings.pausedBatches`).
///
///     source                        switches                     target
///       │ prepare: keys ───────────────────────────────────────────▶│ makes room, will hold packets
///       │◀──────────────────────────────────────────── prepared ────│
///       │ changeRoute: keys ───────────▶│                           │
///       │◀─ last packets ─ routeChanged─│ packets ─────────────────▶│ held
///       │ install: states ─────────────────────────────────────────▶│ flowMigratesIn, held packets, serving
///       │◀─────────────────────────────────────────── installed ────│
///       │ flowMigratesOut; later packets follow over the channel ──▶│
///
/// Until the states are sent the source serves its flows, also while routes change: whatever comes before a switch's
/// answer was sent before its change. The answer travels behind those packets, and the states go out only when all
/// switches have answered. So nothing is lost, and nothing overtakes.
///
/// The way back: before a route change was asked for, the source resumes alone, and the target is told. Afterwards only
/// the switches can say who owns a flow. A silent one is waited for, as long as it lives; should the target's life end, they
/// are asked to give the routes back, which they do for as long as the target owns them.
public struct MigrationSource: ~Copyable {
  private enum Step: UInt8, BitwiseCopyable {
    case free, preparing, ready, rerouting, installing, claiming, reclaiming, abandoning
  }

  private struct Batch: BitwiseCopyable {
    var step = Step.free
    var number: UInt32 = 0
    var count: UInt16 = 0
    /// Flows still in the batch, and those that some switch has rerouted or refused.
    var flows: UInt32 = 0
    var changed: UInt32 = 0
    var refused: UInt32 = 0
    /// Peers this step's request was not sent to yet, and those that have not answered: bits.
    var unsent: UInt64 = 0
    var unanswered: UInt64 = 0
    var deadline: UInt64 = 0
    /// When the step began.
    var entered: UInt64 = 0
    var bytes: UInt32 = 0
    /// Flows whose hand-over the holder of their replicas was not told of yet; then, what it has to have before they leave.
    var unannounced: UInt32 = 0
    var mark: CommitMark?
    /// Behind the flows' last packets, where those wait before the holder is sent them: it hears of the hand-over after them.
    var lastPackets: CommitMark?
  }

  private let settings: MigrationSettings
  private let owner: FlowOwner
  private let layout: UInt64
  private let flowsPerBatch: Int
  private let batches: UnsafeMutablePointer<Batch>
  /// Of each batch's flows: its slot, and the latest route epoch a switch has answered with.
  private let slots: UnsafeMutablePointer<UInt32>
  private let epochs: UnsafeMutablePointer<UInt32>
  private let scratch: UnsafeMutableRawPointer

  private var target = FlowOwner(node: 0, incarnation: 0)
  /// Who has recovered the target's flows, if it has died.
  private var heirPeer: UInt8 = 0
  public private(set) var targetPeer: UInt8 = 0
  /// Peers that are switches, as bits.
  private var switches: UInt64 = 0
  private var remaining = 0
  private var nextBatch: UInt32 = 0
  private var inFlight = 0
  /// Batches that are rerouting or installing, and the numbers of those that are ready, oldest first by number.
  private var paused = 0
  /// How long changes of routes and installations take lately.
  private var stepTime: UInt64 = 0
  private var ready = 0
  public private(set) var report: MigrationReport?

  /// - Parameters:
  ///   - owner: this life of this runtime.
  ///   - layout: hash of the chain's layout.
  ///   - stateSize: bytes of flow state per flow.
  public init(owner: FlowOwner, layout: UInt64, stateSize: Int, settings: MigrationSettings = .init(), memory: MemorySource) {
    self.owner = owner
    self.layout = layout
    self.settings = settings
    let room = (settings.largestMessage - MigrationMessage.headerLength - 16) / max(88, 24 + stateSize)
    precondition(room > 0, "the state of a flow fits into one message")
    flowsPerBatch = min(settings.flowsPerBatch, MigrationMessage.mostFlows, room)
    batches = memory.allocate(Batch.self, count: settings.sourceBatches)
    slots = memory.allocate(UInt32.self, count: settings.sourceBatches * MigrationMessage.mostFlows)
    epochs = memory.allocate(UInt32.self, count: settings.sourceBatches * MigrationMessage.mostFlows)
    scratch = UnsafeMutableRawPointer(memory.allocate(UInt8.self, count: settings.largestMessage))
    for index in 0..<settings.sourceBatches { batches[index] = Batch() }
  }

  public var isRunning: Bool { report.map { $0.finished == nil } ?? false }

  // MARK: A run

  /// Begins to move `flows` flows to `target`, whose channel is that of `peer`. `false` while another run is going on.
  ///
  /// - Parameter switches: indexes of the peers that are switches of the cluster; all below 64.
  public mutating func begin(run: UInt32, flows: Int, to target: FlowOwner, peer: UInt8, switches: UInt64, now: Tick) -> Bool {
    guard !isRunning else { return false }
    self.target = target
    targetPeer = peer
    self.switches = switches
    remaining = flows
    report = MigrationReport(run: run, wanted: flows, started: now)
    return true
  }

  /// Begins no further batch and takes back those whose route nobody was asked to change. The others are finished.
  public mutating func cancel(flows: inout some DepartingFlows & ~Copyable) {
    guard isRunning else { return }
    report?.isCancelled = true
    remaining = 0
    for index in 0..<settings.sourceBatches where batches[index].step == .preparing || batches[index].step == .ready {
      abandon(index, &flows)
    }
  }

  /// Does what can be done now: begins batches, sends what a full channel has held up, asks again where a step has
  /// missed its deadline and may be. Called in every pass.
  public mutating func advance(
    now: Tick, flows: inout some DepartingFlows & ~Copyable, outbox: inout some MigrationOutbox & ~Copyable
  ) {
    guard isRunning else { return }
    for index in 0..<settings.sourceBatches {
      if batches[index].step == .free {
        if remaining > 0 { prepare(index, now, &flows) }
        if batches[index].step == .free { continue }
      } else if now.nanoseconds >= batches[index].deadline, batches[index].step != .ready {
        miss(index, now, &flows)
      }
      if batches[index].unsent != 0 { send(index, now, &flows, &outbox) }
    }
    rerouteReady(now, &flows, &outbox)
    if remaining == 0, inFlight == 0 { report?.finished = now }
  }

  private mutating func prepare(_ index: Int, _ now: Tick, _ flows: inout some DepartingFlows & ~Copyable) {
    var count = 0
    while count < min(flowsPerBatch, remaining), let slot = flows.choose() {
      flows.setPhase(MigrationPhase(.leaving, peer: targetPeer), of: slot)
      slots[index * MigrationMessage.mostFlows + count] = slot
      epochs[index * MigrationMessage.mostFlows + count] = 0
      count += 1
    }
    if count < min(flowsPerBatch, remaining) { remaining = count }
    remaining -= count
    guard count > 0 else { return }
    nextBatch &+= 1
    inFlight += 1
    // It was free: no number changes.
    batches[index] = Batch(number: nextBatch, count: UInt16(count), flows: count == 32 ? .max : (1 << UInt32(count)) &- 1)
    enter(.preparing, index, asking: 1 << UInt64(targetPeer), now)
  }

  /// The only way from one step to another: it keeps the numbers of those that are ready or paused.
  private mutating func turn(_ index: Int, to step: Step) {
    func isPaused(_ step: Step) -> Bool { step == .rerouting || step == .installing }
    let before = batches[index].step
    paused += (isPaused(step) ? 1 : 0) - (isPaused(before) ? 1 : 0)
    ready += (step == .ready ? 1 : 0) - (before == .ready ? 1 : 0)
    batches[index].step = step
  }

  private mutating func enter(_ step: Step, _ index: Int, asking peers: UInt64, _ now: Tick) {
    turn(index, to: step)
    batches[index].unsent = peers
    batches[index].unanswered = peers
    batches[index].entered = now.nanoseconds
    batches[index].deadline = now.nanoseconds &+ (step == .preparing ? settings.prepareDeadline : stepDeadline)
    if step == .installing {
      (batches[index].unannounced, batches[index].mark, batches[index].lastPackets) = (batches[index].flows, nil, nil)
    }
  }

  private var stepDeadline: UInt64 { max(settings.stepDeadline, 4 &* stepTime) }

  /// The batch's step has been answered by all.
  private mutating func noteStepTime(_ index: Int, _ now: Tick) {
    stepTime = (stepTime &* 7 &+ (now.nanoseconds &- batches[index].entered)) / 8
  }

  private var mostPaused: Int { stepTime < settings.longWay ? settings.pausedBatches : settings.sourceBatches }

  private mutating func free(_ index: Int) {
    turn(index, to: .free)
    inFlight -= 1
  }

  /// Takes a batch back whose routes nobody was asked to change: the flows are served here as before.
  private mutating func abandon(_ index: Int, _ flows: inout some DepartingFlows & ~Copyable) {
    forEachFlow(index) { _, slot in flows.setPhase(.settled, of: slot) }
    report?.returned += batches[index].flows.nonzeroBitCount
    batches[index].flows = 0
    turn(index, to: .abandoning)
    batches[index].unsent = 1 << UInt64(targetPeer)
  }

  private mutating func miss(_ index: Int, _ now: Tick, _ flows: inout some DepartingFlows & ~Copyable) {
    batches[index].deadline = now.nanoseconds &+ stepDeadline
    // Who has its flows is not known yet.
    if batches[index].step == .installing, report?.targetEnded == true { return }
    report?.missedDeadlines += 1
    switch batches[index].step {
    case .preparing: abandon(index, &flows)
    case .installing, .claiming: batches[index].unsent = batches[index].unanswered
    // A switch is not asked twice: its answer is certain while it lives, and a second request that arrives after the flow
    // has come back would send it away again.
    case .ready, .rerouting, .reclaiming, .abandoning, .free: break
    }
  }

  // MARK: Requests

  /// Whether the holder of the replicas has let go of the last packets that were processed here, and knows to whom the flows
  /// go: only then may their states leave.
  private mutating func hasCommitted(_ index: Int, _ outbox: inout some MigrationOutbox & ~Copyable) -> Bool {
    if batches[index].unannounced != 0, batches[index].lastPackets != nil || outbox.holdsPackets {
      let mark = batches[index].lastPackets ?? outbox.commitMark
      batches[index].lastPackets = mark
      guard outbox.hasCommitted(mark) else { return false }
    }
    while batches[index].unannounced != 0 {
      let place = batches[index].unannounced.trailingZeroBitCount
      guard outbox.announce(slots[index * MigrationMessage.mostFlows + place], to: targetPeer) else { return false }
      batches[index].unannounced &= batches[index].unannounced &- 1
    }
    let mark = batches[index].mark ?? outbox.commitMark
    batches[index].mark = mark
    return outbox.hasCommitted(mark)
  }

  private mutating func send(
    _ index: Int, _ now: Tick, _ flows: inout some DepartingFlows & ~Copyable, _ outbox: inout some MigrationOutbox & ~Copyable
  ) {
    let batch = batches[index]
    let message: UnsafeRawBufferPointer
    switch batch.step {
    case .free, .ready: return
    case .preparing: message = keyMessage(.prepare, index, flows)
    case .rerouting, .reclaiming: message = keyMessage(.changeRoute, index, flows)
    case .claiming: message = keyMessage(.claim, index, flows)
    case .installing, .abandoning:
      guard batch.step == .abandoning || hasCommitted(index, &outbox) else { return }
      message = installMessage(index, flows, now)
    }
    var peers = batch.unsent
    while peers != 0 {
      let peer = UInt8(peers.trailingZeroBitCount)
      peers &= peers &- 1
      guard outbox.send(message.bytes, to: peer) else { continue }
      batches[index].unsent &= ~(1 << UInt64(peer))
    }
    guard batches[index].unsent == 0 else { return }
    if batch.step == .abandoning {
      free(index)
    } else if batch.step == .installing {
      // From here on the state here is a copy: packets that still come follow it.
      let phase = MigrationPhase(.handedOver, peer: targetPeer)
      forEachFlow(index) { _, slot in flows.setPhase(phase, of: slot) }
      batches[index].bytes = UInt32(message.count)
    }
  }

  private func keyMessage(_ kind: MigrationMessage.Kind, _ index: Int, _ flows: borrowing some DepartingFlows & ~Copyable)
    -> UnsafeRawBufferPointer
  {
    let batch = batches[index]
    var header = MigrationMessage(kind, run: report?.run ?? 0, batch: batch.number)
    header.count = batch.count
    let (from, to) = batch.step == .reclaiming ? (target, owner) : (owner, target)
    (header.node, header.word) =
      kind == .prepare ? (UInt32(truncatingIfNeeded: target.incarnation), layout) : (to.node, to.incarnation)
    var writer = MigrationWriter(header, into: scratch)
    if kind == .changeRoute { writer.put(from) }
    for place in 0..<Int(batch.count) {
      let slot = slots[index * MigrationMessage.mostFlows + place]
      writer.put(flows.keys(of: slot), timeoutClass: flows.travelling(slot, now: .zero).timeoutClass)
    }
    return writer.message
  }

  private func installMessage(_ index: Int, _ flows: borrowing some DepartingFlows & ~Copyable, _ now: Tick)
    -> UnsafeRawBufferPointer
  {
    let batch = batches[index]
    var header = MigrationMessage(.install, run: report?.run ?? 0, batch: batch.number)
    header.count = UInt16(batch.flows.nonzeroBitCount)
    header.word = layout
    var writer = MigrationWriter(header, into: scratch)
    forEachFlow(index) { place, slot in
      writer.put(
        place: place, epoch: epochs[index * MigrationMessage.mostFlows + place], flows.travelling(slot, now: now),
        state: flows.state(of: slot))
    }
    return writer.message
  }

  private func forEachFlow(_ index: Int, _ body: (Int, UInt32) -> Void) {
    var rest = batches[index].flows
    while rest != 0 {
      let place = rest.trailingZeroBitCount
      rest &= rest &- 1
      body(place, slots[index * MigrationMessage.mostFlows + place])
    }
  }

  // MARK: Answers

  /// Takes a message of kind `prepared`, `routeChanged` or `installed` from the peer with this index.
  ///
  /// - Returns: `false` for a message that is malformed. What comes too late is ignored.
  public mutating func receive(
    _ message: RawSpan, from peer: UInt8, now: Tick, flows: inout some DepartingFlows & ~Copyable,
    outbox: inout some MigrationOutbox & ~Copyable
  ) -> Bool {
    message.withUnsafeBytes { receive($0, from: peer, now, &flows, &outbox) }
  }

  private mutating func receive(
    _ bytes: UnsafeRawBufferPointer, from peer: UInt8, _ now: Tick, _ flows: inout some DepartingFlows & ~Copyable,
    _ outbox: inout some MigrationOutbox & ~Copyable
  ) -> Bool {
    guard let message = MigrationMessage(bytes) else { return false }
    let index = (0..<settings.sourceBatches).first { batches[$0].step != .free && batches[$0].number == message.batch }
    let isOurs = message.run == report?.run
    switch message.kind {
    case .prepared, .installed:
      let isInstalled = message.kind == .installed
      guard bytes.count == MigrationMessage.headerLength + (isInstalled ? Int(message.count) : 0) else { return false }
      guard let index, isOurs, peer == targetPeer, batches[index].unanswered != 0 else { return true }
      let flowBits = UInt32(truncatingIfNeeded: message.word)
      if message.kind == .prepared, batches[index].step == .preparing { prepared(index, flowBits, now, &flows) }
      if isInstalled, batches[index].step == .installing {
        for place in bytes[MigrationMessage.headerLength...] where place != 0 { report?.pauses.note(place) }
        installed(index, flowBits, now, &flows)
      }
    case .routeChanged:
      guard bytes.count == MigrationMessage.headerLength + 4 * Int(message.count) else { return false }
      guard let index, isOurs, peer < 64, batches[index].unanswered & 1 << UInt64(peer) != 0 else { return true }
      let asked = batches[index].step == .reclaiming ? owner : target
      guard batches[index].step == .rerouting || batches[index].step == .reclaiming, message.node == asked.node,
        message.count == batches[index].count
      else { return true }
      routeChanged(index, message, MigrationReader(bytes), by: peer, now, &flows)
    case .claimed:
      guard bytes.count == MigrationMessage.headerLength else { return false }
      guard let index, isOurs, peer == heirPeer, batches[index].step == .claiming else { return true }
      claimed(index, UInt32(truncatingIfNeeded: message.word), now, &flows)
    case .prepare, .changeRoute, .install, .latePacket, .claim, .returned, .census, .counted, .routes:
      return false
    }
    if let index, batches[index].unsent != 0 { send(index, now, &flows, &outbox) }
    rerouteReady(now, &flows, &outbox)
    return true
  }

  /// Asks for the routes of as many batches as may be paused.
  private mutating func rerouteReady(
    _ now: Tick, _ flows: inout some DepartingFlows & ~Copyable, _ outbox: inout some MigrationOutbox & ~Copyable
  ) {
    while ready > 0, paused < mostPaused, let index = nextReady() {
      reroute(index, now)
      send(index, now, &flows, &outbox)
    }
  }

  /// The batch that has been ready for longest.
  private func nextReady() -> Int? {
    var oldest: Int?
    for index in 0..<settings.sourceBatches where batches[index].step == .ready {
      if let found = oldest, Int32(bitPattern: batches[index].number &- batches[found].number) > 0 { continue }
      oldest = index
    }
    return oldest
  }

  private mutating func reroute(_ index: Int, _ now: Tick) {
    if switches == 0 {
      enter(.installing, index, asking: 1 << UInt64(targetPeer), now)
    } else {
      enter(.rerouting, index, asking: switches, now)
    }
  }

  private mutating func prepared(_ index: Int, _ accepted: UInt32, _ now: Tick, _ flows: inout some DepartingFlows & ~Copyable) {
    let stays = batches[index].flows & ~accepted
    leave(index, stays, &flows)
    report?.refused += stays.nonzeroBitCount
    guard batches[index].flows != 0 else { return free(index) }
    enter(.ready, index, asking: 0, now)
  }

  /// Takes flows out of the batch; they are served here.
  private mutating func leave(_ index: Int, _ which: UInt32, _ flows: inout some DepartingFlows & ~Copyable) {
    let others = batches[index].flows & ~which
    batches[index].flows &= which
    forEachFlow(index) { _, slot in flows.setPhase(.settled, of: slot) }
    batches[index].flows = others
  }

  private mutating func routeChanged(
    _ index: Int, _ message: MigrationMessage, _ reader: MigrationReader, by peer: UInt8, _ now: Tick,
    _ flows: inout some DepartingFlows & ~Copyable
  ) {
    batches[index].changed |= UInt32(truncatingIfNeeded: message.word)
    batches[index].refused |= UInt32(truncatingIfNeeded: message.word >> 32)
    for place in 0..<Int(message.count) {
      let entry = index * MigrationMessage.mostFlows + place
      epochs[entry] = max(epochs[entry], reader.load(MigrationMessage.headerLength + 4 * place))
    }
    answer(index, by: peer, now, &flows)
  }

  private mutating func answer(_ index: Int, by peer: UInt8, _ now: Tick, _ flows: inout some DepartingFlows & ~Copyable) {
    batches[index].unanswered &= ~(1 << UInt64(peer))
    batches[index].unsent &= ~(1 << UInt64(peer))
    guard batches[index].unanswered == 0 else { return }
    noteStepTime(index, now)
    if batches[index].step == .reclaiming {
      report?.returned += batches[index].flows.nonzeroBitCount
      leave(index, batches[index].flows, &flows)
      free(index)
    } else {
      // What no switch gave away belongs to somebody else by the switches' word: it is left as it is, and the target
      // finds no state of it in `install`.
      let stays = batches[index].flows & batches[index].refused & ~batches[index].changed
      leave(index, stays, &flows)
      report?.refused += stays.nonzeroBitCount
      enter(batches[index].flows == 0 ? .abandoning : .installing, index, asking: 1 << UInt64(targetPeer), now)
    }
  }

  private mutating func installed(_ index: Int, _ taken: UInt32, _ now: Tick, _ flows: inout some DepartingFlows & ~Copyable) {
    noteStepTime(index, now)
    let moved = batches[index].flows & taken
    let others = batches[index].flows & ~taken
    batches[index].flows = moved
    forEachFlow(index) { _, slot in flows.foresee(slot) }
    forEachFlow(index) { _, slot in flows.depart(slot, to: targetPeer) }
    report?.moved += moved.nonzeroBitCount
    report?.bytes += UInt64(batches[index].bytes)
    batches[index].flows = others
    if others == 0 { free(index) } else { reclaim(index, now, &flows) }
  }

  private mutating func reclaim(_ index: Int, _ now: Tick, _ flows: inout some DepartingFlows & ~Copyable) {
    let phase = MigrationPhase(.leaving, peer: targetPeer)
    forEachFlow(index) { _, slot in flows.setPhase(phase, of: slot) }
    enter(.reclaiming, index, asking: switches, now)
    if switches == 0 {
      report?.returned += batches[index].flows.nonzeroBitCount
      leave(index, batches[index].flows, &flows)
      free(index)
    }
  }

  /// The heir of the target's flows has some of the batch: they had arrived, and their replicas too. The others come back.
  private mutating func claimed(_ index: Int, _ taken: UInt32, _ now: Tick, _ flows: inout some DepartingFlows & ~Copyable) {
    let others = batches[index].flows & ~taken
    batches[index].flows &= taken
    forEachFlow(index) { _, slot in flows.depart(slot, to: heirPeer) }
    report?.moved += batches[index].flows.nonzeroBitCount
    batches[index].flows = others
    if others == 0 { free(index) } else { reclaim(index, now, &flows) }
  }

  // MARK: Losses

  /// Lives of a peer before `incarnation` are over, by a new session with it or by the coordinator's word. If it is the
  /// target, what it has not acknowledged is ours as soon as the switches say so; unless somebody has recovered its flows:
  /// who is asked first, since a flow that had arrived had a replica before that was acknowledged.
  ///
  /// - Parameter heir: who has the flows of that life. While it is unknown, what was handed over waits for word.
  public mutating func ended(
    _ peer: UInt8, before incarnation: UInt64, heir: FlowHeir = .nobody, now: Tick, flows: inout some DepartingFlows & ~Copyable
  ) {
    guard isRunning, peer == targetPeer, target.incarnation < incarnation else { return }
    remaining = 0
    report?.targetEnded = true
    for index in 0..<settings.sourceBatches {
      switch batches[index].step {
      case .free, .reclaiming, .claiming: break
      case .abandoning: free(index)
      case .preparing, .ready:
        abandon(index, &flows)
        free(index)
      case .installing where batches[index].unsent == 0 && heir != .nobody:
        switch heir {
        case .unknown, .nobody: break
        case .peer(let heir):
          heirPeer = heir
          enter(.claiming, index, asking: 1 << UInt64(heir), now)
        case .own:
          var rest = batches[index].flows
          while rest != 0 {
            let place = rest.trailingZeroBitCount
            rest &= rest &- 1
            if flows.yield(slots[index * MigrationMessage.mostFlows + place]) { batches[index].flows &= ~(1 << UInt32(place)) }
          }
          if batches[index].flows == 0 { free(index) } else { reclaim(index, now, &flows) }
        }
      case .rerouting, .installing: reclaim(index, now, &flows)
      }
    }
  }

  /// This switch is asked, too, about every batch from here on.
  public mutating func include(switch peer: UInt8) { switches |= 1 << UInt64(peer) }

  /// Of the batch that begins next.
  public var nextNumber: UInt32 { nextBatch }

  /// Whether every batch before this number has come to its end.
  public func isSettled(before number: UInt32) -> Bool {
    (0..<settings.sourceBatches).allSatisfy {
      batches[$0].step == .free || Int32(bitPattern: batches[$0].number &- number) >= 0
    }
  }

  /// A switch's life is over, and its routes with it: nothing is to be waited for.
  public mutating func switchEnded(_ peer: UInt8, now: Tick, flows: inout some DepartingFlows & ~Copyable) {
    switches &= ~(1 << UInt64(peer))
    for index in 0..<settings.sourceBatches
    where (batches[index].step == .rerouting || batches[index].step == .reclaiming)
      && batches[index].unanswered & 1 << UInt64(peer) != 0
    {
      answer(index, by: peer, now, &flows)
    }
  }
}

/// Who has the flows of a life that is over.
public enum FlowHeir: Equatable, Sendable {
  /// Nobody has said so yet.
  case unknown
  case nobody
  case peer(UInt8)
  /// This runtime itself.
  case own
}

/// What a run has come to. Counts are flows.
public struct MigrationReport: Equatable, Sendable {
  public let run: UInt32
  public let wanted: Int
  public let started: Tick
  public internal(set) var finished: Tick?
  public internal(set) var moved = 0
  /// Not taken by the target, or not this runtime's by the word of a switch.
  public internal(set) var refused = 0
  /// Taken back: a deadline, a cancellation, the end of the target.
  public internal(set) var returned = 0
  public internal(set) var missedDeadlines = 0
  /// How long the packets of flows waited for them at the target, by its clock.
  public internal(set) var pauses = MigrationPauses()
  /// Bytes of the messages that carried flow states.
  public internal(set) var bytes: UInt64 = 0
  public internal(set) var isCancelled = false
  public internal(set) var targetEnded = false
}
