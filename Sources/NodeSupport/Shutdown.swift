import Glibc
import Synchronization

/// SIGTERM and SIGINT, as a flag that every loop of the process looks at.
///
/// The handler only stores; whoever waits does so in short steps or in `poll`, and ends what it began in its own
/// time. A second signal while shutting down ends the process at once.
public enum Shutdown {
  private static let requested = Atomic<Bool>(false)

  /// Call once, before any thread is started. Also ignores SIGPIPE: a peer that goes away is an error of
  /// the write, not the end of the process.
  public static func listen() {
    _ = requested.load(ordering: .relaxed)  // makes the flag before a handler could want to
    signal(SIGPIPE, SIG_IGN)
    // A parent may have blocked them, and the block is inherited.
    var ours = sigset_t()
    sigemptyset(&ours)
    for number in [SIGTERM, SIGINT] { sigaddset(&ours, number) }
    sigprocmask(SIG_UNBLOCK, &ours, nil)
    for number in [SIGTERM, SIGINT] {
      signal(number) { _ in
        if Shutdown.requested.exchange(true, ordering: .relaxed) { _exit(130) }
      }
    }
  }

  public static var isRequested: Bool { requested.load(ordering: .relaxed) }

  /// As if SIGTERM had come.
  public static func request() { requested.store(true, ordering: .relaxed) }
}

/// Exit codes of all executables, after sysexits(3) where it has one that fits.
public enum ExitStatus {
  public static let success: Int32 = 0
  public static let failure: Int32 = 1
  /// A wrong command line or configuration (EX_USAGE).
  public static let usage: Int32 = 64
  /// The log, a port or another service cannot be had (EX_UNAVAILABLE).
  public static let unavailable: Int32 = 69
}
