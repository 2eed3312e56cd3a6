// swift-tools-version: 6.1
import PackageDescription

// The house in one list: a target imports only from the layers above it in this file (lower in the
// house). `Tests/RepositoryTests` reads the sources and fails when an import points the wrong way.

/// The packet path is generic code spread over several modules; without cross-module optimisation
/// it costs ten times as much per packet.
let packetPath: [SwiftSetting] = [
  .unsafeFlags(["-cross-module-optimization"], .when(configuration: .release))
]

let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let histogram: Target.Dependency = .product(name: "Histogram", package: "hdrhistogram-swift")

let cLayer: [Target] = [
  .target(
    name: "CDPDK",
    exclude: ["sys"],
    cSettings: [.headerSearchPath("sys/dpdk"), .headerSearchPath("sys/dpdk-arch")],
    linkerSettings: ["eal", "mempool", "mbuf", "ethdev", "ring", "net", "kvargs", "bus_vdev", "acl", "ip_frag"].map { .linkedLibrary("rte_\($0)") }
  ),
  .target(name: "CIntrinsics"),
  .systemLibrary(name: "CPcap", pkgConfig: "libpcap", providers: [.apt(["libpcap-dev"])]),
  .systemLibrary(name: "CRdKafka", pkgConfig: "rdkafka", providers: [.apt(["librdkafka-dev"])]),
  .systemLibrary(name: "CProtobufC", pkgConfig: "libprotobuf-c", providers: [.apt(["libprotobuf-c-dev"])]),
  .target(name: "CSchemas", dependencies: ["CProtobufC"], linkerSettings: [.linkedLibrary("protobuf-c")]),
]

// Layer 0: the words both planes are written in.
let words: [Target] = [
  .target(name: "Wire", swiftSettings: packetPath),
  .target(name: "FixedContainers", dependencies: ["CIntrinsics"], swiftSettings: packetPath),
  .target(name: "ControlMessages"),
]

// Layer 1: mechanisms. Pure: no I/O, no clock, no randomness.
let mechanisms: [Target] = [
  .target(name: "NetworkFunctions", dependencies: ["Wire", "FixedContainers"], swiftSettings: packetPath),
  .target(
    name: "FunctionCatalog",
    dependencies: ["CIntrinsics", "Wire", "FixedContainers", "ControlMessages", "NetworkFunctions"],
    swiftSettings: packetPath),
  .target(name: "NetworkFunctionTesting", dependencies: ["Wire", "NetworkFunctions"]),
  .target(
    name: "FlowActors", dependencies: ["CIntrinsics", "Wire", "FixedContainers", "NetworkFunctions"], swiftSettings: packetPath),
  .target(name: "ReliableChannels", dependencies: ["CIntrinsics", "Wire", "FixedContainers"], swiftSettings: packetPath),
  .target(name: "ModuleGraphs", dependencies: ["Wire", "FixedContainers", "NetworkFunctions"], swiftSettings: packetPath),
]

// Layer 2: the two engines.
let engines: [Target] = [
  .target(
    name: "Dataplane",
    dependencies: [
      "CIntrinsics", "Wire", "FixedContainers", "ControlMessages", "NetworkFunctions", "ReliableChannels", "FlowActors", "ModuleGraphs",
    ], swiftSettings: packetPath),
  .target(name: "ControlPlane", dependencies: ["ControlMessages"]),
  .target(name: "LogAnalysis", dependencies: ["ControlMessages", "ControlPlane"]),
]

// Layer 3: adapters, one per outside world.
let adapters: [Target] = [
  .target(
    name: "DPDKPorts",
    dependencies: ["CDPDK", "CIntrinsics", "Wire", "ModuleGraphs", "FixedContainers", "FunctionCatalog"],
    swiftSettings: packetPath),
  .target(
    name: "Simulation",
    dependencies: [
      "Wire", "FixedContainers", "NetworkFunctions", "NetworkFunctionTesting", "FunctionCatalog", "FlowActors", "ReliableChannels",
      "ModuleGraphs", "Dataplane",
    ], swiftSettings: packetPath),
  .target(name: "CaptureFiles", dependencies: ["CPcap", "Wire", "ModuleGraphs"]),
  .target(name: "ControlCodec", dependencies: ["CSchemas", "CProtobufC", "ControlMessages", "ControlPlane"]),
  .target(name: "SchemaEvolution", resources: [.embedInCode("nfvactor.binpb")]),
  .target(name: "KafkaLog", dependencies: ["CRdKafka"]),
  .target(
    name: "Configuration",
    dependencies: ["ControlMessages", .product(name: "Yams", package: "Yams")]),
]

