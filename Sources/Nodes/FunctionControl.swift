import CIntrinsics
import ControlMessages
import DPDKPorts
import Dataplane
import FixedContainers
import FunctionCatalog
import Foundation
import NetworkFunctions
import Wire

/// The control thread's hand on the functions of a running chain: changes of their settings, checks of the backends
/// behind them, and what they have to say.
///
///     changeSettings ─▶ compiled on a thread of its own ─▶ errand ─▶ worker, between bursts ─▶ back ─▶ acknowledged
///     checks of backends ─▶ another plan ─▶ errand
///     rings of alerts, rulings and mappings ─▶ records of the log, so many per second
///
/// At most one errand is on its way, so what the worker hands back always has room.
final class FunctionControl {
  private let node: NodeID
  private let clock: CycleClock
  private let chain: ServiceChain
  private var spec: ServiceChainSpec
  private let opensFromServerSide: Bool
  private var plans: [LoadBalancerPlan] = []
  private var checks: [BackendChecks] = []
  private var plansHaveChanged = false

  private var rulings: [RingBuffer<FirewallLogEntry>] = []
  private var mappings: [RingBuffer<NATLogEntry>] = []
  private var alerts: [RingBuffer<RuleAlert>] = []
  private var lostBefore: UInt64 = 0
  private var nextRecord: UInt64 = 0

  /// Changes that were asked for, the oldest first. The first is being compiled or is on its way.
  private var wanted: [(change: SettingsChange, slot: Slot)] = []
  private let compiled = RingBuffer<Result<ChainChange, SettingsError>>(capacity: 2)
  private var stage = Stage.idle

  private enum Stage { case idle, compiling, ready(ChainChange), underway(slot: Slot?) }

  /// Milliseconds between two records of a runtime's functions: 50 a second with up to 256 entries each.
  private static var pace: UInt64 { 20 }

  /// Before the worker turns: it looks into the chain's functions.
  init(chain: ServiceChain, spec: ServiceChainSpec, node: NodeID, clock: CycleClock) {
    self.chain = chain
    self.spec = spec
    self.node = node
    self.clock = clock
    opensFromServerSide = chain.opensFromServerSide
    chain.betweenBursts(Firewall.self) { _, shared in rulings.append(shared.log.entries) }
    chain.betweenBursts(NAT.self) { _, shared in if let entries = shared.log.entries { mappings.append(entries) } }
    chain.betweenBursts(IntrusionPrevention.self) { _, shared in alerts.append(shared.alerts.ring) }
    chain.betweenBursts(LoadBalancer.self) { _, shared in
      plans.append(shared.plan)
      checks.append(BackendChecks(shared.plan.services))
    }
  }

  // MARK: Settings

  func change(_ change: SettingsChange, slot: Slot) { wanted.append((change, slot)) }

  /// What to send to the worker, if there is something and nothing is on its way; and answers to changes that cannot be.
  func nextErrand(refused: (Slot, String) -> Void) -> ChainErrand? {
    switch stage {
    case .idle:
      if let (change, _) = wanted.first {
        compile(change.functions)
        return nil
      }
      guard plansHaveChanged else { return nil }
      plansHaveChanged = false
      stage = .underway(slot: nil)
      return errand(ChainChange(plans: plans))
    case .compiling:
      guard let result = compiled.take() else { return nil }
      switch result {
      case .success(let change): stage = .ready(change)
      case .failure(let error):
        stage = .idle
        refused(wanted.removeFirst().slot, "\(error)")
      }
      return nil
    case .ready(let change):
      let (settings, slot) = wanted.removeFirst()
      spec.functions = settings.functions
      for (index, plan) in change.newPlans.enumerated() {
        guard let plan else { continue }
        plans[index] = plan
        checks[index].update(plan.services)
        // Checks went on while it was compiled.
        if checks[index].apply(to: &plans[index]) { plansHaveChanged = true }
      }
      stage = .underway(slot: slot)
      return errand(change)
    case .underway: return nil
    }
  }

  /// The worker is done; what it had before is freed with the errand, here.
  ///
  /// - Returns: the command that is carried out now.
  func errandDone() -> Slot? {
    guard case .underway(let slot) = stage else { return nil }
    stage = .idle
    return slot
  }

