import ArgumentParser
import ControlMessages
import ControlNodes
import ControlPlane

struct DescribeCommand: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "describe",
    abstract: "Show all that is known about one cluster, runtime or switch.",
    discussion: """
      Examples:
        nfvctl describe cluster web
        nfvctl describe runtime 2 --cluster web
        nfvctl describe switch web/1 -o json
      """)

  enum Kind: String, ExpressibleByArgument, CaseIterable {
    case cluster, runtime
    case `switch`

    var node: NodeKind? {
      switch self {
      case .cluster: nil
      case .runtime: .runtime
      case .switch: .virtualSwitch
      }
    }
  }

  @Argument(help: "cluster, runtime or switch.")
  var kind: Kind

  @Argument(help: ArgumentHelp("A cluster's name; a node's number, or CLUSTER/NUMBER.", valueName: "name"))
  var name: String

  @Option(name: .shortAndLong, help: ArgumentHelp("The cluster of the node; needed when there are several.", valueName: "name"))
  var cluster: ClusterID?

  @OptionGroup var output: OutputOptions
  @OptionGroup var log: LogAccess

  func perform() throws {
    var history = CommandHistory(last: 10)
    guard let kind = kind.node else {
      guard let id = ClusterID(name) else {
        throw Complaint("'\(name)' is no name of a cluster: it is 1 to 63 of a-z, 0-9 and '-'")
      }
      let follower = try log.readLog(only: id) { history.notice($0) }
      guard let cluster = follower.cluster(id) else { throw Complaint.noCluster(id) }
      return put(ClusterDescription(cluster, history.commands(of: id)))
    }

    let parts = name.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count <= 2, let number = UInt32(parts[parts.count - 1]), let id = NodeID(number),
      parts.count == 1 || ClusterID(String(parts[0])) != nil
    else { throw Complaint("'\(name)' is no node: it is a number such as 2, or CLUSTER/2") }
    let wanted = parts.count == 2 ? ClusterID(String(parts[0])) : cluster
    let follower = try log.readLog(only: wanted) { history.notice($0) }
    if let wanted, follower.cluster(wanted) == nil { throw Complaint.noCluster(wanted) }
    let found = follower.clusters.filter { $0.state.node(id)?.kind == kind }
    guard found.count <= 1 else {
      throw Complaint("there is a \(kind) \(id) in \(found.map { "\($0.id)" }.joined(separator: ", ")); say which with --cluster")
    }
    guard let cluster = found.first, let node = cluster.state.node(id) else {
      throw Complaint("there is no \(kind) \(id); `nfvctl get \(kind.plural)` lists them")
    }
    put(NodeDescription(NodeListing(node, of: cluster.state)))
  }

  private func put(_ thing: some Described) {
    switch output.output {
    case .text: Terminal.put(thing.text)
    case .json: Terminal.put(thing.json.document)
    case .jsonl: Terminal.put(thing.json.line + "\n")
    }
  }
}

/// One thing in full.
protocol Described {
  var text: String { get }
  var json: JSON { get }
}

struct ClusterDescription: Described {
  private let listing: ClusterListing
  private let state: ClusterState
  private let commands: [CommandListing]

  init(_ cluster: ClusterFollower.Cluster, _ commands: [CommandListing]) {
    self.init(ClusterListing(cluster), cluster.state, commands)
  }

  init(_ listing: ClusterListing, _ state: ClusterState, _ commands: [CommandListing]) {
    self.listing = listing
    self.state = state
    self.commands = commands
  }

  private var nodes: [NodeListing] { NodeKind.allCases.reversed().flatMap { NodeListing.all($0, of: state) } }
  /// The backends that runtimes check, and how many of them find each down.
  private var backends: [(name: String, runtimes: Int, down: Int, reason: String)] {
    let all = state.nodes.flatMap(\.backends)
    let names = Set(all.map { "\($0.backend) of \($0.service)" }).sorted()
    return names.map { name in
      let those = all.filter { "\($0.backend) of \($0.service)" == name }
      return (name, those.count, those.count { !$0.isUp }, those.last { !$0.isUp }?.reason ?? "")
    }
  }
  private var hosts: [HostListing] { state.hosts.map { HostListing($0, of: state) } }

