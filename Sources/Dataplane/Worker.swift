import FixedContainers
import FlowActors
import ModuleGraphs
import NetworkFunctions
import Wire

/// The one polling thread of a process, without its thread: module graphs in turn, over whatever ports it was given.
///
/// It reads no clock and makes no system call: the node that owns it gives it the time and decides how to
/// wait. The same worker runs on DPDK, on capture files and in tests. What it shares with the control
/// thread is two rings and the published counters, nothing else.
public final class Worker {
  private let scheduler: GraphScheduler
  private let liaison: Liaison
  private let publishing: () -> Void
  private let accounting: (_ busy: UInt64, _ total: UInt64, _ passes: UInt64) -> Void
  private var nextPublication = Tick.zero
  public let published: PublishedCounters

  /// Passes over all graphs: a worker that stops counting is frozen, whatever its other threads say.
  public private(set) var passes: UInt64 = 0
  /// False once the control thread has told it to stop.
  public var isRunning: Bool { !liaison.isStopped }

  init(
    graphs: [ModuleGraph], liaison: Liaison, published: PublishedCounters, publishing: @escaping () -> Void,
    accounting: @escaping (UInt64, UInt64, UInt64) -> Void
  ) {
    scheduler = GraphScheduler(graphs + [liaison])
    self.liaison = liaison
    self.published = published
    self.publishing = publishing
    self.accounting = accounting
  }

  /// One pass over all graphs; returns the work done.
  public func pass(at now: Tick) -> Int {
    let work = scheduler.pass(at: now)
    passes &+= 1
    if now >= nextPublication {
      publishing()
      nextPublication = now.advanced(byMilliseconds: 1)
    }
    return work
  }

  /// Notes the cycles of a pass: those of passes that found work are the worker's load. On a polled core
  /// the processor's own utilisation says nothing.
  public func account(busy: UInt64, total: UInt64) { accounting(busy, total, passes) }
}

/// What the control thread asks of a worker.
public enum WorkerCommand: Sendable {
  /// Who is in the cluster now. Comes back in `applied`, so that it is freed where it was made.
  case members(Members)
  /// Move flows of this runtime to another.
  case migrate(MigrationOrder)
  /// Begin no more of the run's moves.
  case cancelMigration(run: UInt32)
  /// Do this with the chain's functions. Comes back in `done`, so that what it exchanged is freed where it was made.
  case errand(ChainErrand)
  /// Replicate this runtime's flows to all of these from now on, two at most; with none they go unprotected.
  case protect(assignment: UInt32, holders: [FlowOwner])
  /// A runtime's life is over, and `by` owns its flows now; with `nil` nobody does.
  case recover(RecoveryOrder)
  case stop

  public final class Members: Sendable {
    public let version: UInt64
    /// The runtimes that a switch may give flows to.
    public let entries: [RuntimeTable.Entry]
    /// All nodes, whom this one has channels to.
    public let peers: [Peer]
    public let uplinks: UplinkHolder

    public init(
      version: UInt64, entries: [RuntimeTable.Entry], peers: [Peer] = [], uplinks: UplinkHolder = .unassigned
    ) {
      self.version = version
      self.entries = entries
      self.peers = peers
      self.uplinks = uplinks
    }
  }

  /// Which switch answers for the addresses that the outside knows.
  public enum UplinkHolder: Equatable, Sendable {
    /// Nobody has said which: the living one with the lowest number.
    case unassigned
    /// One life of a switch; nobody for now, if there is none.
    case only(FlowOwner?)
  }
}

/// Something that the control thread wants done with the functions of a chain, between two bursts.
///
///     let new = ChainErrand(FirewallRuleSet(...)) { chain, rules in
///       chain.betweenBursts(Firewall.self) { $0.exchangeRules(&rules, shared: &$1) }
///     }
///
/// What takes time is done before, when the value is made; the worker only exchanges it for another, which it leaves
/// here. One at a time is on its way, so that there is always room to send it back.
public final class ChainErrand: @unchecked Sendable {
  // Belongs to one thread at a time: whoever has taken it from a ring.
  private let body: (ServiceChain) -> Void

