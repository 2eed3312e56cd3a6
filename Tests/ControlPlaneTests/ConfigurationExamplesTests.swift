@testable import Configuration
import ControlCodec
import ControlMessages
import Foundation
import FunctionCatalog
import Testing

@testable import nfvctl

/// The files under `examples/` are what people copy: each is read by the loader that the programs use.
@Suite struct ConfigurationExamplesTests {
  static let directory = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appending(path: "examples").path

  @Test func `the example cluster is the lab's`() throws {
    let spec = try ApplyCommand.read("\(Self.directory)/cluster.yaml")
    #expect(spec.name.name == "web")
    #expect(spec.chain.functions.map(\.kind) == ["firewall", "nat", "load-balancer"])
    #expect(spec.runtimes == 2 && spec.switches == 1 && spec.polling == .adaptive)
    #expect(spec.heartbeatInterval == 100 && spec.workloadInterval == 500 && spec.chain.flows.tcpTransitoryTimeout == 30_000)
    #expect(spec.network.client.addresses.map(\.description) == ["10.1.0.2/24"])
    #expect(spec.network.client.answersFor.map(\.description) == ["10.1.0.100"])
    #expect(spec.network.server.answersFor.map(\.description) == ["10.2.0.200-10.2.0.203"])
    #expect(spec.problem == nil)
  }

  @Test func `a cluster has no replicas, one or two; more are refused with the reason`() throws {
    let text = try String(contentsOfFile: "\(Self.directory)/cluster.yaml", encoding: .utf8)
    let file = FileManager.default.temporaryDirectory.appending(path: "cluster-\(UInt64.random(in: 0...UInt64.max)).yaml")
    defer { try? FileManager.default.removeItem(at: file) }
    func read(_ line: String) throws -> ClusterSpec {
      try (text + "\n" + line + "\n").write(to: file, atomically: true, encoding: .utf8)
      return try ApplyCommand.read(file.path)
    }
    #expect(try read("").replicas == 0)
    #expect(try read("replicas: 1").replicas == 1)
    #expect(try read("replicas: 2").replicas == 2)
    let error = #expect(throws: (any Error).self) { try read("replicas: 3") }
    #expect("\(error!)".contains("replicas: 3 replicas of each flow were asked for; it must be 0, 1 or 2"))
    #expect(throws: (any Error).self) { try read("replicas: -1") }
  }

  @Test func `the example agent offers two runtimes and a switch`() throws {
    var expected = AgentConfiguration(
      host: try #require(HostID("lab")), processors: [0, 1], runtimePorts: ["af_packet:rt0", "af_packet:rt1"],
      switchPorts: [.init(client: "af_packet:swc", server: "af_packet:sws", fabric: "af_packet:swf")])
    expected.memory = .automatic
    #expect(try loadAgentConfiguration("\(Self.directory)/agent.yaml") == expected)
  }

