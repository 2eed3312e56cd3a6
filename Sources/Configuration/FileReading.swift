import Glibc

/// The bytes of a file that is not longer than a bound: a device or a huge file given by mistake must not be read
/// to its end.
func readFile(_ path: String, atMost limit: Int) throws(ConfigurationError) -> [UInt8] {
  // "-" is what programs that write configurations pipe into us.
  let descriptor = path == "-" ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC)
  guard descriptor >= 0 else { throw ConfigurationError(file: path, message: String(cString: strerror(errno))) }
  defer { close(descriptor) }
  var bytes: [UInt8] = []
  while bytes.count <= limit {
    let start = bytes.count
    bytes.append(contentsOf: repeatElement(0, count: 65_536))
    let count = bytes.withUnsafeMutableBytes { read(descriptor, $0.baseAddress! + start, 65_536) }
    bytes.removeLast(65_536 - max(0, count))
    if count < 0, errno == EINTR { continue }
    guard count >= 0 else { throw ConfigurationError(file: path, message: String(cString: strerror(errno))) }
    if count == 0 { return bytes }
  }
  throw ConfigurationError(file: path, message: "longer than \(limit) bytes, which no configuration is")
}
