import ControlCodec
import ControlMessages
import ControlPlane
import Foundation

/// How fast the control plane's log is folded on one core: from memory, from a file with decoding, and from a snapshot
/// with a tail, which is what a replica does when it starts.
///
/// The log is what a cluster of eight runtimes and a switch on two hosts writes, with three replicas: heartbeats every
/// 10 ms, workloads twice a second, beacons ten times a second, and now and then a process that dies.
struct ControlBenchmark {
  let isQuick: Bool

  func run() throws {
    let report = Report(name: "control")
    let repeats = isQuick ? 5 : 15
    let log = ControlLog.make(records: isQuick ? 200_000 : 1_000_000)
    let count = Double(log.records.count)

    let fromMemory = (0..<repeats).map { _ in
      var core = ClusterCore(cluster: ControlLog.cluster)
      let before = Stopwatch.processorTime()
      for record in log.records { _ = core.apply(record) }
      precondition(core.hash == log.core.hash, "two folds of a log come to the same state")
      return count * 1_000 / Double(Stopwatch.processorTime() - before)
    }
    try report.add(Measurement("control/fold/memory", fromMemory, unit: "M records/s"))

    let path = FileManager.default.temporaryDirectory.appending(
      path: "nfv-control-benchmark-\(ProcessInfo.processInfo.processIdentifier)")
    defer { try? FileManager.default.removeItem(at: path) }
    try log.write(to: path)
    let fromFile = try (0..<repeats).map { _ in
      let before = Stopwatch.processorTime()
      var core = ClusterCore(cluster: ControlLog.cluster)
      try ControlLog.read(path) { _ = core.apply($0) }
      precondition(core.hash == log.core.hash, "what is decoded folds to the same state")
      return count * 1_000 / Double(Stopwatch.processorTime() - before)
    }
    try report.add(Measurement("control/fold/file", fromFile, unit: "M records/s", baseline: "memory", fromMemory))

    let tail = min(200_000, log.records.count / 2)
    let tailPath = path.appendingPathExtension("tail")
    defer { try? FileManager.default.removeItem(at: tailPath) }
    let (snapshot, rest) = log.split(tail: tail)
    try rest.write(to: tailPath)
    let rebuild = try (0..<repeats).map { _ in
      let before = Stopwatch.processorTime()
      var core = try RecordCodec.decodeCore(snapshot)
      try ControlLog.read(tailPath) { _ = core.apply($0) }
      precondition(core.hash == log.core.hash, "snapshot and tail are worth the whole log")
      return Double(Stopwatch.processorTime() - before) / 1_000_000
    }
    try report.add(
      Measurement("control/rebuild/\(tail / 1_000)k-tail", rebuild, unit: "ms"))
  }
}

/// A log of a cluster at work, made record by record, and as a file: length, offset and time before each record.
struct ControlLog {
  static let cluster = ClusterID("bench")!

  private(set) var records: [EventRecord] = []
  /// After the last record.
  private(set) var core = ClusterCore(cluster: cluster)
  private var time: UInt64 = 1_000_000
  private var authors: [ProducerID: EventAuthor] = [:]
  private var lives: [LaunchSpec] = []

