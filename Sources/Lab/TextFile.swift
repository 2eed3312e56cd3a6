import Glibc

/// The few things that the lab does with files: it writes configurations, reads the ends of logs, and follows what its
/// clients report.
public enum TextFile {
  public static func write(_ text: String, to path: String) throws(LabError) {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
    guard descriptor >= 0 else { throw failure("write", path) }
    defer { close(descriptor) }
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
      guard count > 0 else { throw failure("write", path) }
      rest = rest.dropFirst(count)
    }
  }

  /// All of a file that is known to be small; at most 1 MB of it.
  public static func read(_ path: String) throws(LabError) -> String {
    guard let text = read(path, from: 0, limit: 1 << 20) else { throw failure("read", path) }
    return text
  }

  /// At most `count`, of the last 16 KB.
  public static func lastLines(of path: String, _ count: Int) -> [String] {
    var status = stat()
    guard stat(path, &status) == 0 else { return [] }
    let text = read(path, from: max(0, Int(status.st_size) - 16_384), limit: 16_384) ?? ""
    return text.split(separator: "\n").suffix(count).map(String.init)
  }

  public static func makeDirectory(_ path: String) throws(LabError) {
    guard mkdir(path, 0o755) == 0 || errno == EEXIST else { throw failure("make", path) }
  }

  /// Removes a directory that the lab made, with what is in it. Follows no links.
  public static func removeTree(_ path: String) {
    guard let directory = opendir(path) else {
      unlink(path)
      return
    }
    while let entry = readdir(directory) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      guard name != ".", name != ".." else { continue }
      let child = "\(path)/\(name)"
      if entry.pointee.d_type == UInt8(DT_DIR) { removeTree(child) } else { unlink(child) }
    }
    closedir(directory)
    rmdir(path)
  }

  private static func failure(_ verb: String, _ path: String) -> LabError {
    .file("cannot \(verb) \(path): \(String(cString: strerror(errno)))")
  }

  static func read(_ path: String, from offset: Int, limit: Int) -> String? {
    let descriptor = open(path, O_RDONLY)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: limit)
    let count = pread(descriptor, &bytes, limit, offset)
    guard count >= 0 else { return nil }
    return String(decoding: bytes[..<count], as: UTF8.self)
  }
}

/// Follows a file that somebody else appends lines to.
public struct GrowingFile {
  public let path: String
  private var position = 0

  public init(_ path: String) { self.path = path }

  /// Passes over what is there already.
  public init(atEndOf path: String) {
    self.path = path
    var status = stat()
    if stat(path, &status) == 0 { position = Int(status.st_size) }
  }

  /// The lines that were finished since the last call.
  public mutating func newLines() -> [Substring] {
    var lines: [Substring] = []
    while let text = TextFile.read(path, from: position, limit: 65_536), let end = text.utf8.lastIndex(of: UInt8(ascii: "\n")) {
      position += text.utf8.distance(from: text.startIndex, to: end) + 1
      lines += text[..<end].split(separator: "\n")
    }
    return lines
  }
}
