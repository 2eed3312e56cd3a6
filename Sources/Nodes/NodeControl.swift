import ControlCodec
import ControlMessages
import Dataplane
import FlowActors
import Glibc
import KafkaLog
import Logging
import NetworkFunctions
import NodeSupport
import Wire

/// The control thread of a runtime or switch: follows the commands of its cluster, and tells the log how it is.
///
/// Never touches a packet. It shares two rings and the published counters with the worker.
final class NodeControl: @unchecked Sendable {
  // Made on the main thread, then used by the control thread only: `start` hands it over.
  private let order: LaunchOrder
  private let spec: LaunchSpec
  private let consumer: KafkaConsumer
  private let voice: LogVoice
  private var slots: SlotReader
  private let rings: WorkerRings
  private let published: PublishedCounters
  private let dropNames: [UInt8: String]
  private let started: NodeStarted
  private let logger: Logger
  /// Of a runtime.
  private let functions: FunctionControl?

  private var workload: WorkloadMeter
  /// Commands whose effect the worker has not confirmed yet, by the version of their table.
  private var pending: [UInt64: Slot] = [:]
  /// Migrations that the worker is at, by the number it knows them by.
  private var moves: [UInt32: Slot] = [:]
  /// The assignment of a holder that the worker carries out, and recoveries that it is at, by the numbers it knows them by.
  private var protection: (assignment: UInt32, slot: Slot)?
  private var recoveries: [UInt32: Slot] = [:]
  /// Of a switch: tables that gave it the uplinks, until it says that it has taken them over.
  private var uplinks: [UInt32: Slot] = [:]
  private var hasUplinks = false
  /// The last table that the worker has taken, and the pass after which its counts are of a later time.
  private var taken: (slot: Slot, pass: UInt64) = (.none, 0)
  private var counted = Slot.none
  /// The worker's turns when they last changed, when that was, and when they were last looked at; in milliseconds.
  private var lastPasses: UInt64 = .max
  private var lastMoved: UInt64 = 0
  private var lastLook: UInt64 = 0
  private static var standstill: UInt64 { 500 }

  init(
    order: LaunchOrder, slot: Slot, spec: LaunchSpec, consumer: KafkaConsumer, rings: WorkerRings, published: PublishedCounters,
    dropNames: [UInt8: String], started: NodeStarted, capacity: Int, functions: FunctionControl?, logger: Logger
  ) throws(KafkaError) {
    self.functions = functions
    self.order = order
    self.spec = spec
    self.consumer = consumer
    self.rings = rings
    self.published = published
    self.dropNames = dropNames
    self.started = started
    self.logger = logger
    slots = SlotReader(after: slot)
    workload = WorkloadMeter(node: spec.node, capacity: UInt64(capacity))
    voice = try LogVoice(
      settings: order.kafka, producer: .node(spec.kind, spec.cluster, spec.node), incarnation: spec.incarnation, logger: logger)
    voice.say(.nodeStarted(started), to: order.partition, causation: .command(slot))
  }

  /// Runs on a thread of its own until shutdown; then stops the worker.
  func start() -> pthread_t {
    var thread = pthread_t()
    let context = Unmanaged.passRetained(self).toOpaque()
    let result = pthread_create(&thread, nil, { context in
      Unmanaged<NodeControl>.fromOpaque(context!).takeRetainedValue().run()
      return nil
    }, context)
    precondition(result == 0, "the system has room for one more thread")
    return thread
  }

  private func run() {
    let now = CycleClock.monotonicNanoseconds() / 1_000_000
    var nextHeartbeat = now
    var nextWorkload = now + spec.workloadInterval
    var isReachable = true
    workload.begin(published, at: now)
    let pages = NodePages(at: order.pages, spec: spec, startup: started.startup, logger: logger)
    defer { pages.stop() }
    while !Shutdown.isRequested {
      follow(waiting: Int(min(10, spec.heartbeatInterval)))
      listenToWorker()
      let now = CycleClock.monotonicNanoseconds() / 1_000_000
      attendToFunctions(now: now)
      endIfFrozen(passes: published.read().passes, now: now)
      if now >= nextHeartbeat {
        let counters = published.read()
        voice.say(
          .heartbeat(Heartbeat(node: spec.node, workerLoops: counters.passes, busyLoops: counters.busyPasses)),
          to: order.partition)
        nextHeartbeat = max(nextHeartbeat + spec.heartbeatInterval, now)
      }
      if now >= nextWorkload {
        voice.say(.workload(measureWorkload(at: now)), to: order.partition)
        nextWorkload = max(nextWorkload + spec.workloadInterval, now)
        if consumer.status.isReachable != isReachable {
          isReachable.toggle()
          logger.notice(isReachable ? "The log is reachable again." : "The log cannot be reached; packets go on.", metadata: ["bootstrap": "\(order.kafka.bootstrap)"])
        }
        voice.logProblems()
        pages.post(
          published, dropNames: dropNames, factsLost: voice.lost, factsUnsettled: voice.backlog, isLogReachable: isReachable)
      }
      voice.settle()
    }
    voice.say(.nodeStopping(spec.node), to: order.partition)
    stopWorker()
    voice.say(
      .workload(measureWorkload(at: CycleClock.monotonicNanoseconds() / 1_000_000)), to: order.partition)
    voice.finish(milliseconds: 2_000)
  }

