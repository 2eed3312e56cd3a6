import Configuration
import ControlCodec
import ControlMessages
import ControlPlane
import DPDKPorts
import Foundation
import Glibc
import KafkaLog
import Logging
import NodeSupport
import Telemetry

/// A host's supervisor: starts and ends the runtimes and switches that the log asks for, and writes into the log
/// what it sees of them.
///
/// It owns the host's ports and processors, and accepts or rejects a launch with a reason. It keeps no state of
/// its own: which clusters there are is in the directory, what was asked for is in the commands, what runs is
/// in the process table. An agent that comes back reads the commands up to where they end, takes over what
/// still runs, reports what has gone meanwhile, and only then offers its host.
public final class AgentNode {
  private let configuration: AgentConfiguration
  private let kafka: KafkaSettings
  private let program: String
  private let logger: Logger
  private let consumer: KafkaConsumer
  private let voice: LogVoice
  private var directory = Directory()
  private var clusters: [UInt32: Cluster] = [:]
  private var resources: HostResources
  private var processes: [NodeProcess.Identity: NodeProcess] = [:]
  private var endedNodes: UInt64 = 0
  private let board = StatusBoard()
  private let pages: PageServer?

  private struct Cluster {
    let name: ClusterID
    var slots = SlotReader()
    /// What earlier lives of this agent were asked to launch and not to stop, until the past has been read.
    var past: [NodeID: Incarnation]? = [:]
    /// Largest timestamp of its commands.
    var logTime = Timestamp.zero
  }

  /// Between two signs of life.
  private static var heartbeatInterval: UInt64 { 500 }

  public init(configuration: AgentConfiguration, kafka: KafkaSettings, logger: Logger) throws {
    self.configuration = configuration
    self.kafka = kafka
    self.logger = logger
    program = try configuration.program ?? Self.ownPath()
    guard access(program, X_OK) == 0 else { throw NodeError("'\(program)' cannot be executed; set 'program' to the path of nfvactor") }
    for port in configuration.runtimePorts + configuration.switchPorts.flatMap({ [$0.client, $0.server, $0.fabric] }) {
      _ = try PortSpec(port)
    }
    if let directory = configuration.logDirectory {
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    }
    resources = HostResources(configuration)
    let board = board
    pages = try configuration.http.flatMap { PageServer.Address($0) }.map { address in
      try PageServer(at: address, readers: 0) { request in
        board.answer(request.path) ?? .init(status: 404, type: .plain, body: "/metrics /healthz /readyz\n")
      }
    }
    consumer = try KafkaConsumer(kafka)
    // Dense numbers of lives would need a file; the time of the start serves as well, since only order counts.
    voice = try LogVoice(
      settings: kafka, producer: .agent(configuration.host), incarnation: Incarnation(UInt64(time(nil))), logger: logger)
  }