  var text: String {
    var facts: [[String]] = []
    func say(_ name: String, _ value: String) { facts.append([name + ":", value.isEmpty ? "-" : value]) }
    say("Cluster", listing.name.name)
    say("Partition", "\(listing.partition)")
    say("Status", listing.status.rawValue)
    say("Reason", listing.reason)
    if let spec = state.spec {
      let flows = spec.chain.flows
      say("Chain", listing.chain.joined(separator: " -> "))
      say(
        "Wanted", "\(state.wanted(.runtime)) runtimes, \(state.wanted(.virtualSwitch)) switches, \(spec.poolShares) pool shares")
      say("Heartbeat", "every \(spec.heartbeatInterval)ms; workload every \(spec.workloadInterval)ms; polling \(spec.polling)")
      if spec.replicas > 0 { say("Replicas", replicaWords(spec)) }
      let retired = state.retiredShares
      if !retired.isEmpty {
        say("Retired shares", "\(retired.map { "\($0)" }.joined(separator: ", ")), until no flow uses their addresses")
      }
      say("Flow table", "\(flows.capacity) flows, midstream \(flows.midstream)")
      say("Client side", Self.words(spec.network.client))
      say("Server side", Self.words(spec.network.server))
    }
    say("Last slot", "\(state.lastSlot)")
    say("Table", "version \(state.table.version)")
    say("Settings", "version \(state.settingsVersion)")
    if case let backends = backends, !backends.isEmpty {
      say("Backends", "\(backends.count { $0.down == 0 }) of \(backends.count) up")
      for backend in backends where backend.down > 0 {
        say("  \(backend.name)", "down for \(backend.down) of \(backend.runtimes) runtimes: \(backend.reason)")
      }
    }
    say("Log time", listing.logTime.iso8601)
    let ignored = state.ignored
    say("Ignored", "\(ignored.repeated) repeated, \(ignored.unknown) unknown, \(ignored.misdirected) misdirected")

    var text = TextTable.facts(facts)
    text += "\nNodes:\n" + OutputFormat.text.list(nodes).indented
    text += "\nHosts:\n" + OutputFormat.text.list(hosts).indented
    text += "\nLast commands:\n" + OutputFormat.text.list(commands).indented
    return text
  }

  private func replicaWords(_ spec: ClusterSpec) -> String {
    let unprotected = state.unprotected.map { "runtime \($0.node) is unprotected: \($0.reason)" }
    let known = state.replicasWanted < spec.replicas ? " (\(state.replicasWanted) under decision rules \(state.rules))" : ""
    return "\(spec.replicas) of each flow\(known); " + (unprotected.isEmpty ? "all runtimes protected" : unprotected.joined(separator: "; "))
  }

  private static func words(_ side: NetworkSpec.Side) -> String {
    var words = side.addresses.map(\.description).joined(separator: ", ")
    if let gateway = side.gateway { words += ", gateway \(AddressRange.text(gateway))" }
    if !side.answersFor.isEmpty { words += ", answers for \(side.answersFor.map(\.description).joined(separator: ", "))" }
    return words.isEmpty ? "-" : words
  }

  var json: JSON {
    guard case .object(let members) = listing.json else { return listing.json }
    return .object(
      members + [
        .init(key: "spec", value: state.spec.map(Self.json) ?? .null),
        .init(key: "retiredShares", value: .array(state.retiredShares.map { .number($0) })),
        .init(key: "pendingChanges", value: .array(state.pendingChanges.map { .string($0) })),
        .init(key: "runtimes", value: .array(NodeListing.all(.runtime, of: state).map(\.json))),
        .init(key: "switches", value: .array(NodeListing.all(.virtualSwitch, of: state).map(\.json))),
        .init(
          key: "backends",
          value: .array(
            backends.map {
              .object([
                "name": .string($0.name), "runtimes": .number($0.runtimes), "down": .number($0.down), "reason": .string($0.reason),
              ])
            })), .init(key: "settingsVersion", value: .number(state.settingsVersion)),
        .init(key: "hosts", value: .array(hosts.map(\.json))), .init(key: "commands", value: .array(commands.map(\.json))),
      ])
  }