  private func measureWorkload(at now: UInt64) -> NodeWorkload {
    var load = workload.measure(published, dropNames: dropNames, at: now)
    let borrowed = published.borrowedFlows()
    load.borrowed = borrowed.shares.map { NodeWorkload.Borrowed(share: UInt32($0.share), flows: $0.flows) }
    if borrowed.pass > taken.pass { counted = taken.slot }
    load.lastSlot = counted
    return load
  }

  /// A worker that turns no more while this thread does will not come back. The process ends itself, so that the agent
  /// sees it at once; should it not manage to, the heartbeats tell the same.
  private func endIfFrozen(passes: UInt64, now: UInt64) {
    // After a pause of the whole process both threads begin anew.
    if passes != lastPasses || now - lastLook > Self.standstill / 2 { lastMoved = now }
    lastPasses = passes
    lastLook = now
    guard now - lastMoved >= max(Self.standstill, spec.heartbeatInterval * 50) else { return }
    logger.critical("The worker stands still; ending.", metadata: ["for": "\(now - lastMoved) ms", "passes": "\(passes)"])
    voice.finish(milliseconds: 100)
    _exit(ExitStatus.failure)
  }

  // MARK: Commands

  private func follow(waiting milliseconds: Int) {
    let messages: [KafkaMessage]
    do {
      messages = try consumer.poll(timeoutMilliseconds: milliseconds, max: 256)
    } catch {
      logger.error("Commands cannot be read.", metadata: ["problem": "\(error)"])
      return
    }
    for case .record(let record) in messages {
      guard let command = try? RecordCodec.decodeCommand(record.value) else {
        logger.error("A command cannot be decoded; passed over.", metadata: ["offset": "\(record.offset)"])
        continue
      }
      guard slots.read(command.slot) == .taken else { continue }
      act(on: command)
    }
  }

  private func act(on command: Command) {
    switch command.body {
    case .notifyClusterConfig(let table):
      if table.uplinks == .only(life) {
        if !hasUplinks { uplinks[UInt32(truncatingIfNeeded: table.version)] = command.slot }
        hasUplinks = true
      } else {
        hasUplinks = false
      }
      listenToWorker()  // each command is answered: the ring of answers must not fill while the past is read
      pending[table.version] = command.slot
      let members = WorkerCommand.Members(
        version: table.version, entries: table.members.compactMap(RuntimeTable.Entry.init(member:)), peers: table.members.compactMap(Peer.init(member:)),
        uplinks: WorkerCommand.UplinkHolder(table.uplinks))
      if !rings.commands.put(.members(members)) {
        pending[table.version] = nil
        answer(command.slot, .rejected(reason: "the worker does not take commands"))
      }
    case .stopNode(spec.node, spec.incarnation) where command.target == .node(spec.node, spec.incarnation):
      Shutdown.request()
    case .setMigrationTarget(let move) where move.source == spec.node && move.sourceIncarnation == spec.incarnation:
      migrate(move, slot: command.slot)
    case .cancelMigration(let slot) where moves[UInt32(truncatingIfNeeded: slot.number)] != nil:
      _ = rings.commands.put(.cancelMigration(run: UInt32(truncatingIfNeeded: slot.number)))
    case .changeSettings(let change):
      functions?.change(change, slot: command.slot)
    case .drainRuntime, .setMigrationTarget, .cancelMigration:
      break  // the table says who drains, and its flows are moved by commands of their own
    case .setReplicas(let assignment) where assignment.owner == life: replicate(assignment, slot: command.slot)
    case .recover(let recovery) where recovery.lost == life: endAsLost(command)
    case .fence(let node, let incarnation) where NodeLife(node, incarnation) == life: endAsLost(command)
    case .recover(let recovery): recover(recovery, slot: command.slot)
    case .setReplicas, .launchRuntime, .launchSwitch, .stopNode, .fence, .unknown:
      break  // others' work
    }
  }

  private var life: NodeLife { NodeLife(spec.node, spec.incarnation) }

