import ControlMessages
import ControlNodes
import Glibc
import KafkaLog

/// The platform's processes on this machine, in one network namespace, and what their log says.
///
/// For runs that bring their own traffic or their own harm. It starts processes and reads the log, and never helps them.
final class Platform {
  let binaries: String
  let directory: String
  let logs: String
  private let namespace: String
  private let isStopRequested: () -> Bool
  private let clock = ContinuousClock()
  private(set) var processes: [ChildProcess] = []
  private(set) var picture = LogPicture()
  private var follower: ClusterFollower?
  /// While the log is read: the bus listens on the namespace's own loopback. Ends after the follower's threads.
  private var visit: NamespaceVisit?

  init(binaries: String, directory: String, logs: String, namespace: String, isStopRequested: @escaping () -> Bool) throws(LabError) {
    self.binaries = binaries
    self.directory = directory
    self.logs = logs
    self.namespace = namespace
    self.isStopRequested = isStopRequested
    try TextFile.makeDirectory(directory)
    try TextFile.makeDirectory(logs)
    visit = try NamespaceVisit(namespace)
  }

  /// What the log says of the only cluster.
  var cluster: ClusterFollower.Cluster? { follower?.clusters.first }

  func log(_ name: String) -> String { "\(logs)/\(name).log" }

  func process(_ name: String) -> ChildProcess? { processes.last { $0.name == name } }

  // MARK: Starting

  @discardableResult
  func start(_ name: String, _ program: String, _ arguments: [String], in namespace: String? = nil) throws(LabError) -> ChildProcess {
    guard !isStopRequested() else { throw .interrupted }
    let process = try ChildProcess.start(
      name, ["\(binaries)/\(program)"] + arguments, in: namespace ?? self.namespace, log: log(name))
    processes.append(process)
    return process
  }

  func startBus() throws(LabError) {
    var said = GrowingFile(atEndOf: log("bus"))
    try TextFile.makeDirectory("\(directory)/bus")
    try start("bus", "nfvctl", ["bus", "--listen", LabConfigurations.bootstrap, "--data-dir", "\(directory)/bus"])
    try wait(seconds: 20, for: "the bus to listen") {
      said.newLines().contains { $0.contains("listening") }
    }
    guard follower == nil else { return }
    do throws(KafkaError) {
      follower = try ClusterFollower(KafkaSettings(bootstrap: LabConfigurations.bootstrap, clientID: "nfv-lab"))
    } catch {
      throw .late("the log cannot be read: \(error)")
    }
  }

  func startCoordinator(_ name: String) throws(LabError) {
    try start(name, "nfv-coordinator", ["--bootstrap", LabConfigurations.bootstrap, "--name", name])
  }

  /// - Parameter configuration: the text of its YAML file.
  func startAgent(_ name: String, _ configuration: String) throws(LabError) {
    let file = "\(directory)/\(name).yaml"
    try TextFile.write(configuration, to: file)
    try start(name, "nfvactor", ["agent", "--config", file])
  }

  /// Writes `text` to a file and hands it to nfvctl: `apply`, or `policy activate`.
  func nfvctl(_ arguments: [String], file name: String, _ text: String) throws(LabError) {
    let file = "\(directory)/\(name)"
    try TextFile.write(text, to: file)
    try Program.run(
      ["\(binaries)/nfvctl"] + arguments + ["-f", file, "--bootstrap", LabConfigurations.bootstrap], in: namespace)
  }

  // MARK: Watching

  func wait(
    seconds: Int, for what: String, noticing: (ClusterFollower.Item) -> Void = { _ in }, _ isDone: () throws(LabError) -> Bool
  ) throws(LabError) {
    let deadline = clock.now + .seconds(seconds)
    while try !isDone() {
      guard !isStopRequested() else { throw .interrupted }
      guard clock.now < deadline else {
        throw .late("waited \(seconds) s for \(what)" + picture.lines.suffix(8).map { "\n    \($0.text)" }.joined())
      }
      for process in processes { try process.checkRunning() }
      try readLog(noticing)
    }
  }

  /// Everything that the operator wants serves.
  func waitUntilServing(seconds: Int) throws(LabError) {
    try wait(seconds: seconds, for: "everything to serve") { cluster.map { picture.isServing($0.state) } ?? false }
  }

  /// Takes what came, and waits a little if nothing did.
  func readLog(waiting milliseconds: Int = 20, _ noticing: (ClusterFollower.Item) -> Void = { _ in }) throws(LabError) {
    guard let follower else {
      usleep(UInt32(milliseconds) * 1_000)
      return
    }
    do throws(KafkaError) {
      for item in try follower.poll(timeoutMilliseconds: milliseconds) {
        switch item {
        case .event(_, let record, _): picture.read(record)
        case .command(_, let record, let reading): picture.read(record, reading)
        case .unreadable: picture.readUnreadable()
        case .clusterFound, .caughtUp: break
        }
        noticing(item)
      }
    } catch {
      throw .late("the log cannot be read any more: \(error)")
    }
  }

  // MARK: Ending

  /// No longer expected to run: it ended by our own hand.
  func forget(_ process: ChildProcess) { processes.removeAll { $0 === process } }

  /// Ends all, the latest first and the bus last, and removes what was made but the logs.
  ///
  /// - Returns: what did not end as it should.
  func end() -> [String] {
    var problems: [String] = []
    for process in processes.reversed() {
      if process.name == "bus" { follower = nil }
      guard process.poll() == nil else { continue }
      process.signal(SIGCONT)
      switch process.stop(patience: .seconds(15)) {
      case .code(0), .signal(SIGTERM): break
      case let ending?: problems.append("\(process.name) was asked to stop and \(ending); its log is \(process.log)")
      case nil: problems.append("\(process.name) did not stop and was killed; its log is \(process.log)")
      }
    }
    processes = []
    follower = nil
    visit = nil
    problems += endLeftovers()
    TextFile.removeTree(directory)
    return problems
  }

  /// Kills our own programs that are left in our own namespace: nodes whose agent did not end them.
  private func endLeftovers() -> [String] {
    guard let list = try? Program.run(["ip", "netns", "pids", namespace]) else { return [] }
    var problems: [String] = []
    for word in list.split(whereSeparator: \.isWhitespace) {
      guard let process = pid_t(word), process != getpid(), Program.path(of: process)?.hasPrefix(binaries) == true else { continue }
      problems.append("process \(process) was left behind and has been killed")
      kill(process, SIGKILL)
    }
    return problems
  }
}

extension Program {
  /// The program that a process runs.
  static func path(of process: pid_t) -> String? {
    var buffer = [CChar](repeating: 0, count: 4_096)
    let count = readlink("/proc/\(process)/exe", &buffer, buffer.count)
    return count > 0 ? String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self) : nil
  }
}
