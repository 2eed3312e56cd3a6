import CIntrinsics
import Foundation
import Glibc
import Synchronization

/// Tells an agent that a node's worker is over, in the moment in which it is.
///
/// A process that was killed counts as ended only when the kernel has taken it apart, its memory and its packet sockets,
/// whose rings take it several grace periods: some 60 ms in which nobody would see to its flows. Its worker is over from
/// the first of these moments on. So the worker's thread holds a robust mutex in memory that its agent shares; the kernel
/// hands that on before it does anything else about the thread (get_robust_list(2)), whatever the thread dies of.
final class LifeLine: Sendable {
  /// In a node's process, inherited from its agent.
  static let descriptor: Int32 = 9
  private static let name = "nfv-life-line"
  private static let size = 4_096

  private let memory: SharedMutex
  private let over = Atomic(false)
  /// Of the agent, to be handed to the process that is started.
  let file: Int32

  /// Whether the worker's thread has ended.
  var isOver: Bool { over.load(ordering: .acquiring) }

  // MARK: The agent's end

  /// For a process that is going to be started; `nil` where the kernel has no such memory.
  init?() {
    file = nfv_memfd_create(Self.name)
    guard file >= 0, ftruncate(file, off_t(Self.size)) == 0, let memory = SharedMutex(file, size: Self.size) else {
      if file >= 0 { close(file) }
      return nil
    }
    self.memory = memory
    memory.initialize()
  }

  /// Of a process that runs already.
  init?(of pid: pid_t, at descriptor: Int32 = LifeLine.descriptor) {
    let path = "/proc/\(pid)/fd/\(descriptor)"
    file = Self.isOne(path) ? open(path, O_RDWR | O_CLOEXEC) : -1
    guard file >= 0, let memory = SharedMutex(file, size: Self.size) else {
      if file >= 0 { close(file) }
      return nil
    }
    self.memory = memory
  }

  deinit { close(file) }

  /// Waits on a thread of its own until the worker's thread ends, and calls `wake` then; or until the process has ended.
  ///
  /// - Parameter process: its descriptor (pidfd_open(2)).
  func watch(_ process: Int32, wake: @escaping @Sendable () -> Void) {
    ExitWatch.startThread { [self] in
      while true {
        switch memory.tryLock() {
        case EBUSY:
          // The worker has it.
          if memory.lock() == EOWNERDEAD { return end(wake) }
        case EOWNERDEAD: return end(wake)
        case 0: break
        default: return
        }
        memory.unlock()
        var entry = pollfd(fd: process, events: Int16(POLLIN), revents: 0)
        if poll(&entry, 1, 20) > 0 { return }
      }
    }
  }

  private func end(_ wake: () -> Void) {
    memory.makeConsistent()
    memory.unlock()
    over.store(true, ordering: .releasing)
    wake()
  }

  // MARK: The node's end

  /// Takes the line up, if an agent has thrown one, for as long as the calling thread lives.
  static func hold(_ descriptor: Int32 = LifeLine.descriptor) {
    guard isOne("/proc/self/fd/\(descriptor)"), let memory = SharedMutex(descriptor, size: size) else { return }
    _ = memory.lock()
    // Never let go: it is the end of the thread that does.
    _ = Unmanaged.passRetained(memory)
  }

  private static func isOne(_ path: String) -> Bool {
    (try? FileManager.default.destinationOfSymbolicLink(atPath: path))?.hasPrefix("/memfd:\(name)") == true
  }
}

/// A robust mutex at the beginning of memory that processes share.
private final class SharedMutex: @unchecked Sendable {
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let size: Int

  init?(_ file: Int32, size: Int) {
    var status = stat()
    // Touching what the file does not have would end the process.
    guard fstat(file, &status) == 0, status.st_size >= size,
      let memory = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0), memory != MAP_FAILED
    else { return nil }
    mutex = memory.bindMemory(to: pthread_mutex_t.self, capacity: 1)
    self.size = size
  }

  deinit { munmap(mutex, size) }

  func initialize() {
    var attributes = pthread_mutexattr_t()
    pthread_mutexattr_init(&attributes)
    pthread_mutexattr_setpshared(&attributes, Int32(PTHREAD_PROCESS_SHARED))
    pthread_mutexattr_setrobust(&attributes, Int32(PTHREAD_MUTEX_ROBUST))
    pthread_mutex_init(mutex, &attributes)
    pthread_mutexattr_destroy(&attributes)
  }

  func lock() -> Int32 { pthread_mutex_lock(mutex) }
  func tryLock() -> Int32 { pthread_mutex_trylock(mutex) }
  func unlock() { pthread_mutex_unlock(mutex) }
  func makeConsistent() { pthread_mutex_consistent(mutex) }
}
