// swift-tools-version: 6.1
import PackageDescription

// A package of its own, so that a build of the project does not build benchmarks.
let package = Package(
  name: "Benchmarks",
  dependencies: [.package(name: "nfvactor", path: "..")],
  targets: [
    .executableTarget(
      name: "Benchmarks", dependencies: [.product(name: "Engines", package: "nfvactor")],
      swiftSettings: [.unsafeFlags(["-cross-module-optimization"], .when(configuration: .release))])
  ],
  swiftLanguageModes: [.v6])
