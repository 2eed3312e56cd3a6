import ControlMessages
import Dataplane
import Logging
import Telemetry

/// What a runtime or switch says over HTTP: `/metrics` in Prometheus' text, `/healthz`, `/readyz`.
///
/// The control thread posts; the worker and its packets are not asked.
struct NodePages {
  /// Ports behind the wanted one that are tried: the nodes of a host share a range.
  static var portRange: Int { 64 }

  private let board: StatusBoard
  private let server: PageServer?
  private let spec: LaunchSpec
  private let startup: UInt64

  /// A node that cannot listen says so, and goes on without pages.
  init(at address: PageServer.Address?, spec: LaunchSpec, startup: UInt64, logger: Logger) {
    let board = StatusBoard()
    self.board = board
    self.spec = spec
    self.startup = startup
    var server: PageServer?
    if let address {
      do {
        server = try PageServer(at: address, ports: Self.portRange, readers: 0) { request in
          board.answer(request.path) ?? .init(status: 404, type: .plain, body: "/metrics /healthz /readyz\n")
        }
        logger.info("Serving pages.", metadata: ["at": "\(server!.address)"])
      } catch {
        logger.warning("No pages.", metadata: ["problem": "\(error)"])
      }
    }
    self.server = server
  }

  func post(_ published: PublishedCounters, dropNames: [UInt8: String], factsLost: UInt64, factsUnsettled: Int, isLogReachable: Bool) {
    guard server != nil else { return }
    let drops = published.drops().map { (dropNames[$0.code] ?? "reason-\($0.code)", $0.count) }
    var text = MetricsText(common: [
      ("cluster", spec.cluster.name), ("node", "\(spec.node)"), ("kind", "\(spec.kind)"),
    ])
    text.add(published.read(), drops: drops)
    text.add("nfv_incarnation", .gauge, "Number of this life of the node.", spec.incarnation.number)
    text.add("nfv_startup_seconds", .gauge, "From the start of the process to its first pass.", startup, per: 1_000)
    text.add("nfv_log_reachable", .gauge, "Whether the log answers.", isLogReachable ? 1 : 0)
    text.add("nfv_facts_lost_total", .counter, "Facts that the queue had no room for while the log was away.", factsLost)
    text.add("nfv_facts_unsettled", .gauge, "Facts that the log has not acknowledged yet.", UInt64(factsUnsettled))
    board.post(.init(metrics: text.text, obstacle: isLogReachable ? nil : "the log cannot be reached; packets go on"))
  }

  func stop() { server?.stop() }
}

extension MetricsText {
  /// All that a worker counts.
  mutating func add(_ counters: Counters, drops: [(String, UInt64)]) {
    func kinds(_ label: String, _ values: [(String, UInt64)]) -> [(labels: [(String, String)], value: UInt64)] {
      values.map { ([(label, $0.0)], $0.1) }
    }
    add("nfv_received_packets_total", .counter, "Packets taken from the ports.", counters.received)
    add("nfv_received_bytes_total", .counter, "Bytes of them.", counters.receivedBytes)
    add("nfv_forwarded_packets_total", .counter, "Packets sent on.", counters.forwarded)
    add("nfv_forwarded_bytes_total", .counter, "Bytes of them.", counters.forwardedBytes)
    add("nfv_consumed_packets_total", .counter, "Packets for the node itself: ARP, channels, held for a flow.", counters.consumed)
    add("nfv_dropped_packets_total", .counter, "Packets dropped, by reason.", kinds("reason", drops.sorted { $0.0 < $1.0 }))
    add("nfv_port_missed_packets_total", .counter, "Packets that the ports lost because the worker was late.", counters.missed)
    add("nfv_flows", .gauge, "Flows there are now.", counters.activeFlows)
    add(
      "nfv_flow_changes_total", .counter, "Flows that came and went, by how.",
      kinds(
        "change",
        [
          ("created", counters.flowsCreated), ("expired", counters.flowsExpired), ("evicted", counters.flowsEvicted),
          ("refused", counters.flowsRefused), ("migrated-in", counters.flowsMigratedIn),
          ("migrated-out", counters.flowsMigratedOut), ("recovered", counters.flowsRecovered),
        ]))
    add("nfv_unprotected_flows", .gauge, "Flows that should have a replica and have none.", counters.unprotectedFlows)
    add("nfv_replicas_held", .gauge, "Replicas of other runtimes' flows.", counters.replicasHeld)
    add("nfv_replicated_packets_total", .counter, "Packets that left by way of their replicas' holder.", counters.packetsReplicated)
    add("nfv_released_packets_total", .counter, "Packets released for another runtime.", counters.packetsReleased)
    add(
      "nfv_channel_frames_total", .counter, "Frames of reliable channels, by what became of them.",
      kinds(
        "fate",
        [
          ("sent", counters.channelFramesSent), ("received", counters.channelFramesReceived),
          ("refused", counters.channelFramesRefused), ("sent-again", counters.channelRetransmits),
        ]))
    add(
      "nfv_channel_messages_refused_total", .counter, "Messages that a channel had no room for.", counters.channelMessagesRefused)
    add("nfv_malformed_messages_total", .counter, "Messages of peers that were not understood.", counters.messagesMalformed)
    add("nfv_worker_passes_total", .counter, "Turns of the worker's loop.", counters.passes)
    add("nfv_worker_busy_passes_total", .counter, "Turns that found work.", counters.busyPasses)
    add("nfv_worker_cycles_total", .counter, "Cycles of the processor since the worker began.", counters.totalCycles)
    add("nfv_worker_busy_cycles_total", .counter, "Cycles of turns that found work.", counters.busyCycles)
  }
}
