import ControlMessages
import Dataplane
import Wire

/// Turns a worker's growing counters into what it did in each interval.
struct WorkloadMeter {
  private let node: NodeID
  private let capacity: UInt64
  private var last = Counters()
  private var lastDrops: [UInt8: UInt64] = [:]
  private var since: UInt64 = 0

  init(node: NodeID, capacity: UInt64) {
    self.node = node
    self.capacity = capacity
  }

  mutating func begin(_ published: PublishedCounters, at milliseconds: UInt64) {
    last = published.read()
    since = milliseconds
  }

  /// - Parameter dropNames: name of each drop reason's code.
  mutating func measure(_ published: PublishedCounters, dropNames: [UInt8: String], at milliseconds: UInt64) -> NodeWorkload {
    let now = published.read()
    var workload = NodeWorkload(node: node, interval: max(1, milliseconds - since))
    workload.receivedPackets = now.received &- last.received
    workload.receivedBytes = now.receivedBytes &- last.receivedBytes
    workload.forwardedPackets = now.forwarded &- last.forwarded
    workload.forwardedBytes = now.forwardedBytes &- last.forwardedBytes
    // What the port lost because the worker was late is a drop like any other: the paper's sign of overload.
    let missed = now.missed &- last.missed
    workload.droppedPackets = now.dropped &- last.dropped &+ missed
    if missed > 0 { workload.drops.append(.init(reason: "missed-by-port", packets: missed)) }
    for (code, count) in published.drops() {
      let packets = count &- lastDrops[code, default: 0]
      lastDrops[code] = count
      if packets > 0 { workload.drops.append(.init(reason: dropNames[code] ?? "reason-\(code)", packets: packets)) }
    }
    workload.activeFlows = now.activeFlows
    workload.flowsCreated = now.flowsCreated &- last.flowsCreated
    workload.flowsExpired = now.flowsExpired &- last.flowsExpired
    let cycles = now.totalCycles &- last.totalCycles
    workload.busyShare = cycles == 0 ? 0 : UInt32(min(1_000_000, (now.busyCycles &- last.busyCycles) &* 1_000 / max(1, cycles / 1_000)))
    workload.capacity = capacity
    workload.unprotectedFlows = now.unprotectedFlows
    workload.replicasHeld = now.replicasHeld
    workload.packetsReplicated = now.packetsReplicated &- last.packetsReplicated
    workload.packetsReleased = now.packetsReleased &- last.packetsReleased
    last = now
    since = milliseconds
    return workload
  }
}

/// Names of all drop reasons a node can have.
func dropNames(of functions: [DropReasonDescription]) -> [UInt8: String] {
  Dictionary((DropReason.platform + functions).map { ($0.reason.code, $0.name) }, uniquingKeysWith: { first, _ in first })
}
