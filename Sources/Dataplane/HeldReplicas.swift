import FixedContainers
import FlowActors
import NetworkFunctions
import Wire

/// The replicas a runtime holds of other runtimes' flows, by life of their owner; and, of owners that have died, those
/// that it has not taken over yet, or that somebody else takes over for whom it stands by.
@safe
struct HeldReplicas: ~Copyable {
  /// Lives whose replicas can be held at once: as many as flows have replicas as a rule, more after failures.
  static var capacity: Int { 6 }
  var mostLives = capacity

  private enum Use: Equatable {
    case free, held
    /// Another life takes the flows over. Should it end, what is left of them is recovered with its own flows.
    case standby(heir: FlowOwner)
    case recovering(run: UInt32)

    var isRecovering: Bool { if case .recovering = self { true } else { false } }
  }

  private let stores: UnsafeMutablePointer<ReplicaStore>
  private var uses: [Use] = []
  /// Of recoveries that go on, by order.
  private var reports: [RecoveryReport] = []
  /// Stores whose flows are being taken over: newer replicas of a flow before older ones.
  private var sources: [Int] = []
  /// When the first frame came whose replica is held, in milliseconds; `nil` where none has.
  private var aheadSince: [UInt64?] = []
  /// The store that messages of a peer are for, `.max` when there is none.
  private var current = InlineArray<64, UInt8>(repeating: .max)
  private(set) var isRecovering = false
  /// Whether there are replicas of living owners.
  private(set) var isHolding = false
  private var isStandingBy = false

  private let layoutHash: UInt64
  private let stateSize: Int
  private let rules: FlowRules
  private let seed: UInt64
  private let memory: MemorySource

  init(chain: ServiceChain, rules: FlowRules, seed: UInt64, memory: MemorySource) {
    unsafe stores = .allocate(capacity: Self.capacity)
    layoutHash = MigrationMessage.layoutHash(chain.layout)
    stateSize = chain.stateSize
    self.rules = rules
    self.seed = seed
    self.memory = memory
  }

  deinit {
    unsafe stores.deinitialize(count: uses.count)
    unsafe stores.deallocate()
  }

  /// Replicas there are, those being taken over included.
  var count: Int { uses.indices.reduce(0) { unsafe $0 + stores[$1].count } }

  subscript(index: Int) -> ReplicaStore {
    _read { yield unsafe stores[index] }
    _modify { yield unsafe &stores[index] }
  }

  private func index(of owner: FlowOwner) -> Int? {
    uses.indices.first { unsafe uses[$0] != .free && stores[$0].owner == owner }
  }

  // MARK: Messages

  /// The store that updates of this life go to; `nil` when there is none.
  @inline(__always)
  func holding(_ peer: UInt8, _ life: FlowOwner) -> Int? {
    let index = Int(current[Int(peer)])
    return unsafe index < uses.count && uses[index] == .held && stores[index].owner == life ? index : nil
  }

  /// Asks for what updates will need.
  @inline(__always)
  func foresee(_ messages: UnsafeBufferPointer<UnsafeRawBufferPointer>, in index: Int) {
    for message in unsafe messages { unsafe stores[index].foresee(message, .buckets) }
    for message in unsafe messages { unsafe stores[index].foresee(message, .records) }
  }

  /// Stores an update, as `ReplicaStore.update` does.
  @inline(__always)
  mutating func update(_ message: UnsafeRawBufferPointer, in index: Int, milliseconds: UInt32) -> UnsafeRawBufferPointer? {
    unsafe stores[index].update(message, milliseconds: milliseconds)
  }

  /// Takes any message of a living owner; what it releases goes to `release`.
  mutating func receive(
    _ message: UnsafeRawBufferPointer, from peer: UInt8, life: FlowOwner, now: Tick, release: (UnsafeRawBufferPointer) -> Void
  ) -> ReplicaStore.Understanding {
    let opened = unsafe ReplicaStore.streamOpened(by: message)
    if opened != nil { current[Int(peer)] = store(for: life, now: now) }
    guard let index = holding(peer, life) else { return opened.map { .refused($0) } ?? .malformed }
    let understanding = unsafe stores[index].receive(message, now: now, release: release)
    if isStandingBy, let keys = unsafe ReplicaStore.flowIntroduced(by: message) { supersede(keys) }
    return understanding
  }

  /// The flow has a newer replica than that of an owner that has died.
  private mutating func supersede(_ keys: FlowKeyPair) {
    for index in uses.indices {
      guard case .standby = uses[index], let place = unsafe stores[index].find(keys.forward) else { continue }
      unsafe stores[index].remove(place)
    }
  }

  /// The store for a life's replicas, made if need be; `.max` when there are too many.
  private mutating func store(for life: FlowOwner, now: Tick) -> UInt8 {
    if let index = index(of: life) { return UInt8(index) }
    let vacant = uses.firstIndex(of: .free)
    if let index = vacant ?? (uses.count == mostLives ? uses.firstIndex { if case .standby = $0 { true } else { false } } : nil) {
      unsafe stores[index].assign(to: life)
      uses[index] = .held
      isHolding = true
      return UInt8(index)
    }
    guard uses.count < mostLives else { return .max }
    unsafe (stores + uses.count).initialize(
      to: ReplicaStore(
        of: life, layout: layoutHash, stateSize: stateSize, capacity: rules.capacity, ipv6Capacity: rules.ipv6Capacity,
        seed: seed, now: now, memory: memory))
    uses.append(.held)
    isHolding = true
    aheadSince.append(nil)
    return UInt8(uses.count - 1)
  }

  // MARK: Recovery

