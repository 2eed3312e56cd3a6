import Configuration
import ControlMessages
import Foundation
import Glibc

/// A runtime or switch as its agent sees it: a process that can be found again, ended, and seen to end.
///
/// Its command line says all about it, so an agent that was killed and comes back finds its nodes in the process
/// table, without files that could be out of date.
struct NodeProcess {
  let identity: Identity
  let kind: NodeKind
  let pid: pid_t
  let grant: HostResources.Grant
  /// Started by this agent, so that its exit status comes to it; otherwise found.
  let isChild: Bool
  /// Tells this process from a later one of the same number.
  private let startTime: String?
  var stopping: Stopping = .no
  private var stoppedSince: UInt64?
  private var nextLook: UInt64 = 0
  let lifeLine: LifeLine?
  /// Its end has been told, perhaps before the kernel has taken the process apart.
  var isTold = false

  enum Stopping: Equatable {
    case no
    case asked(deadline: UInt64)
    case killed
  }

  /// Which life of which node a process is, as it stands on its command line: `web/3/1@lab`.
  struct Identity: Hashable, CustomStringConvertible {
    let cluster: ClusterID
    let node: NodeID
    let incarnation: Incarnation
    let host: HostID

    var holder: HostResources.Holder { HostResources.Holder(cluster: cluster, node: node) }
    var description: String { "\(cluster)/\(node)/\(incarnation)@\(host)" }
  }

  // MARK: Starting

