import FunctionCatalog
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

/// The same packets through our firewall and NAT and through Linux netfilter: what comes out must be the same, but for the
/// differences that docs/judged-by-netfilter.md lists with the clause that says who is right.
@Suite(.serialized, .enabled(if: Netfilter.obstacle == nil, Comment(rawValue: Netfilter.obstacle ?? "")))
struct NetfilterJudgeTests {
  /// A difference that is known: the line it happens at, and who lets the packet through.
  struct Difference: Hashable, Comparable {
    enum Who: String { case ours = "ours only", netfilter = "netfilter only", both = "both, differently" }
    let line: String
    let forwardedBy: Who
    static func < (a: Difference, b: Difference) -> Bool { (a.line, a.forwardedBy.rawValue) < (b.line, b.forwardedBy.rawValue) }
  }

  static let known: Set<Difference> = [
    Difference(line: "ACK of what was never sent", forwardedBy: .ours),
    Difference(line: "SYN in an established connection", forwardedBy: .ours),
    Difference(line: "SYN-ACK in an established connection", forwardedBy: .ours),
    Difference(line: "data far outside the window", forwardedBy: .ours),
    Difference(line: "error about data of an impossible number", forwardedBy: .netfilter),
  ]

  @Test func `our firewall and NAT do what netfilter does`() throws {
    var found: [Difference: Int] = [:]
    var (packets, forwarded) = (0, 0)
    for seed in UInt64(0)..<6 {
      var conversations = Conversations(seed: seed)
      var ours = OurSide()
      var theirs = TheirSide(netfilter: try Netfilter(label: "s\(seed)"))
      for number in 0..<42 {
        var told: [String] = []
        for line in conversations.next(number) {
          packets += 1
          told.append((line.side == .forward ? "→ " : "← ") + line.name)
          let mine = ours.hear(line)
          let judged = try theirs.hear(line, expecting: mine != nil)
          if judged != nil { forwarded += 1 }
          guard mine != judged else { continue }
          let who: Difference.Who = mine == nil ? .netfilter : judged == nil ? .ours : .both
          let difference = Difference(line: line.name, forwardedBy: who)
          found[difference, default: 0] += 1
          #expect(
            Self.known.contains(difference),
            "seed \(seed), conversation \(number): \(told.joined(separator: ", ")): ours \(mine.map(String.init(describing:)) ?? "drops it (\(ours.lastReason))"), netfilter \(judged.map(String.init(describing:)) ?? "drops it")"
          )
        }
      }
    }
    print("\(packets) packets, \(forwarded) forwarded by netfilter; differences:")
    for (difference, count) in found.sorted(by: { $0.key < $1.key }) {
      print("  \(difference.line): \(difference.forwardedBy.rawValue), \(count) times")
    }
    #expect(packets > 1000 && forwarded > packets / 2)
    #expect(Set(found.keys) == Self.known, "what is listed is also found")
  }
}
