import CIntrinsics
import DPDKPorts
import Dataplane
import Glibc
import Wire

/// Turns a worker: gives it the time, notes how busy it is, and waits as it was told to.
///
/// `busy` never waits: a core of its own, the shortest latency. `adaptive` backs off while nothing arrives, up to
/// 100 microseconds, so that several processes can share a core: the lab, CI, a laptop.
struct WorkerLoop {
  enum Polling: Sendable { case busy, adaptive }

  let worker: Worker
  let clock: CycleClock
  let polling: Polling

  /// Passes without work before the loop begins to sleep.
  private static var patience: Int { 256 }
  private static var longestSleep: Int { 100_000 }

  /// Runs until the worker is told to stop.
  func run() {
    if polling == .adaptive { Environment.allowShortSleeps() }
    var idlePasses = 0
    var sleep = 0
    var before = nfv_cycles()
    while worker.isRunning {
      let work = worker.pass(at: clock.tick(before))
      if work > 0 {
        idlePasses = 0
        sleep = 0
      } else {
        idlePasses += 1
        nfv_relax()
        if polling == .adaptive, idlePasses > Self.patience {
          sleep = min(Self.longestSleep, sleep + 5_000)
          var time = timespec(tv_sec: 0, tv_nsec: sleep)
          nanosleep(&time, nil)
        }
      }
      let after = nfv_cycles()
      worker.account(busy: work > 0 ? after &- before : 0, total: after &- before)
      before = after
    }
  }
}

/// The processor's cycle counter as a clock: reading it costs a few nanoseconds and no system call.
struct CycleClock: Sendable {
  private let start: UInt64
  /// Nanoseconds per cycle, as a fraction of 2^32.
  private let scale: UInt64

  /// Compares the counter with the system's clock for 20 ms.
  init() {
    let (cycles, nanoseconds) = (nfv_cycles(), Self.monotonicNanoseconds())
    var time = timespec(tv_sec: 0, tv_nsec: 20_000_000)
    nanosleep(&time, nil)
    let elapsed = (cycles: nfv_cycles() &- cycles, nanoseconds: Self.monotonicNanoseconds() &- nanoseconds)
    scale = (elapsed.nanoseconds << 32) / max(1, elapsed.cycles)
    start = nfv_cycles()
  }

  @inline(__always)
  func tick(_ cycles: UInt64) -> Tick {
    let product = (cycles &- start).multipliedFullWidth(by: scale)
    return Tick(nanoseconds: product.high << 32 | product.low >> 32)
  }

  static func monotonicNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
