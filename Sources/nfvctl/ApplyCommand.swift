import ArgumentParser
import Configuration
import ControlMessages
import ControlNodes
import ControlPlane
import FunctionCatalog
import KafkaLog

struct ApplyCommand: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "apply",
    abstract: "Make a cluster, or change one, to be as a file says.",
    discussion: """
      Checks the whole file first, then writes the intent into the log. A coordinator carries it out, now or when there is one.

      Examples:
        nfvctl apply -f examples/cluster.yaml
        nfvctl apply -f examples/cluster.yaml --wait 30
        nfvctl apply -f cluster.yaml --check
      """)

  @Option(
    name: [.customShort("f"), .customLong("file")],
    help: ArgumentHelp("The cluster's YAML file; - reads it from stdin.", valueName: "file"),
    completion: .file(extensions: ["yaml", "yml"]))
  var file: String

  @Option(help: ArgumentHelp("Follow the log until the cluster is complete, at most this long.", valueName: "seconds"))
  var wait: Int?

  @Flag(help: "Only check the file: the log is not needed.")
  var check = false

  @OptionGroup var output: OutputOptions
  @OptionGroup var log: LogAccess

  func validate() throws {
    guard (1...86_400).contains(wait ?? 1) else { throw ValidationError("--wait is a number of seconds from 1 to 86400") }
  }

  func perform() throws {
    let spec = try Self.read(file)
    if check {
      if output.output == .text { Terminal.put("\(file): cluster \(spec.name) is well formed\n") }
      return
    }
    let follower = try log.readLog(only: spec.name)
    try Self.checkChange(to: spec, follower)
    let intent = try Intent.apply(spec, follower, log)
    switch output.output {
    case .text: Terminal.put(intent.sentence)
    case .json: Terminal.put(intent.json.document)
    case .jsonl: Terminal.put(intent.json.line + "\n")
    }
    if let wait { try Progress(spec.name, follower, log).wait(seconds: wait, until: .complete, after: intent.offset) }
  }

  /// A change of settings that running functions would take over is looked at as they will look at it.
  private static func checkChange(to spec: ClusterSpec, _ follower: ClusterFollower) throws {
    guard let state = follower.cluster(spec.name)?.state, !state.isDeleted, let present = state.spec,
      state.rules >= DecisionRules.liveSettings, present.chain.functions != spec.chain.functions,
      present.chain.hasSameFixedSettings(as: spec.chain)
    else { return }
    let entrance = try Catalog.standard.entrance(of: present.chain)
    do throws(SettingsError) {
      _ = try ChainChange(
        from: present.chain, to: spec.chain.functions, plans: [], opensFromServerSide: entrance.isOpen,
        compiler: { RuleClassifier.linearScan($0) })
    } catch {
      throw Complaint("\(error); or delete the cluster and apply it again")
    }
  }

  /// The spec of a file that makes sense as a whole, the settings of its functions included.
  static func read(_ file: String) throws(ConfigurationError) -> ClusterSpec {
    var spec = try loadClusterSpec(file)
    do throws(SettingsError) { try Catalog.standard.validate(spec.chain) } catch {
      throw ConfigurationError(file: file, error)
    }
    // The lines were for complaints. Left in, a comment added to the file would make another chain of it.
    for index in spec.chain.functions.indices { spec.chain.functions[index].settings.removeLines() }
    return spec
  }
}

/// What was written for an operator's request, and where.
struct Intent: Equatable {
  enum Verb: String { case applied, unchanged, deleted }

  let cluster: ClusterID
  let verb: Verb
  let partition: UInt32
  /// nil: nothing had to be written.
  let offset: Offset?
  let correlation: String?

  /// Registers the cluster if it is new, and writes its spec unless that is what the log says already.
  static func apply(_ spec: ClusterSpec, _ follower: ClusterFollower, _ access: LogAccess) throws -> Intent {
    if let cluster = follower.cluster(spec.name), !cluster.state.isDeleted, !cluster.lacksBeginning,
      (cluster.state.pendingSpec ?? cluster.state.spec) == spec
    {
      return Intent(cluster: spec.name, verb: .unchanged, partition: cluster.partition, offset: nil, correlation: nil)
    }
    var log = try OperatorLog(access.settings, verb: "apply")
    let partition = try register(spec.name, follower, access, &log)
    let offset = try log.write(.clusterApplied(spec), partition: partition)
    return Intent(cluster: spec.name, verb: .applied, partition: partition, offset: offset, correlation: log.correlation)
  }

  static func delete(_ name: ClusterID, _ follower: ClusterFollower, _ access: LogAccess) throws -> Intent {
    guard let cluster = follower.cluster(name) else { throw Complaint.noCluster(name) }
    guard !cluster.state.isDeleted || cluster.lacksBeginning else {
      return Intent(cluster: name, verb: .unchanged, partition: cluster.partition, offset: nil, correlation: nil)
    }
    var log = try OperatorLog(access.settings, verb: "delete")
    let offset = try log.write(.clusterDeleted(name), partition: cluster.partition)
    return Intent(cluster: name, verb: .deleted, partition: cluster.partition, offset: offset, correlation: log.correlation)
  }

  /// The cluster's partition. Two operators may register at the same time: the directory in the log decides.
  private static func register(
    _ name: ClusterID, _ follower: ClusterFollower, _ access: LogAccess, _ log: inout OperatorLog
  ) throws -> UInt32 {
    if follower.directory.partition(of: name) == nil {
      let next = UInt32(follower.directory.entries.count + 1)
      let there =
        try KafkaAdmin(access.settings, timeoutMilliseconds: LogAccess.patience).partitionCount(of: ServiceTopics.events) ?? 0
      guard next < there else {
        throw Complaint("the log has partitions for \(max(0, there - 1)) clusters, and all are taken; '\(name)' cannot be added")
      }
      _ = try log.write(.clusterRegistered(name), partition: ServiceTopics.directoryPartition)
      let deadline = ContinuousClock.now + .milliseconds(LogAccess.patience)
      while follower.directory.partition(of: name) == nil {
        _ = try follower.poll(timeoutMilliseconds: 50)
        if follower.directory.refused.contains(name) {
          throw Complaint(
            "the directory has \(follower.directory.entries.count) clusters and takes no more; '\(name)' cannot be added")
        }
        guard ContinuousClock.now < deadline else {
          throw KafkaError.timedOut(operation: "registering the cluster", milliseconds: LogAccess.patience)
        }
      }
    }
    return follower.directory.partition(of: name)!
  }

  var sentence: String {
    guard let offset else { return "cluster \(cluster) unchanged (partition \(partition))\n" }
    return "cluster \(cluster) \(verb.rawValue) (partition \(partition), offset \(offset))\n"
  }

  var json: JSON {
    .object([
      "cluster": .text(cluster), "result": .string(verb.rawValue), "partition": .number(partition),
      "offset": offset.map { JSON.number($0.value) }, "correlation": correlation.map { JSON.string($0) },
    ])
  }
}
