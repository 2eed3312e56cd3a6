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
    guard !batch.isEmpty else { return 0 }
    let (input, output) = (address.address(of: .client), address.address(of: .server))
    var clientSide: UInt64 = 0
    var serverSide: UInt64 = 0
    var notOurs: UInt64 = 0
    var strange: UInt64 = 0
    for index in 0..<batch.count {
      let destination = batch[index].destinationMAC
      if destination == input {
        clientSide |= 1 << UInt64(index)
      } else if destination == output {
        serverSide |= 1 << UInt64(index)
      } else {
        notOurs |= 1 << UInt64(index)
      }
      // What passes is sent back to its sender: that has to be a switch of this cluster.
      if !address.isPeer(batch[index].sourceMAC) { strange |= 1 << UInt64(index) }
    }
    PacketBatch.forEach(in: strange & ~notOurs) { batch.drop($0, .unknownSource) }
    PacketBatch.forEach(in: notOurs) { batch.drop($0, .notForThisNode) }
    core.process(batch, clientSide: clientSide, serverSide: serverSide, now: now)

    PacketBatch.forEach(in: batch.live) { index in
      let (own, other) = (batch[index].destinationMAC, batch[index].sourceMAC)
      batch[index].sourceMAC = FabricAddress.flipped(own)
      batch[index].destinationMAC = FabricAddress.flipped(other)
    }
    let refused = port.transmit(batch, mask: batch.live)
    PacketBatch.forEach(in: refused) { batch.drop($0, .transmitQueueFull) }
    core.counters.forward(batch, batch.live)
    core.settle(batch)
    port.release(batch, mask: batch.all & ~batch.live)
    defer { batch.removeAll() }
    return batch.count
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
