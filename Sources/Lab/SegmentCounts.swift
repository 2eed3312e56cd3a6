import Glibc

extension LabSummary.Segments {
  /// Adds up what the runtimes' logs in this directory say that their packet counters have seen; `nil` when none says it.
  init?(logsIn directory: String) {
    guard let list = opendir(directory) else { return nil }
    defer { closedir(list) }
    var isKnown = false
    while let entry = readdir(list) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      guard name.hasPrefix("runtime") else { continue }
      for line in TextFile.lastLines(of: "\(directory)/\(name)", 20) where line.contains("counter.tcp.gaps=") {
        isKnown = true
        take(line)
      }
    }
    guard isKnown else { return nil }
  }

  private mutating func take(_ line: String) {
    for word in line.split(separator: " ") {
      let parts = word.split(separator: "=")
      guard parts.count == 2, let value = UInt64(parts[1]) else { continue }
      switch parts[0] {
      case "counter.forward.packets", "counter.reverse.packets": packets += value
      case "counter.tcp.gaps": gaps += value
      case "counter.tcp.reordered": reordered += value
      case "counter.tcp.duplicates": duplicates += value
      default: break
      }
    }
  }
}
