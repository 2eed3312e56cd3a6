import CIntrinsics
import Glibc

/// Wakes somebody in the moment in which a process or its worker ends, child or not. How it ended, he looks at himself.
///
/// A thread waits in the kernel for each (a host runs a few dozen); nobody polls. Where the kernel has no
/// `pidfd_open` there is no watch, and ends are found a little later.
final class ExitWatch: Sendable {
  private let descriptor: Int32

  static func watch(_ pid: pid_t, lifeLine: LifeLine?, wake: @escaping @Sendable () -> Void) {
    let descriptor = nfv_pidfd_open(pid)
    guard descriptor >= 0 else { return }
    let watch = ExitWatch(descriptor)
    startThread {
      watch.wait()
      wake()
    }
    lifeLine?.watch(watch.descriptor) {
      _ = watch
      wake()
    }
  }

  private init(_ descriptor: Int32) { self.descriptor = descriptor }

  deinit { close(descriptor) }

  private func wait() {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    while poll(&entry, 1, -1) < 0 && errno == EINTR {}
  }

  static func startThread(_ body: @escaping @Sendable () -> Void) {
    let context = Unmanaged.passRetained(Body(body)).toOpaque()
    var thread = pthread_t()
    let result = pthread_create(&thread, nil, { context in
      Unmanaged<Body>.fromOpaque(context!).takeRetainedValue().run()
      return nil
    }, context)
    guard result == 0 else { return Unmanaged<Body>.fromOpaque(context).release() }
    pthread_detach(thread)
  }

  private final class Body: Sendable {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
  }
}
