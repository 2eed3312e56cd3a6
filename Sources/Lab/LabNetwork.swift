import FoundationEssentials
import Glibc

/// The network of a lab: three namespaces, joined only by what the platform carries.
///
/// ```
///   client              fabric                                        servers
///  ┌───────────┐       ┌───────────────────────────────────────┐      ┌──────────────┐
///  │ eth0 ─────┼───────┼─ swc  ╲                     ╱ sws ────┼──────┼─ eth0        │
///  │ 10.1.0.1  │ veth  │        switch (a process)             │ veth │ 10.2.0.11,12 │
///  └───────────┘       │           swf                         │      └──────────────┘
///                      │            │ veth                     │
///                      │       bridge "fabric"                 │
///                      │         │ veth    │ veth              │
///                      │        rt0       rt1   (runtimes)     │
///                      └───────────────────────────────────────┘
/// ```
///
/// `swc`, `sws`, `swf`, `rt0`, ... belong to DPDK (af_packet): they are up, have no addresses, and the kernel answers
/// nothing on them. No end of a veth may leave checksums or segmentation to a NIC that does not exist.
///
/// With more than one switch there are `swc1`, `sws1`, `swf1` and so on, and the clients' and the servers' ends reach all of
/// them over a bridge of their side.
///
/// With `ends: .together` the client's and the servers' ends lie in one namespace, as `client0` and `server0`, and belong to
/// a traffic generator. The kernel there only answers the switch's ARP, as the servers' gateway.
///
/// With `clients: .ipv6` the client has 2001:db8:1::1 and no IPv4 address, and a route to the addresses of 64:ff9b:1::/96 that stand
/// for IPv4 servers.
///
/// With `lastApart` the last runtime's port lies in a namespace of its own, the second host's, which has a cable to the bus: so
/// that a host can lose the log and nothing else.
///
/// The names begin with a prefix of this run, so that labs do not collide and a lab removes only what it made.
public struct LabNetwork: Sendable {
  public let prefix: String
  public let runtimes: Int
  public let switches: Int
  /// What happens to frames of the fabric on their way to a runtime or the switch: words of `tc netem`.
  public let netem: [String]
  /// What the nodes' own ports do to them, where the kernel has no netem: clauses of a `PortSpec`, each behind a ';'.
  public let impairment: String

  public enum Ends: Sendable { case apart, together }
  public let ends: Ends
  /// What the client's network speaks; the servers' is always IPv4.
  public enum Family: Sendable { case ipv4, ipv6 }
  public let clients: Family

  /// Of the switch's port to the clients, where they are a generator that asks nobody.
  public static let switchHardwareAddress = "02:4e:46:56:00:01"
  public static let gatewayAddress = "10.2.0.1"

  public static let clientAddress = "10.1.0.1"
  public static let serverAddresses = ["10.2.0.11", "10.2.0.12"]
  public static let virtualAddress = "10.1.0.100"
  /// Of the bus, where a host is apart; and of that host.
  private static let busAddresses = ["10.250.0.1", "10.250.0.2"]

  /// Whether the last runtime's port belongs to a host of its own.
  public let lastApart: Bool

  static let clientIPv6Address = "2001:db8:1::1"
  static let switchIPv6Address = "2001:db8:1::2"
  /// For IPv4 addresses that are not global (RFC 8215).
  static let nat64Prefix = "64:ff9b:1::"

  /// The virtual address as the client's programs write it in a URL.
  var virtualHost: String { clients == .ipv4 ? Self.virtualAddress : "[\(Self.nat64Prefix)\(Self.virtualAddress)]" }

  public init(
    prefix: String, runtimes: Int, switches: Int = 1, netem: [String] = [], impairment: String = "", ends: Ends = .apart,
    clients: Family = .ipv4, lastApart: Bool = false
  ) {
    self.impairment = impairment
    precondition(switches == 1 || ends == .apart, "a generator knows one link address only")
    self.switches = switches
    self.clients = clients
    self.ends = ends
    self.lastApart = lastApart
    self.prefix = prefix
    self.runtimes = runtimes
    self.netem = netem
  }

