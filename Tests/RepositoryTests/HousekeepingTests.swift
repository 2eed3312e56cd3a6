import Testing

/// Small rules that are easier kept by a test than by reading: names, and nothing of anybody's machine.
@Suite struct HousekeepingTests {
  let tree: SourceTree

  init() throws { tree = try SourceTree() }

  @Test func `no path of a developer's machine is in the repository`() throws {
    // In pieces, so that this file does not complain about itself.
    let folders = ["/ho" + "me/", "/Us" + "ers/", "/ro" + "ot/", "/wo" + "rk/", "/tmp/w" + "t/"]
    let files = try tree.trackedTextFiles()
    try #require(files.count > 50, "the files were not found")
    let found = files.flatMap { file in
      file.text.split(separator: "\n").filter { line in folders.contains { line.contains($0) } }.map { "\(file.path): \($0)" }
    }
    #expect(found == [])
  }

  @Test func `no file is named for having no subject`() throws {
    let empty = ["Utils", "Utilities", "Common", "Helper", "Helpers", "Manager", "Base", "Misc"]
    let found = try (tree.swiftFiles(in: "Sources") + tree.swiftFiles(in: "Tests")).map(\.path).filter { path in
      let name = path.split(separator: "/").last?.dropLast(".swift".count) ?? ""
      return empty.contains { name.hasSuffix($0) || name.hasPrefix($0) }
    }
    #expect(found == [])
  }

  @Test func `scripts can be executed and say what they are for`() throws {
    let scripts = try tree.trackedTextFiles().filter { $0.text.hasPrefix("#!") }
    #expect(scripts.map(\.path).contains("scripts/install-packages.sh"))
    for script in scripts {
      #expect(
        script.text.split(separator: "\n").dropFirst().first?.hasPrefix("# ") == true, "\(script.path) opens with a sentence")
    }
  }
}