  /// - Parameters:
  ///   - output: file for stdout and stderr, appended to; `nil` for the agent's own.
  static func start(
    program: String, arguments: [String], identity: Identity, kind: NodeKind, grant: HostResources.Grant, output: String?
  ) throws(NodeError) -> NodeProcess {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    if let output {
      posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_APPEND, 0o644)
      posix_spawn_file_actions_adddup2(&actions, 1, 2)
    }
    // A group of its own: Ctrl-C at the agent's terminal is the agent's business.
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP))
    var words: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) }
    words.append(nil)
    defer { for word in words { free(word) } }
    if grant.usesPacketSockets { spreadProcessIDs() }
    let lifeLine = LifeLine()
    if let lifeLine { posix_spawn_file_actions_adddup2(&actions, lifeLine.file, LifeLine.descriptor) }
    var pid: pid_t = 0
    let result = posix_spawn(&pid, program, &actions, &attributes, words, environ)
    guard result == 0 else { throw NodeError("\(program) cannot be started: \(String(cString: strerror(result)))") }
    return NodeProcess(identity: identity, kind: kind, pid: pid, grant: grant, isChild: true, lifeLine: lifeLine)
  }

  /// Makes the next process's id differ from the last ones' by more than interface indexes do.
  ///
  /// DPDK's af_packet driver numbers a port's fanout group `pid ^ interface index`. Two processes with ids close to one
  /// another can so name one group for two interfaces, which the kernel refuses to the second. Without the right to do
  /// this nothing is lost but a start: a node that cannot open its port is launched again.
  private static func spreadProcessIDs() {
    let path = "/proc/sys/kernel/ns_last_pid"
    guard let file = fopen(path, "r+") else { return }
    defer { fclose(file) }
    var text = [CChar](repeating: 0, count: 16)
    guard fgets(&text, Int32(text.count), file) != nil, case let last = atoi(text), last > 0 else { return }
    // Behind the next multiple of 64. Near its last number the kernel begins anew by itself.
    rewind(file)
    fputs("\((last / 64 + 1) * 64)", file)
  }

  private init(identity: Identity, kind: NodeKind, pid: pid_t, grant: HostResources.Grant, isChild: Bool, lifeLine: LifeLine?) {
    self.identity = identity
    self.kind = kind
    self.pid = pid
    self.grant = grant
    self.isChild = isChild
    self.lifeLine = lifeLine
    startTime = Self.startTime(of: pid)
  }

  // MARK: Ending

  /// How it ended, once it has.
  func ending() -> ProcessExited.Ending? {
    if isChild {
      var status: Int32 = 0
      guard waitpid(pid, &status, WNOHANG) == pid else { return nil }
      let signal = status & 0x7f
      return signal == 0 ? .code(UInt32(status >> 8 & 0xff)) : .signal(UInt32(signal))
    }
    // The status of another's child is not ours to know.
    return Self.startTime(of: pid) == startTime ? nil : .code(255)
  }

  /// How it is ending, once its worker is over: it does nothing more, and what it holds is not free yet.
  func workerEnding() -> ProcessExited.Ending? {
    guard lifeLine?.isOver == true else { return nil }
    // Field 52 of /proc/pid/stat, as waitpid(2) has it later.
    guard let fields = Self.status(of: pid), fields.count > 49, let status = UInt32(fields[49]) else { return .code(255) }
    return status & 0x7f == 0 ? .code(status >> 8 & 0xff) : .signal(status & 0x7f)
  }

  /// SIGTERM first, SIGKILL when the deadline has passed.
  mutating func stop(now: UInt64) {
    switch stopping {
    case .no:
      Glibc.kill(pid, SIGTERM)
      stopping = .asked(deadline: now + 5_000)
    case .asked(let deadline) where now >= deadline:
      kill()
    case .asked, .killed:
      break
    }
  }

  /// SIGKILL at once.
  mutating func kill() {
    guard stopping != .killed else { return }
    Glibc.kill(pid, SIGKILL)
    stopping = .killed
  }

  /// Whether it has been stopped by a signal (SIGSTOP) for a fifth of a second; asked often, it looks every 50 ms.
  mutating func isStandingStill(now: UInt64) -> Bool {
    guard now >= nextLook else { return false }
    nextLook = now + 50
    guard Self.isStopped(pid) else {
      stoppedSince = nil
      return false
    }
    stoppedSince = stoppedSince ?? now
    return now - stoppedSince! >= 200
  }

  /// State `T` in `/proc/PID/stat`. A process under a debugger is `t`, and its debugger's business.
  private static func isStopped(_ pid: pid_t) -> Bool {
    status(of: pid)?.first == "T"
  }

  // MARK: Finding

  /// Nodes of this host that are running already.
  static func running(on host: HostID) -> [NodeProcess] {
    let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return entries.compactMap { pid_t($0) }.sorted().compactMap { running(pid: $0, on: host) }
  }

  private static func running(pid: pid_t, on host: HostID) -> NodeProcess? {
    guard let data = FileManager.default.contents(atPath: "/proc/\(pid)/cmdline"), data.count < 65_536 else { return nil }
    let words = data.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
    func value(_ name: String) -> String? {
      words.firstIndex(of: name).flatMap { $0 + 1 < words.count ? words[$0 + 1] : nil }
    }
    guard words.count > 2, let kind = NodeKind.allCases.first(where: { $0.description == words[1] }),
      let identity = value("--identity").flatMap(Identity.init), identity.host == host
    else { return nil }
    let ports: HostResources.Grant.Ports
    if kind == .runtime {
      guard let port = value("--port") else { return nil }
      ports = .runtime(port)
    } else {
      guard let client = value("--client-port"), let server = value("--server-port"), let fabric = value("--fabric-port") else { return nil }
      ports = .virtualSwitch(AgentConfiguration.SwitchPorts(client: client, server: server, fabric: fabric))
    }
    let processors = (value("--processors") ?? "").split(separator: ",").compactMap { Int($0) }
    return NodeProcess(
      identity: identity, kind: kind, pid: pid, grant: HostResources.Grant(ports: ports, processors: processors), isChild: false,
      lifeLine: LifeLine(of: pid))
  }

  /// Field 22 of /proc/pid/stat; `nil` when there is no such process, or a dead one that nobody has reaped.
  private static func startTime(of pid: pid_t) -> String? {
    guard let fields = status(of: pid), fields.count > 19, fields[0] != "Z" else { return nil }
    return fields[19]
  }

  /// The fields of /proc/pid/stat from the third on.
  private static func status(of pid: pid_t) -> [String]? {
    guard let data = FileManager.default.contents(atPath: "/proc/\(pid)/stat") else { return nil }
    // The name, in parentheses, can hold anything; the fields after it cannot.
    let text = String(decoding: data, as: UTF8.self)
    guard let end = text.lastIndex(of: ")") else { return nil }
    return text[text.index(after: end)...].split(whereSeparator: { $0 == " " || $0 == "\n" }).map(String.init)
  }
}

extension NodeProcess.Identity {
  init?(_ text: String) {
    let halves = text.split(separator: "@", maxSplits: 1).map(String.init)
    guard halves.count == 2, let host = HostID(halves[1]) else { return nil }
    let parts = halves[0].split(separator: "/").map(String.init)
    guard parts.count == 3, let cluster = ClusterID(parts[0]), let number = UInt32(parts[1]), let node = NodeID(number),
      let incarnation = UInt64(parts[2])
    else { return nil }
    self.init(cluster: cluster, node: node, incarnation: Incarnation(incarnation), host: host)
  }
}
