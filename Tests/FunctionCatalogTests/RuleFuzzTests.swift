import ControlMessages
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

@testable import FunctionCatalog

/// Whatever is given to it as rules, the reader says what it took and what it refused, and nothing stops the program.
@Suite struct RuleFuzzTests {
  /// Rules as they are written, to be broken.
  private static let seeds: [String] = [
    #"alert tcp $EXTERNAL_NET any -> $HOME_NET 21 (msg:"root login"; flow:established,to_server; content:"USER "; nocase; depth:5; content:"root"; within:15; nocase; threshold: type threshold, track by_src, count 5, seconds 60; classtype:suspicious-login; sid:2010642; rev:3;)"#,
    #"drop udp [10.0.0.0/8,!10.0.0.53] 1024: -> any [53,5353] (dsize:8<>200; content:"|00 01|"; offset:2; depth:4; content:!"x"; distance:-3; within:9; isdataat:!10,relative; sid:7;)"#,
    #"alert icmp any any <> 192.0.2.1-192.0.2.9 any (itype:>8; icode:0; icmp_id:5; ttl:<10; fragbits:!D; sameip; ip_proto:!udp; sid:8;)"#,
    #"pass tcp ![10.0.0.1,2001:db8::/32] !21:23 -> any any (flags:*SF,12; window:!55808; ack:0; flowbits:isset,a|b; flowbits:set,c; noalert; sid:9;)"#,
    #"reject tcp-pkt any any -> any $HTTP_PORTS (content:"a\;b\"c|0d 0A|"; fast_pattern:1,2; startswith; content:"z"; endswith; priority:2; detection_filter: track by_dst, count 4, seconds 20; sid:10;)"#,
    #"alert http any any -> $HTTP_SERVERS any (flow:to_server; urilen:<90,raw; http.method; content:"POST"; http.uri; content:"USER"; bsize:!3; content:"aab"; http_header; http.request_body; content:"root"; distance:1; content:!"z"; sid:11;)"#,
    #"alert tcp any any -> any any (flow:to_client; http.stat_code; content:"200"; file_data; content:"ab"; within:9; pkt_data; content:"HTTP"; depth:4; sid:12;)"#,
  ]

  /// Pieces of the language in wrong places.
  private static let tokens = [
    "(", ")", ";", ":", ",", "!", "|", "\"", "\\", "\\;", "[", "]", "$", "<>", "->", "-", "any", "content:", "nocase;",
    "depth:1;", "within:2;", "http.uri;", "http_cookie;", "file.data;", "bsize:2;", "urilen:>1;",
    "distance:-1;", "flowbits:set,q;", "99999999999", "65535", "0", "-1", "\n", "\\\n", "\t", "\u{0}", "é",
  ]

  private func mutated(_ random: inout SeededGenerator) -> [UInt8] {
    var bytes = Array(Self.seeds.randomElement(using: &random)!.utf8)
    for _ in 0..<Int.random(in: 1...3, using: &random) {
      let at = Int.random(in: 0...bytes.count, using: &random)
      switch Int.random(in: 0..<5, using: &random) {
      case 0: bytes.insert(contentsOf: Self.tokens.randomElement(using: &random)!.utf8, at: at)
      case 1 where at < bytes.count: bytes[at] = .random(in: 0...255, using: &random)
      case 2 where at < bytes.count: bytes.removeSubrange(at..<min(bytes.count, at + .random(in: 1...20, using: &random)))
      case 3:
        let other = Array(Self.seeds.randomElement(using: &random)!.utf8)
        let start = Int.random(in: 0..<other.count, using: &random)
        bytes.insert(contentsOf: other[start..<min(other.count, start + .random(in: 1...40, using: &random))], at: at)
      // A number, a letter or a quote that is another one.
      default:
        guard at < bytes.count else { continue }
        bytes[at] = Array("0123456789aA\"|;".utf8).randomElement(using: &random)!
      }
    }
    return bytes
  }

