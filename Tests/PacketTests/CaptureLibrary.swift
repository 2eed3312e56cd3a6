import Foundation
import Testing

/// Captures from elsewhere, shared by several projects and not part of this one: `../shared/data` beside the
/// package, or wherever `NFV_SHARED` says. Tests that need them are skipped where they are absent.
enum CaptureLibrary {
  static let root: URL? = {
    var candidates: [URL] = []
    if let given = ProcessInfo.processInfo.environment["NFV_SHARED"] { candidates.append(URL(filePath: given)) }
    // Tests/PacketTests/CaptureLibrary.swift: the package is three steps up.
    var package = URL(filePath: #filePath)
    for _ in 0..<3 { package.deleteLastPathComponent() }
    candidates.append(package.deletingLastPathComponent().appending(path: "shared"))
    for candidate in candidates {
      for folder in [candidate, candidate.appending(path: "data")]
      where FileManager.default.fileExists(atPath: folder.appending(path: "pcap").path) { return folder }
    }
    return nil
  }()

  static var isPresent: Bool { root != nil }
  static let absence = "no captures: neither NFV_SHARED nor ../shared has data/pcap"

  /// Captures to compare flow by flow; each has a `.flows.txt` beside it.
  static var withListings: [Capture] {
    captures(under: "pcap/ndpi").filter { FileManager.default.fileExists(atPath: $0.listing) }
  }

  static var all: [Capture] { captures(under: "pcap") + captures(under: "suricata") }

  private static func captures(under folder: String) -> [Capture] {
    guard let root else { return [] }
    let base = root.appending(path: folder)
    let files = FileManager.default.enumerator(at: base, includingPropertiesForKeys: nil)?.compactMap { $0 as? URL } ?? []
    return files.filter { ["pcap", "pcapng", "cap"].contains($0.pathExtension) }.map { Capture(url: $0) }.sorted {
      $0.path < $1.path
    }
  }
}

/// One capture file, by its name in test reports.
struct Capture: Sendable, CustomTestStringConvertible, Hashable {
  let url: URL

  var path: String { url.path }
  var name: String { url.lastPathComponent }
  var listing: String { path + ".flows.txt" }
  /// `suricata/x/input.pcap`: several captures have the same name.
  var testDescription: String { url.pathComponents.suffix(3).joined(separator: "/") }
}
