/// The rules of the house about who may import what, as a function from text to complaints.
struct Layers {
  let manifest: Manifest

  /// Part of the toolchain. Only targets that touch the outside world may use those of `worldly`.
  private static let worldly: Set = ["Foundation", "FoundationEssentials", "Glibc", "Musl", "Dispatch"]
  private static let harmless: Set = ["Swift", "Synchronization", "Testing"]

  /// Bindings of foreign libraries; `CIntrinsics` is instructions of the processor, which anyone may use.
  private static let foreign: Set = ["CDPDK", "CPcap", "CRdKafka", "CProtobufC", "CSchemas"]

  /// Things that only the outside world has, and that a pure target is given as values.
  private static let impure = [
    "ContinuousClock", "SuspendingClock", "SystemRandomNumberGenerator", ".random(", ".randomElement(", ".shuffled()", " async ",
    "await ",
  ]

  /// What the manifest declares against its own order.
  func upwardDependencies() -> [String] {
    let positions = Dictionary(uniqueKeysWithValues: manifest.targets.enumerated().map { ($0.element.name, $0.offset) })
    return manifest.targets.enumerated().flatMap { position, target in
      target.dependencies.compactMap { dependency in
        guard let found = positions[dependency], found >= position else { return nil }
        return "\(target.name) depends on \(dependency), which stands above it"
      }
    }
  }

  /// What the sources import although their target does not declare it, or although they are pure.
  func wrongImports(_ files: [SourceTree.File]) -> [String] {
    files.flatMap { file -> [String] in
      guard let target = target(of: file) else { return ["\(file.path) belongs to no target"] }
      let isPure = Manifest.pureLayers.contains(target.layer)
      return Self.imports(file.text).compactMap { module in
        if Self.harmless.contains(module) || target.dependencies.contains(module) { return nil }
        if Self.worldly.contains(module) { return isPure ? "\(file.path) is pure and imports \(module)" : nil }
        return "\(file.path) imports \(module), which \(target.name) does not declare"
      }
    }
  }

  /// Pure targets that know time or chance.
  func impurities(_ files: [SourceTree.File]) -> [String] {
    files.flatMap { file -> [String] in
      guard let target = target(of: file), Manifest.pureLayers.contains(target.layer) else { return [] }
      return file.text.split(separator: "\n").flatMap { line -> [String] in
        let code = line.firstRange(of: "//").map { line[..<$0.lowerBound] } ?? line
        return Self.impure.filter { code.contains($0) }.map { "\(file.path) is pure and says '\($0)'" }
      }
    }
  }

  /// Foreign libraries that more than one target imports.
  func sharedForeignLibraries(_ files: [SourceTree.File]) -> [String] {
    var importers: [String: Set<String>] = [:]
    for file in files {
      for module in Self.imports(file.text) where Self.foreign.contains(module) {
        importers[module, default: []].insert(target(of: file)?.name ?? file.path)
      }
    }
    return importers.filter { $0.value.count > 1 }.map {
      "\($0.key) is imported by \($0.value.sorted().joined(separator: " and "))"
    }.sorted()
  }

  private func target(of file: SourceTree.File) -> Manifest.Target? {
    let parts = file.path.split(separator: "/")
    return parts.count > 2 ? manifest.targets.first { $0.name == parts[1] } : nil
  }

  static func imports(_ text: String) -> [String] {
    text.matches(
      of:
        /(?m)^\s*(?:@\w+(?:\(\w+\))?\s+)*(?:public |internal |package |private |fileprivate )?import (?:(?:struct|class|enum|protocol|func|var|typealias|let) )?(\w+)/
    )
    .map { String($0.1) }
  }
}
