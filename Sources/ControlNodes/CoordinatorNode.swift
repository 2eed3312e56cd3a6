import ControlCodec
import ControlMessages
import ControlPlane
import KafkaLog
import Logging
import Telemetry

/// A replica of the control plane: folds the log and writes the commands that it lacks.
///
/// It has no state of its own. Killed at any moment and started again, it computes the same commands, finds in the log
/// those that were written, and writes the rest. Several run at once: the first in rank writes at once, the others what
/// they have not seen appear a few milliseconds later. Everything it does is in `ClusterFollower` and `ClusterCore`;
/// here are the clock for beacons, the producers, and what is said about it on stderr.
public final class CoordinatorNode {
  private let settings: KafkaSettings
  /// The beacons' author; replicas need names that differ, and their order is the rank.
  private let name: HostID
  private let logger: Logger
  private let life: Incarnation
  private let clock = ContinuousClock()

  /// Beacons keep log time moving when nobody else writes, and tell replicas of each other.
  private static let beaconInterval = Duration.milliseconds(100)
  /// How long each replica leaves the writing to the one before it: more than a command takes to come back from a
  /// bus in good health.
  private static let hedge: UInt64 = 8
  /// Events from one snapshot to the next.
  private let snapshotInterval: UInt64
  /// Where the dashboard is, if anywhere.
  private let pagesAddress: PageServer.Address?

  /// `startedAt` is the milliseconds since 1970: a later life of a name has to have a greater one.
  public init(_ settings: KafkaSettings, name: HostID, startedAt: UInt64, snapshotInterval: UInt64 = 100_000, pages: PageServer.Address? = nil, logger: Logger) {
    pagesAddress = pages
    // The end of a quiet partition is known after one such wait, and a start needs three.
    self.settings = KafkaSettings(
      bootstrap: settings.bootstrap, clientID: settings.clientID,
      extra: ["fetch.wait.max.ms": "100"].merging(settings.extra) { $1 })
    self.snapshotInterval = snapshotInterval
    self.name = name
    life = Incarnation(startedAt)
    self.logger = logger
  }

  /// Runs until `isStopped`. Whatever goes wrong at the log, it says so and tries again.
  public func run(until isStopped: () -> Bool) {
    var lastProblem: KafkaError?
    var authors: [UInt32: EventAuthor] = [:]
    let pages = openPages()
    defer { pages?.stop() }
    logger.info("coordinator started", metadata: ["name": "\(name)", "bootstrap": "\(settings.bootstrap)"])
    while !isStopped() {
      do throws(KafkaError) {
        try makeTopics()
        try follow(&authors, pages, until: isStopped)
      } catch {
        if error != lastProblem { logger.error("\(error); trying again") }
        lastProblem = error
        let again = clock.now + .milliseconds(500)
        while clock.now < again, !isStopped() { pause(milliseconds: 20) }
      }
    }
    logger.info("coordinator stopped")
  }

  /// A replica that cannot listen says so, and does its work without pages.
  private func openPages() -> CoordinatorPages? {
    guard let pagesAddress else { return nil }
    do {
      let pages = try CoordinatorPages(at: pagesAddress, name: name, settings: settings)
      logger.notice("dashboard", metadata: ["at": "http://\(pages.address)/"])
      return pages
    } catch {
      logger.error("no dashboard", metadata: ["why": "\(error)"])
      return nil
    }
  }

  /// The topics are there already where somebody set up the bus; on a bare broker they are made with its defaults.
  private func makeTopics() throws(KafkaError) {
    let admin = try KafkaAdmin(settings, timeoutMilliseconds: 2_000)
    var missing: [KafkaTopic] = []
    for topic in ServiceTopics.all where try admin.partitionCount(of: topic) == nil {
      missing.append(KafkaTopic(name: topic, partitions: Int(ServiceTopics.partitionCount), replicationFactor: -1))
    }
    for topic in try admin.createTopics(missing) { logger.notice("topic made", metadata: ["topic": "\(topic)"]) }
  }

