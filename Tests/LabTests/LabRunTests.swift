import Foundation
import Glibc
import Lab
import Testing

/// The lab end to end, as a person runs it: the release binaries, real namespaces, real clients.
///
/// Needs root and the binaries of `make build`; elsewhere these tests are skipped and say why.
@Suite(.serialized, .enabled(if: LabRun.obstacle == nil, Comment(rawValue: LabRun.obstacle ?? "")))
struct LabRunTests {
  @Test(.timeLimit(.minutes(3)))
  func `real connections cross the platform and none fails`() throws {
    let run = try LabRun(["--seconds", "10"])
    defer { run.removeFiles() }
    let ending = run.finish(within: .seconds(150))
    let summary = try run.summary()
    #expect(ending == .code(0), "\(run.output)")
    #expect(summary.passed)
    #expect(summary.total.failed == 0)
    #expect(summary.kept.requests > 100)
    #expect(summary.fresh.requests > 5)
    #expect(summary.fresh.bytes == summary.fresh.requests << 20)
    // Least-loaded everywhere: nobody is left out.
    #expect(summary.nodes.count { $0.name.hasPrefix("runtime") && $0.flows > 0 && $0.forwardedPackets > 0 } == 2)
    #expect(summary.servers.count == 2 && summary.servers.allSatisfy { $0.connections > 0 })
    #expect(summary.log.unreadableRecords == 0)
    #expect(run.leftovers() == [])
  }

  @Test(.timeLimit(.minutes(3)), .enabled(if: access("/proc/sys/net/ipv6/conf/all", F_OK) == 0, "this kernel has no IPv6"))
  func `clients that have IPv6 only download from servers that have IPv4 only, while their flows move`() throws {
    let run = try LabRun(["--seconds", "8", "--ipv6-clients", "--migrate-every", "2"])
    defer { run.removeFiles() }
    let ending = run.finish(within: .seconds(150))
    let summary = try run.summary()
    #expect(ending == .code(0), "\(run.output)")
    #expect(summary.total.failed == 0)
    #expect(summary.kept.requests > 100 && summary.fresh.requests > 1)
    #expect(summary.fresh.bytes == summary.fresh.requests << 20)
    #expect(summary.migrations.moved >= 10 && summary.servers.allSatisfy { $0.connections > 0 })
    #expect(run.leftovers() == [])
  }

  @Test(.timeLimit(.minutes(3)))
  func `a coordinator killed under traffic comes back, repeats nothing and nobody notices`() throws {
    let run = try LabRun(["--seconds", "9", "--kill-coordinator-at", "2"])
    defer { run.removeFiles() }
    let ending = run.finish(within: .seconds(150))
    let summary = try run.summary()
    #expect(ending == .code(0), "\(run.output)")
    #expect(summary.total.failed == 0 && summary.total.requests > 100)
    #expect(summary.log.repeatedCommands == 0)
    #expect(summary.log.commands > 0)
    #expect(summary.nodes.allSatisfy { $0.lives == 1 })
    #expect(run.leftovers() == [])
  }

  @Test(.timeLimit(.minutes(4)))
  func `transfers outlive their runtimes, killed one after another`() throws {
    let run = try LabRun(["--runtimes", "3", "--replicas", "1", "--transfers", "60", "--kill-runtime-every", "4", "--seconds", "14"])
    defer { run.removeFiles() }
    let ending = run.finish(within: .seconds(200))
    let summary = try run.summary()
    #expect(ending == .code(0), "\(run.output)")
    #expect(summary.fresh.requests >= 60 && summary.fresh.failed == 0)
    #expect(summary.recoveries.count >= 2 && summary.recoveries.recovered > 0 && summary.recoveries.refused == 0)
    #expect(run.leftovers() == [])
  }

  @Test(.timeLimit(.minutes(5)))
  func `transfers outlive two runtimes at once where flows have two replicas`() throws {
    let run = try LabRun(["--runtimes", "4", "--replicas", "2", "--transfers", "60", "--kill-pair-every", "5", "--seconds", "16"])
    defer { run.removeFiles() }
    let ending = run.finish(within: .seconds(240))
    let summary = try run.summary()
    #expect(ending == .code(0), "\(run.output)")
    #expect(summary.fresh.requests >= 60 && summary.fresh.failed == 0)
    // At least one pair.
    #expect(summary.recoveries.count >= 2 && summary.recoveries.recovered > 0)
    #expect(run.leftovers() == [])
  }

  /// Also the one that took over first: the other is back by then, and has stood by.
  @Test(.timeLimit(.minutes(4)))
  func `transfers outlive the switch that they go through, and the next one`() throws {
    let run = try LabRun(["--switches", "2", "--transfers", "60", "--kill-switch-every", "4", "--seconds", "14"])
    defer { run.removeFiles() }
    let ending = run.finish(within: .seconds(200))
    let summary = try run.summary()
    #expect(ending == .code(0), "\(run.output)")
    #expect(summary.fresh.requests >= 60 && summary.fresh.failed == 0)
    #expect(summary.takeovers.count >= 2)
    // A real host's ARP cache has followed every time.
    #expect(summary.takeovers.linkAddresses.count == summary.takeovers.count + 1, "\(summary.takeovers)")
    #expect(run.leftovers() == [])
  }