  public var client: String { "\(prefix)-client" }
  public var fabric: String { "\(prefix)-fabric" }
  public var servers: String { ends == .apart ? "\(prefix)-servers" : client }
  public var secondHost: String { "\(prefix)-host" }
  public var namespaces: [String] {
    (ends == .apart ? [client, fabric, servers] : [client, fabric]) + (lastApart ? [secondHost] : [])
  }
  /// The name of the host that is apart, as its agent says it.
  var apartHost: String { "\(prefix)-b" }
  /// Where the bus listens.
  public var bootstrap: String { lastApart ? "\(Self.busAddresses[0]):9092" : LabConfigurations.bootstrap }
  public var runtimeInterfaces: [String] { (0..<runtimes).map { "rt\($0)" } }
  var switchInterfaces: [(client: String, server: String, fabric: String)] {
    (0..<switches).map { number in
      let suffix = number == 0 ? "" : "\(number)"
      return ("swc\(suffix)", "sws\(suffix)", "swf\(suffix)")
    }
  }

  /// What makes the network, in order, each a program with its arguments.
  var commands: [[String]] {
    var commands: [[String]] = []
    for namespace in namespaces {
      commands.append(["ip", "netns", "add", namespace])
      // Before there are interfaces: none of them gets a link-local address, so none speaks by itself.
      let ipv6 = "/proc/sys/net/ipv6/conf/default/disable_ipv6"
      commands.append(inside(namespace, ["sh", "-c", "test ! -e \(ipv6) || echo 1 > \(ipv6)"]))
      commands.append(["ip", "-n", namespace, "link", "set", "dev", "lo", "up"])
    }
    commands += bridge("fabric")
    for interface in runtimeInterfaces + switchInterfaces.map(\.fabric) {
      if lastApart, interface == runtimeInterfaces.last {
        commands += pair("\(interface)-b", peer: interface, in: secondHost)
      } else {
        commands += pair(interface, peer: "\(interface)-b", in: fabric)
      }
      commands.append(attach("\(interface)-b", to: "fabric"))
      if !netem.isEmpty {
        commands.append(["tc", "-n", fabric, "qdisc", "add", "dev", "\(interface)-b", "root", "netem"] + netem)
      }
    }
    if lastApart {
      commands += pair("bus", peer: "bus", in: secondHost)
      commands.append(["ip", "-n", fabric, "address", "add", "\(Self.busAddresses[0])/30", "dev", "bus"])
      commands.append(["ip", "-n", secondHost, "address", "add", "\(Self.busAddresses[1])/30", "dev", "bus"])
    }
    if ends == .together {
      commands += pair("swc", peer: "client0", in: client)
      commands.append(["ip", "-n", fabric, "link", "set", "dev", "swc", "address", Self.switchHardwareAddress])
      commands += pair("sws", peer: "server0", in: servers)
      commands.append(["ip", "-n", servers, "address", "add", "\(Self.gatewayAddress)/24", "dev", "server0"])
      return commands
    }
    commands += side("clients", switchInterfaces.map(\.client), host: client)
    if clients == .ipv4 {
      commands.append(["ip", "-n", client, "address", "add", "\(Self.clientAddress)/24", "dev", "eth0"])
    } else {
      commands.append(inside(client, ["sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6"]))
      commands.append(["ip", "-n", client, "address", "add", "\(Self.clientIPv6Address)/64", "dev", "eth0", "nodad"])
      commands.append(["ip", "-n", client, "-6", "route", "add", "\(Self.nat64Prefix)/96", "via", Self.switchIPv6Address])
    }
    commands += side("servers", switchInterfaces.map(\.server), host: servers)
    for address in Self.serverAddresses {
      commands.append(["ip", "-n", servers, "address", "add", "\(address)/24", "dev", "eth0"])
    }
    return commands
  }

  private func bridge(_ name: String) -> [[String]] {
    [
      ["ip", "-n", fabric, "link", "add", "dev", name, "type", "bridge", "stp_state", "0", "mcast_snooping", "0"],
      ["ip", "-n", fabric, "link", "set", "dev", name, "up"],
    ]
  }

  private func attach(_ interface: String, to bridge: String) -> [String] {
    ["ip", "-n", fabric, "link", "set", "dev", interface, "master", bridge]
  }

  /// From the switches' ports of one side to a host's `eth0`.
  private func side(_ name: String, _ ports: [String], host: String) -> [[String]] {
    guard ports.count > 1 else { return pair(ports[0], peer: "eth0", in: host) }
    var commands = bridge(name) + pair("\(name)-h", peer: "eth0", in: host) + [attach("\(name)-h", to: name)]
    for port in ports { commands += pair(port, peer: "\(port)-b", in: fabric) + [attach("\(port)-b", to: name)] }
    return commands
  }

