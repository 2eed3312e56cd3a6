import Testing
import Wire

@testable import FunctionCatalog

/// What is read of a rule, and why one is refused.
@Suite struct RuleParsingTests {
  private func rule(_ text: String) throws -> Rule {
    let set = RuleSet(text: text)
    #expect(set.report.refused.map(\.description) == [])
    return try #require(set.rules.first)
  }

  private func refusal(_ text: String) -> RefusedRule? {
    let set = RuleSet(file: "test.rules", text: text)
    #expect(set.rules.isEmpty, "\(text)")
    return set.report.refused.first
  }

  @Test func `a rule is read with everything in it`() throws {
    let rule = try rule(
      #"drop tcp $EXTERNAL_NET any -> [10.0.0.0/8,!10.0.0.1] [21,8000:8080] (msg:"a \"b\""; flow:established,to_server; "#
        + #"content:"USER |20|x\;"; nocase; depth:20; content:!"|0d 0A|"; within:5; dsize:>3; flags:PA+; threshold: type limit, track by_src, count 1, seconds 60; "#
        + "classtype:misc-activity; reference:url,example.org/?a=b; metadata:a b, c d; sid:2010642; rev:3; gid:5; priority:1;)")
    #expect(rule.action == .drop && rule.transport == .tcp)
    #expect((rule.sid, rule.gid, rule.revision, rule.priority) == (2_010_642, 5, 3, 1))
    #expect(rule.flow == .init(toServer: true, isEstablished: true))
    #expect(rule.contents[0].bytes == Array("user  x;".utf8) && rule.contents[0].ignoresCase && rule.contents[0].depth == 20)
    #expect(rule.contents[1].bytes == [13, 10] && rule.contents[1].isNegated && rule.contents[1].within == 5)
    #expect(rule.fastPattern == 0 && rule.message == #"a "b""#)
    #expect(rule.threshold == .init(kind: .limit, track: .source, count: 1, seconds: 60))
    #expect(rule.destinationPorts.ranges == [21...21, 8000...8080])
    #expect(rule.destination.ranges.count == 2, "10/8 with a hole")
  }