  private static func ownPath() throws(NodeError) -> String {
    guard let path = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") else {
      throw NodeError("the path of this program cannot be found; set 'program' in the agent's configuration")
    }
    return path
  }

  /// Works until shutdown.
  ///
  /// - Parameter leaveRunning: let the nodes go on without an agent; the next one takes them over.
  public func run(leaveRunning: Bool) throws {
    for process in NodeProcess.running(on: configuration.host) {
      logger.notice("Found a node running.", metadata: ["node": "\(process.identity)", "pid": "\(process.pid)"])
      resources.adopt(process.grant, by: process.identity.holder)
      processes[process.identity] = process
      watch(process)
    }
    try consumer.assign(topic: ServiceTopics.events, partition: Int32(ServiceTopics.directoryPartition), start: .beginning)
    logger.info("Following the log.", metadata: ["bootstrap": "\(kafka.bootstrap)", "host": "\(configuration.host)"])
    var nextHeartbeat: UInt64 = 0
    var reported = ""
    while !Shutdown.isRequested {
      do {
        for message in try consumer.poll(timeoutMilliseconds: 20, max: 512) { try handle(message) }
      } catch let error as KafkaError {
        if "\(error)" != reported { logger.warning("The log cannot be followed.", metadata: ["problem": "\(error)"]) }
        reported = "\(error)"
        usleep(200_000)
      }
      supervise()
      let now = CycleClock.monotonicNanoseconds() / 1_000_000
      if now >= nextHeartbeat {
        for (partition, cluster) in clusters where cluster.past == nil {
          voice.say(.agentHeartbeat(configuration.host), to: partition)
        }
        nextHeartbeat = now + Self.heartbeatInterval
        postStatus()
        if let problem = consumer.status.problem, problem != reported {
          logger.notice("The log is away; trying again.", metadata: ["problem": "\(problem)"])
          reported = problem
        }
        voice.logProblems()
      }
      voice.settle()
    }
    if !leaveRunning { stopAll() }
    voice.finish(milliseconds: 2_000)
    pages?.stop()
    logger.info("Stopped.")
  }

  private func postStatus() {
    guard pages != nil else { return }
    var text = MetricsText(common: [("host", configuration.host.name)])
    let running = NodeKind.allCases.map { kind in ([("kind", "\(kind)")], UInt64(processes.values.count { $0.kind == kind })) }
    let offered = [(NodeKind.runtime, configuration.runtimePorts.count), (.virtualSwitch, configuration.switchPorts.count)]
    text.add("nfv_agent_nodes", .gauge, "Nodes that run on the host.", running)
    text.add("nfv_agent_ports", .gauge, "Nodes that there are ports for.", offered.map { ([("kind", "\($0.0)")], UInt64($0.1)) })
    text.add("nfv_agent_clusters", .gauge, "Clusters in the directory.", UInt64(clusters.count))
    text.add("nfv_agent_ended_nodes_total", .counter, "Nodes that were seen to end.", endedNodes)
    text.add("nfv_facts_lost_total", .counter, "Facts that the queue had no room for while the log was away.", voice.lost)
    text.add("nfv_facts_unsettled", .gauge, "Facts that the log has not acknowledged yet.", UInt64(voice.backlog))
    let isReachable = consumer.status.isReachable
    text.add("nfv_log_reachable", .gauge, "Whether the log answers.", isReachable ? 1 : 0)
    board.post(.init(metrics: text.text, obstacle: isReachable ? nil : "the log cannot be reached"))
  }

  // MARK: The log

  private func handle(_ message: KafkaMessage) throws {
    switch message {
    case .record(let record) where record.topic == ServiceTopics.events:
      guard let event = try? RecordCodec.decodeEvent(record.value) else { return }
      let entry = directory.apply(
        EventRecord(
          offset: Offset(UInt64(record.offset)), timestamp: Timestamp(milliseconds: UInt64(max(0, record.timestampMilliseconds))),
          event: event))
      if let entry { try learn(entry) }
    case .record(let record):
      let partition = UInt32(record.partition)
      guard let command = try? RecordCodec.decodeCommand(record.value) else {
        logger.error("A command cannot be decoded; passed over.", metadata: ["partition": "\(partition)", "offset": "\(record.offset)"])
        return
      }
      guard clusters[partition]?.slots.read(command.slot) == .taken else { return }
      let timestamp = Timestamp(milliseconds: UInt64(max(0, record.timestampMilliseconds)))
      clusters[partition]!.logTime = max(clusters[partition]!.logTime, timestamp)
      handle(command, partition: partition, offset: UInt64(record.offset))
    case .endOfPartition(let topic, let partition, _):
      if topic == ServiceTopics.commands { finishPast(of: UInt32(partition)) }
    }
  }

  private func learn(_ entry: Directory.Entry) throws {
    clusters[entry.partition] = Cluster(name: entry.cluster)
    try consumer.assign(topic: ServiceTopics.commands, partition: Int32(entry.partition), start: .beginning)
    logger.info("A cluster is in the directory.", metadata: ["cluster": "\(entry.cluster)", "partition": "\(entry.partition)"])
  }

  /// All that was asked before this agent began has been read: what of it still runs is ours, what does not has ended.
  private func finishPast(of partition: UInt32) {
    guard let cluster = clusters[partition], let past = cluster.past else { return }
    for (node, incarnation) in past.sorted(by: { $0.key < $1.key }) {
      let identity = NodeProcess.Identity(cluster: cluster.name, node: node, incarnation: incarnation, host: configuration.host)
      if processes[identity] == nil {
        voice.say(
          .processExited(ProcessExited(host: configuration.host, node: node, incarnation: incarnation, ending: .code(255))), to: partition)
      }
    }
    clusters[partition]!.past = nil
    voice.say(
      .agentStarted(
        AgentStarted(
          host: configuration.host, cores: UInt32(configuration.processors.count),
          runtimePorts: UInt32(configuration.runtimePorts.count), switchPorts: UInt32(configuration.switchPorts.count))),
      to: partition)
  }

  private func handle(_ command: Command, partition: UInt32, offset: UInt64) {
    switch command.body {
    case .launchRuntime(let spec) where spec.host == configuration.host, .launchSwitch(let spec) where spec.host == configuration.host:
      if clusters[partition]!.past != nil {
        clusters[partition]!.past![spec.node] = spec.incarnation
      } else {
        launch(spec, command: command, partition: partition, offset: offset)
      }
    case .stopNode(let node, let incarnation) where command.target == .host(configuration.host),
      .fence(let node, let incarnation) where command.target == .host(configuration.host):
      if clusters[partition]!.past != nil {
        // Whether it did stop is seen in the process table.
        if processes.values.contains(where: { $0.identity.node == node && $0.identity.incarnation == incarnation }) { return }
        clusters[partition]!.past![node] = nil
      } else {
        stop(node, incarnation, command: command, partition: partition)
      }
    case .launchRuntime, .launchSwitch, .stopNode, .fence, .notifyClusterConfig, .drainRuntime, .setMigrationTarget, .cancelMigration,
      .changeSettings, .setReplicas, .recover, .unknown:
      break
    }
  }

  // MARK: Nodes

  private func launch(_ spec: LaunchSpec, command: Command, partition: UInt32, offset: UInt64) {
    let identity = NodeProcess.Identity(cluster: spec.cluster, node: spec.node, incarnation: spec.incarnation, host: spec.host)
    guard processes[identity] == nil else { return }
    guard clusters[partition]!.logTime <= command.expiry else {
      return answer(command.slot, .rejected(reason: "the command has expired"), partition)
    }
    awaitReleases()
    let grant: HostResources.Grant
    switch resources.grant(spec.kind, polling: spec.polling, to: identity.holder) {
    case .success(let granted): grant = granted
    case .failure(let refusal): return answer(command.slot, .rejected(reason: refusal.reason), partition)
    }
    var arguments = [
      spec.kind.description, "--identity", "\(identity)", "--bootstrap", kafka.bootstrap, "--partition", "\(partition)",
      "--launch-offset", "\(offset)", "--processors", grant.processors.map(String.init).joined(separator: ","),
      "--memory", configuration.memory.option, "--log-level", "\(logger.logLevel)",
    ]
    switch grant.ports {
    case .runtime(let port): arguments += ["--port", port]
    case .virtualSwitch(let ports):
      arguments += ["--client-port", ports.client, "--server-port", ports.server, "--fabric-port", ports.fabric]
    }
    if let pages {
      arguments += ["--http", "\(PageServer.Address(host: pages.address.host, port: pages.address.port + 1))"]
    }
    for (key, value) in kafka.extra.sorted(by: { $0.key < $1.key }) { arguments += ["--kafka-option", "\(key)=\(value)"] }
    do {
      let process = try NodeProcess.start(
        program: program, arguments: arguments, identity: identity, kind: spec.kind, grant: grant,
        output: configuration.logDirectory.map { "\($0)/\(spec.kind)-\(spec.cluster)-\(spec.node).log" })
      processes[identity] = process
      watch(process)
      logger.info("Launched.", metadata: ["node": "\(identity)", "kind": "\(spec.kind)", "pid": "\(process.pid)", "slot": "\(command.slot)"])
      answer(command.slot, .received, partition)
    } catch {
      resources.release(identity.holder)
      answer(command.slot, .rejected(reason: "\(error)"), partition)
    }
  }

  private func stop(_ node: NodeID, _ incarnation: Incarnation, command: Command, partition: UInt32) {
    let cluster = clusters[partition]!.name
    let identity = NodeProcess.Identity(cluster: cluster, node: node, incarnation: incarnation, host: configuration.host)
    guard processes[identity] != nil else { return answer(command.slot, .completed, partition) }
    answer(command.slot, .received, partition)
    if case .fence = command.body {
      logger.notice("Fenced.", metadata: ["node": "\(identity)", "why": "\(command.reason)"])
      processes[identity]!.kill()
    } else {
      processes[identity]!.stop(now: CycleClock.monotonicNanoseconds() / 1_000_000)
    }
  }

  /// Ends are told to the log in the moment in which they happen.
  private func watch(_ process: NodeProcess) { ExitWatch.watch(process.pid, lifeLine: process.lifeLine) { [consumer] in consumer.wake() } }

  /// Notices ends, presses those that were asked to end, and ends those that stand still.
  private func supervise() {
    let now = CycleClock.monotonicNanoseconds() / 1_000_000
    for identity in processes.keys {
      let process = processes[identity]!
      if let ending = process.ending() {
        processes[identity] = nil
        resources.release(identity.holder)
        endedNodes += 1
        logger.notice("Ended.", metadata: ["node": "\(identity)", "ending": "\(ending)"])
        if !process.isTold { tell(identity, ending) }
      } else if !process.isTold, let ending = process.workerEnding() {
        processes[identity]!.isTold = true
        tell(identity, ending)
      } else if processes[identity]!.stopping != .no {
        processes[identity]!.stop(now: now)
      } else if processes[identity]!.isStandingStill(now: now) {
        // A process that may go on at any moment is worse than none: nobody would know whose flows are whose.
        logger.error("Stopped by a signal, and ended for it.", metadata: ["node": "\(identity)"])
        processes[identity]!.kill()
      }
    }
  }

  private func tell(_ identity: NodeProcess.Identity, _ ending: ProcessExited.Ending) {
    guard let partition = directory.partition(of: identity.cluster) else { return }
    voice.say(
      .processExited(
        ProcessExited(host: configuration.host, node: identity.node, incarnation: identity.incarnation, ending: ending)),
      to: partition)
  }

  /// What a process holds whose worker is over is free in a moment; it may be what the next one is to have.
  private func awaitReleases() {
    var turns = 0
    while turns < 2_000, processes.values.contains(where: \.isTold) {
      usleep(1_000)
      supervise()
      turns += 1
    }
  }

  private func stopAll() {
    let now = CycleClock.monotonicNanoseconds() / 1_000_000
    for identity in processes.keys { processes[identity]!.stop(now: now) }
    while !processes.isEmpty {
      supervise()
      voice.settle()
      usleep(10_000)
    }
  }

  private func answer(_ slot: Slot, _ outcome: CommandAcknowledgement.Outcome, _ partition: UInt32) {
    if case .rejected(let reason) = outcome {
      logger.warning("Rejected a launch.", metadata: ["slot": "\(slot)", "reason": "\(reason)"])
    }
    voice.say(
      .commandAcknowledged(CommandAcknowledgement(slot: slot, by: .host(configuration.host), outcome: outcome)), to: partition,
      causation: .command(slot))
  }
}

extension AgentConfiguration.Memory {
  var option: String {
    switch self {
    case .automatic: "auto"
    case .huge: "huge"
    case .ordinary: "ordinary"
    }
  }
}
