import CIntrinsics
import Glibc

/// Wakes somebody in the moment in which a process ends, child or not. How it ended, he looks at himself.
///
/// A thread waits in the kernel for each process (a host runs a few dozen); nobody polls. Where the kernel has no
/// `pidfd_open` there is no watch, and ends are found a little later.
final class ExitWatch {
  private let descriptor: Int32
  private let wake: @Sendable () -> Void

  static func watch(_ pid: pid_t, wake: @escaping @Sendable () -> Void) {
    let descriptor = nfv_pidfd_open(pid)
    guard descriptor >= 0 else { return }
    let context = Unmanaged.passRetained(ExitWatch(descriptor, wake)).toOpaque()
    var thread = pthread_t()
    let result = pthread_create(&thread, nil, { context in
      Unmanaged<ExitWatch>.fromOpaque(context!).takeRetainedValue().wait()
      return nil
    }, context)
    guard result == 0 else { return Unmanaged<ExitWatch>.fromOpaque(context).release() }
    pthread_detach(thread)
  }

  private init(_ descriptor: Int32, _ wake: @escaping @Sendable () -> Void) {
    self.descriptor = descriptor
    self.wake = wake
  }

  deinit { close(descriptor) }

  private func wait() {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    while poll(&entry, 1, -1) < 0 && errno == EINTR {}
    wake()
  }
}