  static func make(records count: Int) -> ControlLog {
    var log = ControlLog()
    log.records.reserveCapacity(count + 64)
    log.say(.rulesActivated(DecisionRules.newest), by: .tool(1))
    let hosts = ["a", "b"].map { HostID($0)! }
    for host in hosts {
      log.say(.agentStarted(AgentStarted(host: host, cores: 16, runtimePorts: 16, switchPorts: 2)), by: .agent(host))
    }
    var spec = ClusterSpec(
      name: cluster, chain: ServiceChainSpec(functions: [.init(kind: "firewall", settings: Settings(.map([])))]), runtimes: 8,
      switches: 1)
    spec.poolShares = 32
    log.say(.clusterApplied(spec), by: .tool(2))
    var turn: UInt64 = 0
    while log.records.count < count {
      turn += 1
      log.time += 10
      for life in log.lives {
        log.say(.heartbeat(Heartbeat(node: life.node, workerLoops: turn * 1_000, busyLoops: turn)), by: life)
      }
      if turn % 10 == 0 {
        for name in ["one", "two", "three"] {
          let beacon = Beacon(
            position: log.core.position, stateHash: log.core.hash.value, logHash: log.core.logHash.value,
            rules: DecisionRules.newest)
          log.say(.beacon(beacon), by: .coordinator(HostID(name)!))
        }
      }
      if turn % 50 == 0 {
        for host in hosts { log.say(.agentHeartbeat(host), by: .agent(host)) }
        for life in log.lives {
          var load = NodeWorkload(node: life.node, interval: 500)
          load.activeFlows = 10_000 + turn % 100
          load.forwardedPackets = 500_000
          load.busyShare = 400_000
          log.say(.workload(load), by: life)
        }
      }
      if turn % 3_000 == 0 {
        let life = log.lives.removeFirst()
        log.say(
          .processExited(ProcessExited(host: life.host, node: life.node, incarnation: life.incarnation, ending: .signal(9))),
          by: .agent(life.host))
      }
    }
    return log
  }

  private mutating func say(_ body: Event.Body, by life: LaunchSpec) {
    say(body, by: .node(life.kind, life.cluster, life.node), life: life.incarnation)
  }

  private mutating func say(_ body: Event.Body, by producer: ProducerID, life: Incarnation = Incarnation(1)) {
    var author = authors[producer] ?? EventAuthor(producer: producer, incarnation: life)
    if author.incarnation != life { author = EventAuthor(producer: producer, incarnation: life) }
    let event = author.write(body)
    authors[producer] = author
    let record = EventRecord(offset: Offset(UInt64(records.count)), timestamp: Timestamp(milliseconds: time), event: event)
    records.append(record)
    for command in core.apply(record) {
      switch command.body {
      case .launchRuntime(let launch), .launchSwitch(let launch):
        lives.append(launch)
        let ports = NodePorts(
          input: HardwareAddress(bits: 1), output: HardwareAddress(bits: 2), control: HardwareAddress(bits: 3))
        say(
          .nodeStarted(
            NodeStarted(node: launch.node, kind: launch.kind, host: launch.host, processID: 1, ports: ports, startup: 200)),
          by: launch)
      default: break
      }
    }
  }

  /// The state before the last `tail` records, as a snapshot keeps it, and those records.
  func split(tail: Int) -> (snapshot: [UInt8], rest: ControlLog) {
    var core = ClusterCore(cluster: Self.cluster)
    for record in records.dropLast(tail) { _ = core.apply(record) }
    var rest = ControlLog()
    rest.records = Array(records.suffix(tail))
    return (RecordCodec.encode(core), rest)
  }

  func write(to path: URL) throws {
    var data = Data()
    data.reserveCapacity(records.count * 100)
    for record in records {
      let bytes = RecordCodec.encode(record.event)
      for word in [UInt64(bytes.count), record.offset.value, record.timestamp.milliseconds] {
        withUnsafeBytes(of: word.littleEndian) { data.append(contentsOf: $0) }
      }
      data.append(contentsOf: bytes)
    }
    try data.write(to: path)
  }

  static func read(_ path: URL, _ take: (EventRecord) -> Void) throws {
    let data = try Data(contentsOf: path, options: .alwaysMapped)
    try data.withUnsafeBytes { bytes in
      var place = 0
      while place < bytes.count {
        func word(_ index: Int) -> UInt64 {
          UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: place + index * 8, as: UInt64.self))
        }
        let length = Int(word(0))
        let event = try RecordCodec.decodeEvent(UnsafeRawBufferPointer(rebasing: bytes[(place + 24)..<(place + 24 + length)]))
        take(EventRecord(offset: Offset(word(1)), timestamp: Timestamp(milliseconds: word(2)), event: event))
        place += 24 + length
      }
    }
  }
}
