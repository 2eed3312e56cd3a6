import FixedContainers
import FlowActors
import ModuleGraphs
import NetworkFunctions
import ReliableChannels
import Wire

extension Worker {
  /// A runtime: packets that the virtual switches send it go through the chain and back to the switch they came
  /// from, with the roles of both addresses exchanged.
  ///
  /// - Parameters:
  ///   - identity: of a member of a cluster, whose flows can move; `nil` for a runtime by itself.
  ///   - replicas: how many replicas its flows can have: there is memory for what the holders have.
  ///   - announces: whether it tells the fabric's bridges where it is.
  public static func runtime(
    port: PacketPort, address: FabricAddress, identity: FlowOwner? = nil, replicas: Int = 0, chain: ServiceChain,
    rules: FlowRules, seed: UInt64, rings: WorkerRings, now: Tick, memory: MemorySource, announces: Bool = false
  ) -> Worker {
    precondition(
      chain.growth <= Frame.headroom && (chain.growth == 0 || port.allowResizing()),
      "a chain that lengthens packets stands at a port that lets it")
    let published = PublishedCounters()
    let borrowed = BorrowedFlows()
    let runtime = RuntimeGraph(
      port: port, address: address, core: RuntimeCore(chain: chain, rules: rules, seed: seed, now: now, memory: memory))
    let migration = identity.map { owner in
      MigrationGraph(runtime: runtime, owner: owner, capacity: rules.capacity, replicas: replicas, rings: rings, memory: memory)
    }
    runtime.migration = migration
    let liaison = Liaison(rings: rings) { command, now in
      if case .errand(let errand) = command { errand.run(on: runtime.core.chain) }
      migration?.obey(command, now: now)
    }
    let announcement = announces ? AnnouncementGraph(port: port, address: address) : nil
    return Worker(
      graphs: [runtime] + (migration.map { [$0] } ?? []) + (announcement.map { [$0] } ?? []) + [TimerGraph { now in runtime.core.expireIdle(now: now, limit: 64) }],
      liaison: liaison, published: published,
      publishing: {
        runtime.core.counters.missed = port.missed
        if let (held, unprotected) = migration?.replicaCounts {
          runtime.core.counters.replicasHeld = UInt64(held)
          runtime.core.counters.unprotectedFlows = UInt64(unprotected)
        }
        migration?.count(into: &runtime.core.counters)
        published.publish(runtime.core.counters, drops: runtime.core.drops)
        borrowed.count(in: runtime.core.chain)
        published.publish(borrowed, passes: runtime.core.counters.passes)
      },
      accounting: runtime.account)
  }
}

/// From the port through the flow actors and back to the port.
@safe
final class RuntimeGraph: ModuleGraph {
  /// Behind a pointer, since a class's own properties are checked for exclusive access whenever they are touched.
  private let memory: UnsafeMutablePointer<RuntimeCore>
  let port: PacketPort
  let address: FabricAddress
  /// Takes frames of channels, and packets of flows that are not served here.
  unowned(unsafe) var migration: MigrationGraph? {
    didSet { takesControl = migration != nil }
  }
  private var takesControl = false
  /// Whether packets leave by way of another runtime. Noted here by `migration`, which would have to be retained to be asked.
  var isReplicating = false
  /// Switches whose life is over, by node: what one that was only thought to be dead dispatches could be a second owner's.
  var fencedSwitches: [UInt32] = []
  private let batch = PacketBatch()
  private let reassembly = Reassembly()

  init(port: PacketPort, address: FabricAddress, core: consuming RuntimeCore) {
    self.port = port
    self.address = address
    unsafe memory = .allocate(capacity: 1)
    unsafe memory.initialize(to: core)
  }

  deinit {
    unsafe memory.deinitialize(count: 1)
    unsafe memory.deallocate()
  }

  var core: RuntimeCore {
    @inline(__always) unsafeAddress { unsafe UnsafePointer(memory) }
    @inline(__always) unsafeMutableAddress { unsafe memory }
  }

  func account(busy: UInt64, total: UInt64, passes: UInt64) {
    core.counters.account(busy: busy, total: total, passes: passes)
  }

  override func run(at now: Tick) -> Int {
    port.receive(into: batch, now: now)
    let count = batch.count
    guard count > 0 else { return 0 }
    var fragments: UInt64 = 0
    let control = serve(batch, now: now, fragments: &fragments)
    // Behind the packets that came before them: a switch's answer must find those processed.
    if control != 0 { migration?.hear(batch, control, now: now) }
    port.release(batch, mask: batch.all & ~batch.live & ~fragments)
    batch.removeAll()
    if fragments != 0, !reassembly.whole.isEmpty { serveWhole(now: now) }
    return count
  }