  static func json(_ spec: ClusterSpec) -> JSON {
    let functions: [JSON] = spec.chain.functions.map { function -> JSON in
      .object(["kind": .string(function.kind), "settings": function.settings.json])
    }
    return .object([
      "name": .text(spec.name), "runtimes": .number(spec.runtimes), "switches": .number(spec.switches),
      "poolShares": .number(spec.poolShares), "heartbeatMilliseconds": .number(spec.heartbeatInterval),
      "workloadMilliseconds": .number(spec.workloadInterval), "polling": .string("\(spec.polling)"),
      "replicas": .number(spec.replicas),
      "chain": .array(functions), "flowCapacity": .number(spec.chain.flows.capacity),
      "clientSide": json(spec.network.client), "serverSide": json(spec.network.server),
    ])
  }

  private static func json(_ side: NetworkSpec.Side) -> JSON {
    let addresses: [JSON] = side.addresses.map { JSON.text($0) }
    let ranges: [JSON] = side.answersFor.map { JSON.text($0) }
    let gateway: JSON? = side.gateway.map { JSON.string(AddressRange.text($0)) }
    return .object(["addresses": .array(addresses), "gateway": gateway, "answersFor": .array(ranges)])
  }
}

struct NodeDescription: Described {
  private let listing: NodeListing

  init(_ listing: NodeListing) { self.listing = listing }

  var text: String {
    let node = listing.node
    var facts: [[String]] = []
    func say(_ name: String, _ value: String?) { facts.append([name + ":", value ?? "-"]) }
    say(node.kind == .runtime ? "Runtime" : "Switch", node.id.description)
    say("Cluster", listing.cluster.name)
    say("State", listing.state)
    say("Host", node.host?.name)
    say("Life", node.incarnation.description)
    say("Process", node.processID == 0 ? nil : "\(node.processID), ready after \(node.startup)ms")
    if let share = node.poolShare { say("Pool share", "\(share) of \(listing.poolShares ?? 0)") }
    say("Heard", "\(Quantity.span(milliseconds: listing.heardAgo)) ago, at \(node.workerLoops) loops of the worker")
    say("Acknowledged", "slot \(node.acknowledged)")
    if let unprotected = listing.unprotected { say("Unprotected", unprotected) }
    if node.kind == .runtime {
      say("Settings", "version \(node.settingsVersion)" + (node.settingsProblem.isEmpty ? "" : "; newer ones refused: \(node.settingsProblem)"))
    }
    for backend in node.backends {
      say("Backend", "\(backend.backend) of \(backend.service): \(backend.isUp ? "up" : "down") since \(backend.since.iso8601), \(backend.reason)")
    }
    say("Failures", "\(node.failures)")
    say("Problem", node.lastProblem.isEmpty ? nil : node.lastProblem)
    if let ports = node.ports { say("Ports", "input \(ports.input), output \(ports.output), control \(ports.control)") }
    if let load = node.workload {
      say("Flows", "\(load.activeFlows) of \(load.capacity); \(load.flowsCreated) made and \(load.flowsExpired) expired")
      say("Received", "\(load.receivedPackets) packets, \(load.receivedBytes) bytes in the last \(load.interval)ms")
      say("Forwarded", "\(load.forwardedPackets) packets, \(load.forwardedBytes) bytes")
      say("Dropped", "\(load.droppedPackets) packets")
      for drops in load.drops { say("  \(drops.reason)", "\(drops.packets)") }
      say("Busy", "\(Quantity.percent(load.busyShare))%")
      if load.replicasHeld > 0 || load.packetsReleased > 0 {
        say("Holds", "\(load.replicasHeld) replicas of others' flows; released \(load.packetsReleased) packets")
      }
      if let protection = node.protection {
        let holders = protection.holders.isEmpty ? "nobody" : protection.holders.map(\.description).joined(separator: " and ")
        say("Replicas", "on \(holders), slot \(protection.slot); \(load.unprotectedFlows) flows have none")
      }
    }
    return TextTable.facts(facts)
  }

  var json: JSON { listing.json }
}

extension TextTable {
  /// Names and values, without a heading.
  static func facts(_ rows: [[String]]) -> String {
    let text = TextTable([.left(""), .left("")], rows).text
    return String(text.dropFirst())
  }
}

extension String {
  var indented: String { split(separator: "\n").map { "  \($0)\n" }.joined() }
}

extension Settings {
  /// As it was written: a scalar is a text.
  var json: JSON {
    switch value {
    case .scalar(let text): .string(text)
    case .list(let items): .array(items.map(\.json))
    case .map(let entries): .object(entries.map { JSON.Member(key: $0.key, value: $0.value.json) })
    }
  }
}
