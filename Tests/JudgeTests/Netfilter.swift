import Foundation
import Glibc
import NetworkFunctionTesting
import Wire

/// Linux as a stateful firewall with source NAT: a network namespace of its own with two interfaces, an nftables rule set and
/// the kernel's connection tracking. One packet at a time, in at one side, out at the other or not at all.
///
///     client side  10.0.0.0/24 ── jc [ namespace: forward, ct state, snat to 203.0.113.1 ] js ── server side  192.0.2.0/24
///
/// The namespace has its process's number in its name; one that a killed test left behind is taken away by the next.
final class Netfilter {
  static let external: Endpoint = "203.0.113.1"
  static let firstExternalPort: UInt16 = 1024

  private let name: String
  private let taps: [Direction: TapDevice]
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

  init(label: String) throws {
    let name = "nfv-judge-\(getpid())-\(label)"
    self.name = name
    try Shell.run("ip", "netns", "add", name)
    do {
      let suffix = String(UInt32.random(in: 0...0xffff), radix: 16)
      let (client, server) = ("jc\(suffix)", "js\(suffix)")
      taps = [
        .forward: try TapDevice(client, namespace: name), .reverse: try TapDevice(server, namespace: name),
      ]
      try Shell.run("ip", "netns", "exec", name, "sh", "-e", input: Netfilter.script(client: client, server: server))
      try Shell.run("ip", "netns", "exec", name, "nft", "-f", "-", input: Netfilter.rules(client: client))
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
  private static func script(client: String, server: String) -> String {
    """
    for i in all default \(client) \(server); do echo 1 > /proc/sys/net/ipv6/conf/$i/disable_ipv6 || true; done
    ip link set lo up
    ip link set \(client) address \(text(routerMACs[.forward]!)) arp off up
    ip link set \(server) address \(text(routerMACs[.reverse]!)) arp off up
    ip addr add 10.0.0.254/24 dev \(client)
    ip addr add 192.0.2.254/24 dev \(server)
    ip route add 198.51.100.0/24 dev \(server)
    for n in $(seq 1 9); do ip neigh replace 10.0.0.$n lladdr \(text(clientMAC)) dev \(client) nud permanent; done
    for n in $(seq 1 9); do ip neigh replace 192.0.2.$n lladdr \(text(serverMAC)) dev \(server) nud permanent; done
    for n in $(seq 1 9); do ip neigh replace 198.51.100.$n lladdr \(text(serverMAC)) dev \(server) nud permanent; done
    echo 1 > /proc/sys/net/ipv4/ip_forward
    for i in all default \(client) \(server); do echo 0 > /proc/sys/net/ipv4/conf/$i/rp_filter; done
    echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
    """
  }

  private static func rules(client: String) -> String {
    """
    table ip judge {
      chain forward {
        type filter hook forward priority filter; policy drop;
        ct state invalid drop
        ct state established,related accept
        iifname "\(client)" tcp flags & (fin|syn|rst|ack) == syn tcp dport { 80, 443 } ct state new accept
        iifname "\(client)" udp dport 53 ct state new accept
        iifname "\(client)" icmp type echo-request ct state new accept
      }
      chain nat {
        type nat hook postrouting priority srcnat;
        ip saddr 10.0.0.0/24 ip protocol { tcp, udp, icmp } snat to 203.0.113.1
      }
    }
    """
  }

  /// Hands the packet in at one side and waits for what comes out at the other.
  ///
  /// A tap's frames are forwarded before `write` returns, so the wait for one that is expected is only for odd days.
  func send(_ packet: TestPacket, from side: Direction, expecting: Bool) throws -> TestPacket? {
    // What the kernel says for itself (unreachables to whoever it could not serve) is not forwarding.
    for tap in taps.values { while tap.receive(milliseconds: 0) != nil {} }
    let link = Netfilter.routerMACs[side]! + (side == .forward ? Netfilter.clientMAC : Netfilter.serverMAC)
    try taps[side]!.send(link + packet.bytes[12...])
    guard let frame = taps[side.opposite]!.receive(milliseconds: expecting ? 50 : 1) else { return nil }
    return TestPacket(bytes: frame)
  }
}
