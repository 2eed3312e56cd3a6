// Every keyword that is understood, ignored for a reason, or refused with one.

extension RuleParser {
  /// Say nothing about packets.
  private static let forPeople: Set<String> = ["reference", "metadata", "target"]

  /// Look into what only a parser of the application knows.
  private static let needingParsers: [String] = [
    "http", "http2", "file", "tls", "ssl", "dns", "ssh", "smb", "dcerpc", "ja3", "ja3s", "ja4", "krb5", "sip", "snmp", "smtp",
    "ftp", "ftpdata",
    "rdp", "rfb", "mqtt", "ike", "quic", "modbus", "dnp3", "cip", "enip", "nfs", "mime",
    "app-layer-protocol",
    "app-layer-event", "filestore", "filename", "fileext", "filemagic", "filesize", "filemd5", "filesha1", "filesha256",
  ]

  mutating func read(_ option: RuleText.Option, _ rule: inout Rule) throws(RuleRefusal) {
    switch option.keyword {
    case "msg": rule.message = message(option.value)
    case "sid": rule.sid = try number(option)
    case "gid": rule.gid = try number(option)
    case "rev": rule.revision = try number(option)
    case "priority": rule.priority = UInt8(try place(option, 1...255))
    case "classtype": ignored["classtype", default: 0] += 1
    case let keyword where Self.forPeople.contains(keyword): ignored[keyword, default: 0] += 1

    case "content": try readContent(option.value, in: buffer, &rule)
    case "uricontent": try readContent(option.value, in: .uri, &rule)
    case "bsize": try readSize(option, buffer, &rule)
    case "urilen": try readURILength(option, &rule)
    case "app-layer-protocol":
      guard option.text == "http" || option.text == "http1", rule.transport == .tcp || rule.transport == .any else {
        throw refusal(of: option.keyword)
      }
      (rule.transport, rule.application) = (.tcp, .http)
    case let keyword where Self.stickyBuffers[keyword] != nil: buffer = Self.stickyBuffers[keyword] ?? .raw
    case let keyword where Self.bufferModifiers[keyword] != nil:
      try modify(keyword, &rule) { c throws(RuleRefusal) in c.buffer = Self.bufferModifiers[keyword] ?? .raw }
    case "nocase":
      try modify("nocase", &rule) { content throws(RuleRefusal) in
        content.ignoresCase = true
        content.bytes = content.bytes.map(PatternAutomaton.fold)
      }
    case "offset": try modify("offset", &rule) { c throws(RuleRefusal) in c.offset = try place(option, 0...65_535) }
    case "depth": try modify("depth", &rule) { c throws(RuleRefusal) in c.depth = try place(option, 1...65_535) }
    case "distance": try modify("distance", &rule) { c throws(RuleRefusal) in c.distance = try place(option, -65_535...65_535) }
    case "within": try modify("within", &rule) { c throws(RuleRefusal) in c.within = try place(option, 1...65_535) }
    case "startswith":
      try modify("startswith", &rule) { c throws(RuleRefusal) in
        guard !c.isAnchored else { throw RuleRefusal("syntax", "startswith together with offset or depth") }
        (c.offset, c.depth) = (0, c.bytes.count)
      }
    case "endswith": try modify("endswith", &rule) { c throws(RuleRefusal) in c.isAtEnd = true }
    // Part of a content as the fast pattern ('fast_pattern:4,8') is a hint: all of it does as well.
    case "fast_pattern": try modify("fast_pattern", &rule) { c throws(RuleRefusal) in c.isFastPattern = !c.isNegated }
    case "rawbytes":
      ignored["rawbytes", default: 0] += 1
      try modify("rawbytes", &rule) { _ throws(RuleRefusal) in }
    case "isdataat": try readDataAt(option, &rule)

    case "flow": try readFlow(option, &rule)
    case "flowbits": try readFlowbits(option, &rule)
    case "noalert": rule.flowbits.isSilent = true
    case "threshold": rule.threshold = try threshold(option, detectionFilter: false)
    case "detection_filter": rule.threshold = try threshold(option, detectionFilter: true)
    case "dsize": try readPayloadSize(option, &rule)
    case "flags":
      rule.tests.append(
        try bits(
          option, .tcpFlags,
          letters: ["F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "2": 64, "C": 128, "1": 128, "0": 0]))
    case "fragbits": rule.tests.append(try bits(option, .fragmentBits, letters: ["M": 1, "D": 2, "R": 4]))
    case "sameip": rule.tests.append(.init(field: .sameAddress, low: 1, high: 1))
    case "ip_proto":
      rule.tests.append(
        try comparison(
          option, .ipProtocol, 255,
          names: ["icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58, "sctp": 132]))
    case "ttl": rule.tests.append(try comparison(option, .timeToLive, 255))
    case "tos": rule.tests.append(try comparison(option, .typeOfService, 255))
    case "id": rule.tests.append(try comparison(option, .identification, 65_535))
    case "seq": rule.tests.append(try comparison(option, .tcpSequence, .max))
    case "ack": rule.tests.append(try comparison(option, .tcpAcknowledgement, .max))
    case "window": rule.tests.append(try comparison(option, .tcpWindow, 65_535))
    case "itype": rule.tests.append(try comparison(option, .icmpType, 255))
    case "icode": rule.tests.append(try comparison(option, .icmpCode, 255))
    case "icmp_id": rule.tests.append(try comparison(option, .icmpIdentifier, 65_535))
    case "icmp_seq": rule.tests.append(try comparison(option, .icmpSequence, 65_535))
    default: throw refusal(of: option.keyword)
    }
  }

  private func refusal(of keyword: String) -> RuleRefusal {
    let family = keyword.prefix { $0 != "." && $0 != "_" }
    let why: String
    switch keyword {
    case "pcre": why = "pcre needs a regular-expression engine, which is not here; write contents instead"
    case "byte_test", "byte_jump", "byte_extract", "byte_math":
      why = "\(keyword) computes with bytes of the packet, which is not possible here"
    case _ where Self.needingParsers.contains(String(family)) || Self.needingParsers.contains(keyword):
      why = "\(keyword) looks into what only a parser of the application knows"
    default: why = "the keyword '\(keyword)' is not known"
    }
    return RuleRefusal("keyword '\(keyword)'", why)
  }

  /// Without its quotes, and without the backslashes before quotes, semicolons and backslashes.
  private func message(_ value: ArraySlice<UInt8>) -> String {
    var bytes: [UInt8] = []
    var isEscaped = false
    let isQuoted = value.count >= 2 && value.first == UInt8(ascii: "\"") && value.last == UInt8(ascii: "\"")
    for byte in isQuoted ? value.dropFirst().dropLast() : value {
      isEscaped = byte == UInt8(ascii: "\\") && !isEscaped
      if !isEscaped { bytes.append(byte) }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  // MARK: Flow

  private func readFlow(_ option: RuleText.Option, _ rule: inout Rule) throws(RuleRefusal) {
    func set<Value: Equatable>(_ place: inout Value?, _ value: Value) throws(RuleRefusal) {
      guard place == nil || place == value else { throw RuleRefusal("syntax", "flow:\(option.text) contradicts itself") }
      place = value
    }
    for word in option.text.split(separator: ",", omittingEmptySubsequences: false) {
      switch word.trimmed {
      case "to_server", "from_client": try set(&rule.flow.toServer, true)
      case "to_client", "from_server": try set(&rule.flow.toServer, false)
      case "established": try set(&rule.flow.isEstablished, true)
      case "not_established": try set(&rule.flow.isEstablished, false)
      case "stateless": break
      case "only_stream": rule.scope = .stream
      case "no_stream": rule.scope = .packet
      case let word: throw RuleRefusal("keyword 'flow:\(word)'", "flow knows no '\(word)'")
      }
    }
  }

  private mutating func readFlowbits(_ option: RuleText.Option, _ rule: inout Rule) throws(RuleRefusal) {
    let parts = option.text.split(separator: ",", maxSplits: 1, omittingEmptySubsequences: false).map { $0.trimmed }
    if parts == ["noalert"] {
      rule.flowbits.isSilent = true
      return
    }
    guard parts.count == 2 else { throw RuleRefusal("syntax", "flowbits:\(option.text) is not understood") }
    var bits: UInt64 = 0
    let names = parts[1].split(separator: "|", omittingEmptySubsequences: false)
    for name in names { bits |= try flowbit(name.trimmed) }
    guard names.count == 1 || parts[0] == "isset" else {
      throw RuleRefusal("syntax", "only flowbits:isset can name several bits")
    }
    switch parts[0] {
    case "set": rule.flowbits.set |= bits
    case "unset": rule.flowbits.unset |= bits
    case "toggle": rule.flowbits.toggled |= bits
    case "isnotset": rule.flowbits.forbidden |= bits
    case "isset" where names.count == 1: rule.flowbits.required |= bits
    case "isset" where rule.flowbits.anyOf == 0: rule.flowbits.anyOf = bits
    case let word: throw RuleRefusal("keyword 'flowbits:\(word)'", "flowbits:\(option.text) is not possible here")
    }
  }

  private mutating func flowbit(_ name: Substring) throws(RuleRefusal) -> UInt64 {
    guard !name.isEmpty else { throw RuleRefusal("syntax", "a flowbit without a name") }
    if let index = flowbitNames.firstIndex(where: { $0 == name }) { return 1 << UInt64(index) }
    guard flowbitNames.count < 64 else {
      throw RuleRefusal("more than 64 flowbits", "a flow has room for 64 bits; '\(name)' would be one more")
    }
    flowbitNames.append(String(name))
    return 1 << UInt64(flowbitNames.count - 1)
  }

  // MARK: Threshold

  /// `type limit, track by_src, count 1, seconds 60`.
  private func threshold(_ option: RuleText.Option, detectionFilter: Bool) throws(RuleRefusal) -> Rule.Threshold {
    var kind: Rule.Threshold.Kind? = detectionFilter ? .detectionFilter : nil
    var track: Rule.Threshold.Track?
    var count: UInt32?
    var seconds: UInt32?
    for part in option.text.split(separator: ",", omittingEmptySubsequences: false) {
      let words = part.split(separator: " ")
      guard words.count == 2 else { throw RuleRefusal("syntax", "'\(part.trimmed)' is not understood in \(option.keyword)") }
      switch (words[0], words[1]) {
      case ("type", "limit") where !detectionFilter: kind = .limit
      case ("type", "threshold") where !detectionFilter: kind = .threshold
      case ("type", "both") where !detectionFilter: kind = .both
      case ("track", "by_src"): track = .source
      case ("track", "by_dst"): track = .destination
      case ("track", "by_both"): track = .both
      case ("track", "by_rule"): track = .rule
      case ("count", let value): count = UInt32(value)
      case ("seconds", let value): seconds = UInt32(value)
      default: throw RuleRefusal("syntax", "'\(part.trimmed)' is not understood in \(option.keyword)")
      }
    }
    guard let kind, let track, let count, let seconds, count > 0, seconds > 0 else {
      throw RuleRefusal("syntax", "\(option.keyword) needs type, track, count and seconds")
    }
    return Rule.Threshold(kind: kind, track: track, count: count, seconds: seconds)
  }
}
