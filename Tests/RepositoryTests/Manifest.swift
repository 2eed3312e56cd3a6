/// The targets of Package.swift in their order, with layer and dependencies, read from its text.
///
/// The manifest is written for it: one list of targets per layer, the lowest first.
struct Manifest: Equatable {
  struct Target: Equatable {
    var name: String
    /// Position of its list among the lists.
    var layer: Int
    /// Names of targets and of products of other packages.
    var dependencies: [String]
  }

  /// The lists by layer. Layer 0 is C; 1 to 3 are the pure layers 0 to 2 of the house.
  static let lists = ["cLayer", "words", "mechanisms", "engines", "adapters", "nodes", "executables", "tests"]
  static let pureLayers = 1...3

  var targets: [Target] = []

  /// - Throws: `Unreadable` when a list is missing or has no targets: a check of nothing must not pass.
  init(_ text: String) throws {
    // `let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")`
    var products: [String: String] = [:]
    for match in text.matches(of: /let (\w+): Target\.Dependency = \.product\(name: "(\w+)"/) {
      products[String(match.1)] = String(match.2)
    }
    for (layer, list) in Self.lists.enumerated() {
      guard let start = text.range(of: "let \(list): [Target] = ["), let end = text[start.upperBound...].range(of: "\n]") else {
        throw Unreadable(list: list)
      }
      let body = text[start.upperBound..<end.lowerBound]
      let heads = body.matches(of: /\.(?:target|executableTarget|systemLibrary|testTarget)\(\s*name: "([\w-]+)"/)
      guard !heads.isEmpty else { throw Unreadable(list: list) }
      for (index, head) in heads.enumerated() {
        let next = index + 1 < heads.count ? heads[index + 1].range.lowerBound : body.endIndex
        targets.append(
          Target(
            name: String(head.1), layer: layer, dependencies: Self.dependencies(body[head.range.upperBound..<next], products)))
      }
    }
  }

  struct Unreadable: Error { let list: String }

  private static func dependencies(_ text: Substring, _ products: [String: String]) -> [String] {
    guard let start = text.range(of: "dependencies: [") else { return [] }
    let list = text[start.upperBound...].prefix { $0 != "]" }
    return list.replacing(/\.product\(name: ("\w+"), package: "[\w-]+"\)/) { $0.1 }.split(separator: ",").compactMap { word in
      let word = word.trimming(while: \.isWhitespace)
      if word.hasPrefix("\"") { return String(word.dropFirst().prefix { $0 != "\"" }) }
      return word.isEmpty ? nil : products[String(word)] ?? String(word)
    }
  }
}

extension Substring {
  fileprivate func trimming(while isUnwanted: (Character) -> Bool) -> Substring {
    let start = drop(while: isUnwanted)
    return start.lastIndex { !isUnwanted($0) }.map { start[...$0] } ?? ""
  }
}