  private func answer(_ slot: Slot, _ outcome: CommandAcknowledgement.Outcome) {
    voice.say(
      .commandAcknowledged(CommandAcknowledgement(slot: slot, by: .node(spec.node), outcome: outcome)), to: order.partition,
      causation: .command(slot))
  }

  // MARK: Functions

  private func attendToFunctions(now: UInt64) {
    guard let functions else { return }
    for change in functions.check(now: now) {
      voice.say(.backendChanged(change), to: order.partition)
      logger.notice("A backend's state has changed.", metadata: ["what": "\(Event.Body.backendChanged(change).summary)"])
    }
    // While the log is away the rings hold what they can, and count the rest.
    if voice.backlog < 1_024, let log = functions.takeLog(now: now) { voice.say(.functionLog(log), to: order.partition) }
    let errand = functions.nextErrand { slot, reason in
      answer(slot, .rejected(reason: reason))
      logger.error("Settings cannot be changed.", metadata: ["problem": "\(reason)", "slot": "\(slot)"])
    }
    if let errand, !rings.commands.put(.errand(errand)) { preconditionFailure("there is room for one errand") }
  }

  // MARK: Replicas and recoveries

  private func replicate(_ assignment: ReplicaAssignment, slot: Slot) {
    let number = UInt32(truncatingIfNeeded: slot.number)
    let holders = [assignment.holder, assignment.second].compactMap { $0 }
    guard rings.commands.put(.protect(assignment: number, holders: holders.map(FlowOwner.init))) else {
      return answer(slot, .rejected(reason: "the worker does not take commands"))
    }
    protection = nil
    guard !holders.isEmpty else { return answer(slot, .completed) }
    protection = (number, slot)
    answer(slot, .received)
    logger.info(
      "Replicating flows.", metadata: ["to": "\(holders.map(\.description).joined(separator: " and "))", "slot": "\(slot)"])
  }

  /// All nodes tell their workers: switches send the flows elsewhere, runtimes refuse what the lost life still says. The one
  /// that takes the flows over answers when it has.
  private func recover(_ recovery: Recovery, slot: Slot) {
    let run = UInt32(truncatingIfNeeded: slot.number)
    let isOurs = recovery.by == life
    let order = RecoveryOrder(
      run: run, lost: FlowOwner(recovery.lost), by: recovery.by.map(FlowOwner.init), standby: recovery.standby.map(FlowOwner.init))
    guard rings.commands.put(.recover(order)) else {
      logger.error("The worker does not take commands.", metadata: ["slot": "\(slot)"])
      if isOurs { answer(slot, .rejected(reason: "the worker does not take commands")) }
      return
    }
    guard isOurs else { return }
    recoveries[run] = slot
    answer(slot, .received)
    logger.notice("Taking over flows.", metadata: ["of": "\(recovery.lost)", "slot": "\(slot)"])
  }

  private func tell(_ report: RecoveryReport, _ slot: Slot) {
    guard let finished = report.finished else {
      return answer(slot, .progress(done: report.recovered, of: report.recovered + report.refused))
    }
    recoveries[report.run] = nil
    tell(report, finished, slot)
    answer(slot, .completed)
  }

  private func tell(_ report: RecoveryReport, _ finished: Tick, _ slot: Slot) {
    guard let node = NodeID(report.lost.node) else { return }
    var end = RecoveryFinished(slot: slot, node: spec.node, lost: NodeLife(node, Incarnation(report.lost.incarnation)))
    end.recovered = report.recovered
    end.onDemand = report.onDemand
    end.refused = report.refused
    end.microseconds = (finished.nanoseconds - min(finished.nanoseconds, report.started.nanoseconds)) / 1_000
    voice.say(.recoveryFinished(end), to: order.partition, causation: .command(slot))
    logger.notice("Flows taken over.", metadata: ["what": "\(Event.Body.recoveryFinished(end).summary)"])
  }

  /// The cluster has given this life up, and its flows are others'. It changes nothing any more and makes room for another.
  private func endAsLost(_ command: Command) {
    logger.critical("This life is over for the cluster; ending.", metadata: ["why": "\(command.reason)", "slot": "\(command.slot)"])
    _exit(ExitStatus.failure)
  }

  // MARK: Migrations

  private func migrate(_ move: FlowMove, slot: Slot) {
    let run = UInt32(truncatingIfNeeded: slot.number)
    let order = MigrationOrder(
      run: run, target: FlowOwner(node: move.target.number, incarnation: move.targetIncarnation.number), flows: Int(move.flows))
    guard rings.commands.put(.migrate(order)) else { return answer(slot, .rejected(reason: "the worker does not take commands")) }
    moves[run] = slot
    logger.info("Moving flows.", metadata: ["flows": "\(move.flows)", "to": "\(move.target)", "run": "\(run)"])
  }

