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
      guard let id = ClusterID(name) else { throw Complaint("'\(name)' is no name of a cluster: it is 1 to 63 of a-z, 0-9 and '-'") }
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
  private var hosts: [HostListing] { state.hosts.map { HostListing($0, of: state) } }

  var text: String {
    var facts = [
      ["Cluster:", "\(listing.name)"], ["Partition:", "\(listing.partition)"], ["Status:", listing.status.rawValue],
      ["Reason:", listing.reason.isEmpty ? "-" : listing.reason],
    ]
    if let spec = state.spec {
      facts += [
        ["Chain:", listing.chain.joined(separator: " -> ")],
        ["Wanted:", "\(state.wanted(.runtime)) runtimes, \(state.wanted(.virtualSwitch)) switches, \(spec.poolShares) pool shares"],
        ["Heartbeat:", "every \(spec.heartbeatInterval)ms; workload every \(spec.workloadInterval)ms; polling \(spec.polling)"],
        ["Flow table:", "\(spec.chain.flows.capacity) flows, midstream \(spec.chain.flows.midstream)"],
        ["Client side:", Self.words(spec.network.client)], ["Server side:", Self.words(spec.network.server)],
      ]
    }
    facts += [
      ["Last slot:", "\(state.lastSlot)"], ["Table:", "version \(state.table.version)"], ["Log time:", listing.logTime.iso8601],
      ["Ignored:", "\(state.ignored.repeated) repeated, \(state.ignored.unknown) unknown, \(state.ignored.misdirected) misdirected"],
    ]
    return TextTable.facts(facts) + "\nNodes:\n" + OutputFormat.text.list(nodes).indented + "\nHosts:\n"
      + OutputFormat.text.list(hosts).indented + "\nLast commands:\n" + OutputFormat.text.list(commands).indented
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
        .init(key: "pendingChanges", value: .array(state.pendingChanges.map { .string($0) })),
        .init(key: "runtimes", value: .array(NodeListing.all(.runtime, of: state).map(\.json))),
        .init(key: "switches", value: .array(NodeListing.all(.virtualSwitch, of: state).map(\.json))),
        .init(key: "hosts", value: .array(hosts.map(\.json))), .init(key: "commands", value: .array(commands.map(\.json))),
      ])
  }

  static func json(_ spec: ClusterSpec) -> JSON {
    func json(_ side: NetworkSpec.Side) -> JSON {
      .object([
        "addresses": .array(side.addresses.map { .text($0) }), "gateway": side.gateway.map { .string(AddressRange.text($0)) },
        "answersFor": .array(side.answersFor.map { .text($0) }),
      ])
    }
    return .object([
      "name": .text(spec.name), "runtimes": .number(spec.runtimes), "switches": .number(spec.switches),
      "poolShares": .number(spec.poolShares), "heartbeatMilliseconds": .number(spec.heartbeatInterval),
      "workloadMilliseconds": .number(spec.workloadInterval), "polling": .string("\(spec.polling)"),
      "chain": .array(spec.chain.functions.map { .object(["kind": .string($0.kind), "settings": $0.settings.json]) }),
      "flowCapacity": .number(spec.chain.flows.capacity), "clientSide": json(spec.network.client),
      "serverSide": json(spec.network.server),
    ])
  }
}

struct NodeDescription: Described {
  private let listing: NodeListing

  init(_ listing: NodeListing) { self.listing = listing }

  var text: String {
    let node = listing.node
    var facts = [
      ["\(node.kind == .runtime ? "Runtime" : "Switch"):", "\(node.id)"], ["Cluster:", "\(listing.cluster)"],
      ["State:", listing.state], ["Host:", node.host.map { "\($0)" } ?? "-"], ["Life:", "\(node.incarnation)"],
      ["Process:", node.processID == 0 ? "-" : "\(node.processID), ready after \(node.startup)ms"],
      ["Pool share:", node.poolShare.map { "\($0) of \(listing.poolShares ?? 0)" } ?? "-"],
      ["Heard:", "\(Quantity.span(milliseconds: listing.heardAgo)) ago, at \(node.workerLoops) loops of the worker"],
      ["Acknowledged:", "slot \(node.acknowledged)"], ["Failures:", "\(node.failures)"],
      ["Problem:", node.lastProblem.isEmpty ? "-" : node.lastProblem],
    ]
    if let ports = node.ports { facts.append(["Ports:", "input \(ports.input), output \(ports.output), control \(ports.control)"]) }
    guard let load = node.workload else { return TextTable.facts(facts) }
    facts += [
      ["Flows:", "\(load.activeFlows) of \(load.capacity); \(load.flowsCreated) made and \(load.flowsExpired) expired"],
      ["Received:", "\(load.receivedPackets) packets, \(load.receivedBytes) bytes in the last \(load.interval)ms"],
      ["Forwarded:", "\(load.forwardedPackets) packets, \(load.forwardedBytes) bytes"],
      ["Dropped:", "\(load.droppedPackets) packets"], ["Busy:", "\(Quantity.percent(load.busyShare))%"],
    ]
    facts += load.drops.map { ["  \($0.reason):", "\($0.packets)"] }
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