  /// The flows of this life are to be taken over, from now on with every packet that asks for one; and what it was itself still to
  /// take over, of which there are replicas here.
  mutating func beginRecovery(_ order: RecoveryOrder, now: Tick) -> RecoveryReport? {
    var report = RecoveryReport(run: order.run, lost: order.lost, started: now)
    let own = index(of: order.lost)
    if let own, uses[own].isRecovering { return nil }
    // Of a flow that is in both, the life that ended last has the newer replica.
    let inherited = uses.indices.filter { uses[$0] == .standby(heir: order.lost) }
    let found = (own.map { [$0] } ?? []) + inherited
    for index in found { uses[index] = .recovering(run: order.run) }
    sources += found
    noteUses()
    if found.isEmpty { report.finished = now } else { reports.append(report) }
    return report
  }

  /// This life's flows are taken over by another one: what is here of them is kept until that has replicas of its own, or has ended.
  mutating func standBy(_ lost: FlowOwner, heir: FlowOwner) {
    leave(to: lost)
    guard let index = index(of: lost), uses[index] == .held else { return }
    uses[index] = .standby(heir: heir)
    noteUses()
  }

  /// Somebody else has this life's flows, or nobody, and what it was to take over as well.
  mutating func drop(_ life: FlowOwner) {
    leave(to: life)
    guard let index = index(of: life), !uses[index].isRecovering else { return }
    free(index)
  }

  /// Nothing is left for which this stood by.
  private mutating func leave(to heir: FlowOwner) {
    for index in uses.indices where uses[index] == .standby(heir: heir) { free(index) }
  }

  /// The flows of a life for which this stands by have replicas again: whether it is their heir who says so.
  mutating func settle(_ lost: FlowOwner, by heir: FlowOwner) {
    if let index = index(of: lost), uses[index] == .standby(heir: heir) { free(index) }
  }

  private mutating func free(_ index: Int) {
    unsafe stores[index].removeAll()
    uses[index] = .free
    sources.removeAll { $0 == index }
    noteUses()
  }

  private mutating func noteUses() {
    isRecovering = !sources.isEmpty
    isHolding = uses.contains(.held)
    isStandingBy = uses.contains { if case .standby = $0 { true } else { false } }
  }

  /// The store that has a replica with this key among those to be taken over, and its place there.
  func find(_ frame: borrowing Frame) -> (index: Int, place: UInt32)? {
    for index in sources {
      if let place = unsafe stores[index].find(frame) { return (index, place) }
    }
    return nil
  }

  func find(_ key: FlowKey) -> (index: Int, place: UInt32)? {
    for index in sources {
      if let place = unsafe stores[index].find(key) { return (index, place) }
    }
    return nil
  }

  /// Whether a frame without a flow here is of one whose replica is held, of an owner that is not known to be dead: then a
  /// switch has heard of its death earlier than this runtime, and the flow must not begin anew. For a second at most: should
  /// no word come, the flow has begun anew.
  mutating func isAhead(_ frame: borrowing Frame, now: Tick) -> Bool {
    for index in uses.indices where uses[index] == .held {
      guard unsafe stores[index].find(frame) != nil else { continue }
      var since = aheadSince[index] ?? now.milliseconds
      if now.milliseconds &- since > 5_000 { since = now.milliseconds }
      aheadSince[index] = since
      return now.milliseconds &- since <= 1_000
    }
    return false
  }

  /// The next replica to be taken over without being asked for.
  mutating func next() -> (index: Int, place: UInt32)? {
    for index in sources {
      if let place = unsafe stores[index].next() { return (index, place) }
    }
    return nil
  }

  /// Replicas of flows that may have reached another runtime before their owner died.
  mutating func doubtful(limit: Int) -> (index: Int, peer: UInt8, places: [UInt32])? {
    for index in sources {
      if let (peer, places) = unsafe stores[index].doubtful(limit: limit) { return (index, peer, places) }
    }
    return nil
  }

  mutating func noteHandOver(_ slot: UInt32, from peer: UInt8, to target: UInt8) {
    let index = Int(current[Int(peer)])
    if index < uses.count, uses[index] == .held { unsafe stores[index].noteHandOver(slot, to: target) }
  }

  mutating func settleDoubt(_ index: Int, _ places: [UInt32], _ phase: MigrationPhase) {
    for place in places { unsafe stores[index].settleDoubt(place, phase) }
  }

  /// Whether there is a replica with one of these keys of a flow of this life.
  func has(_ keys: FlowKeyPair, of life: FlowOwner) -> Bool {
    guard let index = index(of: life) else { return false }
    return unsafe stores[index].find(keys.forward) != nil
  }

  /// The flow is another runtime's: its replica is of no use.
  mutating func discard(_ index: Int, _ place: UInt32) { unsafe stores[index].remove(place) }

  /// What became of a replica: its place is free again.
  mutating func settle(_ index: Int, _ place: UInt32, isServed: Bool, onDemand: Bool) {
    unsafe stores[index].remove(place)
    guard case .recovering(let run) = uses[index], let report = reports.firstIndex(where: { $0.run == run }) else { return }
    if isServed { reports[report].recovered += 1 } else { reports[report].refused += 1 }
    if onDemand { reports[report].onDemand += 1 }
  }

  /// A recovery that has come to its end, once each.
  mutating func takeFinished(now: Tick) -> RecoveryReport? {
    for index in sources where unsafe stores[index].count == 0 { free(index) }
    guard let place = reports.firstIndex(where: { !uses.contains(.recovering(run: $0.run)) }) else { return nil }
    var report = reports.remove(at: place)
    report.finished = now
    return report
  }
}
