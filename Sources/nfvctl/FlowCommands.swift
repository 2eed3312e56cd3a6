import ArgumentParser
import ControlMessages
import ControlNodes
import ControlPlane
import KafkaLog

struct MigrateCommand: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "migrate",
    abstract: "Move flows from one runtime to another while they run.",
    discussion: """
      Writes the request into the log; the cluster takes it or refuses it with a reason, which is known at once. No packet is \
      lost or overtaken by the move. With --wait it follows the log, says how far it is, and ends with 0 when it is done.

      Examples:
        nfvctl migrate --from 2 --to 3 --flows 1000
        nfvctl migrate --cluster web --from 2 --to 3 --flows 1000 --wait 30
      """)

  @Option(name: .shortAndLong, help: ArgumentHelp("The cluster; may be left out when there is one.", valueName: "name"))
  var cluster: ClusterID?

  @Option(help: ArgumentHelp("The runtime that has the flows.", valueName: "id"))
  var from: NodeID

  @Option(help: ArgumentHelp("The runtime that is to have them.", valueName: "id"))
  var to: NodeID

  @Option(help: ArgumentHelp("How many; if there are fewer, those.", valueName: "count"))
  var flows: UInt64

  @Option(help: ArgumentHelp("Follow the log until it is done, at most this long.", valueName: "seconds"))
  var wait: Int?

  @OptionGroup var output: OutputOptions
  @OptionGroup var log: LogAccess

  func validate() throws { try FlowRequestRun.check(wait) }

  func perform() throws {
    try FlowRequestRun.perform(
      .moveRequested(MoveRequest(source: from, target: to, flows: flows)), verb: "migrate", cluster, wait, output.output, log)
  }
}

struct DrainCommand: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "drain",
    abstract: "Move all flows of a runtime to the others, and give it no new ones.",
    discussion: """
      It then stays and serves nothing, until --undo; or it stops (--stop), and another is launched in its place. A life that \
      ends takes its drain with it: the next one serves.

      Examples:
        nfvctl drain 2 --wait 60
        nfvctl drain 2 --stop
        nfvctl drain 2 --undo
      """)

  @Argument(help: ArgumentHelp("The runtime.", valueName: "id"))
  var node: NodeID

  @Option(name: .shortAndLong, help: ArgumentHelp("The cluster; may be left out when there is one.", valueName: "name"))
  var cluster: ClusterID?

  @Flag(help: "It stops when it is empty.")
  var stop = false

  @Flag(help: "It takes flows again.")
  var undo = false

  @Option(help: ArgumentHelp("Follow the log until it is empty, at most this long.", valueName: "seconds"))
  var wait: Int?

  @OptionGroup var output: OutputOptions
  @OptionGroup var log: LogAccess

  func validate() throws {
    try FlowRequestRun.check(wait)
    guard !(stop && undo) else { throw ValidationError("--stop and --undo exclude each other") }
  }

  func perform() throws {
    let request = DrainRequest(node: node, afterwards: undo ? .undo : stop ? .stop : .keep)
    try FlowRequestRun.perform(.drainRequested(request), verb: "drain", cluster, wait, output.output, log)
  }
}

/// Writes an operator's request about flows, and follows what becomes of it.
enum FlowRequestRun {
  static func check(_ wait: Int?) throws {
    guard (1...86_400).contains(wait ?? 1) else { throw ValidationError("--wait is a number of seconds from 1 to 86400") }
  }

  static func perform(
    _ body: Event.Body, verb: String, _ name: ClusterID?, _ wait: Int?, _ format: OutputFormat, _ log: LogAccess
  ) throws {
    let follower = try log.readLog(only: name)
    let cluster = try find(name, in: follower)
    guard cluster.state.rules >= DecisionRules.flowRequests else {
      throw Complaint(
        "cluster \(cluster.id) is decided about by rules \(cluster.state.rules); requests about flows need rules "
          + "\(DecisionRules.flowRequests), which come into force when every coordinator knows them")
    }
    var writer = try OperatorLog(log.settings, verb: verb)
    let offset = try writer.write(body, partition: cluster.partition)
    var request = try read(offset, of: cluster.id, follower)
    if let wait { request = try follow(request, of: cluster.id, follower, seconds: wait) }
    put(request, cluster.id, format)
    if case .failed(let reason) = request.outcome { throw Complaint("\(verb): \(reason)") }
    if wait != nil, request.outcome == .open { throw Complaint("\(verb): not done after \(wait!) s; it goes on") }
  }

  private static func find(_ name: ClusterID?, in follower: ClusterFollower) throws -> ClusterFollower.Cluster {
    if let name {
      guard let cluster = follower.cluster(name) else { throw Complaint.noCluster(name) }
      return cluster
    }
    guard let cluster = follower.clusters.first, follower.clusters.count == 1 else {
      throw Complaint(follower.clusters.isEmpty ? "there are no clusters" : "there are several clusters; name one with --cluster")
    }
    return cluster
  }

  /// The request as the cluster has taken it: whether it is refused is known when it has been folded.
  private static func read(_ offset: Offset, of cluster: ClusterID, _ follower: ClusterFollower) throws
    -> ClusterState.FlowRequest
  {
    let deadline = ContinuousClock.now + .milliseconds(LogAccess.patience)
    while ContinuousClock.now < deadline {
      _ = try follower.poll(timeoutMilliseconds: 50)
      guard let known = follower.cluster(cluster), let position = known.core.position, position >= offset else { continue }
      guard let request = known.state.request(at: offset) else {
        throw Complaint("the cluster did not take the request; \(ClusterState.maximumRequests) are open")
      }
      return request
    }
    throw KafkaError.timedOut(operation: "reading the request", milliseconds: LogAccess.patience)
  }

  private static func follow(
    _ request: ClusterState.FlowRequest, of cluster: ClusterID, _ follower: ClusterFollower, seconds: Int
  ) throws -> ClusterState.FlowRequest {
    let deadline = ContinuousClock.now + .seconds(seconds)
    var request = request
    while request.outcome == .open, ContinuousClock.now < deadline {
      let moved = request.moved
      _ = try follower.poll(timeoutMilliseconds: 100)
      guard let now = follower.cluster(cluster)?.state.request(at: request.offset) else { continue }
      request = now
      if request.moved != moved { Terminal.say("  \(request.progress)") }
    }
    return request
  }

  private static func put(_ request: ClusterState.FlowRequest, _ cluster: ClusterID, _ format: OutputFormat) {
    let json = JSON.object([
      "cluster": .text(cluster), "offset": .number(request.offset.value), "correlation": .string(request.correlation),
      "moved": .number(request.moved), "outcome": .string(request.outcome.word),
    ])
    switch format {
    case .text:
      Terminal.put("request \(request.correlation) of cluster \(cluster) \(request.outcome.word): \(request.progress)\n")
    case .json: Terminal.put(json.document)
    case .jsonl: Terminal.put(json.line + "\n")
    }
  }
}

extension ClusterState.FlowRequest {
  var progress: String {
    switch wish {
    case .move(let move): "\(moved) of \(move.flows) flows moved from \(move.source) to \(move.target)"
    case .drain(let drain): "\(moved) flows moved away from \(drain.node)"
    }
  }
}

extension ClusterState.FlowRequest.Outcome {
  var word: String {
    switch self {
    case .open: "open"
    case .completed: "completed"
    case .failed: "failed"
    }
  }
}

extension NodeID: ExpressibleByArgument {
  public init?(argument: String) {
    guard let number = UInt32(argument) else { return nil }
    self.init(number)
  }
}