  /// A veth from the fabric namespace to another (or the same), both ends up and without offloads.
  private func pair(_ name: String, peer: String, in namespace: String) -> [[String]] {
    let offloads = ["tx", "rx", "sg", "tso", "gso", "gro"].flatMap { [$0, "off"] }
    return [
      [
        "ip", "-n", fabric, "link", "add", "dev", name, "mtu", "1500", "type", "veth", "peer", "name", peer, "mtu", "1500",
        "netns", namespace,
      ],
      inside(fabric, ["ethtool", "-K", name] + offloads),
      inside(namespace, ["ethtool", "-K", peer] + offloads),
      ["ip", "-n", fabric, "link", "set", "dev", name, "up"],
      ["ip", "-n", namespace, "link", "set", "dev", peer, "up"],
    ]
  }

  private func inside(_ namespace: String, _ command: [String]) -> [String] { ["ip", "netns", "exec", namespace] + command }

  /// Makes it all; `goOn` is asked between two steps. What was made before a failure is there for `remove`.
  public func make(goOn: () -> Bool = { true }) throws(LabError) {
    for command in commands {
      guard goOn() else { throw .interrupted }
      try Program.run(command)
    }
  }

  // MARK: Cables

  /// Plugs a runtime's cable into the fabric, or pulls it out.
  func setLink(_ interface: String, isUp: Bool) throws(LabError) {
    try Program.run(["ip", "-n", fabric, "link", "set", "dev", "\(interface)-b", isUp ? "up" : "down"])
  }

  /// The same with the cable between the second host and the bus.
  func setBusLink(isUp: Bool) throws(LabError) {
    try Program.run(["ip", "-n", secondHost, "link", "set", "dev", "bus", isUp ? "up" : "down"])
  }

  /// Packets that a runtime has sent into the fabric, as the other end of its cable counts them.
  func packetsSent(by interface: String) throws(LabError) -> UInt64 {
    struct Link: Decodable {
      struct Statistics: Decodable { struct Side: Decodable { var packets: UInt64 }; var rx: Side }
      var stats64: Statistics
    }
    let text = try Program.run(["ip", "-n", fabric, "-j", "-s", "link", "show", "dev", "\(interface)-b"])
    return (try? JSONDecoder().decode([Link].self, from: Data(text.utf8)))?.first?.stats64.rx.packets ?? 0
  }

  /// Removes the namespaces, and with them every interface.
  ///
  /// - Returns: what could not be removed, and why.
  public func remove() -> [String] {
    var problems: [String] = []
    for namespace in namespaces where access("/run/netns/\(namespace)", F_OK) == 0 {
      do throws(LabError) { try Program.run(["ip", "netns", "delete", namespace]) } catch { problems.append("\(error)") }
    }
    return problems
  }

  /// Namespaces of labs that were killed before they could remove them.
  public static func leftovers() -> [String] {
    guard let directory = opendir("/run/netns") else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      guard name.hasPrefix("nfv"), let dash = name.firstIndex(of: "-"), let owner = Int(name[..<dash].dropFirst(3)),
        ["client", "fabric", "servers", "host"].contains(name[dash...].dropFirst()), access("/proc/\(owner)", F_OK) != 0
      else { continue }
      names.append(name)
    }
    return names.sorted()
  }
}

/// Lets this thread, and the threads that it starts, use the network of a namespace.
///
/// The lab reads the bus, which listens on the fabric namespace's own loopback.
public struct NamespaceVisit: ~Copyable {
  private let home: Int32
  // Not in the module map of Glibc: it is a GNU extension.
  private typealias SetNamespace = @convention(c) (Int32, Int32) -> Int32
  private static let networkNamespace: Int32 = 0x4000_0000

  public init(_ namespace: String) throws(LabError) {
    home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)
    let there = open("/run/netns/\(namespace)", O_RDONLY | O_CLOEXEC)
    defer { if there >= 0 { close(there) } }
    guard home >= 0, there >= 0, Self.enter(there) else {
      throw .notPossible("cannot enter the network namespace \(namespace): \(String(cString: strerror(errno)))")
    }
  }

  deinit {
    _ = Self.enter(home)
    close(home)
  }

  private static func enter(_ descriptor: Int32) -> Bool {
    guard let symbol = dlsym(nil, "setns") else { return false }
    return unsafeBitCast(symbol, to: SetNamespace.self)(descriptor, networkNamespace) == 0
  }
}