  /// One reading of the log, from its snapshots until something breaks.
  private func follow(
    _ authors: inout [UInt32: EventAuthor], _ pages: CoordinatorPages?, until isStopped: () -> Bool
  ) throws(KafkaError) {
    pages?.begin()
    let follower = try ClusterFollower(settings, startsFromSnapshots: true, replica: .coordinator(name))
    let commands = try KafkaProducer(settings, profile: .commands)
    let signals = try KafkaProducer(settings, profile: .heartbeats(timeoutMilliseconds: 1_000))
    var letters = try DeadLetterOffice(settings)
    var beacons: [UInt32: ContinuousClock.Instant] = [:]
    var activations: [UInt32: ContinuousClock.Instant] = [:]
    var said = Said()

    while !isStopped() {
      for item in try follower.poll(timeoutMilliseconds: follower.isHedging ? 1 : 20) {
        pages?.note(item)
        switch item {
        case .event(let id, let record, _):
          log(id, record, isNew: follower.isCaughtUp)
        case .command(let id, let record, let reading): log(id, record, reading, isNew: follower.isCaughtUp)
        case .clusterFound(let entry):
          logger.info("cluster found", metadata: ["cluster": "\(entry.cluster)", "partition": "\(entry.partition)"])
        case .unreadable(let letter):
          logger.warning("record passed over", metadata: letter.metadata)
          letters.keep(letter)
        case .caughtUp:
          let counts = follower.clusters.map { "\($0.id) at slot \($0.outbox.lastInLog)" }.joined(separator: ", ")
          logger.info("caught up with the log", metadata: ["clusters": "\(counts)"])
        }
      }
      noteStatus(follower, &said)

      for entry in follower.directory.entries {
        guard noteHealth(follower.cluster(entry.cluster), &said) else { continue }
        for command in follower.takeMissingCommands(of: entry.cluster, hedge: Self.hedge) {
          do throws(KafkaError) {
            try commands.send(
              topic: ServiceTopics.commands, partition: Int32(entry.partition), value: RecordCodec.encode(command))
            log(entry.cluster, deciding: command)
            pages?.noteWritten(entry.cluster)
          } catch {
            logger.warning(
              "command not sent", metadata: ["cluster": "\(entry.cluster)", "slot": "\(command.slot)", "error": "\(error)"])
            follower.writingFailed(partition: entry.partition)
            break
          }
        }
        guard let cluster = follower.cluster(entry.cluster) else { continue }
        let now = clock.now
        if beacons[entry.partition].map({ now - $0 >= Self.beaconInterval }) ?? true {
          beacons[entry.partition] = now
          say(.beacon(Beacon(cluster.core)), entry.partition, by: &authors, on: signals)
        }
        // The others are given a second to be heard before anything is done in their name.
        guard cluster.state.rank(of: .coordinator(name)) == 0, cluster.objection == nil, cluster.outbox.divergence == nil else {
          continue
        }
        if let rules = cluster.state.activatableRules, now - activations[entry.partition, default: now] >= .seconds(1) {
          activations[entry.partition] = now
          say(.rulesActivated(rules), entry.partition, by: &authors, on: commands)
        }
        activations[entry.partition] = activations[entry.partition] ?? now
        try takeSnapshot(of: cluster, follower, on: commands)
      }

      for delivery in commands.poll(timeoutMilliseconds: 0) {
        guard case .failed(let error) = delivery.outcome else { continue }
        logger.warning("command not stored", metadata: ["partition": "\(delivery.partition)", "error": "\(error)"])
        if case .fatal = error { throw error }
        follower.writingFailed(partition: UInt32(clamping: delivery.partition))
      }
      _ = signals.poll(timeoutMilliseconds: 0)
      if follower.isCaughtUp { try letters.post() }
      pages?.post(follower)
    }
    // What was decided is better written by us than decided again by the next; but nothing depends on it.
    _ = try? commands.flush(timeoutMilliseconds: 1_000)
  }

  private func say(
    _ body: Event.Body, _ partition: UInt32, by authors: inout [UInt32: EventAuthor], on producer: KafkaProducer
  ) {
    var author = authors[partition] ?? EventAuthor(producer: .coordinator(name), incarnation: life)
    // A program that cannot follow the rules must stop there.
    let event = author.write(body, isCritical: body.lane == .facts)
    authors[partition] = author
    do throws(KafkaError) {
      try producer.send(topic: ServiceTopics.events, partition: Int32(partition), value: RecordCodec.encode(event))
    } catch {
      logger.debug("\(body.name) not sent", metadata: ["partition": "\(partition)", "error": "\(error)"])
    }
  }

  private func takeSnapshot(of cluster: ClusterFollower.Cluster, _ follower: ClusterFollower, on producer: KafkaProducer)
    throws(KafkaError)
  {
    guard let position = cluster.core.position, position.value >= (cluster.snapshot?.position.value ?? 0) + snapshotInterval
    else { return }
    let records = follower.takeSnapshot(of: cluster.id, writer: life.number)
    for record in records {
      try producer.send(topic: ServiceTopics.snapshots, partition: Int32(cluster.partition), value: RecordCodec.encode(record))
    }
    if case .manifest(let manifest) = records.last {
      logger.info(
        "snapshot", metadata: ["cluster": "\(cluster.id)", "offset": "\(manifest.position)", "bytes": "\(manifest.size)"])
    }
  }

