// What functions of a running chain tell the log, and what the log tells them.

/// What the functions of a runtime had to say since its last record: at most `maximumEntries`, and how many were lost.
///
/// A fact that no decision follows from. Addresses are texts, for people and for what reads the log.
public struct FunctionLog: Hashable, Sendable {
  public static let maximumEntries = 256

  public struct Entry: Hashable, Sendable {
    public enum Kind: Hashable, Sendable {
      /// A rule of the intrusion prevention matched.
      case alert(gid: UInt32, sid: UInt32, revision: UInt32, priority: UInt8, isDropped: Bool)
      /// A rule of the firewall that is logged decided; its position, from 0.
      case ruling(rule: UInt32, isAllowed: Bool)
      /// Who has, or had, which external endpoint (RFC 6888 REQ-12): source is the client, destination the endpoint.
      case mapping(MappingEvent, vlan: UInt16)
    }

    public enum MappingEvent: UInt8, Hashable, Sendable, CaseIterable { case created = 1, removed, exhausted }

    public var time: Timestamp
    public var source: String
    public var sourcePort: UInt16
    public var destination: String
    public var destinationPort: UInt16
    public var protocolNumber: UInt8
    public var kind: Kind

    public init(
      time: Timestamp, source: String, sourcePort: UInt16, destination: String, destinationPort: UInt16, protocolNumber: UInt8,
      kind: Kind
    ) {
      self.time = time
      self.source = source
      self.sourcePort = sourcePort
      self.destination = destination
      self.destinationPort = destinationPort
      self.protocolNumber = protocolNumber
      self.kind = kind
    }
  }

  public var node: NodeID
  public var entries: [Entry]
  /// Entries that there was no room for, in the function's ring or within the rate at which a runtime may speak.
  public var lost: UInt64

  public init(node: NodeID, entries: [Entry], lost: UInt64) {
    self.node = node
    self.entries = entries
    self.lost = lost
  }
}

extension FunctionLog.Entry {
  /// In a line, without the time.
  public var summary: String {
    let what =
      switch kind {
      case .alert(let gid, let sid, let revision, _, let isDropped): "\(isDropped ? "drop" : "alert") \(gid):\(sid):\(revision)"
      case .ruling(let rule, let isAllowed): "\(isAllowed ? "allow" : "deny") by rule \(rule)"
      case .mapping(let event, _): "mapping \(event)"
      }
    return "\(what), protocol \(protocolNumber), \(source):\(sourcePort) \(isMapping ? "as" : ">") \(destination):\(destinationPort)"
  }

  private var isMapping: Bool { if case .mapping = kind { true } else { false } }
}

/// A runtime's checks of a backend have come to a verdict: the first, or another than the one before.
public struct BackendChanged: Hashable, Sendable {
  public var node: NodeID
  /// Such as `10.1.0.100:80/tcp`, and `10.2.0.11:80`.
  public var service: String
  public var backend: String
  public var isUp: Bool
  /// What the last check said.
  public var reason: String

  public init(node: NodeID, service: String, backend: String, isUp: Bool, reason: String) {
    self.node = node
    self.service = service
    self.backend = backend
    self.isUp = isUp
    self.reason = reason
  }
}

/// The functions of a chain as they are to be from now on. Only settings differ that running functions can change.
public struct SettingsChange: Hashable, Sendable {
  /// Grows with every change of the cluster.
  public var version: UInt64
  public var functions: [ServiceChainSpec.Function]

  public init(version: UInt64, functions: [ServiceChainSpec.Function]) {
    self.version = version
    self.functions = functions
  }
}

extension ServiceChainSpec {
  /// The settings that a function takes over while it runs, by the function's kind. Part of the decision rules: a core
  /// of rules `liveSettings` tells the runtimes of a change in these, and keeps every other one back.
  private static let liveSettings: [String: [String]] = ["firewall": ["default", "rules"], "load-balancer": ["services"]]

  /// Whether the functions are the same but for settings that they can change while they run.
  public func hasSameFixedSettings(as other: ServiceChainSpec) -> Bool {
    functions.map(\.fixedPart) == other.functions.map(\.fixedPart)
  }

  fileprivate static func isLive(_ key: String, of kind: String) -> Bool { liveSettings[kind]?.contains(key) == true }
}

extension ServiceChainSpec.Function {
  fileprivate var fixedPart: Self {
    var fixed = settings
    if case .map(let entries) = settings.value {
      fixed.value = .map(entries.filter { !ServiceChainSpec.isLive($0.key, of: kind) }.sorted { $0.key < $1.key })
    }
    fixed.removeLines()
    return Self(kind: kind, settings: fixed)
  }
}
