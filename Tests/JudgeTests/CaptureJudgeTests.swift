import CaptureFiles
import Foundation
import ModuleGraphs
import NetworkFunctionTesting
import Testing
import Wire

/// Packets that nobody here has made, through our firewall and through netfilter.
///
/// A capture's hosts are given addresses of the judge's networks: in each flow the sender of the first packet is a client, its
/// peer a server. Times are not: both see the packets at once.
@Suite(
  .serialized,
  .enabled(
    if: Netfilter.obstacle == nil && JudgedCaptures.all.count > 0, "needs a namespace, and captures in NFV_SHARED or ../shared"))
struct CaptureJudgeTests {
  static let known: Set<NetfilterJudgeTests.Difference> = [
    .init(line: "TCP behind a segment that was dropped", forwardedBy: .ours),
    .init(line: "TCP behind a RST", forwardedBy: .netfilter),
  ]

  @Test func `our firewall does with captures what netfilter does`() throws {
    var found: [NetfilterJudgeTests.Difference: Int] = [:]
    var (packets, forwarded, flows) = (0, 0, 0)
    for capture in JudgedCaptures.all {
      let lines = try JudgedCaptures.lines(of: capture, atMost: 250)
      guard !lines.isEmpty else { continue }
      var ours = OurSide(.captures)
      var theirs = TheirSide(netfilter: try Netfilter(label: "captures", .captures), .captures)
      // Where they have differed once in a flow, they differ in what follows.
      var given: Set<String> = []
      flows += Set(lines.map(\.flow)).count
      for (flow, line) in lines where !given.contains(flow) {
        packets += 1
        let mine = ours.hear(line)
        let judged = try theirs.hear(line, expecting: mine != nil)
        if judged != nil { forwarded += 1 }
        guard mine != judged else { continue }
        given.insert(flow)
        let difference = NetfilterJudgeTests.Difference(line.name, mine, judged)
        found[difference, default: 0] += 1
        #expect(
          Self.known.contains(difference),
          "\(capture.lastPathComponent), \(flow): ours \(mine.map(String.init(describing:)) ?? "drops it (\(ours.lastReason))"), netfilter \(judged.map(String.init(describing:)) ?? "drops it")"
        )
      }
    }
    print("\(packets) packets in \(flows) flows, \(forwarded) forwarded by netfilter; differences: \(found)")
    #expect(forwarded > packets / 2)
    #expect(Set(found.keys) == Self.known, "what is listed is also found")
  }
}

enum JudgedCaptures {
  /// Captures shared by several projects, and not part of this one: `NFV_SHARED`, or `../shared`, beside the package.
  static let all: [URL] = {
    var package = URL(filePath: #filePath)
    for _ in 0..<3 { package.deleteLastPathComponent() }
    let given = ProcessInfo.processInfo.environment["NFV_SHARED"].map { URL(filePath: $0) }
    let roots = [given, package.deletingLastPathComponent().appending(path: "shared")].compactMap { $0 }
    for root in roots.flatMap({ [$0, $0.appending(path: "data")] }) {
      let files = FileManager.default.enumerator(at: root.appending(path: "pcap"), includingPropertiesForKeys: nil)
      let captures = files?.compactMap { $0 as? URL }.filter { $0.pathExtension == "pcap" }.sorted { $0.path < $1.path } ?? []
      if !captures.isEmpty { return captures }
    }
    return []
  }()

  /// The first packets of a capture that are TCP, UDP or echo over plain IPv4, each as a line of its flow.
  static func lines(of capture: URL, atMost count: Int) throws -> [(flow: String, line: Line)] {
    let reader = try CaptureReader(path: capture.path)
    var hosts = Hosts()
    var lines: [(flow: String, line: Line)] = []
    let batch = PacketBatch()
    while lines.count < count, reader.read(into: batch) != nil {
      for index in 0..<batch.count {
        let packet = TestPacket(bytes: batch[index].withBytes { Array($0) })
        guard let line = hosts.line(packet) else { continue }
        lines.append(line)
      }
      batch.removeAll()
    }
    return lines
  }

  /// Who is who in a capture.
  private struct Hosts {
    private var addresses: [String: IPv4Address] = [:]
    private var clients: [Set<Endpoint>: [UInt8: Endpoint]] = [:]
    /// What has happened in a flow before, that its next packets are named by.
    private var histories: [Set<Endpoint>: String] = [:]

    private mutating func address(_ host: IPAddress, isClient: Bool) -> IPv4Address {
      let key = "\(host) \(isClient)"
      if let known = addresses[key] { return known }
      // Behind the neighbour, 10.1.0.0/16 and 192.168.1.0 on.
      let new = IPv4Address((isClient ? 0x0a01_0001 : 0xc0a8_0101) + UInt32(addresses.count))
      addresses[key] = new
      return new
    }

    mutating func line(_ packet: TestPacket) -> (flow: String, line: Line)? {
      guard packet.bytes.count > 34, packet.bytes[12] == 8, packet.bytes[13] == 0, packet.parsed(checksums: .trust) == nil else {
        return nil
      }
      let number = packet.protocolNumber
      let isEcho = number == IPProtocol.icmp && [0, 8].contains(packet.icmpTypeAndCode.first)
      guard number == IPProtocol.tcp || number == IPProtocol.udp || isEcho else { return nil }
      var (source, destination) = (packet.source, packet.destination)
      if isEcho { (source.port, destination.port) = (source.port | destination.port, source.port | destination.port) }
      let key: Set<Endpoint> = [source, destination]
      // Captured before it was cut into segments: larger than the judge's links take.
      if packet.bytes.count > 8_900 {
        histories[key] = " behind a segment that was dropped"
        return nil
      }
      let client = clients[key]?[number] ?? source
      clients[key, default: [:]][number] = client
      let isForward = source == client
      let from = address(source.address, isClient: isForward)
      let to = address(destination.address, isClient: !isForward)
      var changed = TestPacket(bytes: packet.bytes)
      changed.withFrame { frame in
        _ = frame.parse(checksums: .trust)
        frame.rewriteSource(from, port: frame.sourcePort)
        frame.rewriteDestination(to, port: frame.destinationPort)
      }
      changed.bytes.replaceSubrange(0..<12, with: [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1])
      var name = number == IPProtocol.udp ? "UDP" : "echo"
      if number == IPProtocol.tcp {
        name = "TCP\(histories[key] ?? " flags \(changed.tcpFlags.rawValue)")"
        // Captured where the NIC was to fill the checksum in.
        if changed.parsed() != nil { histories[key] = " behind a segment that was dropped" }
        if changed.tcpFlags.contains(.rst) { histories[key] = " behind a RST" }
      }
      let line = Line(
        name: name, side: isForward ? .forward : .reverse, client: Endpoint(isForward ? from : to, port: client.port),
        protocolNumber: number
      ) { _ in changed }
      return ("\(number) \(client) and \(isForward ? destination : source)", line)
    }
  }
}
