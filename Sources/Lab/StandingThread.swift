import Glibc

/// A thread that stands still, as under a debugger (ptrace(2)): nothing but that thread, at no cost to any other.
///
/// Used from one thread, the only one to which the kernel grants it.
final class StandingThread {
  private static let (seize, interrupt, detach) = (0x4206, 0x4207, 17)
  /// `__WALL`: of whatever kind of child.
  private static let anyChild: Int32 = 0x4000_0000

  let thread: pid_t
  private(set) var isStanding = true

  /// - Returns: `nil` when there is no such thread any more.
  init?(_ thread: pid_t) throws(LabError) {
    self.thread = thread
    do throws(Refusal) {
      try Self.ask(Self.seize, thread)
      try Self.ask(Self.interrupt, thread)
    } catch {
      guard error.number != ESRCH else { return nil }
      throw .notPossible("thread \(thread) cannot be stopped (ptrace): \(String(cString: strerror(error.number)))")
    }
    for _ in 0..<1_000 {
      var status: Int32 = 0
      let result = waitpid(thread, &status, WNOHANG | Self.anyChild)
      if result == thread, status & 0xff == 0x7f { return }
      guard result == 0 else { return nil }
      usleep(1_000)
    }
    throw .late("thread \(thread) does not stop")
  }

  /// To be called often: the end of a thread that stands still is its debugger's to see, and its parent's only then.
  func look() {
    guard isStanding else { return }
    var status: Int32 = 0
    let result = waitpid(thread, &status, WNOHANG | Self.anyChild)
    if result == -1 || (result == thread && status & 0xff != 0x7f) { isStanding = false }
  }

  /// Lets it go on.
  func release() {
    look()
    guard isStanding else { return }
    // One that is ending just now cannot be told so; its end is waited for.
    if (try? Self.ask(Self.detach, thread)) == nil {
      for _ in 0..<1_000 where isStanding {
        usleep(1_000)
        look()
      }
    }
    isStanding = false
  }

  private struct Refusal: Error { let number: Int32 }

  /// The C function takes as many arguments as it is given, which Swift cannot call by name.
  private static func ask(_ request: Int, _ thread: pid_t) throws(Refusal) {
    typealias Trace = @convention(c) (Int, pid_t, Int, Int) -> Int
    guard let symbol = dlsym(nil, "ptrace") else { throw Refusal(number: ENOSYS) }
    guard unsafeBitCast(symbol, to: Trace.self)(request, thread, 0, 0) == 0 else { throw Refusal(number: errno) }
  }
}
