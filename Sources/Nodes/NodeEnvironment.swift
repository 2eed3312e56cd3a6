import DPDKPorts
import FixedContainers
import Logging

/// The part of its host that a node was given.
public struct HostShare: Sendable {
  public enum Memory: String, Sendable, CaseIterable {
    /// Huge pages if enough are free, otherwise ordinary ones.
    case auto
    case huge
    case ordinary
  }

  /// Processors the worker may run on.
  public var processors: [Int]
  public var memory: Memory

  public init(processors: [Int], memory: Memory) {
    self.processors = processors
    self.memory = memory
  }

  /// Starts DPDK on the calling thread with room for `megabytes` of tables and packet buffers.
  func start(name: String, megabytes: Int, usesPCI: Bool = false, logger: Logger) throws(PortError) -> Environment {
    let free = Environment.freeHugePageMegabytes()
    var kind = Environment.Memory.hugePages
    if memory == .ordinary || (memory == .auto && free < megabytes) {
      // Large tables are not DPDK's then.
      kind = .ordinaryPages(megabytes: min(megabytes, 192))
      if memory == .auto {
        logger.notice(
          "Too few huge pages are free; running on ordinary pages, which is slower.",
          metadata: ["free": "\(free) MB", "needed": "\(megabytes) MB"])
      }
    }
    return try Environment(name: name, processors: processors, memory: kind, usesPCI: usesPCI)
  }
}

/// Bytes of flow state to reckon with at least, before the chain is made, which needs the memory: two cache lines.
let leastStateSize = 128

/// Memory a node needs, in megabytes, with room to spare: 64 for DPDK and its packet buffers, 64 for channels to other
/// nodes and packets held for moving flows, and its flows; for each replica that these have, as much again for what the holder
/// has of them, and for the replicas of other runtimes' flows.
func megabytesNeeded(flows: Int, ipv6Flows: Int, stateSize: Int, replicas: Int = 0) -> Int {
  // A flow: its record, its state, two entries of the table at three eighths load in the worst case, timer links, slot.
  128 + (flows * (64 + stateSize + 48 + 16) + ipv6Flows * 84) * (1 + 4 * replicas) * 5 / 4 / 1_048_576
}

/// Packet buffers of a process: what three ports have in their rings, and what is held or in flight.
let packetBuffers = 8_192