  @Test func `every example is read by a test`() throws {
    let files = try FileManager.default.subpathsOfDirectory(atPath: Self.directory).filter { $0.hasSuffix(".yaml") }
    #expect(
      files.sorted() == ["agent.yaml", "chains/fw-nat-ips.yaml", "chains/fw-nat-lb.yaml", "chains/ipv6.yaml", "chains/pass-through.yaml", "cluster.yaml"])
  }

  @Test(arguments: ["pass-through", "fw-nat-lb", "fw-nat-ips", "ipv6"]) func `the example chains are known to the catalog`(_ name: String) throws {
    let chain = try loadChainSpec("\(Self.directory)/chains/\(name).yaml")
    try Catalog.standard.validate(chain)
    #expect(name != "pass-through" || chain.flows.midstream == .accept)
  }

  @Test func `IPv6 in the settings of firewall, NAT and load balancer comes through file, record and catalog as it was written`() throws {
    let chain = try loadChainSpec("\(Self.directory)/chains/ipv6.yaml")
    let sample = try #require(Samples.commands.first { $0.name == "change-settings" }).command
    var command = sample
    command.body = .changeSettings(SettingsChange(version: 9, functions: chain.functions))
    let decoded = try RecordCodec.decodeCommand(RecordCodec.encode(command))
    #expect(decoded == command)
    guard case .changeSettings(let change) = decoded.body else { return }
    let readers = change.functions.map { SettingsReader($0.settings) }
    let blocks = try readers[0].required("rules").items().map { try $0.optional("to")?.string() ?? "any" }
    #expect(blocks == ["64:ff9b::/96", "64:ff9b::/96", "2001:db8:1::100", "any"])
    let nat = try NAT(reader: readers[1])
    #expect(nat.translation?.prefix == .wellKnown && nat.passesIPv6 && nat.addresses.count == 8)
    let services = try LoadBalancer(reader: readers[2]).services
    #expect(services.map(\.name) == ["[2001:db8:1::100]:443/tcp"])
    #expect(services[0].backends.map { "\($0) \($0.weight)" } == ["[2001:db8:2::11]:8443 1", "[2001:db8:2::12]:8443 2"])
    var spec = chain
    spec.functions = change.functions
    #expect(try Catalog.standard.entrance(of: spec).growth == 20)
    // A mistake has its line in the file, also behind a colon of an address.
    let text = try String(contentsOfFile: "\(Self.directory)/chains/ipv6.yaml", encoding: .utf8)
    let wrong = text.replacingOccurrences(of: "[2001:db8:2::11]:8443", with: "[2001:db8:2::11]:0")
    let error = #expect(throws: SettingsError.self) {
      try Catalog.standard.validate(chainSpec(YAMLFile.settings(text: wrong, name: "ipv6.yaml"), file: "ipv6.yaml"))
    }
    let line = try #require(wrong.split(separator: "\n", omittingEmptySubsequences: false).firstIndex { $0.contains("]:0\"") }) + 1
    #expect("\(error!)".contains("line \(line): ") && "\(error!)".contains("'[2001:db8:2::11]:0' is not an address with a port"))
  }

  static let wrong: [(String, String)] = [
    ("host: a b\nprocessors: [0]\n", "agent.yaml:1: host: a host's name is 1 to 255 of letters, digits, '-', '_' and '.'"),
    ("host: a\nprocessors: [0, 0]\n", "agent.yaml:2: processors[1]: processor 0 is listed twice"),
    ("host: a\nprocessors: []\n", "agent.yaml:2: processors: at least one processor is needed, such as [0, 1]"),
    ("host: a\nprocessors: [0]\n", "agent.yaml:1: nothing to offer: 'runtime-ports' and 'switch-ports' are both empty"),
    (
      "host: a\nprocessors: [0]\nruntime-ports: ['rt0:']\n",
      "agent.yaml:3: runtime-ports[0]: 'rt0:' is not a port; write its kind and its device, such as af_packet:eth1"
    ),
    (
      "host: a\nprocessors: [0]\nruntime-ports:\n  - af_packet:x\n  - af_packet:x\n",
      "agent.yaml:5: runtime-ports[1]: 'af_packet:x' is the port of runtime-ports[0] already"
    ),
    (
      "host: a\nprocessors: [0]\nswitch-ports: [{client: ring, server: ring}]\n",
      "agent.yaml:3: switch-ports[0]: 'fabric' is missing"
    ),
    ("host: a\nbootstrap: nowhere\nprocessors: [0]\n", "agent.yaml:2: bootstrap: 'nowhere' is not host:port"),
    (
      "host: a\nmemroy: huge\nprocessors: [0]\n",
      "agent.yaml:2: memroy: unknown key 'memroy'; did you mean 'memory'? "
        + "(known: host, bootstrap, processors, runtime-ports, switch-ports, memory, program, log-directory, http)"
    ),
  ]

  @Test(arguments: wrong) func `an agent file's mistake is refused with its line and path`(_ text: String, _ complaint: String) {
    let error = #expect(throws: ConfigurationError.self) {
      try agentConfiguration(YAMLFile.settings(text: text, name: "agent.yaml"), file: "agent.yaml")
    }
    #expect(error?.description == complaint)
  }

  @Test func `a file that is not there, a directory and a device are refused`() {
    for (path, reason) in [("/nowhere/x.yaml", "No such file or directory"), ("/", "Is a directory")] {
      let error = #expect(throws: ConfigurationError.self) { try loadClusterSpec(path) }
      #expect(error?.description == "\(path): \(reason)")
    }
    let error = #expect(throws: ConfigurationError.self) { try loadClusterSpec("/dev/zero") }
    #expect(error?.description == "/dev/zero: longer than 524288 bytes, which no configuration is")
  }
}
