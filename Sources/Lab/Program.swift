import Glibc

/// Runs a program to its end and takes what it says.
///
/// For the many short programs that a lab is made with: `ip`, `ethtool`, `nfvctl apply`. They are not interrupted by
/// Ctrl-C; none of them takes long.
public enum Program {
  /// - Returns: its standard output.
  /// - Throws: `LabError.refused` with what it wrote to either output, when it does not end with 0.
  @discardableResult
  public static func run(_ command: [String], in namespace: String? = nil) throws(LabError) -> String {
    let arguments = (namespace.map { ["ip", "netns", "exec", $0] } ?? []) + command
    let shown = command.joined(separator: " ")
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { throw .refused(command: shown, answer: String(cString: strerror(errno))) }
    for end in ends { _ = setCloseOnExec(end) }
    defer { close(ends[0]) }

    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO)
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO)
    let processID: pid_t
    do {
      processID = try ChildProcess.spawn(arguments, &actions)
    } catch {
      close(ends[1])
      throw .refused(command: shown, answer: String(cString: strerror(error.number)))
    }
    close(ends[1])

    let output = readAll(ends[0])
    var status: Int32 = 0
    while waitpid(processID, &status, 0) == -1, errno == EINTR {}
    guard ChildProcess.Ending(status: status) == .code(0) else { throw .refused(command: shown, answer: trimmed(output)) }
    return output
  }

  /// Whether a program of this name is on the path.
  public static func exists(_ name: String) -> Bool {
    let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/bin:/bin"
    return path.split(separator: ":").contains { access("\($0)/\(name)", X_OK) == 0 }
  }

  private static func setCloseOnExec(_ descriptor: Int32) -> Bool { fcntl(descriptor, F_SETFD, FD_CLOEXEC) == 0 }

  private static func readAll(_ descriptor: Int32) -> String {
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while true {
      let count = read(descriptor, &chunk, chunk.count)
      if count > 0 { bytes.append(contentsOf: chunk[..<count]) }
      if count == 0 || (count < 0 && errno != EINTR) { break }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  private static func trimmed(_ text: String) -> String {
    text.split(separator: "\n").suffix(6).joined(separator: "\n    ")
  }
}
