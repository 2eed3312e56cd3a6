import FixedContainers
import NetworkFunctions
import Wire

// How a switch that takes over learns the routes of flows that it has never seen: each runtime knows which flows are its own,
// and with which keys. So nothing of a switch is copied while it lives, and nothing of what it knew is missed when it is dead.
//
//     switch                                           every living runtime
//       │ census: settle ───────────────────────────────▶│ asks this switch, too, about every batch of flows from here on,
//       │                                                │ and waits for those that it did not ask it about, and for
//       │                                                │ flows that it is just recovering
//       │◀──────────────────────────────────── counted ──│
//       ╎ when all have said so
//       │ census: tell ─────────────────────────────────▶│
//       │◀──────────────────── routes: keys (≤ 32), ... ─│ in the order of its slots, some in every pass
//       │◀──────────────────────────────────── counted ──│
//
// From the first word to the last a flow is always told of: it is where it is told, or it moves by a change of routes that
// this switch is asked for, behind what its source has told before, on the same channel. A switch takes a route that it is
// asked to change and does not know for one that will not be told any more.
// A runtime whose flows another one recovers is not waited for; that one is asked anew.

/// What a switch does with the routes that runtimes tell it.
public protocol RestoredRoutes: ~Copyable {
  /// These keys are about to be looked up: asks for the memory that this takes.
  func foresee(_ keys: FlowKeyPair, _ step: Foresight)
  /// The flow with these keys is this runtime's.
  mutating func restore(_ keys: FlowKeyPair, timeoutClass: UInt8, owner: FlowOwner)
}

/// The switch's half: whom it has asked, and what for.
public struct RouteCensus {
  /// Nanoseconds after which it does without those that have not answered: somebody will declare them dead, but new flows
  /// must not wait for ever.
  public static let patience: UInt64 = 2_000_000_000

  public private(set) var isRunning = false
  /// Flows that runtimes have told of in this census; and censuses that ended without a word of somebody.
  public private(set) var told: UInt64 = 0
  public private(set) var incomplete: UInt64 = 0
  private var run: UInt32 = 0
  private var deadline: UInt64 = 0
  // Peers, as bits: each is in one of these, and in none when it has told all.
  private var settling: UInt64 = 0
  private var settled: UInt64 = 0
  private var telling: UInt64 = 0
  /// Whose request has not been sent yet.
  private var unsent: UInt64 = 0
  /// By peer, the last life whose flows it was told to recover: it has to know that before it answers.
  private var lost = InlineArray<64, FlowOwner>(repeating: .none)

  public init() {}

  /// Begins anew.
  ///
  /// - Parameter peers: indexes of the living runtimes, as bits.
  public mutating func begin(_ peers: UInt64, now: Tick) {
    run &+= 1
    deadline = now.nanoseconds &+ Self.patience
    (settling, settled, telling, unsent) = (peers, 0, 0, peers)
    told = 0
    isRunning = peers != 0
  }

  /// This runtime recovers the flows of a life that is over: it has more of them now than if it was asked before.
  public mutating func inherits(_ peer: UInt8, _ life: FlowOwner) {
    lost[Int(peer)] = life
    guard isRunning else { return }
    let bit: UInt64 = 1 << UInt64(peer)
    settled &= ~bit
    telling &= ~bit
    settling |= bit
    unsent |= bit
  }

  /// A life that was asked is over: nothing is to be waited for.
  public mutating func ended(_ peer: UInt8) {
    lost[Int(peer)] = .none
    let others: UInt64 = ~(1 << UInt64(peer))
    (settling, settled, telling, unsent) = (settling & others, settled & others, telling & others, unsent & others)
  }

