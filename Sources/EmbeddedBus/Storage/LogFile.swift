/// One open file, and the four system calls made on it.
///
/// Writes are positional: after a write that failed half way (a full disk), the next one starts at
/// the same place, so a log never has a hole. The calls can be replaced, for tests of failing disks.
import NIOCore

#if canImport(Glibc)
  import Glibc
#else
  import Musl
#endif

/// The file system said no.
struct StorageError: Error, CustomStringConvertible {
  var operation: String
  var path: String
  var code: Int32

  init(_ operation: String, _ path: String, code: Int32 = errno) {
    self.operation = operation
    self.path = path
    self.code = code
  }

  var description: String { "cannot \(operation) \(path): \(String(cString: strerror(code)))" }
}

/// What writes and makes durable. A full disk is tried by replacing it.
struct WriteCalls: Sendable {
  var write: @Sendable (_ file: Int32, _ bytes: UnsafeRawPointer, _ count: Int, _ position: Int) -> Int = { pwrite($0, $1, $2, $3) }
  var synchronize: @Sendable (_ file: Int32) -> Int32 = { fdatasync($0) }
}

/// The descriptor is closed when the last reference goes; a copy for another thread is made by `duplicate`.
final class LogFile {
  let path: String
  let descriptor: Int32
  private let calls: WriteCalls

  init(opening path: String, forWriting: Bool, calls: WriteCalls) throws(StorageError) {
    let flags = (forWriting ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC
    descriptor = open(path, flags, 0o644)
    guard descriptor >= 0 else { throw StorageError("open", path) }
    self.path = path
    self.calls = calls
  }

  deinit { close(descriptor) }

  func size() throws(StorageError) -> Int {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw StorageError("examine", path) }
    return Int(status.st_size)
  }

  /// Writes everything or throws; what was written of it then lies beyond the log's end.
  func write(_ bytes: ByteBuffer, at position: Int) throws(StorageError) {
    let failure: Int32 = bytes.withUnsafeReadableBytes { all in
      var written = 0
      while written < all.count {
        let count = calls.write(descriptor, all.baseAddress! + written, all.count - written, position + written)
        if count < 0 && errno == EINTR { continue }
        if count < 0 { return errno }
        if count == 0 { return ENOSPC }
        written += count
      }
      return 0
    }
    guard failure == 0 else { throw StorageError("write to", path, code: failure) }
  }

  /// Up to `count` bytes; fewer only at the end of the file.
  func read(at position: Int, count: Int) throws(StorageError) -> ByteBuffer {
    var buffer = ByteBufferAllocator().buffer(capacity: count)
    var failure: Int32 = 0
    buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: count) { room in
      var filled = 0
      while filled < count {
        let got = pread(descriptor, room.baseAddress! + filled, count - filled, position + filled)
        if got < 0 && errno == EINTR { continue }
        if got < 0 { failure = errno }
        if got <= 0 { break }
        filled += got
      }
      return filled
    }
    guard failure == 0 else { throw StorageError("read", path, code: failure) }
    return buffer
  }

  func truncate(to size: Int) throws(StorageError) {
    guard ftruncate(descriptor, size) == 0 else { throw StorageError("truncate", path) }
  }

  func synchronize() throws(StorageError) {
    guard calls.synchronize(descriptor) == 0 else { throw StorageError("synchronize", path) }
  }

  /// The same open file under a descriptor of its own, so that another thread may flush it.
  func duplicate() -> Int32? {
    let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
    return copy >= 0 ? copy : nil
  }
}
