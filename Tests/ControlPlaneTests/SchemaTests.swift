// The generated C is what the schemas say now.
import Foundation
import Testing

@Suite struct SchemaTests {
  static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
  static let hasCompiler = ["/usr/bin/protoc-c", "/usr/local/bin/protoc-c"].contains {
    FileManager.default.isExecutableFile(atPath: $0)
  }

  @Test(.enabled(if: hasCompiler, "protoc-c is not installed")) func `generating again changes nothing`() throws {
    let fresh = FileManager.default.temporaryDirectory.appending(path: "nfv-schemas-\(ProcessInfo.processInfo.processIdentifier)")
    defer { try? FileManager.default.removeItem(at: fresh) }
    let generate = Process()
    generate.executableURL = URL(filePath: "/bin/sh")
    generate.arguments = [Self.root.appending(path: "schemas/generate.sh").path, fresh.path]
    try generate.run()
    generate.waitUntilExit()
    #expect(generate.terminationStatus == 0)

    let committed = Self.root.appending(path: "Sources/CSchemas")
    let names = try FileManager.default.subpathsOfDirectory(atPath: committed.path).filter { $0.contains(".") }.sorted()
    #expect(try FileManager.default.subpathsOfDirectory(atPath: fresh.path).filter { $0.contains(".") }.sorted() == names)
    for name in names {
      let same = try Data(contentsOf: fresh.appending(path: name)) == Data(contentsOf: committed.appending(path: name))
      #expect(same, "Sources/CSchemas/\(name) is stale: run schemas/generate.sh")
    }
  }

  @Test func `no message contains itself`() throws {
    // Message -> the message types its fields name, from the text of the schemas.
    var fields: [String: Set<String>] = [:]
    for file in ["common", "events", "commands"] {
      let text = try String(contentsOf: Self.root.appending(path: "schemas/\(file).proto"), encoding: .utf8)
      var open: [String] = []
      for line in text.split(separator: "\n") {
        let words = line.split(whereSeparator: { " ={};".contains($0) }).map(String.init)
        if words.first == "message" { open.append(words[1]) }
        if words.first == "enum" || words.first == "oneof" { open.append(open.last ?? "") }
        if let message = open.last, let type = words.first(where: { $0 != "repeated" }), type.first?.isUppercase == true {
          fields[message, default: []].insert(type)
        }
        for character in line where character == "}" && !open.isEmpty { open.removeLast() }
      }
    }
    for start in fields.keys {
      var seen: Set<String> = []
      var left = Array(fields[start] ?? [])
      while let next = left.popLast() {
        if seen.insert(next).inserted { left += fields[next] ?? [] }
      }
      #expect(!seen.contains(start), "\(start) contains itself")
    }
  }
}
