/// Directories and small files: made so that they are there whole or not at all.
import NIOCore

#if canImport(Glibc)
  import Glibc
#else
  import Musl
#endif

/// Makes a directory and those above it.
func makeDirectory(_ path: String) throws(StorageError) {
  if mkdir(path, 0o755) == 0 || errno == EEXIST { return }
  guard errno == ENOENT, let slash = path.lastIndex(of: "/"), slash != path.startIndex else { throw StorageError("create", path) }
  try makeDirectory(String(path[..<slash]))
  guard mkdir(path, 0o755) == 0 || errno == EEXIST else { throw StorageError("create", path) }
}

func fileNames(in directory: String) throws(StorageError) -> [String] {
  guard let stream = opendir(directory) else { throw StorageError("list", directory) }
  defer { closedir(stream) }
  var names: [String] = []
  while let entry = readdir(stream) {
    let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    if name != "." && name != ".." { names.append(name) }
  }
  return names.sorted()
}

/// The text of a small file; nil if there is none.
func readSmallFile(_ path: String) throws(StorageError) -> String? {
  guard access(path, F_OK) == 0 else { return nil }
  let file = try LogFile(opening: path, forWriting: false, calls: WriteCalls())
  let bytes = try file.read(at: 0, count: min(try file.size(), 64 << 10))
  return String(decoding: bytes.readableBytesView, as: UTF8.self)
}

/// Replaces a small file at once: a reader sees the old text or the new one.
func replaceSmallFile(_ path: String, with text: String) throws(StorageError) {
  let draft = path + ".new"
  do {
    let file = try LogFile(opening: draft, forWriting: true, calls: WriteCalls())
    try file.truncate(to: 0)
    try file.write(ByteBuffer(string: text), at: 0)
    try file.synchronize()
  }
  guard rename(draft, path) == 0 else { throw StorageError("replace", path) }
  try synchronizeDirectory(String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]))
}

/// Makes the names of new files as durable as their contents.
func synchronizeDirectory(_ path: String) throws(StorageError) {
  let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
  guard descriptor >= 0 else { throw StorageError("open", path) }
  defer { close(descriptor) }
  guard fsync(descriptor) == 0 else { throw StorageError("synchronize", path) }
}

/// Keeps a second bus out of a data directory, by a file lock that ends with its holder.
final class DirectoryLock {
  private let file: LogFile

  init(_ directory: String) throws(BusError) {
    let path = directory + "/lock"
    do throws(StorageError) {
      file = try LogFile(opening: path, forWriting: true, calls: WriteCalls())
    } catch {
      throw .storage(error.description)
    }
    guard flock(file.descriptor, LOCK_EX | LOCK_NB) == 0 else {
      let owner = try? readSmallFile(path)
      throw .directoryInUse(path: directory, owner: owner ?? "owner unknown")
    }
    do throws(StorageError) {
      try file.truncate(to: 0)
      try file.write(ByteBuffer(string: "process \(getpid())"), at: 0)
    } catch {
      throw .storage(error.description)
    }
  }
}