  /// Sends what is to be asked, and ends the census when nothing is waited for any more. Called in every pass.
  public mutating func advance(now: Tick, outbox: inout some MigrationOutbox & ~Copyable) {
    guard isRunning else { return }
    if settling == 0, settled != 0 {
      telling |= settled
      unsent |= settled
      settled = 0
    }
    var rest = unsent
    while rest != 0 {
      let peer = UInt8(rest.trailingZeroBitCount)
      rest &= rest &- 1
      let isTelling = telling & 1 << UInt64(peer) != 0
      let life = lost[Int(peer)]
      if CensusMessage.send(.census, run: run, isTelling: isTelling, life, to: peer, outbox: &outbox) {
        unsent &= ~(1 << UInt64(peer))
      }
    }
    if settling | settled | telling == 0 {
      isRunning = false
    } else if now.nanoseconds >= deadline {
      isRunning = false
      incomplete += 1
    }
  }

  /// Takes a message of kind `counted` or `routes`; `false` when it is malformed. What comes too late is ignored.
  ///
  /// - Parameter owner: the life that it comes from.
  public mutating func receive(
    _ message: RawSpan, from peer: UInt8, owner: FlowOwner, routes: inout some RestoredRoutes & ~Copyable
  ) -> Bool {
    message.withUnsafeBytes { bytes in
      guard let header = MigrationMessage(bytes) else { return false }
      let isCurrent = isRunning && header.run == run
      switch header.kind {
      case .counted:
        guard bytes.count == MigrationMessage.headerLength, header.batch <= 1 else { return false }
        if isCurrent { counted(peer, isTelling: header.batch == 1) }
        return true
      case .routes:
        var check = MigrationReader(bytes)
        for _ in 0..<header.count {
          guard let (keys, timeoutClass) = check.keys(), timeoutClass < TimeoutClass.departed else { return false }
          if isCurrent { routes.foresee(keys, .buckets) }
        }
        guard check.isAtEnd else { return false }
        guard isCurrent else { return true }
        var reader = MigrationReader(bytes)
        for _ in 0..<header.count {
          if let (keys, timeoutClass) = reader.keys() { routes.restore(keys, timeoutClass: timeoutClass, owner: owner) }
        }
        told &+= UInt64(header.count)
        return true
      default: return false
      }
    }
  }

  private mutating func counted(_ peer: UInt8, isTelling: Bool) {
    let bit: UInt64 = 1 << UInt64(peer)
    // An answer to a request before the last one counts for nothing.
    guard unsent & bit == 0 else { return }
    if isTelling {
      telling &= ~bit
    } else if settling & bit != 0 {
      settling &= ~bit
      settled |= bit
    }
  }
}

/// A runtime's half: tells the switches that ask which flows are its own.
public struct RouteTelling: ~Copyable {
  private enum Step {
    /// Until the batches before this number have come to their end, and this life is known to be over.
    case settling(before: UInt32, FlowOwner)
    case settled
    /// From this slot on.
    case telling(UInt32)
  }
  private struct Request {
    let peer: UInt8
    let run: UInt32
    var step: Step
  }

  /// One for each switch that is asking.
  private var requests: [Request] = []
  private let scratch: UnsafeMutableRawPointer
  /// In a pass: messages, and slots looked at.
  private static let mostMessages = 8
  private static let mostSlots: UInt32 = 4_096

  public init(memory: MemorySource) {
    scratch = UnsafeMutableRawPointer(
      memory.allocate(UInt8.self, count: MigrationMessage.headerLength + 88 * MigrationMessage.mostFlows))
  }

  public var isIdle: Bool { requests.isEmpty }

  /// Takes a message of kind `census`; `false` when it is malformed.
  public mutating func receive(_ message: RawSpan, from peer: UInt8, source: inout MigrationSource) -> Bool {
    guard let header = message.withUnsafeBytes({ MigrationMessage($0) }), header.kind == .census, header.batch <= 1,
      message.byteCount == MigrationMessage.headerLength
    else { return false }
    if header.batch == 0 {
      ended(peer)
      source.include(switch: peer)
      let lost = FlowOwner(node: header.node, incarnation: header.word)
      requests.append(Request(peer: peer, run: header.run, step: .settling(before: source.nextNumber, lost)))
    } else if let index = requests.firstIndex(where: { $0.peer == peer && $0.run == header.run }),
      case .settled = requests[index].step
    {
      requests[index].step = .telling(0)
    }
    return true
  }

