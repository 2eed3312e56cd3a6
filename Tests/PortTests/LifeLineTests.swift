import CIntrinsics
import Foundation
import Glibc
import Synchronization
import Testing

@testable import Nodes

/// The end of a worker's thread, seen by the kernel's robust mutexes.
@Suite struct LifeLineTests {
  @Test func `the end of the thread that holds a line is told at once, and not before`() throws {
    let line = try #require(LifeLine())
    let watch = Waking()
    let held = Held(line)
    defer { held.close() }
    line.watch(held.process) { watch.count() }
    #expect(!held.waits(until: { line.isOver }, milliseconds: 100), "nobody has held it yet")

    let (isHeld, mayEnd) = (Waking(), Waking())
    let thread = Thread {
      LifeLine.hold(held.descriptor)
      isHeld.count()
      while mayEnd.times == 0 { usleep(1_000) }
    }
    thread.start()
    #expect(held.waits(until: { isHeld.times == 1 }, milliseconds: 2_000))
    #expect(!held.waits(until: { line.isOver }, milliseconds: 200), "it lives")
    mayEnd.count()
    #expect(held.waits(until: { line.isOver && watch.times == 1 }, milliseconds: 2_000))
  }

  @Test func `a line can be taken up by another agent, and only a line is one`() throws {
    let line = try #require(LifeLine())
    let held = Held(line)
    #expect(LifeLine(of: getpid(), at: held.descriptor) != nil)
    held.close()
    let null = open("/dev/null", O_RDWR)
    defer { close(null) }
    #expect(LifeLine(of: getpid(), at: null) == nil && LifeLine(of: getpid(), at: -1) == nil)
    // Nobody holds what is not there.
    LifeLine.hold(null)
    LifeLine.hold(-1)
  }

  private final class Waking: Sendable {
    private let number = Atomic(0)
    var times: Int { number.load(ordering: .acquiring) }
    func count() { number.add(1, ordering: .releasing) }
  }

  /// The line as a node's process has it.
  private struct Held: Sendable {
    let process = nfv_pidfd_open(getpid())
    let descriptor: Int32

    init(_ line: LifeLine) { descriptor = dup(line.file) }

    func close() {
      Glibc.close(descriptor)
      Glibc.close(process)
    }

    func waits(until isSo: () -> Bool, milliseconds: Int) -> Bool {
      for _ in 0..<milliseconds {
        if isSo() { return true }
        usleep(1_000)
      }
      return isSo()
    }
  }
}