  // MARK: Saying what happens

  /// What was said once and need not be said again.
  private struct Said {
    var problem: String?
    var divergences: Set<UInt32> = []
    var gaps: Set<UInt32> = []
    var newerVersions: Set<UInt32> = []
    var disagreements: [UInt32: [Agreement.Disagreement]] = [:]
  }

  private func noteStatus(_ follower: ClusterFollower, _ said: inout Said) {
    for line in follower.takeLog() { logger.debug("\(line.text)", metadata: ["facility": "\(line.facility)"]) }
    let problem = follower.status.problem
    guard problem != said.problem else { return }
    said.problem = problem
    if let problem {
      logger.warning("the log does not answer; trying on", metadata: ["why": "\(problem)"])
    } else {
      logger.notice("the log answers again")
    }
  }

  /// Says what is wrong with a cluster, once; tells whether it was read to its end.
  private func noteHealth(_ cluster: ClusterFollower.Cluster?, _ said: inout Said) -> Bool {
    guard let cluster else { return false }
    let id: Logger.MetadataValue = "\(cluster.id)"
    if let divergence = cluster.outbox.divergence, said.divergences.insert(cluster.partition).inserted {
      logger.critical(
        "the log has another command than this replica computed; it writes nothing for this cluster any more",
        metadata: [
          "cluster": id, "slot": "\(divergence.slot)", "hash": "\(String(divergence.here, radix: 16))",
          "hash-in-log": "\(String(divergence.inLog, radix: 16))",
        ])
    }
    let disagreements = cluster.agreement?.disagreements ?? []
    if disagreements != said.disagreements[cluster.partition, default: []] {
      said.disagreements[cluster.partition] = disagreements
      for disagreement in disagreements {
        logger.critical(
          "another replica came to \(disagreement.isOfLogs ? "another log" : "another state"); this one \(cluster.objection == nil ? "goes on" : "writes nothing more")",
          metadata: ["cluster": id, "replica": "\(disagreement.with)", "offset": "\(disagreement.position)"])
      }
    }
    if cluster.lacksBeginning, said.gaps.insert(cluster.partition).inserted {
      logger.critical("the log's beginning was deleted; without it nothing can be decided", metadata: ["cluster": id])
    }
    if let body = cluster.state.needsNewerVersion, said.newerVersions.insert(cluster.partition).inserted {
      logger.critical(
        "a critical event of a newer version; this replica decides nothing more for this cluster: \(body.advice)",
        metadata: ["cluster": id, "what": "\(body.name)"])
    }
    return cluster.isCaughtUp
  }

  private func log(_ cluster: ClusterID, _ record: EventRecord, isNew: Bool) {
    let level: Logger.Level =
      switch record.event.body {
      case .heartbeat, .agentHeartbeat, .workload, .tick, .beacon: .trace
      default: isNew ? .info : .debug
      }
    logger.log(
      level: level, "event \(record.event.body.name)",
      metadata: [
        "cluster": "\(cluster)", "offset": "\(record.offset)", "by": "\(record.event.producer)",
        "what": "\(record.event.body.summary)",
      ])
  }

  private func log(_ cluster: ClusterID, _ record: CommandRecord, _ reading: SlotReader.Reading, isNew: Bool) {
    guard reading != .taken || !isNew else { return }
    logger.debug(
      "command \(reading == .taken ? "in the log" : "passed over")",
      metadata: [
        "cluster": "\(cluster)", "slot": "\(record.command.slot)", "offset": "\(record.offset)", "reading": "\(reading)",
      ])
  }

  private func log(_ cluster: ClusterID, deciding command: Command) {
    logger.info(
      "command \(command.body.name)",
      metadata: [
        "cluster": "\(cluster)", "slot": "\(command.slot)", "decision": "\(command.decision)", "what": "\(command.body.summary)",
        "why": "\(command.reason)",
      ])
  }
}

extension Beacon {
  init(_ core: ClusterCore) {
    self.init(position: core.position, stateHash: core.hash.value, logHash: core.logHash.value, rules: DecisionRules.newest)
  }
}

extension DeadLetter {
  var metadata: Logger.Metadata {
    ["topic": "\(topic)", "partition": "\(partition)", "offset": "\(offset)", "why": "\(reason)"]
  }
}
