/// Reads one rule of the Suricata and Snort language, or says why it cannot.
///
/// Whatever is not fully understood refuses the rule: half a rule would match what its author did not mean. The
/// keywords are in a table in docs/intrusion-prevention.md, their reading in `RuleParser+Keywords.swift` and
/// `RuleParser+Contents.swift`.
struct RuleParser {
  let variables: RuleVariables
  /// Names of flowbits, by bit; shared by the rules of a set.
  var flowbitNames: [String] = []
  /// Keywords that were read and have no effect here, and how many rules have them.
  var ignored: [String: Int] = [:]
  /// What the contents that follow are looked for in.
  var buffer = Rule.Buffer.raw

  init(variables: RuleVariables) { self.variables = variables }

  mutating func parse(_ line: ArraySlice<UInt8>, number: Int) throws(RuleRefusal) -> Rule {
    let text = try RuleText(line)
    var rule = Rule()
    rule.line = number
    try readHeader(text.header, &rule)
    var parser = self
    parser.buffer = .raw
    for option in text.options { try parser.read(option, &rule) }
    try finish(&rule)
    // Names and notes of a refused rule do not stay.
    self = parser
    return rule
  }

  // MARK: Header

  private func readHeader(_ words: [String], _ rule: inout Rule) throws(RuleRefusal) {
    switch words[0] {
    case "alert": rule.action = .alert
    case "drop", "reject", "rejectsrc", "rejectdst", "rejectboth": rule.action = .drop
    case "pass": rule.action = .pass
    default: throw RuleRefusal("action '\(words[0])'", "the action '\(words[0])' is not alert, drop, reject or pass")
    }
    try readProtocol(words[1], &rule)
    rule.source = try variables.addresses(words[2])
    rule.sourcePorts = try variables.ports(words[3])
    rule.destination = try variables.addresses(words[5])
    rule.destinationPorts = try variables.ports(words[6])
    switch words[4] {
    case "->": break
    case "<>": rule.isBidirectional = true
    default: throw RuleRefusal("syntax", "the direction '\(words[4])' is not -> or <>")
    }
    let hasPorts = rule.transport == .tcp || rule.transport == .udp || rule.transport == .any
    guard hasPorts || (rule.sourcePorts.isAll && rule.destinationPorts.isAll) else {
      throw RuleRefusal("syntax", "ICMP has no ports")
    }
  }

  private func readProtocol(_ name: String, _ rule: inout Rule) throws(RuleRefusal) {
    switch name {
    case "ip": rule.transport = .any
    case "tcp": rule.transport = .tcp
    case "tcp-pkt": (rule.transport, rule.scope) = (.tcp, .packet)
    case "tcp-stream": (rule.transport, rule.scope) = (.tcp, .stream)
    case "http", "http1": (rule.transport, rule.application) = (.tcp, .http)
    case "udp": rule.transport = .udp
    case "icmp": rule.transport = .icmp
    case "ip4", "ipv4": rule.tests.append(.init(field: .addressFamily, low: 4, high: 4))
    case "ip6", "ipv6": rule.tests.append(.init(field: .addressFamily, low: 6, high: 6))
    case "icmpv4", "icmpv6":
      let family: UInt32 = name == "icmpv4" ? 4 : 6
      rule.transport = .icmp
      rule.tests.append(.init(field: .addressFamily, low: family, high: family))
    default:
      throw RuleRefusal(
        "protocol '\(name)'",
        "the protocol '\(name)' would need a parser of that application; tcp, udp, icmp, ip and http are known")
    }
  }

  // MARK: The whole

  private func finish(_ rule: inout Rule) throws(RuleRefusal) {
    guard rule.sid != 0 else { throw RuleRefusal("syntax", "there is no sid") }
    guard rule.contents.count <= 64 else { throw RuleRefusal("syntax", "more than 64 contents") }
    let fields = rule.tests.map(\.field)
    let needs: [(Rule.Transport, [Rule.FieldTest.Field])] = [
      (.tcp, [.tcpFlags, .tcpSequence, .tcpAcknowledgement, .tcpWindow]),
      (.icmp, [.icmpType, .icmpCode, .icmpIdentifier, .icmpSequence]),
    ]
    for (transport, special) in needs where !Set(fields).isDisjoint(with: special) {
      guard rule.transport == transport else {
        throw RuleRefusal("syntax", "a keyword of \(transport) in a rule for \(rule.transport)")
      }
    }
    // A number of the packet is compared with this packet: what it goes with has to be in it, too.
    if fields.contains(.payloadLength) {
      guard rule.scope != .stream else { throw RuleRefusal("syntax", "dsize in a rule for tcp-stream") }
      rule.scope = .packet
    }
    try finishBuffers(&rule)
    // A single byte is everywhere: it would prompt the rule for every packet, and weaken the filter for all others.
    // A rule with buffers of HTTP is judged when those are there: what prompts it has to be in one of them.
    let hasBuffers = rule.contents.contains { $0.buffer != .raw }
    let positive = rule.contents.indices.filter {
      let content = rule.contents[$0]
      return !content.isNegated && content.bytes.count > 1 && (content.buffer != .raw) == hasBuffers
    }
    rule.fastPattern =
      positive.first { rule.contents[$0].isFastPattern }
      ?? positive.max { rule.contents[$0].bytes.count < rule.contents[$1].bytes.count }
  }
}
