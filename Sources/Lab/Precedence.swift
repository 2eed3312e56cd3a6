import Glibc

/// The part of a machine that a lab's platform gets, where others use the machine too.
enum Precedence {
  /// Processes that this one starts from now on, and what they start, go before others'.
  static func takeForChildren() { setpriority(Int32(PRIO_PROCESS.rawValue), 0, -10) }

  /// Lets a worker run before all other ordinary threads, and sleep two milliseconds at a time instead of a tenth of one, so that
  /// five of them are no load for two cores. It has time to sleep while nothing arrives only.
  ///
  /// Not a `CoreReservation`, which is paid back: what a machine takes a processor away for counts against the thread that had it,
  /// and with a twentieth of a core 25 ms of it are half a second of standing still. Nor a real-time policy: five workers that look
  /// for packets ten thousand times a second leave the control plane less than it needs.
  static func give(toWorker thread: pid_t) {
    setpriority(Int32(PRIO_PROCESS.rawValue), id_t(thread), -20)
    try? TextFile.write("2000000", to: "/proc/\(thread)/timerslack_ns")
  }
}
