import FixedContainers
import FlowActors
import ModuleGraphs
import NetworkFunctions
import Wire

extension Worker {
  /// A runtime: packets that the virtual switches send it go through the chain and back to the switch they came
  /// from, with the roles of both addresses exchanged.
  public static func runtime(
    port: PacketPort, address: FabricAddress, chain: ServiceChain, rules: FlowRules, seed: UInt64, rings: WorkerRings,
    now: Tick, memory: MemorySource
  ) -> Worker {
    let published = PublishedCounters()
    let runtime = RuntimeGraph(
      port: port, address: address, core: RuntimeCore(chain: chain, rules: rules, seed: seed, now: now, memory: memory))
    let liaison = Liaison(rings: rings) { _ in }  // a runtime answers whoever sent the packet
    return Worker(
      graphs: [runtime, TimerGraph { now in runtime.core.expireIdle(now: now, limit: 64) }],
      liaison: liaison, published: published,
      publishing: {
        runtime.core.counters.missed = port.missed
        published.publish(runtime.core.counters, drops: runtime.core.drops)
      },
      accounting: runtime.account)
  }
}

/// From the port through the flow actors and back to the port.
final class RuntimeGraph: ModuleGraph {
  var core: RuntimeCore
  private let port: PacketPort
  private let address: FabricAddress
  private let batch = PacketBatch()

  init(port: PacketPort, address: FabricAddress, core: consuming RuntimeCore) {
    self.port = port
    self.address = address
    self.core = core
  }

  func account(busy: UInt64, total: UInt64, passes: UInt64) {
    core.counters.account(busy: busy, total: total, passes: passes)
  }

  override func run(at now: Tick) -> Int {
    port.receive(into: batch, now: now)
    let count = batch.count
    guard count > 0 else { return 0 }
    let sides = sortBySide(count)
    core.process(batch, clientSide: sides.client, serverSide: sides.server, now: now)
    returnToSenders()
    let refused = port.transmit(batch, mask: batch.live)
    PacketBatch.forEach(in: refused) { batch.drop($0, .transmitQueueFull) }
    core.settle(batch)
    port.release(batch, mask: batch.all & ~batch.live)
    batch.removeAll()
    return count
  }

  /// Which frames came from either side, by the address the switch used; drops what is not for this node, or
  /// not from a switch of this cluster: what passes is sent back to its sender.
  private func sortBySide(_ count: Int) -> (client: UInt64, server: UInt64) {
    var burst = Burst(batch)
    let own = address
    var sides = (client: UInt64(0), server: UInt64(0))
    for index in 0..<count {
      let bit: UInt64 = 1 << UInt64(truncatingIfNeeded: index)
      switch own.side(of: burst[index].destinationMAC) {
      case .client: sides.client |= bit
      case .server: sides.server |= bit
      case nil: burst.drop(index, .notForThisNode)
        continue
      }
      if !own.isPeer(burst[index].sourceMAC) { burst.drop(index, .unknownSource) }
    }
    batch.live = burst.live
    return sides
  }

  /// Exchanges sender and receiver, and the roles of both.
  private func returnToSenders() {
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
