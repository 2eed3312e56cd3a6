// swift-tools-version: 6.1
import PackageDescription

// A package of its own, so that a build of the project does not build benchmarks.
let package = Package(
  name: "Benchmarks",
  dependencies: [.package(name: "nfvactor", path: "..")],
  targets: [
    // The same work in C, to be measured beside the worker; built with SwiftPM's own flags for release: -O2, the same ISA.
    .target(name: "CChain"),
    .target(name: "CMeasuring"),
    .executableTarget(
      name: "Benchmarks",
      dependencies: [
        "CChain", "CMeasuring", .product(name: "Engines", package: "nfvactor"), .product(name: "Ports", package: "nfvactor"),
      ],
      swiftSettings: [.unsafeFlags(["-cross-module-optimization"], .when(configuration: .release))]),
  ],
  swiftLanguageModes: [.v6]
)