  @Test func `a group is its members without the negated ones, and a name stands for its group`() throws {
    let variables = RuleVariables([
      "A": "[10.0.0.0/24,!$B]", "B": "[10.0.0.8-10.0.0.15,10.0.0.20]", "C": "!$A", "P": "![1:1023,!80]",
    ])
    func contains(_ expression: String, _ address: String) throws -> Bool {
      let value = UInt128(try #require(IPAddress(address)))
      return try variables.addresses(expression).ranges.contains { $0.contains(value) }
    }
    for (address, isIn) in [
      ("10.0.0.7", true), ("10.0.0.8", false), ("10.0.0.20", false), ("10.0.1.1", false), ("2001:db8::1", false),
    ] {
      #expect(try contains("$A", address) == isIn, "\(address)")
      #expect(try contains("$C", address) != isIn, "\(address)")
      #expect(try contains("[$C,!2001:db8::/32]", address) == (!isIn && !address.hasPrefix("2001")))
    }
    #expect(try variables.ports("$P").ranges == [0...0, 80...80, 1024...65_535])
    #expect(try variables.ports("[!21,1:100]").ranges == [1...20, 22...100])
    #expect(try variables.ports(":1023").ranges == [0...1023])
  }

  @Test func `a name that stands for itself is refused, not followed for ever`() {
    let variables = RuleVariables(["X": "[$Y,$Y]", "Y": "[$X,$X]", "Z": "$UNKNOWN"])
    #expect(throws: RuleRefusal.self) { try variables.addresses("$X") }
    #expect(throws: RuleRefusal.self) { try variables.addresses("$Z") }
    #expect(throws: RuleRefusal.self) { try variables.addresses("!any") }
  }

  @Test(arguments: [
    ("dsize:10", 10, 10), ("dsize:<10", 0, 9), ("dsize:<=10", 0, 10), ("dsize:>8", 9, UInt32.max), ("dsize:>=8", 8, .max),
    ("dsize:8<>20", 9, 19),
  ])
  func `sizes are compared as they are written`(text: String, low: UInt32, high: UInt32) throws {
    let test = try #require(try rule("alert udp any any -> any any (\(text); sid:1;)").tests.first)
    #expect((test.low, test.high, test.comparison) == (low, high, .within))
  }

  @Test func `flags are exact, or at least, or any, or not all`() throws {
    func holds(_ text: String, _ flags: UInt32) throws -> Bool {
      try rule("alert tcp any any -> any any (flags:\(text); sid:1;)").tests.allSatisfy { $0.holds(flags) }
    }
    let (syn, ack, cwr) = (UInt32(2), UInt32(16), UInt32(128))
    #expect(try holds("S", syn) && !holds("S", syn | ack) && !holds("S", syn | cwr))
    #expect(try holds("S,12", syn | cwr) && holds("S,CE", syn | cwr))
    #expect(try holds("+S", syn | ack) && holds("S+", syn | ack) && !holds("+SA", syn))
    #expect(try holds("*SA", syn) && !holds("*SA", 1))
    #expect(try holds("!SA", syn) && !holds("!SA", syn | ack))
    #expect(try holds("0", 0) && !holds("0", syn))
  }

  @Test(arguments: [
    (#"alert tls any any -> any any (content:"a"; sid:1;)"#, "protocol 'tls'"),
    (#"alert tcp any any -> any any (pcre:"/a/"; sid:1;)"#, "keyword 'pcre'"),
    (#"alert tcp any any -> any any (dns.query; content:"a"; sid:1;)"#, "keyword 'dns.query'"),
    (#"alert tcp any any -> any any (byte_test:1,>,2,3; sid:1;)"#, "keyword 'byte_test'"),
    (#"alert tcp any any -> any any (frobnicate; sid:1;)"#, "keyword 'frobnicate'"),
    (#"alert tcp any any -> any any (flow:sideways; sid:1;)"#, "keyword 'flow:sideways'"),
    (#"alert tcp $NOWHERE any -> any any (sid:1;)"#, "unknown variable"),
    (#"log tcp any any -> any any (sid:1;)"#, "action 'log'"),
    (#"alert tcp any any => any any (sid:1;)"#, "syntax"), (#"alert tcp any any -> any (sid:1;)"#, "syntax"),
    (#"alert tcp any any -> any any (sid:1)"#, "syntax"), (#"alert tcp any any -> any any sid:1;"#, "syntax"),
    (#"alert tcp any any -> any any (msg:"no sid";)"#, "syntax"),
    (#"alert tcp any any -> any any (content:"a|0|"; sid:1;)"#, "syntax"),
    (#"alert tcp any any -> any any (content:"a|0d"; sid:1;)"#, "syntax"),
    (#"alert tcp any any -> any any (content:""; sid:1;)"#, "syntax"),
    (#"alert tcp any any -> any any (content:"abc"; depth:2; sid:1;)"#, "syntax"),
    (#"alert tcp any any -> any any (content:"abc"; offset:1; distance:2; sid:1;)"#, "syntax"),
    (#"alert tcp any any -> any any (nocase; sid:1;)"#, "syntax"),
    (#"alert tcp any any -> any any (content:"a"; within:len; sid:1;)"#, "syntax"),
    (#"alert udp any any -> any any (flags:S; sid:1;)"#, "syntax"),
    (#"alert tcp any any -> any any (flow:to_server,to_client; sid:1;)"#, "syntax"),
    (#"alert tcp any 70000 -> any any (sid:1;)"#, "syntax"), (#"alert tcp 10.0.0.300 any -> any any (sid:1;)"#, "syntax"),
    (#"alert tcp any any -> any any (threshold: type limit, count 1; sid:1;)"#, "syntax"),
    (#"alert tcp any any -> any any (dsize:9<>9; sid:1;)"#, "syntax"),
  ])
  func `what is not understood refuses the whole rule with its line`(text: String, reason: String) {
    let refused = refusal("# a comment\n\n\(text)")
    #expect(refused?.reason == reason, "\(text)")
    #expect(refused?.line == 3 && refused?.description.hasPrefix("test.rules:3: ") == true)
  }

  @Test func `comments, continued lines, carriage returns and other rules' mistakes do not matter`() {
    let set = RuleSet(
      text:
        "# alert tcp \\\r\nalert tcp any any -> \\\r\n any any (content:\"a\"; \\\n sid:1;)\r\nnonsense\nalert udp any any <> any 53 (sid:2;)\nalert ip any any -> any any (sid:2;)\n"
    )
    #expect(Set(set.rules.map(\.sid)) == [1, 2])
    #expect(set.rules.first { $0.sid == 1 }?.line == 2)
    #expect(set.report.refused.map(\.line) == [5, 7])
    #expect(set.report.refusedByReason.map(\.reason).sorted() == ["sid is taken", "syntax"])
  }

  @Test func `rules are judged pass before drop before alert, and makers of flowbits first`() {
    let set = RuleSet(
      text: """
        alert tcp any any -> any any (content:"x"; flowbits:isset,a; sid:1;)
        alert tcp any any -> any any (content:"x"; flowbits:set,a; sid:2;)
        drop tcp any any -> any any (content:"x"; sid:3;)
        pass tcp any any -> any any (content:"x"; sid:4;)
        alert tcp any any -> any any (content:"x"; priority:1; flowbits:isset,a; flowbits:set,b; sid:5;)
        """)
    #expect(set.rules.map(\.sid) == [4, 3, 2, 5, 1])
  }

  @Test func `a refused rule leaves no flowbit behind`() {
    var text = ""
    for sid in 1...100 { text += "alert tcp any any -> any any (flowbits:set,name\(sid); pcre:\"/a/\"; sid:\(sid);)\n" }
    text += "alert tcp any any -> any any (flowbits:set,one; sid:101;)\n"
    let set = RuleSet(text: text)
    #expect(set.rules.map(\.flowbits.set) == [1])
  }

  @Test func `the sixty-fifth flowbit is refused`() {
    let text = (1...65).map { "alert tcp any any -> any any (flowbits:set,name\($0); sid:\($0);)" }.joined(separator: "\n")
    let set = RuleSet(text: text)
    #expect(set.report.loaded == 64 && set.report.refused.map(\.reason) == ["more than 64 flowbits"])
  }
}