// Layer 4: nodes own threads, sockets, clocks and shutdown.
let nodes: [Target] = [
  .target(name: "NodeSupport", dependencies: [logging, argumentParser]),
  .target(
    name: "Telemetry",
    dependencies: [
      .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
      .product(name: "NIOHTTP1", package: "swift-nio"), logging,
    ]),
  .target(
    name: "Nodes",
    dependencies: [
      "Wire", "FixedContainers", "ControlMessages", "NetworkFunctions", "FunctionCatalog", "FlowActors", "ModuleGraphs",
      "Dataplane", "ControlPlane", "DPDKPorts", "CaptureFiles", "CIntrinsics", "ControlCodec", "KafkaLog", "Configuration", "NodeSupport",
      "Telemetry", logging, histogram,
    ], swiftSettings: packetPath),
  .target(
    name: "EmbeddedBus",
    dependencies: [
      .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"), logging,
    ]),
  .target(
    name: "ControlNodes",
    dependencies: [
      "ControlMessages", "ControlPlane", "LogAnalysis", "ControlCodec", "KafkaLog", "Configuration", "NodeSupport", "Telemetry",
      logging,
    ], resources: [.embedInCode("dashboard.html")]),
  .target(
    name: "Lab",
    dependencies: [
      "ControlMessages", "ControlPlane", "ControlCodec", "KafkaLog", "ControlNodes", "Configuration", "NodeSupport", logging,
    ]),
]

// Layer 5: executables.
let executables: [Target] = [
  .executableTarget(
    name: "nfvactor",
    dependencies: [
      "Wire", "CaptureFiles", "ControlMessages", "DPDKPorts", "KafkaLog", "Nodes", "Lab", "NodeSupport", "Configuration",
      "FunctionCatalog", "Simulation", "Telemetry", argumentParser, logging,
    ],
    swiftSettings: packetPath),
  .executableTarget(name: "nfv-coordinator", dependencies: ["ControlNodes", "ControlMessages", "KafkaLog", "NodeSupport", "Telemetry", argumentParser, logging]),
  .executableTarget(
    name: "nfvctl",
    dependencies: [
      "ControlNodes", "EmbeddedBus", "ControlMessages", "ControlPlane", "LogAnalysis", "ControlCodec", "SchemaEvolution", "KafkaLog",
      "Configuration", "FunctionCatalog", "NodeSupport", argumentParser, logging,
    ]),
]

let tests: [Target] = [
  .testTarget(name: "RepositoryTests"),
  .testTarget(
    name: "PacketTests",
    dependencies: [
      "Wire", "FixedContainers", "NetworkFunctions", "FlowActors", "ModuleGraphs", "Dataplane", "ControlMessages",
      "CaptureFiles", "FunctionCatalog", "NetworkFunctionTesting", "Nodes", "Simulation",
    ]),
  .testTarget(
    name: "FunctionCatalogTests",
    dependencies: [
      "Wire", "FixedContainers", "NetworkFunctions", "NetworkFunctionTesting", "FunctionCatalog", "ControlMessages", "Configuration",
    ], exclude: ["hostile.rules"]),
  .testTarget(
    name: "ControlPlaneTests",
    dependencies: [
      "ControlMessages", "ControlPlane", "LogAnalysis", "ControlCodec", "SchemaEvolution", "CSchemas", "Configuration", "ControlNodes",
      "KafkaLog", "EmbeddedBus", "FunctionCatalog", "NodeSupport", "Telemetry", "nfvctl", logging,
    ], exclude: ["golden"]),
  .testTarget(
    name: "BusTests",
    dependencies: ["EmbeddedBus", "KafkaLog", .product(name: "NIOCore", package: "swift-nio"), logging]),
  .testTarget(
    name: "ResilienceTests", dependencies: ["CIntrinsics", "Wire", "FixedContainers", "FlowActors", "ReliableChannels", "Simulation"]),
  .testTarget(name: "PortTests", dependencies: ["CIntrinsics", "DPDKPorts", "FunctionCatalog", "ControlMessages", "ModuleGraphs", "NetworkFunctionTesting", "Nodes", "Simulation", "Wire"]),
  .testTarget(
    name: "JudgeTests",
    dependencies: [
      "Wire", "NetworkFunctions", "FunctionCatalog", "NetworkFunctionTesting", "ControlMessages", "ModuleGraphs", "CaptureFiles",
      "DPDKPorts",
    ]),
  .testTarget(name: "LabTests", dependencies: ["Lab", "ControlMessages"]),
]

let package = Package(
  name: "nfvactor",
  products: [
    .library(name: "NetworkFunctions", targets: ["Wire", "NetworkFunctions"]),
    // For Benchmarks/, which is a package of its own.
    .library(
      name: "Engines",
      targets: [
        "Wire", "FixedContainers", "ControlMessages", "NetworkFunctions", "FunctionCatalog", "FlowActors", "ReliableChannels",
        "ModuleGraphs", "Dataplane", "Configuration", "ControlPlane", "ControlCodec",
      ]),
    .library(name: "Ports", targets: ["DPDKPorts"]),
    .executable(name: "nfvactor", targets: ["nfvactor"]),
    .executable(name: "nfv-coordinator", targets: ["nfv-coordinator"]),
    .executable(name: "nfvctl", targets: ["nfvctl"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
  ],
  targets: cLayer + words + mechanisms + engines + adapters + nodes + executables + tests,
  swiftLanguageModes: [.v6]
)
