// The built `nfvctl` as an operator runs it, against an embedded bus in this process and a real coordinator.
import ControlMessages
import Foundation
import NodeSupport
import Testing

@testable import nfvctl

@Suite(.serialized) struct NfvctlTests {
  struct Run: CustomStringConvertible {
    let status: Int32
    let out: String
    let err: String
    var description: String { "exit \(status)\nstdout: \(out)\nstderr: \(err)" }
  }

  /// Beside the test's own binary.
  static let program = URL(filePath: try! FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe"))
    .deletingLastPathComponent().appending(path: "nfvctl").path
  static let cluster = "\(ConfigurationExamplesTests.directory)/cluster.yaml"

  private func nfvctl(_ arguments: String..., bootstrap: String? = nil) throws -> Run {
    // The tests may run from a directory that has no products beside them; then this test says so.
    try #require(FileManager.default.isExecutableFile(atPath: Self.program), "\(Self.program) is not built")
    let process = Process()
    let (out, err) = (Pipe(), Pipe())
    process.executableURL = URL(filePath: Self.program)
    process.arguments = arguments
    process.standardOutput = out
    process.standardError = err
    process.standardInput = FileHandle.nullDevice
    var environment = ProcessInfo.processInfo.environment
    environment["NFV_BOOTSTRAP"] = bootstrap
    process.environment = environment
    try process.run()
    let data = out.fileHandleForReading.readDataToEndOfFile()
    let errors = err.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return Run(
      status: process.terminationStatus, out: String(decoding: data, as: UTF8.self), err: String(decoding: errors, as: UTF8.self))
  }

  /// The example, with nodes that nobody misses: these here say that they started, and nothing more.
  private func patientCluster() throws -> String {
    let path = FileManager.default.temporaryDirectory.path + "/nfvctl-test-\(UInt64.random(in: .min ... .max)).yaml"
    let text = try String(contentsOfFile: Self.cluster, encoding: .utf8)
    try #require(text.contains("heartbeat: 100ms"))
    try text.replacing("heartbeat: 100ms", with: "heartbeat: 60s").write(toFile: path, atomically: true, encoding: .utf8)
    return path
  }

  private func objects(_ run: Run) throws -> [[String: Any]] {
    try run.out.split(separator: "\n").map {
      try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any], "\($0)")
    }
  }

  @Test func `an operator applies a cluster, watches it start, and deletes it`() throws {
    let bus = try TestBus()
    defer { bus.stop() }
    let at = bus.settings.bootstrap
    let file = try patientCluster()
    defer { try? FileManager.default.removeItem(atPath: file) }

    // A log without topics is told from a log that is not there.
    let early = try nfvctl("get", "clusters", bootstrap: at)
    #expect(early.status == ExitStatus.unavailable && early.err.contains("nfvctl topics create"), "\(early)")
    let topics = try nfvctl("topics", "create", "-o", "jsonl", bootstrap: at)
    let created = try objects(topics)
    #expect(topics.status == 0 && created.allSatisfy { $0["created"] as? Bool == true }, "\(topics)")
    #expect(try nfvctl("topics", "create", bootstrap: at).out.contains("was there"))

    // Intents need no coordinator.
    let applied = try nfvctl("apply", "-f", file, bootstrap: at)
    #expect(applied.out == "cluster web applied (partition 1, offset 0)\n", "\(applied)")
    let again = try nfvctl("apply", "-f", file, bootstrap: at)
    #expect(again.out == "cluster web unchanged (partition 1)\n", "\(again)")
    let waiting = try nfvctl("get", "clusters", bootstrap: at)
    #expect(waiting.out.contains("0 of 2 runtimes serve") && waiting.out.contains("no agent has offered a host"), "\(waiting)")
    let late = try nfvctl("apply", "-f", file, "--wait", "1", bootstrap: at)
    #expect(late.status == ExitStatus.failure && late.err.contains("cluster web is not complete after 1 s"), "\(late)")

    // A coordinator, and what an agent and its nodes would say.
    let coordinator = TestCoordinator(bus, name: "one")
    defer { coordinator.stop() }
    let agent = try bus.writer(.agent(Samples.host), partition: 1)
    try agent.say(.agentStarted(AgentStarted(host: Samples.host, cores: 4, runtimePorts: 2, switchPorts: 1)))
    for launch in try bus.taken(atLeast: 3).compactMap(\.launch) {
      let node = try bus.writer(.node(launch.kind, launch.cluster, launch.node), partition: 1, life: launch.incarnation)
      try node.say(
        .nodeStarted(
          NodeStarted(node: launch.node, kind: launch.kind, host: launch.host, processID: 7, ports: Samples.ports, startup: 12)))
    }
    let complete = try nfvctl("apply", "-f", file, "--wait", "10", bootstrap: at)
    #expect(complete.status == 0 && complete.err.contains("cluster web is complete"), "\(complete)")

    let clusters = try objects(nfvctl("get", "clusters", "-o", "jsonl", "--bootstrap", at))
    #expect(clusters.count == 1)
    #expect(clusters.first?["status"] as? String == "complete" && clusters.first?["runtimesServing"] as? Int == 2)
    let runtimes = try objects(nfvctl("get", "runtime", "--cluster", "web", "-o", "jsonl", bootstrap: at))
    #expect(runtimes.map { $0["state"] as? String } == ["serving", "serving"])
    let commands = try objects(nfvctl("get", "commands", "-o", "jsonl", bootstrap: at))
    #expect(commands.prefix(3).map { $0["type"] as? String } == ["launch-switch", "launch-runtime", "launch-runtime"])
    let described = try nfvctl("describe", "switch", "web/1", "-o", "json", bootstrap: at)
    let node = try #require(try JSONSerialization.jsonObject(with: Data(described.out.utf8)) as? [String: Any])
    #expect(node["kind"] as? String == "switch" && node["processId"] as? Int == 7)

    let events = try objects(nfvctl("events", "tail", "--commands", "-o", "jsonl", bootstrap: at))
    #expect(events.prefix(2).map { $0["type"] as? String } == ["cluster-registered", "cluster-applied"])
    #expect(events.contains { $0["type"] as? String == "launch-runtime" } && !events.contains { $0["type"] as? String == "tick" })
    let some = try objects(
      nfvctl("events", "tail", "--cluster", "web", "--from", "1", "--types", "node-started", "-o", "jsonl", bootstrap: at))
    #expect(some.count == 3 && some.allSatisfy { $0["type"] as? String == "node-started" })

    let deleted = try nfvctl("delete", "cluster", "web", bootstrap: at)
    #expect(deleted.status == 0 && deleted.out.hasPrefix("cluster web deleted (partition 1, offset"), "\(deleted)")
    let gone = try objects(nfvctl("get", "clusters", "-o", "jsonl", bootstrap: at))
    #expect(["deleting", "deleted"].contains(gone.first?["status"] as? String))
  }

  @Test func `an operator moves flows and drains a runtime, and is told how it fares`() throws {
    let bus = try TestBus()
    defer { bus.stop() }
    let at = bus.settings.bootstrap
    let file = try patientCluster()
    defer { try? FileManager.default.removeItem(atPath: file) }
    let coordinator = TestCoordinator(bus, name: "one")
    defer { coordinator.stop() }
    try bus.waitForTopics()
    #expect(try nfvctl("apply", "-f", file, bootstrap: at).status == 0)
    let agent = try bus.writer(.agent(Samples.host), partition: 1)
    try agent.say(.agentStarted(AgentStarted(host: Samples.host, cores: 4, runtimePorts: 2, switchPorts: 1)))
    var nodes: [NodeID: TestWriter] = [:]
    for launch in try bus.taken(atLeast: 3).compactMap(\.launch) {
      let node = try bus.writer(.node(launch.kind, launch.cluster, launch.node), partition: 1, life: launch.incarnation)
      nodes[launch.node] = node
      try node.say(
        .nodeStarted(
          NodeStarted(
            node: launch.node, kind: launch.kind, host: launch.host, processID: 7, ports: Samples.ports, startup: 12,
            canMigrate: launch.kind == .runtime)))
    }
    #expect(try nfvctl("apply", "-f", file, "--wait", "10", bootstrap: at).status == 0)

    for (arguments, reason) in [
      (["--from", "2", "--to", "9"], "there is no node 9"), (["--from", "1", "--to", "2"], "node 1 is a switch"),
    ] {
      let refused = try nfvctl("migrate", arguments[0], arguments[1], arguments[2], arguments[3], "--flows", "4", bootstrap: at)
      #expect(refused.status == ExitStatus.failure && refused.err == "nfvctl: migrate: \(reason)\n", "\(refused)")
    }
    let asked = try nfvctl("migrate", "--from", "2", "--to", "3", "--flows", "40", bootstrap: at)
    #expect(asked.status == 0 && asked.out.hasSuffix("open: 0 of 40 flows moved from 2 to 3\n"), "\(asked)")
    var command: Command?
    try bus.wait {
      command = try bus.taken(atLeast: 1).first { $0.body.name == "set-migration-target" }
      return command != nil
    }
    let slot = try #require(command).slot
    var end = MigrationFinished(slot: slot, node: NodeID(2)!)
    (end.wanted, end.moved, end.refused, end.microseconds) = (40, 39, 1, 870)
    for body in [
      .commandAcknowledged(.init(slot: slot, by: .node(NodeID(2)!), outcome: .progress(done: 39, of: 40))), .migrationFinished(end),
      .commandAcknowledged(.init(slot: slot, by: .node(NodeID(2)!), outcome: .completed)),
    ] as [Event.Body] { try nodes[NodeID(2)!]?.say(body) }
    for verb in ["get", "audit"] {
      let listed = try #require(try objects(nfvctl(verb, "migrations", "-o", "jsonl", bootstrap: at)).first)
      #expect(listed["state"] as? String == "completed" && listed["moved"] as? Int == 39 && listed["flows"] as? Int == 40)
      #expect((listed["numbers"] as? [String: Any])?["microseconds"] as? Int == 870)
      #expect((listed["correlation"] as? String)?.hasPrefix("migrate-") == true)
    }

    let drain = try nfvctl("drain", "2", "--wait", "1", bootstrap: at)
    #expect(drain.status == ExitStatus.failure && drain.err.contains("drain: not done after 1 s; it goes on"), "\(drain)")
    let runtimes = try objects(nfvctl("get", "runtimes", "-o", "jsonl", bootstrap: at))
    #expect(runtimes.map { $0["state"] as? String } == ["draining", "serving"])
    try nodes[NodeID(2)!]?.say(.workload(NodeWorkload(node: NodeID(2)!, interval: 500)))
    let last = try nfvctl("drain", "3", bootstrap: at)
    #expect(last.status == ExitStatus.failure && last.err.contains("no other runtime serves"), "\(last)")
    let undone = try nfvctl("drain", "2", "--undo", "--wait", "5", bootstrap: at)
    #expect(undone.status == 0, "\(undone)")
  }

  @Test func `what is not there is said with exit code 1`() throws {
    let bus = try TestBus()
    defer { bus.stop() }
    let at = bus.settings.bootstrap
    #expect(try nfvctl("topics", "create", bootstrap: at).status == 0)
    let none = try nfvctl("get", "clusters", "-o", "json", bootstrap: at)
    #expect(none.status == 0 && none.out == "[]\n", "\(none)")
    for arguments in [
      ["get", "runtimes", "--cluster", "shop"], ["describe", "cluster", "shop"], ["delete", "cluster", "shop"],
      ["events", "tail", "--cluster", "shop"],
    ] {
      let run = try nfvctl(
        arguments[0], arguments[1], arguments[2], arguments.count > 3 ? arguments[3] : "--output=text", bootstrap: at)
      #expect(run.status == 1 && run.err.hasPrefix("nfvctl: there is no cluster 'shop'"), "\(run)")
      #expect(run.out.isEmpty)
    }
  }

  @Test func `a dead broker is named within five seconds, with what to do`() throws {
    let start = ContinuousClock.now
    // Nothing listens on port 1.
    let run = try nfvctl("get", "clusters", "--bootstrap", "127.0.0.1:1")
    #expect(ContinuousClock.now - start < .seconds(6))
    #expect(run.status == ExitStatus.unavailable && run.out.isEmpty, "\(run)")
    #expect(run.err.contains("127.0.0.1:1") && run.err.contains("start one with `nfvctl bus`"), "\(run)")
  }

  @Test func `a wrong file is refused with its line before the log is asked`() throws {
    let path = FileManager.default.temporaryDirectory.path + "/nfvctl-test-\(UInt64.random(in: .min ... .max)).yaml"
    defer { try? FileManager.default.removeItem(atPath: path) }
    let good = try String(contentsOfFile: Self.cluster, encoding: .utf8)
    for (from, to, complaint) in [
      ("runtimes: 2", "runtimes: none", ": runtimes: 'none' is not a whole number"),
      ("default: deny", "default: perhaps", ": chain[0].firewall.default: 'perhaps' is not one of: allow, deny"),
      ("  - nat:", "  - natt:", "unknown network function 'natt'; did you mean 'nat'?"),
    ] {
      try good.replacing(from, with: to).write(toFile: path, atomically: true, encoding: .utf8)
      let run = try nfvctl("apply", "-f", path, bootstrap: "127.0.0.1:1")
      let line = try #require(good.split(separator: "\n", omittingEmptySubsequences: false).firstIndex { $0.contains(from) }) + 1
      #expect(run.status == ExitStatus.usage && run.err.contains("\(path):\(line): ") && run.err.contains(complaint), "\(run)")
    }
    #expect(try nfvctl("apply", "-f", Self.cluster, "--check").status == 0)
    #expect(try nfvctl("get", "nonsense").status == ExitStatus.usage)
    #expect(try nfvctl("get", "clusters", "--kafka-option", "no.such.thing=1").status == ExitStatus.usage)
  }

  @Test func `every command has a help with an example`() throws {
    for command in [
      ["apply"], ["delete", "cluster"], ["get"], ["describe"], ["events", "tail"], ["topics", "create"], ["version"],
      ["migrate"], ["drain"],
    ] {
      let run = try command.count == 1 ? nfvctl(command[0], "--help") : nfvctl(command[0], command[1], "--help")
      #expect(run.status == 0 && run.out.contains("Example"), "\(command)")
    }
  }
}
