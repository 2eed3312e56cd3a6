import Dataplane
import ModuleGraphs
import NetworkFunctionTesting
import NetworkFunctions
import Simulation
import Wire

/// A `RuntimeCore` in a test's hands: bursts go in, each packet's outcome comes back, and the books are kept.
final class CoreUnderTest {
  private(set) var core: RuntimeCore
  var now = Tick.zero
  let memory = WireMemory()

  init(_ chain: ServiceChain, rules: FlowRules = FlowRules(), seed: UInt64 = 1) {
    core = RuntimeCore(chain: chain, rules: rules, seed: seed, now: .zero, memory: .plain)
  }

  convenience init<Function: NetworkFunction>(_ function: Function, rules: FlowRules = FlowRules()) {
    self.init(ServiceChain([ServiceStage("function", function, share: .whole)]), rules: rules)
  }

  enum Outcome: Hashable, CustomStringConvertible {
    case forwarded(TestPacket, Direction)
    case dropped(String)

    var packet: TestPacket? { if case .forwarded(let packet, _) = self { packet } else { nil } }
    var reason: String? { if case .dropped(let reason) = self { reason } else { nil } }
    var direction: Direction? { if case .forwarded(_, let direction) = self { direction } else { nil } }

    var description: String {
      switch self {
      case .forwarded(let packet, let direction): "\(direction): \(packet)"
      case .dropped(let reason): "dropped: \(reason)"
      }
    }
  }

  enum From { case client, server, either }

  /// Processes the packets as one burst (or several, of 64).
  @discardableResult
  func send(_ packets: [TestPacket], from: From = .either) -> [Outcome] {
    var outcomes: [Outcome] = []
    let batch = PacketBatch()
    for start in stride(from: 0, to: packets.count, by: PacketBatch.capacity) {
      for packet in packets[start..<min(packets.count, start + PacketBatch.capacity)] {
        memory.append(packet.bytes, to: batch, now: now)
      }
      core.process(
        batch, clientSide: from == .server ? 0 : .max, serverSide: from == .client ? 0 : .max, now: now)
      for index in 0..<batch.count {
        if batch.live & 1 << UInt64(index) != 0 {
          let bytes = batch[index].withBytes { Array($0) }
          outcomes.append(.forwarded(TestPacket(bytes: bytes), batch[index].direction))
        } else {
          outcomes.append(.dropped(name(of: batch[index].dropReason)))
        }
      }
      core.settle(batch)
      for index in 0..<batch.count { memory.free(batch[index]) }
      batch.removeAll()
    }
    return outcomes
  }

  @discardableResult
  func send(_ packet: TestPacket, from: From = .either) -> Outcome { send([packet], from: from)[0] }

  /// Lets time pass in steps, with the timers looked at as often as a worker would.
  func wait(milliseconds: UInt64, step: UInt64 = 1_000) {
    let end = now.milliseconds + milliseconds
    while now.milliseconds < end {
      now = Tick(milliseconds: min(end, now.milliseconds + step))
      while core.expireIdle(now: now, limit: 64) == 64 {}
    }
  }

  /// One look at the timers; returns how many fired.
  func expire(limit: Int) -> Int { core.expireIdle(now: now, limit: limit) }

  var flowCount: Int { core.flows.count }

  func observed(_ name: String) -> UInt64? { core.chain.observe().first { $0.name == name }?.value }

  /// In = out + dropped, and the drops by reason are as many as the drops.
  var booksBalance: Bool {
    var byReason: UInt64 = 0
    for code in UInt8.min ... .max { byReason += core.drops[code] }
    return core.counters.received == core.counters.forwarded + core.counters.dropped && core.counters.dropped == byReason
  }

  private func name(of reason: DropReason) -> String {
    (core.chain.dropReasons + DropReason.platform).first { $0.reason == reason }?.name ?? "undescribed reason \(reason.code)"
  }
}

func endpoint(_ address: String, _ port: Int) -> Endpoint {
  guard let parsed = IPAddress(address), let port = UInt16(exactly: port) else {
    preconditionFailure("'\(address)' port \(port)")
  }
  return Endpoint(parsed, port: port)
}