  private func listenToWorker() {
    while let event = rings.events.take() {
      switch event {
      case .applied(let members):
        guard let slot = pending.removeValue(forKey: members.version) else { continue }
        taken = (slot, published.borrowedFlows().pass)
        answer(slot, .applied)
      case .migration(let report):
        if let slot = moves[report.run] { tell(report, slot) }
      case .migrationRefused(let run, let reason):
        if let slot = moves.removeValue(forKey: run) { answer(slot, .rejected(reason: reason)) }
      case .done:
        if let slot = functions?.errandDone() {
          answer(slot, .applied)
          logger.notice("Settings have changed.", metadata: ["slot": "\(slot)"])
        }
      case .protected(let assignment, let flows):
        guard let current = protection, current.assignment == assignment else { continue }
        protection = nil
        answer(current.slot, .completed)
        logger.info("All flows have replicas.", metadata: ["flows": "\(flows)", "slot": "\(current.slot)"])
      case .recovery(let report):
        if let slot = recoveries[report.run] { tell(report, slot) }
      case .tookOver(let report):
        if let slot = uplinks[report.run], let finished = report.finished { tell(report, finished, slot) }
        uplinks = [:]
      case .peerSilent(let peer):
        guard let node = NodeID(peer.node) else { continue }
        voice.say(
          .peerSilent(PeerSilent(by: spec.node, node: node, incarnation: Incarnation(peer.incarnation))), to: order.partition)
      case .stopped: break
      }
    }
  }

  private func tell(_ report: MigrationReport, _ slot: Slot) {
    let moved = UInt64(report.moved)
    guard let finished = report.finished else { return answer(slot, .progress(done: moved, of: UInt64(report.wanted))) }
    moves[report.run] = nil
    answer(slot, .progress(done: moved, of: UInt64(report.wanted)))
    let end = MigrationFinished(report, finished: finished, slot: slot, node: spec.node)
    voice.say(.migrationFinished(end), to: order.partition, causation: .command(slot))
    answer(slot, .completed)
    logger.info("Flows moved.", metadata: ["what": "\(Event.Body.migrationFinished(end).summary)", "bytes": "\(end.bytes)"])
  }

  /// The worker ends after the pass it is in; one that is frozen is not waited for longer than two seconds.
  private func stopWorker() {
    _ = rings.commands.put(.stop)
    for _ in 0..<2_000 {
      while let event = rings.events.take() { if case .stopped = event { return } }
      usleep(1_000)
    }
    logger.error("The worker does not stop.")
    voice.finish(milliseconds: 500)
    _exit(ExitStatus.failure)
  }
}

extension MigrationFinished {
  init(_ report: MigrationReport, finished: Tick, slot: Slot, node: NodeID) {
    self.init(slot: slot, node: node)
    wanted = UInt64(report.wanted)
    moved = UInt64(report.moved)
    refused = UInt64(report.refused)
    returned = UInt64(report.returned)
    bytes = report.bytes
    missedDeadlines = UInt64(report.missedDeadlines)
    microseconds = (finished.nanoseconds - report.started.nanoseconds) / 1_000
    isCancelled = report.isCancelled
    targetEnded = report.targetEnded
    paused = UInt64(report.pauses.count)
    (pauseP50, pauseP99) = (report.pauses.percentile(0.5) / 1_000, report.pauses.percentile(0.99) / 1_000)
    longestPause = report.pauses.percentile(1) / 1_000
  }
}

extension RuntimeTable.Entry {
  /// A runtime of the cluster that has told its addresses.
  init?(member: ClusterTable.Member) {
    guard member.kind == .runtime, let ports = member.ports else { return nil }
    self.init(
      node: member.node.number, incarnation: member.incarnation.number, input: MACAddress(ports.input.bits),
      output: MACAddress(ports.output.bits), isServing: member.state == .serving,
      isAlive: member.state == .serving || member.state == .stopping, flows: member.load.activeFlows, 
      share: member.poolShare.map { RuntimeShare(index: Int($0.index), count: Int($0.count)) })
  }
}

extension Peer {
  /// A node of the cluster that has started at least once.
  init?(member: ClusterTable.Member) {
    guard member.ports != nil || member.state == .dead else { return nil }
    self.init(
      node: member.node.number, incarnation: member.incarnation.number, isSwitch: member.kind == .virtualSwitch,
      isAlive: member.state == .serving || member.state == .stopping)
  }
}

extension WorkerCommand.UplinkHolder {
  init(_ holder: ClusterTable.UplinkHolder) {
    switch holder {
    case .unassigned: self = .unassigned
    case .only(let life): self = .only(life.map(FlowOwner.init))
    }
  }
}

extension FlowOwner {
  init(_ life: NodeLife) { self.init(node: life.node.number, incarnation: life.incarnation.number) }
}
