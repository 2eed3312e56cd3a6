import Foundation
import Glibc
import NetworkFunctionTesting
import Wire

/// Linux as a stateful firewall, with source NAT where that is judged: a network namespace of its own with two interfaces, an nftables rule set and
/// the kernel's connection tracking. One packet at a time, in at one side, out at the other or not at all.
///
///     client side  10.0.0.0/24 ── jc [ namespace: forward, ct state, snat to 203.0.113.1 ] js ── server side  192.0.2.0/24
///
/// The namespace has its process's number in its name; one that a killed test left behind is taken away by the next.
final class Netfilter {
  /// What is judged: the firewall and the NAT; the firewall alone, over IPv6, or with whatever addresses captures are given.
  enum Kind { case nat, ipv6, captures }

  static let external: Endpoint = "203.0.113.1"
  static let firstExternalPort: UInt16 = 1024

  private let name: String
  private let taps: [Direction: TapDevice]
  private let clientInterface: String
  private static let clientMAC: [UInt8] = [2, 0, 0, 0, 1, 1]
  private static let serverMAC: [UInt8] = [2, 0, 0, 0, 2, 1]
  private static let routerMACs: [Direction: [UInt8]] = [.forward: [2, 0, 0, 0, 1, 2], .reverse: [2, 0, 0, 0, 2, 2]]

  /// Why Linux cannot be the judge here, or `nil`.
  static let obstacle: String? = {
    guard geteuid() == 0 else { return "network namespaces need root" }
    guard access("/dev/net/tun", R_OK | W_OK) == 0 else { return "there is no /dev/net/tun" }
    removeLeftovers()
    do {
      _ = try Netfilter(label: "probe")
      return nil
    } catch { return "\(error)" }
  }()

  init(label: String, _ kind: Kind = .nat) throws {
    let name = "nfv-judge-\(getpid())-\(label)"
    self.name = name
    try Shell.run("ip", "netns", "add", name)
    do {
      let suffix = String(UInt32.random(in: 0...0xffff), radix: 16)
      let (client, server) = ("jc\(suffix)", "js\(suffix)")
      clientInterface = client
      taps = [
        .forward: try TapDevice(client, namespace: name), .reverse: try TapDevice(server, namespace: name),
      ]
      try Shell.run("ip", "netns", "exec", name, "sh", "-e", input: Netfilter.script(kind, client: client, server: server))
      try Shell.run("ip", "netns", "exec", name, "nft", "-f", "-", input: Netfilter.rules(kind, client: client))
      // Connections are not taken up in the middle, as they are not by our firewall.
      try Shell.run("ip", "netns", "exec", name, "sh", "-c", "echo 0 > /proc/sys/net/netfilter/nf_conntrack_tcp_loose")
    } catch {
      _ = try? Shell.run("ip", "netns", "del", name)
      throw error
    }
  }

  deinit { _ = try? Shell.run("ip", "netns", "del", name) }

  private static func removeLeftovers() {
    for line in (try? Shell.run("ip", "netns", "list"))?.split(separator: "\n") ?? [] {
      let name = String(line.split(separator: " ")[0])
      let parts = name.split(separator: "-")
      if parts.count == 4, name.hasPrefix("nfv-judge-"), let process = pid_t(parts[2]), kill(process, 0) != 0 {
        _ = try? Shell.run("ip", "netns", "del", name)
      }
    }
  }

  private static func text(_ mac: [UInt8]) -> String { mac.map { String(format: "%02x", $0) }.joined(separator: ":") }

  /// Neighbours are written down, so nobody asks for them.
  private static func script(_ kind: Kind, client: String, server: String) -> String {
    let links = """
      for i in all default \(client) \(server); do
        echo \(kind == .ipv6 ? 0 : 1) > /proc/sys/net/ipv6/conf/$i/disable_ipv6 || true
        echo 0 > /proc/sys/net/ipv4/conf/$i/send_redirects
      done
      ip link set lo up
      ip link set \(client) address \(text(routerMACs[.forward]!)) mtu 9000 arp off up
      ip link set \(server) address \(text(routerMACs[.reverse]!)) mtu 9000 arp off up
      for i in all default \(client) \(server); do echo 0 > /proc/sys/net/ipv4/conf/$i/rp_filter; done

      """
    func neighbours(_ network: String, _ mac: [UInt8], _ device: String) -> String {
      "for n in $(seq 1 9); do ip neigh replace \(network)$n lladdr \(text(mac)) dev \(device) nud permanent; done\n"
    }
    switch kind {
    case .nat:
      return links + neighbours("10.0.0.", clientMAC, client) + neighbours("192.0.2.", serverMAC, server)
        + neighbours("198.51.100.", serverMAC, server) + """
          ip addr add 10.0.0.254/24 dev \(client)
          ip addr add 192.0.2.254/24 dev \(server)
          ip route add 198.51.100.0/24 dev \(server)
          echo 1 > /proc/sys/net/ipv4/ip_forward
          echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
          """
    case .ipv6:
      return links + neighbours("2001:db8:1::", clientMAC, client) + neighbours("2001:db8:2::", serverMAC, server)
        + neighbours("2001:db8:3::", serverMAC, server) + """
          ip -6 addr add 2001:db8:1::fe/64 dev \(client) nodad
          ip -6 addr add 2001:db8:2::fe/64 dev \(server) nodad
          ip -6 route add 2001:db8:3::/64 dev \(server)
          echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
          echo 0 > /proc/sys/net/ipv6/icmp/ratelimit
          """
    case .captures:
      return links + neighbours("10.0.0.", clientMAC, client) + neighbours("192.168.0.", serverMAC, server) + """
        ip addr add 10.0.0.254/24 dev \(client)
        ip addr add 192.168.0.254/24 dev \(server)
        ip route add 10.0.0.0/8 via 10.0.0.1 dev \(client)
        ip route add 192.168.0.0/16 via 192.168.0.1 dev \(server)
        echo 1 > /proc/sys/net/ipv4/ip_forward
        """
    }
  }

