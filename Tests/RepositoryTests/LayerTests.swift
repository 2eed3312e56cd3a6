import Testing

/// The layers of the house, kept by a test, and the test kept by injected violations.
@Suite struct LayerTests {
  let tree: SourceTree
  let layers: Layers
  let sources: [SourceTree.File]

  init() throws {
    tree = try SourceTree()
    layers = Layers(manifest: try Manifest(tree.manifest))
    sources = try tree.swiftFiles(in: "Sources")
    try #require(sources.count > 50, "the sources were not found")
  }

  @Test func `a target depends only on targets below it`() {
    #expect(layers.upwardDependencies() == [])
  }

  @Test func `sources and tests import only what their target declares`() throws {
    let tests = try tree.swiftFiles(in: "Tests")
    #expect(layers.wrongImports(sources) == [])
    #expect(layers.wrongImports(tests) == [])
  }

  @Test func `pure targets know neither time nor chance`() {
    #expect(layers.impurities(sources) == [])
  }

  @Test func `each foreign library has one importer`() {
    #expect(layers.sharedForeignLibraries(sources) == [])
  }

  @Test func `the coordinator and the operator's tool reach no DPDK`() throws {
    var reached: Set<String> = ["nfv-coordinator", "nfvctl"]
    for _ in layers.manifest.targets {
      for target in layers.manifest.targets where reached.contains(target.name) { reached.formUnion(target.dependencies) }
    }
    #expect(reached.contains("KafkaLog"), "the walk through the manifest goes somewhere")
    #expect(reached.isDisjoint(with: ["CDPDK", "DPDKPorts", "Nodes"]))
  }

  // MARK: What would be noticed

  @Test(arguments: [
    ("Sources/ControlPlane/Injected.swift", "import Nodes", "does not declare"),
    ("Sources/FlowActors/Injected.swift", "@testable import Dataplane", "does not declare"),
    ("Sources/ControlPlane/Injected.swift", "public import struct KafkaLog.KafkaRecord", "does not declare"),
    ("Sources/Wire/Injected.swift", "#if canImport(Glibc)\n  import Glibc\n#endif", "is pure"),
    ("Sources/Dataplane/Injected.swift", "import Foundation", "is pure"),
    ("Sources/Nowhere/Injected.swift", "import Wire", "belongs to no target"),
  ])
  func `an import that breaks the layers is noticed`(path: String, text: String, complaint: String) {
    let before = layers.wrongImports(sources)
    let found = layers.wrongImports(sources + [SourceTree.File(path: path, text: text)]).filter { !before.contains($0) }
    #expect(found.count == 1 && found[0].contains(complaint) && found[0].contains("Injected"), "\(found)")
  }

  @Test func `a dependency declared upwards is noticed`() throws {
    let broken = tree.manifest.replacing(
      ".target(name: \"ControlPlane\", dependencies: [", with: ".target(name: \"ControlPlane\", dependencies: [\"Nodes\", ")
    try #require(broken != tree.manifest)
    #expect(
      try Layers(manifest: Manifest(broken)).upwardDependencies() == ["ControlPlane depends on Nodes, which stands above it"])
  }

  @Test func `a clock in a pure target and a second importer of a library are noticed`() {
    let clock = SourceTree.File(path: "Sources/ControlPlane/Injected.swift", text: "let now = ContinuousClock.now")
    #expect(layers.impurities([clock]).count == 1)
    let second = SourceTree.File(path: "Sources/Nodes/Injected.swift", text: "import CRdKafka")
    #expect(layers.sharedForeignLibraries(sources + [second]) == ["CRdKafka is imported by KafkaLog and Nodes"])
  }

  @Test func `a manifest that cannot be read is an error`() {
    #expect(throws: Manifest.Unreadable.self) { try Manifest("let package = Package(name: \"other\")") }
  }
}