  @Test(.timeLimit(.minutes(5)))
  func `a frozen runtime, one without its cable and a zombie are fenced, and their flows go on`() throws {
    let run = try LabRun([
      "--runtimes", "3", "--replicas", "1", "--transfers", "20", "--freeze-runtime-at", "2", "--cut-fabric-at", "7", "--zombie-at", "12",
      "--seconds", "24",
    ])
    defer { run.removeFiles() }
    let ending = run.finish(within: .seconds(240))
    let summary = try run.summary()
    #expect(ending == .code(0), "\(run.output)")
    #expect(summary.harms.map(\.kind) == ["frozen-runtime", "fabric-cut", "zombie"])
    #expect(summary.harms.allSatisfy { $0.hasEnded && $0.recoveredAfterMilliseconds != nil }, "\(summary.harms)")
    #expect(summary.fresh.requests >= 20 && summary.fresh.failed == 0)
    #expect(run.leftovers() == [])
  }

  @Test(.timeLimit(.minutes(4)))
  func `a runtime that loses only its link to the log goes on serving and is left alone`() throws {
    let run = try LabRun(["--runtimes", "3", "--replicas", "1", "--transfers", "20", "--cut-bus-at", "3", "--seconds", "14"])
    defer { run.removeFiles() }
    let ending = run.finish(within: .seconds(200))
    let summary = try run.summary()
    #expect(ending == .code(0), "\(run.output)")
    #expect(summary.harms.count == 1 && summary.harms.allSatisfy { !$0.hasEnded && $0.wasSilent }, "\(summary.harms)")
    #expect(summary.nodes.allSatisfy { $0.lives == 1 } && summary.recoveries.count == 0)
    #expect(summary.fresh.requests >= 20 && summary.fresh.failed == 0)
    #expect(run.leftovers() == [])
  }

  @Test(.timeLimit(.minutes(3)))
  func `the bus is killed under traffic, and packets do not care`() throws {
    let run = try LabRun(["--seconds", "9", "--replicas", "1", "--kill-bus-at", "2"])
    defer { run.removeFiles() }
    let ending = run.finish(within: .seconds(150))
    let summary = try run.summary()
    #expect(ending == .code(0), "\(run.output)")
    #expect(summary.total.failed == 0 && summary.kept.requests > 100 && summary.fresh.requests > 1)
    #expect(summary.nodes.allSatisfy { $0.lives == 1 })
    #expect(run.leftovers() == [])
  }

  /// What is done to frames meanwhile: nothing, and harm where the kernel has netem, which many come without.
  static let harms: [String] = {
    let harm = "delay 1ms 200us loss 0.1%"
    var settings = Lab.Settings(binaries: LabRun.binaries)
    settings.netem = harm.split(separator: " ").map(String.init)
    return Lab.obstacle(settings) == nil ? ["", harm] : [""]
  }()

  @Test(.timeLimit(.minutes(3)), arguments: harms)
  func `flows move back and forth under traffic, and no request fails`(netem: String) throws {
    let run = try LabRun(["--seconds", "8", "--migrate-every", "1"] + (netem.isEmpty ? [] : ["--netem", netem]))
    defer { run.removeFiles() }
    let ending = run.finish(within: .seconds(150))
    let summary = try run.summary()
    #expect(ending == .code(0), "\(run.output)")
    #expect(summary.total.failed == 0)
    #expect(summary.kept.requests > 100 && summary.fresh.requests > 1)
    #expect(summary.fresh.bytes == summary.fresh.requests << 20)
    #expect(summary.migrations.count >= 4 && summary.migrations.moved >= 20, "\(summary.migrations)")
    #expect(summary.nodes.allSatisfy { $0.lives == 1 })
    #expect(run.leftovers() == [])
  }

  /// As with netem, which many kernels come without: a link that loses, delays and reorders what goes over the fabric.
  @Test(.timeLimit(.minutes(4)))
  func `two hundred transfers are moved over a bad fabric, and every checksum matches`() throws {
    let run = try LabRun([
      "--seconds", "8", "--transfers", "200", "--migrate-every", "1", "--impair", "loss=0.1%;delay=1ms;jitter=200us",
    ])
    defer { run.removeFiles() }
    let ending = run.finish(within: .seconds(230))
    let summary = try run.summary()
    #expect(ending == .code(0), "\(run.output)")
    #expect(summary.fresh.failed == 0 && summary.fresh.requests >= 200)
    #expect(summary.fresh.bytes == summary.fresh.requests << 20)
    #expect(summary.migrations.count >= 2 && summary.migrations.moved >= 200, "\(summary.migrations)")
    #expect(run.leftovers() == [])
  }