  /// Whoever asked has no use for it any more.
  public mutating func ended(_ peer: UInt8) { requests.removeAll { $0.peer == peer } }

  /// Answers what can be answered. Called in every pass while not idle.
  ///
  /// - Parameters:
  ///   - isRecovering: whether flows of another runtime are still being taken over.
  ///   - knowsEnd: whether it is known here that a life is over, and who has its flows.
  public mutating func advance(
    flows: borrowing some DepartingFlows & ReplicatedFlows & ~Copyable, source: borrowing MigrationSource, isRecovering: Bool,
    knowsEnd: (FlowOwner) -> Bool, outbox: inout some MigrationOutbox & ~Copyable
  ) {
    for index in requests.indices.reversed() {
      let request = requests[index]
      switch request.step {
      case .settled: break
      case .settling(let number, let lost):
        guard !isRecovering, lost == .none || knowsEnd(lost), source.isSettled(before: number) else { continue }
        if CensusMessage.send(.counted, run: request.run, isTelling: false, to: request.peer, outbox: &outbox) {
          requests[index].step = .settled
        }
      case .telling(let slot):
        guard let next = tell(request, from: slot, flows, &outbox) else {
          requests.remove(at: index)
          continue
        }
        requests[index].step = .telling(next)
      }
    }
  }

  /// - Returns: where to go on; `nil` when all was told.
  private func tell(
    _ request: Request, from first: UInt32, _ flows: borrowing some DepartingFlows & ReplicatedFlows & ~Copyable,
    _ outbox: inout some MigrationOutbox & ~Copyable
  ) -> UInt32? {
    let end = UInt32(flows.slotCount)
    let limit = min(end, first &+ Self.mostSlots)
    var slot = first
    for _ in 0..<Self.mostMessages where slot < limit {
      var chosen = InlineArray<32, UInt32>(repeating: 0)
      var count = 0
      var next = slot
      while next < limit, count < MigrationMessage.mostFlows {
        if flows.isReplicable(next) {
          chosen[count] = next
          count += 1
        }
        next += 1
      }
      if count > 0 {
        var header = MigrationMessage(.routes, run: request.run, batch: 0)
        header.count = UInt16(count)
        var writer = MigrationWriter(header, into: scratch)
        for place in 0..<count {
          writer.put(flows.keys(of: chosen[place]), timeoutClass: flows.travelling(chosen[place], now: .zero).timeoutClass)
        }
        guard outbox.send(writer.message.bytes, to: request.peer) else { return slot }
      }
      slot = next
    }
    guard slot == end else { return slot }
    return CensusMessage.send(.counted, run: request.run, isTelling: true, to: request.peer, outbox: &outbox) ? nil : slot
  }
}

/// The messages of a census that have no entries.
private enum CensusMessage {
  static func send(
    _ kind: MigrationMessage.Kind, run: UInt32, isTelling: Bool, _ life: FlowOwner = .none, to peer: UInt8,
    outbox: inout some MigrationOutbox & ~Copyable
  ) -> Bool {
    withUnsafeTemporaryAllocation(byteCount: MigrationMessage.headerLength, alignment: 8) { bytes in
      var header = MigrationMessage(kind, run: run, batch: isTelling ? 1 : 0)
      (header.node, header.word) = (life.node, life.incarnation)
      let writer = MigrationWriter(header, into: bytes.baseAddress!)
      return outbox.send(writer.message.bytes, to: peer)
    }
  }
}

extension FlowOwner {
  /// Nobody: nodes and lives count from 1.
  fileprivate static let none = FlowOwner(node: 0, incarnation: 0)
}