  private func errand(_ change: ChainChange) -> ChainErrand {
    ChainErrand(change) { chain, change in change.exchange(in: chain) }
  }

  /// Ten thousand rules take most of a second: heartbeats do not wait for that.
  private func compile(_ functions: [ServiceChainSpec.Function]) {
    stage = .compiling
    let (spec, plans, isOpen, compiled) = (spec, plans, opensFromServerSide, compiled)
    Thread.detachNewThread {
      let result = Result { () throws(SettingsError) in
        try ChainChange(from: spec, to: functions, plans: plans, opensFromServerSide: isOpen, compiler: AccessLists.compiler)
      }
      _ = compiled.put(result)
    }
  }

  // MARK: Backends

  /// Begins and ends checks that are due; says what changed.
  func check(now: UInt64) -> [BackendChanged] {
    var changes: [BackendChanged] = []
    for index in checks.indices {
      let verdicts = checks[index].turn(now: now)
      guard !verdicts.isEmpty else { continue }
      if checks[index].apply(to: &plans[index]) { plansHaveChanged = true }
      for verdict in verdicts {
        changes.append(
          BackendChanged(
            node: node, service: verdict.service, backend: "\(verdict.backend)", isUp: verdict.isUp, reason: verdict.reason))
      }
    }
    return changes
  }

  // MARK: What functions say

  /// What they have said since the last record, if it is time for one.
  func takeLog(now: UInt64) -> FunctionLog? {
    guard now >= nextRecord else { return nil }
    nextRecord = now + Self.pace
    let (wall, tick) = (Self.wallClock(), clock.tick(nfv_cycles()))
    var entries: [FunctionLog.Entry] = []
    func time(_ then: Tick) -> Timestamp {
      Timestamp(milliseconds: wall - (tick.nanoseconds - min(then.nanoseconds, tick.nanoseconds)) / 1_000_000)
    }
    for ring in alerts {
      while entries.count < FunctionLog.maximumEntries, let alert = ring.take() { entries.append(.init(alert, time(alert.arrival))) }
    }
    for ring in rulings {
      while entries.count < FunctionLog.maximumEntries, let entry = ring.take() { entries.append(.init(entry, time(entry.time))) }
    }
    for ring in mappings {
      while entries.count < FunctionLog.maximumEntries, let entry = ring.take() { entries.append(.init(entry, time(entry.time))) }
    }
    let lost = alerts.reduce(0) { $0 + $1.refused } + rulings.reduce(0) { $0 + $1.refused } + mappings.reduce(0) { $0 + $1.refused }
    guard !entries.isEmpty || lost != lostBefore else { return nil }
    defer { lostBefore = lost }
    return FunctionLog(node: node, entries: entries, lost: lost - lostBefore)
  }

  private static func wallClock() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec) * 1_000 + UInt64(time.tv_nsec) / 1_000_000
  }
}

extension FunctionLog.Entry {
  init(_ alert: RuleAlert, _ time: Timestamp) {
    self.init(
      time: time, source: "\(alert.source)", sourcePort: alert.sourcePort, destination: "\(alert.destination)",
      destinationPort: alert.destinationPort, protocolNumber: alert.protocolNumber,
      kind: .alert(
        gid: alert.gid, sid: alert.sid, revision: alert.revision, priority: alert.priority, isDropped: alert.outcome == .dropped))
  }

  init(_ entry: FirewallLogEntry, _ time: Timestamp) {
    self.init(
      time: time, source: "\(entry.key.source)", sourcePort: entry.key.sourcePort, destination: "\(entry.key.destination)",
      destinationPort: entry.key.destinationPort, protocolNumber: entry.key.protocolNumber,
      kind: .ruling(rule: entry.rule, isAllowed: entry.action == .allow))
  }

  init(_ entry: NATLogEntry, _ time: Timestamp) {
    let event: MappingEvent =
      switch entry.event {
      case .created: .created
      case .removed: .removed
      case .exhausted: .exhausted
      }
    self.init(
      time: time, source: "\(entry.client)", sourcePort: entry.clientPort, destination: "\(entry.external)",
      destinationPort: entry.externalPort, protocolNumber: entry.protocolNumber, kind: .mapping(event, vlan: entry.vlan))
  }
}
