import Glibc

/// A share of a processor for one thread: so much in every period, guaranteed, and no more (SCHED_DEADLINE, sched(7)).
///
/// The lab gives workers one where their capacity is to be known: what they can carry then depends neither on how many cores
/// the machine has nor on who else uses it. The kernel admits no more than the machine can keep.
///
/// What a thread has overdrawn it waits off, even what a hypervisor took: after 25 ms in one go, one with a twentieth of a core stands
/// still for half a second.
struct CoreReservation: Sendable {
  /// Nanoseconds.
  var budget: UInt64
  var period: UInt64

  private static let sched_setattr = 314
  private static let deadlinePolicy: UInt32 = 6
  /// Threads that the thread starts are ordinary ones; without this it could start none.
  private static let resetOnFork: UInt64 = 1

  /// `struct sched_attr` of the kernel, its first version.
  private struct Attributes {
    var size: UInt32 = 48
    var policy = CoreReservation.deadlinePolicy
    var flags = CoreReservation.resetOnFork
    var nice: Int32 = 0
    var priority: UInt32 = 0
    var runtime: UInt64
    var deadline: UInt64
    var period: UInt64
  }

  /// Gives it to a thread; the first one of a process has the process's number.
  func give(to thread: pid_t) throws(LabError) {
    typealias SetAttributes = @convention(c) (Int, Int, UnsafeRawPointer, Int) -> Int
    guard let symbol = dlsym(nil, "syscall") else { throw .notPossible("there is no syscall()") }
    var attributes = Attributes(runtime: budget, deadline: period, period: period)
    let result = unsafeBitCast(symbol, to: SetAttributes.self)(Self.sched_setattr, Int(thread), &attributes, 0)
    guard result == 0 else {
      throw .notPossible("a share of a processor cannot be reserved (SCHED_DEADLINE): \(String(cString: strerror(errno)))")
    }
  }
}
