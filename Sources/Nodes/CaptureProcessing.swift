import CaptureFiles
import ControlMessages
import Dataplane
import FixedContainers
import FlowActors
import FunctionCatalog
import ModuleGraphs
import NetworkFunctions
import Wire

/// Any capture through any chain, offline: for authors of network functions, bug reports and tests.
///
/// The packets take the very path they take in a runtime; only the port is a file, and the time is the
/// capture's. Since a capture does not say which side a packet came from, both directions are looked up, and
/// the first packet of a flow makes its direction the forward one.
public final class CaptureProcessing {
  /// What became of a capture. In = out + dropped by reason + consumed.
  public struct Report: Sendable, Encodable {
    public var chain = ""
    public var packets = Totals()
    /// By name of the reason; only those that occurred.
    public var droppedByReason: [String: UInt64] = [:]
    /// By end, those still there at the end of the capture last.
    public var flows: [FlowTotals] = []
    public var flowsRefused: UInt64 = 0
    public var observations: [String: UInt64] = [:]
    /// Why reading ended before the end of the file.
    public var fault: String?

    public struct Totals: Sendable, Encodable {
      public var `in`: UInt64 = 0
      public var inBytes: UInt64 = 0
      public var out: UInt64 = 0
      public var outBytes: UInt64 = 0
      public var dropped: UInt64 = 0
      /// Fragments; the datagrams they are part of count as packets of their own.
      public var consumed: UInt64 = 0
    }
  }

  /// One flow, counted as its packets arrived. Bytes are those of the Ethernet frames.
  public struct FlowTotals: Sendable, Encodable {
    public var protocolNumber: UInt8
    public var source: String
    public var sourcePort: UInt16
    public var destination: String
    public var destinationPort: UInt16
    public var vlan: UInt16
    public var forwardPackets: UInt64 = 0
    public var forwardBytes: UInt64 = 0
    public var reversePackets: UInt64 = 0
    public var reverseBytes: UInt64 = 0
    /// Milliseconds from the first packet of the capture.
    public var firstSeen: UInt64
    public var lastSeen: UInt64
    /// How it ended: `idle`, `refused` (its first packet was dropped), or `open` at the end of the capture.
    public var ending = "open"
  }

  private let reader: CaptureReader
  private let writer: CaptureWriter?
  private let chain: ServiceChain
  private let totals = FlowTotalsTable()
  private let rules: FlowRules
  private let reassembly: CaptureReassembly?

  /// - Parameters:
  ///   - reassembly: puts fragments together; without it they are dropped.
  ///   - output: file for the packets that pass, or `nil`.
  ///   - checksums: `trust` for captures taken before the NIC filled checksums in.
  public init(
    spec: ServiceChainSpec, input: String, output: String?, checksums: ChecksumPolicy, reassembly: CaptureReassembly? = nil
  ) throws {
    self.reassembly = reassembly
    chain = try Catalog.standard.makeChain(spec: spec, share: .whole)
    var rules = FlowRules(spec.flows)
    rules.checksums = checksums
    self.rules = rules
    reader = try CaptureReader(path: input)
    writer = try output.map { path throws(CaptureError) in try CaptureWriter(path: path) }
  }

  /// Runs the whole capture.
  ///
  /// - Parameters:
  ///   - seed: of the flow table's hash; equal seeds give equal runs.
  ///   - progress: told now and then how many packets have been read.
  public func run(seed: UInt64 = 1, progress: (UInt64) -> Void = { _ in }) throws -> Report {
    var core = RuntimeCore(chain: chain, rules: rules, seed: seed, now: .zero, memory: .plain)
    let totals = totals
    core.frameFound = { frame in totals.count(frame) }
    core.flowEnded = { flows, slot in totals.end(slot, hasForwarded: flows[slot].actor.hasForwarded) }
    let batch = PacketBatch()
    var nextReport: UInt64 = 1_000_000
    while let now = reader.read(into: batch) {
      while core.expireIdle(now: now, limit: 1_024) == 1_024 {}
      core.process(batch, clientSide: .max, serverSide: .max, now: now)
      core.settle(batch, consumed: reassembly?.take(batch, now: now) ?? 0)
      writer?.write(batch, start: reader.start)
      batch.removeAll()
      if let whole = reassembly?.whole, !whole.isEmpty {
        core.process(whole, clientSide: .max, serverSide: .max, now: now)
        core.settle(whole)
        writer?.write(whole, start: reader.start)
        reassembly?.release()
      }
      if reader.packets >= nextReport {
        progress(reader.packets)
        nextReport += 1_000_000
      }
    }
    try writer?.finish()
    return report(core.counters, drops: core.drops)
  }

  private func report(_ counters: Counters, drops: borrowing DropCounters) -> Report {
    var report = Report()
    report.chain = chain.name
    report.packets = Report.Totals(
      in: counters.received, inBytes: counters.receivedBytes, out: counters.forwarded, outBytes: counters.forwardedBytes,
      dropped: counters.dropped, consumed: counters.consumed)
    let names = dropNames(of: chain.dropReasons)
    for code in UInt8.min ... .max where drops[code] > 0 {
      report.droppedByReason[names[code] ?? "reason-\(code)", default: 0] += drops[code]
    }
    report.flows = totals.all()
    report.flowsRefused = counters.flowsRefused
    for observation in chain.observe() { report.observations[observation.name] = observation.value }
    report.fault = reader.fault
    return report
  }
}

/// Totals of the flows in the table, by slot, and of those that have ended.
final class FlowTotalsTable {
  private var open: [UInt32: CaptureProcessing.FlowTotals] = [:]
  private var order: [UInt32] = []
  private var ended: [CaptureProcessing.FlowTotals] = []

  func count(_ frame: borrowing Frame) {
    if open[frame.slot] == nil {
      open[frame.slot] = CaptureProcessing.FlowTotals(
        protocolNumber: frame.protocolNumber, source: frame.sourceAddress.description, sourcePort: frame.sourcePort,
        destination: frame.destinationAddress.description, destinationPort: frame.destinationPort,
        vlan: frame.fiveTuple.transport.vlan, firstSeen: frame.arrival.milliseconds, lastSeen: 0)
      order.append(frame.slot)
    }
    let bytes = UInt64(frame.length)
    open[frame.slot]!.lastSeen = frame.arrival.milliseconds
    switch frame.direction {
    case .forward:
      open[frame.slot]!.forwardPackets += 1
      open[frame.slot]!.forwardBytes += bytes
    case .reverse:
      open[frame.slot]!.reversePackets += 1
      open[frame.slot]!.reverseBytes += bytes
    }
  }

  func end(_ slot: UInt32, hasForwarded: Bool) {
    guard var totals = open.removeValue(forKey: slot) else { return }
    totals.ending = hasForwarded ? "idle" : "refused"
    ended.append(totals)
  }

  func all() -> [CaptureProcessing.FlowTotals] {
    ended + order.compactMap { open.removeValue(forKey: $0) }
  }
}