  @Test(.timeLimit(.minutes(3)))
  func `two hundred long transfers are moved back and forth, and nothing of them is missing or out of order`() throws {
    let run = try LabRun(["--seconds", "8", "--transfers", "200", "--migrate-every", "1"])
    defer { run.removeFiles() }
    let ending = run.finish(within: .seconds(170))
    let summary = try run.summary()
    #expect(ending == .code(0), "\(run.output)")
    #expect(summary.fresh.failed == 0 && summary.fresh.requests >= 200)
    #expect(summary.fresh.bytes == summary.fresh.requests << 20)
    #expect(summary.migrations.count >= 4 && summary.migrations.moved >= 400, "\(summary.migrations)")
    let segments = try #require(summary.segments)
    #expect(segments.packets > 100_000)
    // What ports lose, because the machine does not get round to them, is missing rightly.
    if summary.dropsByReason["missed-by-port"] == nil { #expect(segments.gaps == 0 && segments.reordered == 0, "\(segments)") }
    #expect(run.leftovers() == [])
  }

  @Test(.timeLimit(.minutes(3)), arguments: [0.15, 1.0, 2.5])
  func `a lab that is stopped while it is being set up leaves nothing`(seconds: Double) throws {
    let run = try LabRun(["--seconds", "60"])
    defer { run.removeFiles() }
    usleep(UInt32(seconds * 1_000_000))
    run.process.signal(SIGTERM)
    #expect(run.finish(within: .seconds(60)) != nil, "it ends soon")
    #expect(run.leftovers() == [])
  }

  @Test(.timeLimit(.minutes(3)))
  func `a lab whose cluster file is wrong says so and leaves nothing`() throws {
    let file = "\(NSTemporaryDirectory())nfv-wrong-\(getpid()).yaml"
    try TextFile.write("name: web\nchain: [firewall]\nruntimes: many\n", to: file)
    defer { unlink(file) }
    let run = try LabRun(["--seconds", "60", "--cluster", file])
    defer { run.removeFiles() }
    #expect(run.finish(within: .seconds(60)) == .code(1))
    let problems = try run.summary().problems
    #expect(problems.count == 1 && problems[0].contains("\(file):3") && problems[0].contains("many"), "\(problems)")
    #expect(run.leftovers() == [])
  }
}

/// One run of `nfvactor lab` by the tests.
final class LabRun {
  let process: ChildProcess
  private let summaryFile: String

  static let binaries: String =
    ProcessInfo.processInfo.environment["NFV_BINARIES"]
    ?? URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .appending(path: ".build/release").path

  /// Why there can be no lab here; nil when there can.
  static let obstacle: String? =
    ProcessInfo.processInfo.environment["NFV_SKIP_LAB"] != nil
    ? "NFV_SKIP_LAB is set" : Lab.obstacle(Lab.Settings(binaries: binaries))

  init(_ options: [String]) throws {
    let name = "\(NSTemporaryDirectory())nfv-lab-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    summaryFile = "\(name).json"
    process = try ChildProcess.start(
      "lab", ["\(Self.binaries)/nfvactor", "lab", "--summary", summaryFile] + options, log: "\(name).log")
  }

  /// How it ended, or nil if it did not in time; then it is stopped, and killed.
  func finish(within longest: Duration) -> ChildProcess.Ending? {
    if let ending = process.wait(longest) { return ending }
    process.stop(SIGTERM, patience: .seconds(60))
    return nil
  }

  var output: String { TextFile.lastLines(of: process.log, 60).joined(separator: "\n") }

  func summary() throws -> LabSummary {
    try JSONDecoder().decode(LabSummary.self, from: Data(contentsOf: URL(filePath: summaryFile)))
  }

  /// What this run made and should have removed: namespaces, folders, processes.
  func leftovers() -> [String] {
    let prefix = "nfv\(process.processID)-"
    let manager = FileManager.default
    var found = ((try? manager.contentsOfDirectory(atPath: "/run/netns")) ?? []).filter { $0.hasPrefix(prefix) }
    found += ((try? manager.contentsOfDirectory(atPath: NSTemporaryDirectory())) ?? []).filter { $0 == prefix + "lab" }
    for entry in (try? manager.contentsOfDirectory(atPath: "/proc")) ?? [] where Int(entry) != nil {
      guard let words = manager.contents(atPath: "/proc/\(entry)/cmdline") else { continue }
      let command = String(decoding: words.map { $0 == 0 ? 32 : $0 }, as: UTF8.self)
      if command.contains(prefix) { found.append("process \(entry): \(command)") }
    }
    return found
  }

  func removeFiles() {
    unlink(summaryFile)
    unlink(process.log)
    TextFile.removeTree("\(NSTemporaryDirectory())nfv\(process.processID)-logs")
  }
}
