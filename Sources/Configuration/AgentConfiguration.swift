import ControlMessages

/// What an agent offers of its host: processors, and ports for runtimes and switches.
///
/// An agent owns these and hands them to the nodes it launches. What is not listed here stays untouched. Ports are
/// carried as they were written; the packet port adapter knows what they mean.
public struct AgentConfiguration: Hashable, Sendable {
  /// Where packet memory comes from.
  public enum Memory: Hashable, Sendable {
    case huge
    case ordinary
    /// Huge pages if the host has some free.
    case automatic
  }

  /// The three ports of one switch.
  public struct SwitchPorts: Hashable, Sendable {
    public var client: String
    public var server: String
    /// Towards the runtimes.
    public var fabric: String

    public init(client: String, server: String, fabric: String) {
      self.client = client
      self.server = server
      self.fabric = fabric
    }
  }

  public var host: HostID
  /// host:port of the log, several with commas.
  public var bootstrap: String
  /// Numbers of the processors that workers may be pinned to.
  public var processors: [Int]
  /// One runtime each.
  public var runtimePorts: [String]
  /// One switch each.
  public var switchPorts: [SwitchPorts]
  public var memory = Memory.automatic
  /// Path of the program that is launched; nil: the program that the agent is.
  public var program: String?
  /// Where the launched processes' logs go; nil: to the agent's own.
  public var logDirectory: String?
  /// host:port where the agent serves its metrics; the nodes that it launches take ports behind it. nil: nobody does.
  public var http: String?

  public init(
    host: HostID, bootstrap: String = "127.0.0.1:9092", processors: [Int], runtimePorts: [String] = [],
    switchPorts: [SwitchPorts] = []
  ) {
    self.host = host
    self.bootstrap = bootstrap
    self.processors = processors
    self.runtimePorts = runtimePorts
    self.switchPorts = switchPorts
  }
}

extension AgentConfiguration {
  public static let maximumProcessors = 1_024
  public static let maximumPorts = 256

  /// Reads the top level of an agent file.
  public init(reader: SettingsReader) throws(SettingsError) {
    try reader.allow([
      "host", "bootstrap", "processors", "runtime-ports", "switch-ports", "memory", "program", "log-directory", "http",
    ])
    let hostReader = try reader.required("host")
    guard let host = HostID(try hostReader.string()) else {
      throw hostReader.error("a host's name is 1 to 255 of letters, digits, '-', '_' and '.'")
    }
    self.init(host: host, processors: [])
    if let value = try reader.optional("bootstrap") { bootstrap = try value.bootstrapServers() }
    processors = try Self.processors(reader.required("processors"))

    var used: [String: String] = [:]
    for item in try reader.optional("runtime-ports")?.items() ?? [] { runtimePorts.append(try item.port(&used)) }
    for item in try reader.optional("switch-ports")?.items() ?? [] {
      try item.allow(["client", "server", "fabric"])
      switchPorts.append(
        SwitchPorts(
          client: try item.required("client").port(&used), server: try item.required("server").port(&used),
          fabric: try item.required("fabric").port(&used)))
    }
    guard !runtimePorts.isEmpty || !switchPorts.isEmpty else {
      throw reader.error("nothing to offer: 'runtime-ports' and 'switch-ports' are both empty")
    }
    guard runtimePorts.count <= Self.maximumPorts, switchPorts.count <= Self.maximumPorts else {
      throw reader.error("more than \(Self.maximumPorts) ports of a kind")
    }
    if let value = try reader.optional("memory") {
      memory = try value.choice(["auto": .automatic, "huge": .huge, "ordinary": .ordinary])
    }
    program = try reader.optional("program")?.string()
    logDirectory = try reader.optional("log-directory")?.string()
    http = try reader.optional("http")?.bootstrapServers()
  }

  private static func processors(_ reader: SettingsReader) throws(SettingsError) -> [Int] {
    var processors: [Int] = []
    for item in try reader.items() {
      let number = try item.integer(in: 0...maximumProcessors - 1)
      guard !processors.contains(number) else { throw item.error("processor \(number) is listed twice") }
      processors.append(number)
    }
    guard !processors.isEmpty else { throw reader.error("at least one processor is needed, such as [0, 1]") }
    return processors
  }
}

extension SettingsReader {
  /// `KIND` or `KIND:ARGUMENT`; a device has one user, so none may come twice.
  fileprivate func port(_ used: inout [String: String]) throws(SettingsError) -> String {
    let text = try string()
    let kind = text.prefix { $0 != ":" }
    guard !kind.isEmpty, kind.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }), !text.hasSuffix(":") else {
      throw error("'\(text)' is not a port; write its kind and its device, such as af_packet:eth1")
    }
    if kind.utf8.count < text.utf8.count, let first = used.updateValue(path, forKey: text) {
      throw error("'\(text)' is the port of \(first) already")
    }
    return text
  }

  /// `host:port`, several with commas.
  fileprivate func bootstrapServers() throws(SettingsError) -> String {
    let text = try string()
    for server in text.split(separator: ",", omittingEmptySubsequences: false) {
      guard let colon = server.lastIndex(of: ":"), colon != server.startIndex,
        let port = UInt16(server[server.index(after: colon)...]),
        port != 0
      else { throw error("'\(server)' is not host:port") }
    }
    return text
  }
}