  /// Loads the text and, if there are rules, lets a few packets meet them.
  private func tryRules(_ text: [UInt8]) -> RuleSetReport {
    let set = RuleSet(text: text)
    if set.report.loaded > 0 {
      let ips = IntrusionPrevention(set)
      let runtime = ips.needsStreams ? TestRuntime(StreamInspection<512>(ips)) : TestRuntime(ips)
      for packet in Self.packets { runtime.send(packet) }
    }
    return set.report
  }

  private static let packets: [TestPacket] = {
    let text = Array("xUSER aab root\r\na;b\"c z".utf8) + [0, 1, 0xc3, 0x28]
    let request = Array("POST /aab%20USER HTTP/1.1\r\nHost: aab\r\nContent-Length: 9\r\n\r\n root z ab".utf8)
    let answer = Array("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n".utf8)
    return [
      .tcp("10.0.0.1:5001", "192.0.2.1:80", .syn), .tcp("192.0.2.1:80", "10.0.0.1:5001", [.syn, .ack], seq: 9, ack: 1),
      .tcp("10.0.0.1:5001", "192.0.2.1:80", .ack, seq: 1, ack: 10, payload: Array(request.prefix(30))),
      .tcp("10.0.0.1:5001", "192.0.2.1:80", .ack, seq: 31, ack: 10, payload: Array(request.dropFirst(30))),
      .tcp("192.0.2.1:80", "10.0.0.1:5001", .ack, seq: 10, ack: 90, payload: answer),
      .udp("10.0.0.1:5000", "192.0.2.1:53", payload: text), .tcp("10.0.0.1:5000", "192.0.2.1:21", .syn),
      .tcp("192.0.2.1:21", "10.0.0.1:5000", [.syn, .ack], seq: 9, ack: 1),
      .tcp("10.0.0.1:5000", "192.0.2.1:21", .ack, seq: 1, ack: 10, payload: Array(text.prefix(9))),
      .tcp("10.0.0.1:5000", "192.0.2.1:21", .ack, seq: 10, ack: 10, payload: Array(text.dropFirst(9))),
      .icmpEchoRequest("10.0.0.1", "192.0.2.1", id: 5), .udp("[2001:db8::1]:1", "[2001:db8::2]:53"),
    ]
  }()

  @Test func `the rules to break are right before they are broken`() {
    for seed in Self.seeds { #expect(RuleSet(text: seed).report.loaded == 1, "\(RuleSet(text: seed).report.refused)") }
  }

  @Test(arguments: 0..<8)
  func `broken rules are loaded or refused, one or the other`(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    var loaded = 0
    var refused = 0
    for _ in 0..<300 {
      let report = tryRules(mutated(&random))
      loaded += report.loaded
      refused += report.refused.count
      for rule in report.refused { #expect(!rule.detail.isEmpty && rule.line > 0) }
    }
    #expect(loaded > 0 && refused > 100, "seed \(seed): \(loaded) loaded, \(refused) refused")
  }

  @Test func `bytes that are no rules at all are refused`() {
    var random = SeededGenerator(seed: 99)
    for _ in 0..<300 {
      _ = tryRules((0..<Int.random(in: 0...300, using: &random)).map { _ in .random(in: 0...255, using: &random) })
    }
    for _ in 0..<300 {
      _ = tryRules((0..<Int.random(in: 0...40, using: &random)).flatMap { _ in Self.tokens.randomElement(using: &random)!.utf8 })
    }
  }

  @Test func `the kept hard cases are judged as before`() throws {
    let text = try Corpus.bytes("hostile.rules")
    let report = tryRules(text)
    let loaded = RuleSet(text: text).signatures.map(\.sid).sorted()
    #expect(loaded == [2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 16, 17, 18, 19], "\(report.refused)")
    for rule in RuleText.lines(of: text) { _ = tryRules(Array(rule.text)) }
  }
}
