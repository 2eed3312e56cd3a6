import FixedContainers
import FlowActors
import ModuleGraphs
import Wire

/// The three ports of a virtual switch.
public struct SwitchPorts {
  public var client: PacketPort
  public var server: PacketPort
  public var fabric: PacketPort

  public init(client: PacketPort, server: PacketPort, fabric: PacketPort) {
    self.client = client
    self.server = server
    self.fabric = fabric
  }
}

extension Worker {
  /// A virtual switch: the same worker with switch actors instead of flow actors (paper §III-C).
  public static func virtualSwitch(
    ports: SwitchPorts, address: FabricAddress, client: UplinkSettings, server: UplinkSettings, rules: FlowRules,
    seed: UInt64, rings: WorkerRings, now: Tick, memory: MemorySource
  ) -> Worker {
    let published = PublishedCounters()
    let state = SwitchState(
      core: SwitchCore(fabric: address, rules: rules, seed: seed, now: now, memory: memory),
      client: Uplink(port: ports.client, settings: client), server: Uplink(port: ports.server, settings: server),
      fabric: ports.fabric)
    state.client.announce(now: now)
    state.server.announce(now: now)
    let liaison = Liaison(rings: rings) { state.core.runtimes.update($0) }
    return Worker(
      graphs: [
        UplinkGraph(state: state, side: .client), UplinkGraph(state: state, side: .server), FabricGraph(state: state),
        TimerGraph { now in
          state.serveWaiting(now: now)
          return state.core.expireIdle(now: now, limit: 64)
        },
      ],
      liaison: liaison, published: published,
      publishing: {
        state.core.counters.missed = ports.client.missed &+ ports.server.missed &+ ports.fabric.missed
        published.publish(state.core.counters, drops: state.core.drops)
      },
      accounting: state.account)
  }
}

/// What the graphs of a switch work on together.
final class SwitchState {
  var core: SwitchCore
  let client: Uplink
  let server: Uplink
  let fabric: PacketPort

  init(core: consuming SwitchCore, client: Uplink, server: Uplink, fabric: PacketPort) {
    self.core = core
    self.client = client
    self.server = server
    self.fabric = fabric
  }

  func account(busy: UInt64, total: UInt64, passes: UInt64) {
    core.counters.account(busy: busy, total: total, passes: passes)
  }

  /// Transmits `mask` and counts it; what the port does not take is dropped.
  func transmit(_ batch: PacketBatch, _ mask: UInt64, through port: PacketPort) {
    guard mask != 0 else { return }
    let refused = port.transmit(batch, mask: mask)
    PacketBatch.forEach(in: refused) { batch.drop($0, .transmitQueueFull) }
    core.counters.forward(batch, mask & ~refused)
  }

  func serveWaiting(now: Tick) {
    for uplink in [client, server] {
      let served = uplink.serveWaiting(now: now)
      core.counters.forwarded &+= UInt64(served.sent)
      core.counters.forwardedBytes &+= UInt64(served.bytes)
      for _ in 0..<served.expired {
        core.counters.dropped &+= 1
        core.drops.add(.unresolvedNextHop)
      }
      uplink.flush()
    }
  }
}

/// From an uplink to the runtimes.
final class UplinkGraph: ModuleGraph {
  private let state: SwitchState
  private let uplink: Uplink
  private let side: Side
  private let batch = PacketBatch()

  init(state: SwitchState, side: Side) {
    self.state = state
    self.side = side
    uplink = side == .client ? state.client : state.server
  }

  override func run(at now: Tick) -> Int {
    uplink.port.receive(into: batch, now: now)
    guard !batch.isEmpty else { return 0 }
    state.core.processOutside(batch, uplink: uplink, side: side, now: now)
    state.transmit(batch, batch.live, through: state.fabric)
    state.core.settle(batch, held: 0)
    uplink.port.release(batch, mask: batch.all & ~batch.live)
    // ARP packets have come in: answers go out, and packets may have waited for them.
    state.serveWaiting(now: now)
    defer { batch.removeAll() }
    return batch.count
  }
}

/// From the runtimes to the uplinks.
final class FabricGraph: ModuleGraph {
  private let state: SwitchState
  private let batch = PacketBatch()

  init(state: SwitchState) { self.state = state }

  override func run(at now: Tick) -> Int {
    state.fabric.receive(into: batch, now: now)
    guard !batch.isEmpty else { return 0 }
    let sides = state.core.processFabric(batch, client: state.client, server: state.server, now: now)
    state.transmit(batch, sides.client, through: state.client.port)
    state.transmit(batch, sides.server, through: state.server.port)
    state.core.settle(batch, held: sides.held)
    state.fabric.release(batch, mask: batch.all & ~batch.live & ~sides.held)
    state.client.flush()
    state.server.flush()
    defer { batch.removeAll() }
    return batch.count
  }
}