  private static func rules(_ kind: Kind, client: String) -> String {
    let isNew =
      kind == .captures
      ? "iifname \"\(client)\" meta l4proto { tcp, udp, icmp } ct state new accept"
      : """
      iifname "\(client)" tcp flags & (fin|syn|rst|ack) == syn tcp dport { 80, 443 } ct state new accept
      iifname "\(client)" udp dport 53 ct state new accept
      iifname "\(client)" \(kind == .ipv6 ? "icmpv6" : "icmp") type echo-request ct state new accept
      """
    let nat =
      kind == .nat
      ? """
      chain inward {
        type nat hook prerouting priority dstnat;
      }
      chain nat {
        type nat hook postrouting priority srcnat;
        ip saddr 10.0.0.0/24 ip protocol { tcp, udp, icmp } snat to 203.0.113.1
      }
      """ : ""
    return """
      table \(kind == .ipv6 ? "ip6" : "ip") judge {
        chain forward {
          type filter hook forward priority filter; policy drop;
          ct state invalid drop
          ct state established,related accept
          ct status dnat accept
          \(isNew)
        }
        \(nat)
      }
      """
  }

  /// What clients send to this external endpoint of another goes to that one.
  func map(_ external: Endpoint, _ transport: String, to client: Endpoint) throws {
    try Shell.run(
      "ip", "netns", "exec", name, "nft",
      "add rule ip judge inward iifname \(clientInterface) ip daddr \(external.address) \(transport) dport \(external.port) dnat to \(client)"
    )
  }

  /// Hands the packet in at one side and waits for what comes out at the other.
  ///
  /// A tap's frames are forwarded before `write` returns, so the wait for one that is expected is only for odd days.
  func send(_ packet: TestPacket, from side: Direction, expecting: Bool) throws -> TestPacket? {
    // What the kernel says for itself (unreachables to whoever it could not serve) is not forwarding.
    for tap in taps.values { while tap.receive(milliseconds: 0) != nil {} }
    let link = Netfilter.routerMACs[side]! + (side == .forward ? Netfilter.clientMAC : Netfilter.serverMAC)
    try taps[side]!.send(link + packet.bytes[12...])
    return receive(at: side.opposite, milliseconds: expecting ? 50 : 1).map { TestPacket(bytes: $0) }
  }

  /// The next frame that was forwarded. What Linux says to all its neighbours is its own.
  private func receive(at side: Direction, milliseconds: Int32) -> [UInt8]? {
    while let frame = taps[side]!.receive(milliseconds: milliseconds) {
      if frame[0] & 1 == 0 { return frame }
    }
    return nil
  }

  /// The same with a packet that comes back to the side it came from.
  func sendBack(_ packet: TestPacket, expecting: Bool) throws -> TestPacket? {
    for tap in taps.values { while tap.receive(milliseconds: 0) != nil {} }
    try taps[.forward]!.send(Netfilter.routerMACs[.forward]! + Netfilter.clientMAC + packet.bytes[12...])
    return receive(at: .forward, milliseconds: expecting ? 50 : 1).map { TestPacket(bytes: $0) }
  }

  /// Hands in the fragments of a datagram and puts together what comes out: `nil` if that is nothing, or not all.
  func send(fragments: [TestPacket], from side: Direction, expecting: Bool) throws -> TestPacket? {
    for tap in taps.values { while tap.receive(milliseconds: 0) != nil {} }
    let link = Netfilter.routerMACs[side]! + (side == .forward ? Netfilter.clientMAC : Netfilter.serverMAC)
    for fragment in fragments { try taps[side]!.send(link + fragment.bytes[12...]) }
    var out: [TestPacket] = []
    while let frame = receive(at: side.opposite, milliseconds: out.isEmpty && expecting ? 50 : 1) {
      out.append(TestPacket(bytes: frame))
    }
    return TestPacket(fragments: out)
  }
}
