import ControlMessages
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

@testable import FunctionCatalog

/// Rules whose contents come in different segments of a stream.
@Suite struct StreamMemoryTests {
  private func runtime(_ options: String) -> TestRuntime {
    TestRuntime(StreamInspection<2_048>(IntrusionPrevention(rules: "alert tcp any any -> any any (\(options) sid:1;)")))
  }

  private func alerts(_ runtime: TestRuntime) -> UInt64 { runtime.observed("ips.alerts") ?? 0 }

  private func alerts(_ options: String, _ pieces: [String]) -> UInt64 { alerts(runtime(options), pieces) }

  /// Of one more connection.
  private func alerts(_ runtime: TestRuntime, _ pieces: [String]) -> UInt64 {
    let before = alerts(runtime)
    let port = 1000 + UInt16(runtime.observed("ips.packets")!)
    var talk = Dialogue(Endpoint("10.0.0.5:\(port)")!, first: .max &- 10)
    talk.open(runtime)
    for piece in pieces { runtime.send(talk.says(piece)) }
    return alerts(runtime) - before
  }

  @Test(arguments: [
    (#"content:"AllWork"; content:"DullBoy"; distance:1; within:8;"#, "xAllWork DullBoyx", true),
    (#"content:"AllWork"; content:"DullBoy"; distance:2; within:9;"#, "xAllWork DullBoyx", false),
    (#"content:"AllWork"; content:"DullBoy"; within:9;"#, "AllWork...DullBoy", false),
    (#"content:"ab"; content:"AllWorkAndNoPlay"; distance:0;"#, "x ab AllWorkAndNoPlay", true),
    (#"content:"AllWorkAndNoPlay"; content:"ab"; distance:0;"#, "ab AllWorkAndNoPlay ab", true),
    (#"content:"AllWorkAndNoPlay"; content:"ab"; distance:0;"#, "ab AllWorkAndNoPlay ba", false),
    (#"content:"user"; offset:2; depth:4; content:"root"; offset:8; depth:6;"#, "x user root", false),
    (#"content:"user"; offset:2; depth:4; content:"root"; offset:8; depth:6;"#, "x user   root", true),
    (#"content:"user"; depth:6; content:"root"; nocase; content:"shell"; distance:1; within:5;"#, "x user ROOT:shell", true),
    (#"content:"ab"; content:"abc"; distance:0; content:"de"; within:3;"#, "ab abcx abcxde", true),
    (#"content:"login"; isdataat:6,relative;"#, "login: someone", true),
    (#"content:"login"; isdataat:20,relative;"#, "login: x", false),
  ])
  func `contents are found however the stream is cut`(options: String, text: String, matches: Bool) {
    let expected: UInt64 = matches ? 1 : 0
    let runtime = runtime(options)
    #expect(alerts(runtime, [text]) == expected, "whole")
    for cut in 0...text.utf8.count {
      #expect(alerts(runtime, [String(text.prefix(cut)), String(text.dropFirst(cut))]) == expected, "cut at \(cut)")
    }
    #expect(alerts(runtime, text.map { String($0) }) == expected, "byte by byte")
  }

  @Test func `what was found is not found again`() {
    #expect(alerts(#"content:"one"; content:"two"; distance:0;"#, ["one two", " three", " four", " two"]) == 1)
    #expect(alerts(#"content:"one"; content:"two"; distance:0;"#, ["one", " two", " one", " two"]) == 2)
  }

  @Test func `what lies further back than is kept is forgotten`() {
    let filler = String(repeating: ".", count: 100)
    let options = #"content:"FirstPart"; content:"SecondPart"; distance:0;"#
    #expect(alerts(options, ["FirstPart"] + Array(repeating: filler, count: 9) + ["SecondPart"]) == 1)
    #expect(alerts(options, ["FirstPart"] + Array(repeating: filler, count: 11) + ["SecondPart"]) == 0)
  }

  @Test func `both directions have a memory of their own, which moves with the flow`() {
    let options = #"content:"FirstPart"; content:"SecondPart"; distance:0;"#
    let (here, there) = (runtime(options), runtime(options))
    var talk = Dialogue()
    talk.open(here)
    here.send(talk.says("FirstPart"))
    here.send(talk.answers("SecondPart"))
    here.send(talk.answers("FirstPart"))
    #expect(alerts(here) == 0)
    here.migrate(flowOf: talk.says(""), to: there)
    there.send(talk.says("SecondPart"))
    #expect(alerts(there) == 1)
    there.send(talk.answers("SecondPart"))
    #expect(alerts(there) == 2)
  }

  @Test func `behind a hole in the stream nothing is put together with what was before it`() {
    let runtime = runtime(#"content:"FirstPart"; content:"SecondPart"; distance:0;"#)
    var talk = Dialogue()
    talk.open(runtime)
    runtime.send(talk.says("FirstPart"))
    let lost = talk.says("lost")
    runtime.send(talk.says("beyond"))
    runtime.send(talk.acknowledges())
    #expect(runtime.observed("ips.tcp.holes-filled") == 1)
    runtime.send(talk.says("SecondPart"))
    #expect(alerts(runtime) == 0)
    runtime.send(lost)
    #expect(alerts(runtime) == 0)
  }

  @Test func `a memory is had where a rule needs one, unless it is set otherwise`() throws {
    func memory(_ rule: String, _ setting: String = "") throws -> Int {
      try IntrusionPrevention(reader: SettingsReader(text: "rules:\n  - \(rule)\n\(setting)")).streamMemory
    }
    #expect(try memory("alert tcp any any -> any any (content:\"xy\"; sid:1;)") == 0)
    #expect(try memory("alert udp any any -> any any (content:\"xy\"; content:\"z\"; sid:1;)") == 0)
    #expect(try memory("alert tcp any any -> any any (content:\"xy\"; content:\"z\"; sid:1;)") == 2_048)
    #expect(try memory("alert tcp any any -> any any (content:\"xy\"; content:\"z\"; sid:1;)", "stream-memory: 512") == 512)
    #expect(try memory("alert http any any -> any any (content:\"xy\"; sid:1;)") == 2_048)
    #expect(throws: SettingsError.self) {
      try memory("alert http any any -> any any (content:\"xy\"; sid:1;)", "stream-memory: 0")
    }
  }

  @Test(arguments: 0..<20)
  func `what is found in a stream does not depend on how it is cut`(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    func word(_ lengths: ClosedRange<Int>) -> String {
      String((0..<Int.random(in: lengths, using: &random)).map { _ in "abAB".randomElement(using: &random)! })
    }
    let rules = (0..<8).map { index in
      let second = ["distance:\(Int.random(in: 0...3, using: &random));", "within:9;", "distance:1; within:7;", ""]
        .randomElement(using: &random)!
      let folded = index % 2 == 0 ? "nocase; " : ""
      return
        "alert tcp any any -> any any (content:\"\(word(2...5))\"; \(folded)content:\"\(word(1...4))\"; \(second) sid:\(index + 1);)"
    }.joined(separator: "\n")
    let ips = StreamInspection<2_048>(IntrusionPrevention(rules: rules))
    let stream = (0..<80).map { _ in Array("abABx".utf8).randomElement(using: &random)! }
    func found(_ cuts: [Int]) -> Set<String> {
      let runtime = TestRuntime(ips)
      var talk = Dialogue()
      talk.open(runtime)
      for (from, to) in zip([0] + cuts, cuts + [stream.count]) { runtime.send(talk.says(Array(stream[from..<to]))) }
      return Set(runtime.chain.observe().map(\.name).filter { $0.hasPrefix("ips.alerts.1:") })
    }
    let whole = found([])
    for _ in 0..<10 {
      let cuts = (1..<stream.count).filter { _ in .random(in: 0..<6, using: &random) == 0 }
      #expect(found(cuts) == whole, "seed \(seed): cut at \(cuts)\n\(rules)\n\(String(decoding: stream, as: UTF8.self))")
    }
  }
}
