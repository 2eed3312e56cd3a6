import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

@testable import FunctionCatalog

/// Rules that look into the parts of HTTP messages.
@Suite struct HTTPRuleTests {
  private func runtime(_ rules: String, proto: String = "http") -> TestRuntime {
    let text = rules.contains("alert ") ? rules : "alert \(proto) any any -> any any (\(rules) sid:1;)"
    return TestRuntime(StreamInspection<2_048>(IntrusionPrevention(rules: text)))
  }

  private func alerts(_ runtime: TestRuntime) -> UInt64 { runtime.observed("ips.alerts") ?? 0 }

  private static let request =
    "POST /a/../cgi-bin//x%2ephp?q=%41b+c HTTP/1.1\r\nHost: Example.COM:8080\r\nUser-Agent: Tool/1.0 (x)\r\nCookie: a=b\r\n"
    + "Content-Type: text/plain\r\nX-Folded: one\r\n  two\r\nContent-Length: 11\r\n\r\nname=value&"

  private func alerts(_ options: String, _ pieces: [String], answers: [String] = []) -> UInt64 {
    alerts(runtime(options), pieces, answers: answers)
  }

  /// Of one more connection.
  private func alerts(_ runtime: TestRuntime, _ pieces: [String], answers: [String] = []) -> UInt64 {
    let before = alerts(runtime)
    var talk = Dialogue(Endpoint("10.0.0.5:\(1000 + UInt16(runtime.observed("ips.packets")!))")!)
    talk.open(runtime)
    for piece in pieces { runtime.send(talk.says(piece)) }
    for piece in answers { runtime.send(talk.answers(piece)) }
    return alerts(runtime) - before
  }

  /// The text in two pieces, cut at each place, and in pieces of one byte.
  private func cuts(_ text: String) -> [[String]] {
    let bytes = Array(text.utf8)
    func piece(_ part: some Sequence<UInt8>) -> String { String(decoding: Array(part), as: UTF8.self) }
    return stride(from: 1, to: bytes.count, by: 3).map { [piece(bytes[..<$0]), piece(bytes[$0...])] } + [
      bytes.map { piece([$0]) }
    ]
  }

