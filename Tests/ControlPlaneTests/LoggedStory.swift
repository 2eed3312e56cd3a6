// A short story in the log of a real bus, with a real coordinator; and `nfvctl` to be run on it.
import ControlMessages
import ControlNodes
import ControlPlane
import Foundation
import KafkaLog
import Testing

/// Two runtimes and a switch start; a record that cannot be read comes in between; runtime 3 is killed and comes again.
final class LoggedStory {
  let bootstrap: String
  private(set) var poisonOffset: Int64 = 0
  private let bus: TestBus
  private var isStopped = false

  /// - Parameter waitsForRules: until the coordinator has put the newest decision rules in force.
  init(_ folder: ToolFolder, waitsForRules: Bool = false) throws {
    bus = try TestBus()
    bootstrap = bus.settings.bootstrap
    #expect(try folder.nfvctl("topics", "create", at: bootstrap).status == 0)
    // Nobody here sends heartbeats, so nobody is to be missed.
    let text = try String(contentsOfFile: NfvctlTests.cluster, encoding: .utf8)
    let file = folder.path("cluster.yaml")
    try text.replacing("heartbeat: 100ms", with: "heartbeat: 60s").write(toFile: file, atomically: true, encoding: .utf8)
    #expect(try folder.nfvctl("apply", "-f", file, at: bootstrap).status == 0)
    let coordinator = TestCoordinator(bus, name: "one")
    defer { coordinator.stop() }
    poisonOffset = try KafkaProducer(bus.settings, profile: .facts).sendAndWait(
      topic: ServiceTopics.events, partition: 1, value: Array("not a record".utf8))
    let agent = try bus.writer(.agent(Samples.host), partition: 1)
    try agent.say(.agentStarted(AgentStarted(host: Samples.host, cores: 4, runtimePorts: 2, switchPorts: 1)))
    let launches = try bus.taken(atLeast: 3).compactMap(\.launch)
    for launch in launches { try start(launch) }
    let dead = try #require(launches.last)
    let before = try bus.taken(atLeast: 4).count
    try agent.say(
      .processExited(ProcessExited(host: dead.host, node: dead.node, incarnation: dead.incarnation, ending: .signal(9))))
    let again = try bus.taken(atLeast: before + 1).compactMap(\.launch)
    if let launch = again.last, launch.incarnation > dead.incarnation { try start(launch) }
    _ = try bus.letters(atLeast: 1)
    try bus.waitForBeacon(by: "one")
    guard waitsForRules else { return }
    try bus.wait {
      let follower = try ClusterFollower(bus.settings, only: Samples.cluster)
      try follower.catchUp(timeoutMilliseconds: 10_000)
      return follower.clusters.first?.state.rules == DecisionRules.newest
    }
  }

  private func start(_ launch: LaunchSpec) throws {
    let node = try bus.writer(.node(launch.kind, launch.cluster, launch.node), partition: 1, life: launch.incarnation)
    try node.say(
      .nodeStarted(
        NodeStarted(node: launch.node, kind: launch.kind, host: launch.host, processID: 7, ports: Samples.ports, startup: 12)))
  }

  func stop() {
    guard !isStopped else { return }
    isStopped = true
    bus.stop()
  }
}

/// Files of one test, and the tool that is run on them.
final class ToolFolder: Sendable {
  struct Run: CustomStringConvertible {
    let status: Int32
    let out: String
    let err: String
    var description: String { "exit \(status)\nstdout: \(out)\nstderr: \(err)" }
  }

  private let folder = FileManager.default.temporaryDirectory.path + "/nfvctl-tools-\(UInt64.random(in: .min ... .max))"

  init() { try! FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true) }
  deinit { try? FileManager.default.removeItem(atPath: folder) }

  func path(_ name: String) -> String { "\(folder)/\(name)" }

  func nfvctl(_ arguments: String..., at bootstrap: String? = nil) throws -> Run { try nfvctl(arguments, at: bootstrap) }

  /// Its output goes to files, so that neither of the two can fill a pipe while the other is read.
  func nfvctl(_ arguments: [String], at bootstrap: String? = nil) throws -> Run {
    try #require(FileManager.default.isExecutableFile(atPath: NfvctlTests.program), "\(NfvctlTests.program) is not built")
    let process = Process()
    process.executableURL = URL(filePath: NfvctlTests.program)
    process.arguments = arguments
    let (out, err) = (path("out"), path("err"))
    for file in [out, err] { _ = FileManager.default.createFile(atPath: file, contents: nil) }
    process.standardOutput = FileHandle(forWritingAtPath: out)
    process.standardError = FileHandle(forWritingAtPath: err)
    process.standardInput = FileHandle.nullDevice
    var environment = ProcessInfo.processInfo.environment
    environment["NFV_BOOTSTRAP"] = bootstrap
    process.environment = environment
    try process.run()
    process.waitUntilExit()
    return Run(
      status: process.terminationStatus, out: try String(contentsOfFile: out, encoding: .utf8),
      err: try String(contentsOfFile: err, encoding: .utf8))
  }

  /// What it says in JSON lines.
  func objects(_ arguments: String..., at bootstrap: String) throws -> [[String: Any]] {
    let run = try nfvctl(arguments, at: bootstrap)
    return try run.out.split(separator: "\n").map {
      try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any], "\(run)")
    }
  }
}
