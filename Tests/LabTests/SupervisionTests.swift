import Foundation
import Glibc
import Testing

@testable import Lab

/// Starting, watching and ending processes; needs no root.
@Suite struct SupervisionTests {
  let log = "\(NSTemporaryDirectory())nfv-supervision-\(UInt64.random(in: 0 ... .max)).log"

  private func shell(_ script: String) throws -> ChildProcess { try ChildProcess.start("child", ["sh", "-c", script], log: log) }

  @Test func `an unexpected end names the process, its ending and the end of its log`() throws {
    defer { unlink(log) }
    let child = try shell("echo first; echo second >&2; exit 3")
    #expect(child.wait(.seconds(10)) == .code(3))
    #expect(throws: LabError.died(name: "child", ending: .code(3), log: log, lastLines: ["first", "second"])) {
      try child.checkRunning()
    }
  }

  @Test func `a child that ends when asked is not killed`() throws {
    defer { unlink(log) }
    let child = try shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    while TextFile.lastLines(of: log, 1) != ["ready"] { usleep(10_000) }
    #expect(child.poll() == nil)
    #expect(child.stop() == .code(7))
  }

  @Test func `a child that does not end when asked is killed with all that it started`() throws {
    defer { unlink(log) }
    let child = try shell("trap '' TERM; sleep 300 & echo $!; wait; while :; do sleep 300; done")
    var lines: [String] = []
    while lines.isEmpty {
      lines = TextFile.lastLines(of: log, 1)
      usleep(10_000)
    }
    let grandchild = try #require(pid_t(lines[0]))
    #expect(child.stop(patience: .milliseconds(200)) == nil)
    #expect(child.ending == .signal(SIGKILL))
    // It is init's now, or the test runner's sub-reaper's: gone or about to be reaped.
    let state = {
      (try? String(contentsOfFile: "/proc/\(grandchild)/stat", encoding: .utf8))?.split(separator: " ").dropFirst(2).first
    }
    for _ in 0..<200 where ![nil, "Z"].contains(state()) { usleep(10_000) }
    #expect([nil, "Z"].contains(state()))
  }

  @Test func `a program's answer is its output, and its complaint is the error`() throws {
    #expect(try Program.run(["echo", "hello"]) == "hello\n")
    #expect(throws: LabError.refused(command: "sh -c echo no >&2; exit 2", answer: "no")) {
      try Program.run(["sh", "-c", "echo no >&2; exit 2"])
    }
    #expect(throws: LabError.self) { try Program.run(["nfv-no-such-program"]) }
  }

  @Test func `a growing file gives finished lines once`() throws {
    defer { unlink(log) }
    var file = GrowingFile(log)
    #expect(file.newLines() == [])
    try TextFile.write("one\ntwo\nthr", to: log)
    #expect(file.newLines() == ["one", "two"])
    try TextFile.write("one\ntwo\nthree\n", to: log)
    #expect(file.newLines() == ["three"])
    #expect(file.newLines() == [])
  }

  @Test func `what a long log said before is passed over, and what comes is not`() throws {
    defer { unlink(log) }
    let before = String(repeating: "listening on an address that is long enough to fill a log before long\n", count: 1_000)
    try TextFile.write(before, to: log)
    var file = GrowingFile(atEndOf: log)
    #expect(file.newLines() == [])
    try TextFile.write(before + "listening again\n", to: log)
    #expect(file.newLines() == ["listening again"])
  }

  @Test func `a thread stands still until it is let go, or until its process ends`() throws {
    defer { unlink(log) }
    func turns() -> Int { (try? String(contentsOfFile: log, encoding: .utf8).count) ?? 0 }
    let child = try shell("while :; do echo; sleep 0.01; done")
    while turns() == 0 { usleep(1_000) }
    let first = try #require(try StandingThread(child.processID))
    let before = turns()
    usleep(200_000)
    #expect(turns() <= before + 1)
    first.release()
    for _ in 0..<1_000 where turns() <= before + 1 { usleep(10_000) }
    #expect(turns() > before + 1)

    let second = try #require(try StandingThread(child.processID))
    kill(child.processID, SIGKILL)
    for _ in 0..<1_000 where second.isStanding {
      usleep(1_000)
      second.look()
    }
    #expect(!second.isStanding)
    second.release()
    #expect(try StandingThread(child.processID) == nil)
  }

  @Test func `two labs make different namespaces and a network is made in order`() {
    let one = LabNetwork(prefix: "nfv1", runtimes: 3)
    let other = LabNetwork(prefix: "nfv2", runtimes: 3)
    #expect(Set(one.namespaces).isDisjoint(with: other.namespaces))
    let links = one.commands.filter { $0.contains("veth") }
    #expect(links.count == 6, "three runtimes, the switch's fabric, clients, servers")
    // Interface names have at most 15 characters.
    #expect(links.flatMap { [$0[6], $0[13]] }.allSatisfy { $0.count <= 15 })
    for link in links {
      let name = link[6]
      let made = one.commands.firstIndex(of: link)!
      #expect(one.commands[(made + 1)...].contains { $0.contains(name) && $0.last == "up" })
      #expect(one.commands[(made + 1)...].contains { $0.contains(name) && $0.contains("tso") })
    }
  }

  @Test func `the lab's cluster is the one of the examples`() throws {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    func lines(_ text: String) -> [Substring] {
      text.split(separator: "\n").filter { !$0.drop { $0 == " " }.hasPrefix("#") }
    }
    let example = try String(contentsOf: root.appending(path: "examples/cluster.yaml"), encoding: .utf8)
    #expect(lines(LabConfigurations.cluster(runtimes: 2)) == lines(example))
  }
}