  @Test(arguments: [
    (#"http.method; content:"POST";"#, true), (#"http.method; content:"GET";"#, false), (#"content:"POST"; http_method;"#, true),
    (#"http.uri; content:"/cgi-bin/x.php?q=Ab+c"; startswith; endswith;"#, true), (#"http.uri; content:"%2e";"#, false),
    (#"uricontent:"x.php";"#, true), (#"content:"x.php"; http_uri; content:"q="; distance:1; within:2; http_uri;"#, true),
    (#"http.uri.raw; content:"//x%2ephp";"#, true), (#"http.uri; bsize:21;"#, true), (#"urilen:21;"#, true),
    (#"urilen:<21;"#, false),
    (#"urilen:>22,raw;"#, true), (#"http.uri; bsize:!21; content:"cgi";"#, false),
    (#"http.request_line; content:"HTTP/1.1"; endswith;"#, true), (#"http.protocol; content:"HTTP/1.1"; bsize:8;"#, true),
    (#"http.host; content:"example.com"; bsize:11;"#, true), (#"http.host.raw; content:"Example.COM:8080";"#, true),
    (#"http.user_agent; content:"Tool/1.0 (x)"; startswith; endswith;"#, true), (#"http.user_agent; content:!"Mozilla";"#, true),
    (#"http.user_agent; content:!"Tool";"#, false), (#"http.referer; content:!"x";"#, false),
    (#"http.cookie; content:"a=b"; bsize:3;"#, true), (#"http.header; content:"Cookie";"#, false),
    (#"http.header; content:"|0d 0a|Content-Type|3a 20|text/plain|0d 0a|X-Folded|3a 20|one two|0d 0a|";"#, true),
    (#"http.header; content:"User-Agent: Tool"; content:"Content-Type"; distance:0;"#, true),
    (#"http.header.raw; content:"Cookie: a=b";"#, true),
    (#"http.header_names; content:"|0d 0a|Host|0d 0a|User-Agent|0d 0a|Cookie|0d 0a|"; startswith;"#, true),
    (#"http.header_names; content:!"Accept";"#, true), (#"http.content_type; content:"text/plain"; bsize:10;"#, true),
    (#"http.content_len; content:"11"; bsize:2;"#, true),
    (#"http.request_body; content:"name="; startswith; content:"value";"#, true),
    (#"http.request_body; content:"value"; endswith;"#, false), (#"http.request_body; content:"value&"; endswith;"#, true),
    (#"http.request_body; content:"name"; content:!"other";"#, true),
    (#"http.request_body; content:"name"; content:!"val";"#, false),
    (#"content:"name=value"; http_client_body;"#, true), (#"http.request_body; bsize:11;"#, true),
    (#"http.uri; content:"cgi-bin"; http.request_body; content:"value"; http.method; content:"POST";"#, true),
    (#"http.uri; content:"cgi-bin"; http.request_body; content:"no";"#, false),
    (#"content:"User-Agent|3a|"; http.method; content:"POST";"#, true),
    (#"content:"POST "; depth:5; content:"name"; distance:0;"#, true), (#"content:"nothing";"#, false),
  ])
  func `a rule finds what it asks for, once, however the request is cut`(options: String, matches: Bool) {
    let expected: UInt64 = matches ? 1 : 0
    let runtime = runtime(options)
    #expect(alerts(runtime, [Self.request]) == expected, "whole")
    for pieces in cuts(Self.request) {
      #expect(alerts(runtime, pieces) == expected, "in \(pieces.count), the first of \(pieces[0].utf8.count)")
    }
  }

  @Test(arguments: [
    ("/", "/"), ("/a/./b", "/a/b"), ("/a/../../b", "/b"), ("/a/..", "/"), ("/a/.", "/a/"), ("//a///b", "/a/b"),
    (#"/a\b"#, "/a/b"),
    ("/%2e%2e/etc", "/etc"), ("/a%zz%4", "/a%zz%4"), ("/%u0041", "/A"), ("http://host/x?y", "/x?y"),
    ("/x?a=../%2e//", "/x?a=.././/"),
    ("/..%2f..%2fx", "/x"), ("/a..b/", "/a..b/"), ("/x%3fy/../z", "/z"), ("/a b", "/a b"),
  ])
  func `a URI is read as a server reads it`(raw: String, normalized: String) {
    let escaped = normalized.replacing("\\", with: "|5c|")
    #expect(
      alerts(
        "http.uri; content:\"\(escaped)\"; startswith; endswith; bsize:\(normalized.utf8.count);", ["GET \(raw) HTTP/1.1\r\n\r\n"]
      ) == 1)
  }

  // MARK: Answers

  private static let get = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
  private static let page = "<html><title>c99 shell</title><body>uid=0</body></html>"
  private static let chunked =
    "HTTP/1.1 200 All fine\r\nServer: s/1\r\nSet-Cookie: z=1\r\nTransfer-Encoding: chunked\r\n\r\n"
    + "a;x=y\r\n<html><tit\r\n2D\r\nle>c99 shell</title><body>uid=0</body></html>\r\n0\r\nTrailer: x\r\n\r\n"

  @Test(arguments: [
    (#"http.stat_code; content:"200";"#, true), (#"http.stat_msg; content:"All fine"; bsize:8;"#, true),
    (#"http.response_line; content:"HTTP/1.1 200 All fine"; bsize:21;"#, true), (#"http.server; content:"s/1";"#, true),
    (#"http.cookie; content:"z=1"; bsize:3;"#, true),
    (#"flow:to_client; http.header; content:"Server: s/1|0d 0a|"; content:!"Cookie";"#, true),
    (#"file.data; content:"<title>c99 shell"; content:"uid=0"; distance:0;"#, true), (#"file_data; content:"a|3b|x=y";"#, false),
    (#"file.data; content:"<html>"; depth:6; content:"</html>"; endswith;"#, true), (#"http.response_body; bsize:55;"#, true),
    (#"http.stat_code; content:"200"; file.data; content:"</title>"; within:40; content:!"none";"#, true),
    (#"http.stat_code; content:"404"; file.data; content:"<title>";"#, false),
    (#"flow:established,to_client; content:"chunked|0d 0a 0d 0a|a"; content:"2D"; distance:0;"#, true),
  ])
  func `an answer in chunks is read however it is cut`(options: String, matches: Bool) {
    let expected: UInt64 = matches ? 1 : 0
    let runtime = runtime(options)
    #expect(alerts(runtime, [Self.get], answers: [Self.chunked]) == expected, "whole")
    for pieces in cuts(Self.chunked) {
      #expect(
        alerts(runtime, [Self.get], answers: pieces) == expected, "in \(pieces.count), the first of \(pieces[0].utf8.count)")
    }
  }

  @Test func `answers follow each other, each framed in its own way`() {
    let runtime = runtime(#"http.stat_code; content:"201";"#)
    var talk = Dialogue()
    talk.open(runtime)
    runtime.send(talk.says("HEAD / HTTP/1.1\r\n\r\n" + Self.get + Self.get + Self.get))
    let body = "\(Self.page.utf8.count)\r\n\r\n"
    runtime.send(
      talk.answers(
        "HTTP/1.1 201 A\r\nContent-Length: \(body)HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 B\r\nContent-Length: \(body)"
          + Self.page))
    runtime.send(talk.answers("HTTP/1.1 304 C\r\nContent-Length: \(body)" + Self.chunked + "HTTP/1.1 201 D\r\n\r\n"))
    #expect(alerts(runtime) == 3)
    runtime.send(talk.answers("HTTP/1.1 201 this is the body of the answer before, which has no length\r\n\r\n"))
    #expect(alerts(runtime) == 3)
  }

  @Test func `a body of unknown length ends with its stream`() {
    let runtime = runtime(#"file.data; content:"<html>"; content:!"sorry";"#)
    var talk = Dialogue()
    talk.open(runtime)
    runtime.send(talk.says(Self.get))
    runtime.send(talk.answers("HTTP/1.0 200 OK\r\n\r\n" + Self.page))
    #expect(alerts(runtime) == 0)
    runtime.send(.tcp(talk.server, talk.client, [.fin, .ack], seq: talk.serverNext, ack: talk.clientNext))
    #expect(alerts(runtime) == 1)
  }

  @Test func `an encoded body is not looked into, and counted`() {
    let runtime = runtime(#"file.data; content:"<html>";"#)
    var talk = Dialogue()
    talk.open(runtime)
    runtime.send(talk.says(Self.get))
    runtime.send(talk.answers("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 55\r\n\r\n" + Self.page))
    #expect(alerts(runtime) == 0 && runtime.observed("ips.http.bodies-encoded") == 1)
    runtime.send(talk.says(Self.get))
    runtime.send(talk.answers("HTTP/1.1 200 OK\r\nContent-Length: 55\r\n\r\n" + Self.page))
    #expect(alerts(runtime) == 1)
  }

  // MARK: What is HTTP

  @Test func `requests in one segment are each judged`() {
    let text =
      "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET /evil HTTP/1.1\r\n\r\nGET /c HTTP/1.1\r\n\r\nGET /evil HTTP/1.0\r\n\r\n"
    #expect(alerts(#"http.uri; content:"/evil"; startswith; endswith;"#, [text]) == 2)
    #expect(alerts(#"http.uri; content:"/"; startswith; http.user_agent; content:"x";"#, [text]) == 0)
  }

  @Test func `a rule of HTTP does not speak of what is something else`() {
    #expect(alerts(#"content:"evil";"#, ["EHLO evil\r\n", "MAIL FROM: evil\r\n"]) == 0)
    #expect(alerts(#"content:"evil";"#, [Self.get, "GET /evil HTTP/1.1\r\n\r\n"]) == 1)
    #expect(alerts(#"http.uri; content:"evil";"#, ["\u{16}\u{3}\u{1} GET /evil HTTP/1.1\r\n\r\n"]) == 0)
    #expect(runtime(#"http.uri; content:"evil";"#, proto: "tcp").observed("ips.rules.loaded") == 1)
  }

  @Test func `behind CONNECT it is not HTTP any more`() {
    let runtime = runtime(#"http.uri; content:"evil";"#)
    var talk = Dialogue()
    talk.open(runtime)
    runtime.send(talk.says("CONNECT evil:443 HTTP/1.1\r\n\r\n"))
    #expect(alerts(runtime) == 1)
    runtime.send(talk.answers("HTTP/1.1 200 Yes\r\n\r\n"))
    runtime.send(talk.says("GET /evil HTTP/1.1\r\n\r\n"))
    #expect(alerts(runtime) == 1)
  }

  @Test func `behind a hole, messages are found again where a segment begins with one`() {
    let runtime = runtime(#"http.uri; content:"evil";"#)
    var talk = Dialogue()
    talk.open(runtime)
    runtime.send(talk.says("POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n"))
    _ = talk.says(String(repeating: "x", count: 900))
    runtime.send(talk.says(String(repeating: "y", count: 100)))
    runtime.send(talk.acknowledges())
    runtime.send(talk.says("GET /evil HTTP/1.1\r\n\r\n"))
    #expect(alerts(runtime) == 1)
  }

  @Test func `what is dropped by its URI never reaches the server, nor does the rest of the connection`() {
    let runtime = runtime(
      #"drop http any any -> any any (http.uri; content:"/evil"; sid:1;)"#
        + "\nalert tcp any any -> any any (content:\"zz\"; sid:2;)")
    var talk = Dialogue()
    talk.open(runtime)
    #expect(runtime.send(talk.says("GET /ev%69l HTTP/1.1\r\nHost")).packet != nil)
    #expect(runtime.send(talk.says(": a\r\n\r\n")) == .dropped("dropped-by-rule"))
    #expect(runtime.send(talk.says("more")) == .dropped("flow-dropped-by-rule"))
  }

  @Test func `a connection that goes on with the numbers of the one before begins with a message of its own`() {
    let runtime = runtime(#"http.uri; content:"evil";"#)
    var talk = Dialogue()
    talk.open(runtime)
    runtime.send(talk.says("POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n"))
    runtime.send(.tcp(talk.client, talk.server, [.fin, .ack], seq: talk.clientNext, ack: talk.serverNext))
    runtime.send(.tcp(talk.server, talk.client, [.fin, .ack], seq: talk.serverNext, ack: talk.clientNext &+ 1))
    var again = Dialogue(first: talk.clientNext &- 1)
    again.open(runtime)
    runtime.send(again.says("GET /evil HTTP/1.1\r\n\r\n"))
    #expect(alerts(runtime) == 1)
  }

  @Test func `a head goes on where it was when its flow moves`() {
    let rule = #"http.uri; content:"evil"; http.user_agent; content:"Tool";"#
    let (here, there) = (runtime(rule), runtime(rule))
    var talk = Dialogue()
    talk.open(here)
    here.send(talk.says("GET /evil HTTP/1.1\r\nUser-Ag"))
    here.migrate(flowOf: talk.says(""), to: there)
    there.send(talk.says("ent: Tool\r\n\r\n"))
    #expect(alerts(here) == 0 && alerts(there) == 1)
  }

  @Test func `of a head that is larger than what is kept the first part is judged`() {
    let runtime = runtime(#"http.uri; content:"evil";"#)
    var talk = Dialogue()
    talk.open(runtime)
    runtime.send(talk.says("GET /evil HTTP/1.1\r\n"))
    for _ in 0..<30 { runtime.send(talk.says("X-Filler: " + String(repeating: "x", count: 90) + "\r\n")) }
    runtime.send(talk.says("\r\n"))
    #expect(alerts(runtime) == 1 && runtime.observed("ips.http.heads-cut") == 1)
  }

  @Test func `a rule speaks of requests or of answers`() {
    for (options, reason) in [
      (#"http.uri; content:"x"; http.stat_code; content:"200";"#, "syntax"),
      (#"flow:to_client; http.uri; content:"x";"#, "buffer of the other direction"),
      (#"flow:to_server; file.data; content:"x";"#, "buffer of the other direction"), (#"content:"x"; bsize:3;"#, "syntax"),
      (#"http.uri; content:"x"; dsize:3;"#, "syntax"),
    ] {
      #expect(
        RuleSet(text: "alert http any any -> any any (\(options) sid:1;)").report.refused.map(\.reason) == [reason], "\(options)")
    }
  }

  // MARK: Chance

  private static let hostileRules = """
    alert http any any -> any any (http.uri; content:"/a"; content:"b"; distance:0; sid:1;)
    alert http any any -> any any (http.header; content:"Host: a"; content:!"x"; sid:2;)
    alert http any any -> any any (http.method; content:"POST"; http.request_body; content:"ab"; content:"ba"; distance:0; sid:3;)
    alert http any any -> any any (http.request_body; content:!"abc"; sid:4;)
    alert http any any -> any any (file.data; content:"ab"; content:"b"; within:3; sid:5;)
    alert http any any -> any any (http.stat_code; content:"200"; file.data; content:!"zz"; sid:6;)
    alert http any any -> any any (urilen:>3; http.cookie; content:"a"; sid:7;)
    alert tcp any any -> any any (content:"GET"; content:"ab"; distance:1; sid:8;)
    alert http any any -> any any (http.header_names; content:"|0d 0a|Host|0d 0a|"; content:"a"; http_host; sid:9;)
    """

  private static let pieces = [
    "GET ", "POST ", "HEAD ", "/a/../b", "%61%", "?a=ab", " HTTP/1.1\r\n", " HTTP/1.0\n", "Host: a\r\n", "Cookie: a\r\n ab\r\n",
    "\r\n", "\n",
    "Content-Length: 5\r\n", "Content-Length: 99999999999999999999\r\n", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n",
    "0\r\n\r\n",
    "ffffffffffffffffff\r\n", "abba", "\u{0}", ":", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 304\r\n", "HTTP/1.1 101 x\r\n\r\n",
    "Content-Encoding: gzip\r\n",
  ]

  /// What rules find in a stream that comes in these pieces.
  private func found(_ runtime: TestRuntime, _ pieces: [ArraySlice<UInt8>], isAnswer: Bool = false) -> Set<String> {
    func counts() -> [String: UInt64] {
      Dictionary(
        uniqueKeysWithValues: runtime.chain.observe().filter { $0.name.hasPrefix("ips.alerts.1:") }.map { ($0.name, $0.value) })
    }
    let before = counts()
    let packets = runtime.observed("ips.packets")!
    var talk = Dialogue(Endpoint("10.0.\(packets >> 15).5:\(1000 + packets & 0x7fff)")!)
    talk.open(runtime)
    for piece in pieces {
      let bytes = Array(piece)
      if isAnswer {
        runtime.send(.tcp(talk.server, talk.client, [.psh, .ack], seq: talk.serverNext, ack: talk.clientNext, payload: bytes))
        talk.serverNext &+= UInt32(bytes.count)
      } else {
        runtime.send(talk.says(bytes))
      }
    }
    #expect(runtime.observed("ips.packets") == packets + UInt64(pieces.count) + 3)
    return Set(counts().filter { $0.value != before[$0.key] }.keys)
  }

  @Test(arguments: 0..<8)
  func `no messages, however odd, stop the program`(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    let ips = TestRuntime(StreamInspection<2_048>(IntrusionPrevention(rules: Self.hostileRules)))
    for _ in 0..<60 {
      let isAnswer = Bool.random(using: &random)
      let beginning = isAnswer ? "HTTP/1.1 200 OK\r\n" : "POST /ab HTTP/1.1\r\n"
      var text: [UInt8] = Bool.random(using: &random) ? Array(beginning.utf8) : []
      for _ in 0..<Int.random(in: 1...14, using: &random) {
        text += Array(Self.pieces.randomElement(using: &random)!.utf8)
        if .random(in: 0..<9, using: &random) == 0 { text.append(.random(in: 0...255, using: &random)) }
      }
      let cut = Int.random(in: 0...text.count, using: &random)
      _ = found(ips, [text[...]], isAnswer: isAnswer)
      _ = found(ips, [text[..<cut], text[cut...]], isAnswer: isAnswer)
      _ = found(ips, text.indices.map { text[$0...$0] }, isAnswer: isAnswer)
    }
  }

  @Test(arguments: 0..<8)
  func `what is found in right messages does not depend on how they are cut`(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    let ips = TestRuntime(StreamInspection<2_048>(IntrusionPrevention(rules: Self.hostileRules)))
    for _ in 0..<30 {
      func some(_ letters: String, _ lengths: ClosedRange<Int>) -> String {
        String((0..<Int.random(in: lengths, using: &random)).map { _ in letters.randomElement(using: &random)! })
      }
      let isAnswer = Bool.random(using: &random)
      var text = ""
      for _ in 0..<3 {
        let body = some("abcz", 0...40)
        text += isAnswer ? "HTTP/1.1 200 OK\r\n" : "POST /\(some("ab/%.", 0...12)) HTTP/1.1\r\n"
        text += ["Host: a\r\n", "Host: b\r\nCookie: a\r\n", "X: x\r\n", "Host: a\r\nA: x\r\n"].randomElement(using: &random)!
        if Bool.random(using: &random) {
          text += "Content-Length: \(body.utf8.count)\r\n\r\n\(body)"
        } else {
          text += "Transfer-Encoding: chunked\r\n\r\n"
          for letter in body { text += "1\r\n\(letter)\r\n" }
          text += "0\r\n\r\n"
        }
      }
      let bytes = Array(text.utf8)
      let whole = found(ips, [bytes[...]], isAnswer: isAnswer)
      let cuts = (1..<bytes.count).filter { _ in .random(in: 0..<25, using: &random) == 0 }
      let pieces = zip([0] + cuts, cuts + [bytes.count]).map { bytes[$0..<$1] }
      #expect(found(ips, pieces, isAnswer: isAnswer) == whole, "seed \(seed), cut at \(cuts):\n\(text)")
    }
  }
}