  public init<Value: Sendable>(_ value: Value, _ body: @escaping @Sendable (ServiceChain, inout Value) -> Void) {
    let place = Place(value)
    self.body = { body($0, &place.value) }
  }

  func run(on chain: ServiceChain) { body(chain) }

  private final class Place<Value> {
    var value: Value
    init(_ value: Value) { self.value = value }
  }
}

/// Some flows that are to go to one life of another runtime.
public struct MigrationOrder: Sendable, Equatable {
  /// Tells runs apart.
  public var run: UInt32
  public var target: FlowOwner
  public var flows: Int

  public init(run: UInt32, target: FlowOwner, flows: Int) {
    self.run = run
    self.target = target
    self.flows = flows
  }
}

/// Whose flows are whose after a failure.
public struct RecoveryOrder: Sendable, Equatable {
  /// Tells recoveries apart.
  public var run: UInt32
  public var lost: FlowOwner
  public var by: FlowOwner?
  /// Who keeps its replicas for the case that `by` dies too.
  public var standby: FlowOwner?

  public init(run: UInt32, lost: FlowOwner, by: FlowOwner?, standby: FlowOwner? = nil) {
    self.run = run
    self.lost = lost
    self.by = by
    self.standby = standby
  }
}

/// How a recovery ended at the runtime that took the flows over.
public struct RecoveryReport: Sendable, Equatable {
  public var run: UInt32
  public var lost: FlowOwner
  /// Flows that are served here now; of these, those that a packet asked for before their turn came.
  public var recovered: UInt64 = 0
  public var onDemand: UInt64 = 0
  /// Flows for which there was no room, or whose key another flow has.
  public var refused: UInt64 = 0
  public var started: Tick
  public var finished: Tick?

  public init(run: UInt32, lost: FlowOwner, started: Tick) {
    self.run = run
    self.lost = lost
    self.started = started
  }
}

/// What a worker tells its control thread.
public enum WorkerEvent: Sendable {
  case applied(WorkerCommand.Members)
  case done(ChainErrand)
  /// How far a migration has come, or how it ended.
  case migration(MigrationReport)
  case migrationRefused(run: UInt32, reason: String)
  /// Every flow there was is on the holder now.
  case protected(assignment: UInt32, flows: UInt64)
  /// Flows of a runtime that died were taken over; twice a run at least: at its beginning and at its end.
  case recovery(RecoveryReport)
  /// A switch has taken the uplinks over and been told of the flows that there are; the run is the table's version.
  case tookOver(RecoveryReport)
  /// Nothing was heard of a peer for the channel's deadline.
  case peerSilent(FlowOwner)
  case stopped
}

/// The two rings between a worker and its control thread.
public final class WorkerRings: Sendable {
  public let commands = RingBuffer<WorkerCommand>(capacity: 64)
  public let events = RingBuffer<WorkerEvent>(capacity: 64)

  public init() {}
}

/// The worker's voice to its control thread: takes commands off the ring and answers them (paper §III-B2, the
/// liaison actor).
final class Liaison: ModuleGraph {
  private let rings: WorkerRings
  private let commands: RingBuffer<WorkerCommand>
  private let obey: (WorkerCommand, Tick) -> Void
  private(set) var isStopped = false

  /// - Parameter obey: what a command means to the kind of worker.
  init(rings: WorkerRings, obey: @escaping (WorkerCommand, Tick) -> Void) {
    self.rings = rings
    commands = rings.commands
    self.obey = obey
  }

  override func run(at now: Tick) -> Int {
    guard let command = commands.take() else { return 0 }
    obey(command, now)
    switch command {
    case .members(let update): _ = rings.events.put(.applied(update))
    case .errand(let errand): _ = rings.events.put(.done(errand))
    case .migrate, .cancelMigration, .protect, .recover: break
    case .stop:
      isStopped = true
      _ = rings.events.put(.stopped)
    }
    return 1
  }
}
