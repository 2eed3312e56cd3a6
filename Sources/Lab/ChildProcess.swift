import Glibc

/// A process that the lab started: its id, where its output goes, and how it ended.
///
/// Each child leads a process group of its own, so that Ctrl-C on the terminal reaches the lab only, and the lab ends
/// its children in the order that it wants. If the lab itself is killed, the kernel sends each child SIGTERM
/// (`setpriv --pdeathsig`). Used from one thread.
public final class ChildProcess {
  public enum Ending: Hashable, Sendable, CustomStringConvertible {
    case code(Int32)
    case signal(Int32)

    init(status: Int32) {
      self = status & 0x7f == 0 ? .code((status >> 8) & 0xff) : .signal(status & 0x7f)
    }

    public var description: String {
      switch self {
      case .code(let code): "ended with code \(code)"
      case .signal(let number): "was ended by signal \(number)"
      }
    }
  }

  public let name: String
  public let processID: pid_t
  public let log: String
  /// nil while it runs.
  public private(set) var ending: Ending?

  private init(name: String, processID: pid_t, log: String) {
    self.name = name
    self.processID = processID
    self.log = log
  }

  /// Starts `command` with its output appended to the file `log`, in a network namespace if one is named.
  public static func start(
    _ name: String, _ command: [String], in namespace: String? = nil, log: String
  ) throws(LabError) -> ChildProcess {
    // Both exec what follows: the process id stays the same.
    let enter = namespace.map { ["ip", "netns", "exec", $0] } ?? []
    let arguments = enter + ["setpriv", "--pdeathsig", "TERM", "--"] + command

    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log, O_WRONLY | O_CREAT | O_APPEND, 0o644)
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO)
    do {
      return ChildProcess(name: name, processID: try spawn(arguments, &actions), log: log)
    } catch {
      throw .refused(command: command.joined(separator: " "), answer: "\(String(cString: strerror(error.number))) (log \(log))")
    }
  }

  struct SpawnError: Error { let number: Int32 }

  /// In a group of its own, with the signals that the lab ignores or handles as a new process has them.
  static func spawn(_ arguments: [String], _ actions: inout posix_spawn_file_actions_t) throws(SpawnError) -> pid_t {
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var ordinary = sigset_t()
    sigemptyset(&ordinary)
    for number in [SIGPIPE, SIGINT, SIGTERM, SIGHUP] { sigaddset(&ordinary, number) }
    posix_spawnattr_setsigdefault(&attributes, &ordinary)
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK))

    var processID: pid_t = 0
    var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) }
    words.append(nil)
    defer { for word in words { free(word) } }
    let result = posix_spawnp(&processID, arguments[0], &actions, &attributes, words, environ)
    guard result == 0 else { throw SpawnError(number: result) }
    return processID
  }

  /// Looks whether it still runs.
  @discardableResult
  public func poll() -> Ending? {
    guard ending == nil else { return ending }
    var status: Int32 = 0
    if waitpid(processID, &status, WNOHANG) == processID { ending = Ending(status: status) }
    return ending
  }

  /// Sends a signal to the process alone, while it is known to run.
  public func signal(_ number: Int32) {
    if poll() == nil { kill(processID, number) }
  }

  /// Waits for its end for so long.
  @discardableResult
  public func wait(_ longest: Duration) -> Ending? {
    let clock = ContinuousClock()
    let deadline = clock.now + longest
    while poll() == nil, clock.now < deadline { usleep(5_000) }
    return ending
  }

  /// Asks it to end; after `patience` it and what it started are killed.
  ///
  /// - Returns: how it ended, or nil when it had to be killed.
  @discardableResult
  public func stop(_ number: Int32 = SIGTERM, patience: Duration = .seconds(5)) -> Ending? {
    signal(number)
    let inOrder = wait(patience)
    // Whatever it started is in its group, unless that made one of its own.
    kill(-processID, SIGKILL)
    wait(.seconds(5))
    return inOrder
  }

  /// The error to throw when it has ended although nobody asked it to.
  public func checkRunning() throws(LabError) {
    if let ending = poll() { throw .died(name: name, ending: ending, log: log, lastLines: TextFile.lastLines(of: log, 12)) }
  }
}
