import Foundation

/// The checkout that these tests were built from, as text.
struct SourceTree {
  struct File: Equatable {
    /// From the root, such as `Sources/Wire/Frame.swift`.
    var path: String
    var text: String
  }

  let root: URL
  let manifest: String

  init() throws {
    root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    manifest = try String(contentsOf: root.appending(path: "Package.swift"), encoding: .utf8)
  }

  /// Swift sources below a folder.
  func swiftFiles(in folder: String) throws -> [File] {
    try paths(in: folder).filter { $0.hasSuffix(".swift") }.map { path in
      File(path: path, text: try String(contentsOf: root.appending(path: path), encoding: .utf8))
    }
  }

  /// Every text file that git tracks or would; what it ignores, builds for example, is not looked at.
  func trackedTextFiles() throws -> [File] {
    let git = Process()
    git.executableURL = URL(filePath: "/usr/bin/env")
    git.arguments = [
      "git", "-c", "safe.directory=*", "-C", root.path, "ls-files", "-z", "--cached", "--others", "--exclude-standard",
    ]
    let output = Pipe()
    git.standardOutput = output
    git.standardError = FileHandle.nullDevice
    try git.run()
    let names = output.fileHandleForReading.readDataToEndOfFile()
    git.waitUntilExit()
    var found = String(decoding: names, as: UTF8.self).split(separator: "\0").map(String.init)
    if git.terminationStatus != 0 {
      // No repository: an unpacked archive.
      found = try ["Sources", "Tests", "schemas", "scripts", "infra", "examples", "docs"].flatMap(paths)
    }
    return found.compactMap { path in
      (try? String(contentsOf: root.appending(path: path), encoding: .utf8)).map { File(path: path, text: $0) }
    }
  }

  private func paths(in folder: String) throws -> [String] {
    let start = root.appending(path: folder)
    guard let walk = FileManager.default.enumerator(atPath: start.path) else { return [] }
    return walk.compactMap { ($0 as? String).map { "\(folder)/\($0)" } }.sorted()
  }
}
