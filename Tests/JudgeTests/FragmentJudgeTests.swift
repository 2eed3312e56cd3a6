import DPDKPorts
import Foundation
import ModuleGraphs
import NetworkFunctionTesting
import Testing
import Wire

/// Datagrams in fragments through our port's reassembly, firewall and NAT, and through netfilter's.
@Suite(
  .serialized, .enabled(if: Netfilter.obstacle == nil && Reassembler.shared != nil, "needs a namespace, and DPDK in this process")
)
struct FragmentJudgeTests {
  static let known: Set<NetfilterJudgeTests.Difference> = [.init(line: "one within another", forwardedBy: .netfilter)]

  /// A datagram's fragments, made wrong or not, by name.
  private static func cases(_ packet: TestPacket, id: UInt16, _ random: inout SplitMix) -> [(
    name: String, fragments: [TestPacket]
  )] {
    func of(_ parts: [Range<Int>]) -> [TestPacket] { parts.map { packet.fragment($0, id: id) } }
    let end = packet.fragmentableLength
    let parts = stride(from: 0, to: end, by: 504).map { $0..<min(end, $0 + 504) }
    return [
      ("in order", of(parts)), ("backwards", of(parts.reversed())), ("in any order", of(parts.shuffled(using: &random))),
      ("one missing", of(Array(parts.dropFirst()))), ("the last missing", of(parts.dropLast())),
      ("one that overlaps", of([0..<504, 496..<1_008, 1_008..<end])),
      ("one within another", of([0..<504, 504..<1_008, 512..<520, 1_008..<end])),
      ("two ends", of([0..<504]) + [packet.fragment(504..<1_000, id: id, isLast: true)] + of([1_008..<end])),
      ("a length that is no multiple of eight", [packet.fragment(0..<500, id: id, isLast: false)] + of([504..<end])),
    ]
  }

  @Test(arguments: [Netfilter.Kind.nat, .ipv6]) func `what comes of fragments is what netfilter makes of them`(
    kind: Netfilter.Kind
  ) throws {
    let reassembler = try #require(Reassembler.shared)
    var found: Set<NetfilterJudgeTests.Difference> = []
    var conversations = Conversations(seed: 11, isIPv6: kind == .ipv6)
    var ours = OurSide(kind)
    var theirs = TheirSide(netfilter: try Netfilter(label: "fragments", kind), kind)
    let count = Self.cases(
      .udp("10.0.0.1:1", "10.0.0.1:2", payload: Array(repeating: 1, count: 1_400)), id: 1, &conversations.random
    ).count
    var whole = 0
    for number in 0..<2 * count {
      let (client, server) = (conversations.client(), conversations.server(53))
      let payload = (0..<1_400).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ number) }
      // The client's query has to open a flow; so it is whole where the answer is judged.
      let isAnswer = number >= count
      if isAnswer {
        let query = Line.client("query", .udp(client, server, payload: [1]))
        _ = (ours.hear(query), try theirs.hear(query, expecting: true))
      }
      let line =
        isAnswer
        ? Line.server("answer", to: client, IPProtocol.udp) { .udp(server, $0, payload: payload) }
        : .client("query", .udp(client, server, payload: payload))
      var name = ""
      let random = conversations.random
      func fragments(_ packet: TestPacket) -> [TestPacket] {
        var same = random
        let chosen = Self.cases(packet, id: UInt16(1_000 + number), &same)[number % count]
        name = chosen.name
        return chosen.fragments
      }
      let mine = ours.hear(line, in: fragments, reassembler)
      let judged = try theirs.hear(line, in: fragments, expecting: mine != nil)
      if judged != nil { whole += 1 }
      guard mine != judged else { continue }
      let difference = NetfilterJudgeTests.Difference(name, mine, judged)
      found.insert(difference)
      #expect(
        Self.known.contains(difference),
        "\(isAnswer ? "answer" : "query") \(name): ours \(mine.map(String.init(describing:)) ?? "drops it (\(ours.lastReason))"), netfilter \(judged.map(String.init(describing:)) ?? "drops it")"
      )
    }
    #expect(whole >= 6)
    #expect(found == Self.known, "what is listed is also found")
  }
}

/// The reassembly that our nodes' ports have.
struct Reassembler {
  private let port: DPDKPort

  /// `nil` where DPDK cannot be started. The environment is the process's.
  nonisolated(unsafe) static let shared: Reassembler? = {
    guard
      (try? Environment(
        name: "judge", processors: Array(0..<ProcessInfo.processInfo.activeProcessorCount), memory: .ordinaryPages(megabytes: 256)
      ))
        != nil,
      let pool = try? MbufPool(name: "judged", count: 1_023), let large = try? LargePackets(name: "judged wholes", pool: pool),
      let port = try? DPDKPort(PortSpec("ring"), number: 78, pool: pool, large: large)
    else { return nil }
    return Reassembler(port: port)
  }()

  /// The datagram that the last of these fragments completes; `nil` if none does.
  func whole(_ fragments: [TestPacket]) -> TestPacket? {
    let (batch, whole) = (PacketBatch(), PacketBatch())
    var result: TestPacket?
    for fragment in fragments {
      guard port.makeFrame(in: batch, length: fragment.bytes.count, now: .zero) else { return nil }
      fragment.bytes.withUnsafeBytes { batch[0].write($0.baseAddress!, count: $0.count) }
      _ = port.reassemble(batch, mask: 1, into: whole, now: .zero)
      if !whole.isEmpty { result = TestPacket(bytes: whole[0].withBytes { Array($0) }) }
      port.release(whole, mask: whole.all)
      whole.removeAll()
      batch.removeAll()
    }
    return result
  }
}