  /// Datagrams of which the last fragment has come.
  private func serveWhole(now: Tick) {
    let whole = reassembly.whole
    _ = serve(whole, now: now)
    port.release(whole, mask: whole.all & ~whole.live)
    whole.removeAll()
  }

  /// Processes packets that are none of them fragments, or not to be put together.
  func serve(_ batch: PacketBatch, now: Tick) -> UInt64 {
    var fragments = UInt64.max
    return serve(batch, now: now, fragments: &fragments)
  }

  /// Processes a batch and transmits what passes. What is not live afterwards is to be given back.
  ///
  /// - Parameter fragments: afterwards those that the port has taken over; nothing is, if it is not 0 before.
  /// - Returns: frames of channels, which are left alone.
  private func serve(_ batch: PacketBatch, now: Tick, fragments: inout UInt64) -> UInt64 {
    let sides = sortBySide(batch)
    if !fencedSwitches.isEmpty { dropFenced(batch) }
    let detoured = core.process(batch, clientSide: sides.client, serverSide: sides.server, now: now)
    var consumed = sides.control
    if detoured != 0 { consumed |= migration?.detour(batch, detoured, now: now) ?? 0 }
    if isReplicating { migration?.foresee(batch, batch.live) }
    returnToSenders(batch)
    let lost = batch.all & ~batch.live & ~consumed
    if lost != 0, fragments == 0 {
      let result = reassembly.take(batch, lost, from: port, now: now)
      fragments = result.taken
      consumed |= result.consumed
    }
    guard isReplicating, let migration else {
      let refused = port.transmit(batch, mask: batch.live)
      PacketBatch.forEach(in: refused) { batch.drop($0, .transmitQueueFull) }
      core.settle(batch, consumed: consumed)
      return sides.control
    }
    let committed = migration.commit(batch, batch.live, now: now)
    core.settle(batch, consumed: consumed)
    // They went as copies: the frames themselves are given back.
    batch.live &= ~committed
    return sides.control
  }

  /// Which frames came from either side, by the address the switch used, and which are for the node itself; drops what
  /// is not for this node, or not from a switch of this cluster: what passes is sent back to its sender.
  private func sortBySide(_ batch: PacketBatch) -> (client: UInt64, server: UInt64, control: UInt64) {
    var burst = Burst(batch)
    let own = address
    let takesControl = takesControl
    var sides = (client: UInt64(0), server: UInt64(0), control: UInt64(0))
    for index in 0..<batch.count {
      let bit: UInt64 = 1 &<< UInt64(truncatingIfNeeded: index)
      let role = own.role(of: burst[index].destinationMAC)
      guard role &- 1 < 2 else {
        if takesControl, burst[index].destinationMAC == own.control, burst[index].isOfType(ChannelFrame.etherType) {
          sides.control |= bit
          burst.live &= ~bit
        } else {
          burst.drop(index, .notForThisNode)
        }
        continue
      }
      // Without a jump, since which side the next packet is from no processor foresees: 1 is the client side, 2 the server side.
      sides.client |= (role & 1) &<< UInt64(truncatingIfNeeded: index)
      sides.server |= (role &>> 1) &<< UInt64(truncatingIfNeeded: index)
      if !own.isPeer(burst[index].sourceMAC) { burst.drop(index, .unknownSource) }
    }
    batch.live = burst.live
    return sides
  }

  @inline(never)
  private func dropFenced(_ batch: PacketBatch) {
    PacketBatch.forEach(in: batch.live) { index in
      if fencedSwitches.contains(FabricAddress.node(of: batch[index].sourceMAC)) { batch.drop(index, .fenced) }
    }
  }

  /// Exchanges sender and receiver, and the roles of both.
  private func returnToSenders(_ batch: PacketBatch) {
    let burst = Burst(batch)
    PacketBatch.forEach(in: burst.live) { burst[$0].exchangeMACAddresses(changingLastByte: FabricAddress.roleFlip) }
  }
}

/// Looks at the timer wheel once every 16 ms of worker time, a bounded number of timers each time.
final class TimerGraph: ModuleGraph {
  private let advance: (Tick) -> Int
  private var next = Tick.zero

  init(_ advance: @escaping (Tick) -> Int) { self.advance = advance }

  override func run(at now: Tick) -> Int {
    guard now >= next else { return 0 }
    let fired = advance(now)
    // Something left over is done in the next pass.
    if fired < 64 { next = now.advanced(byMilliseconds: 16) }
    return fired
  }
}
