import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

@testable import FunctionCatalog

/// A TCP connection as two sides see it: what they say next has the right numbers.
struct Dialogue {
  let client: Endpoint
  let server: Endpoint
  var clientNext: UInt32
  var serverNext: UInt32

  init(_ client: Endpoint = "10.0.0.5:4000", _ server: Endpoint = "192.0.2.1:80", first: UInt32 = 1000) {
    self.client = client
    self.server = server
    clientNext = first
    serverNext = first &+ 77_000
  }

  mutating func open(_ runtime: TestRuntime) {
    runtime.send(.tcp(client, server, .syn, seq: clientNext))
    clientNext &+= 1
    runtime.send(.tcp(server, client, [.syn, .ack], seq: serverNext, ack: clientNext))
    serverNext &+= 1
    runtime.send(.tcp(client, server, .ack, seq: clientNext, ack: serverNext))
  }

  mutating func says(_ text: String) -> TestPacket { says(Array(text.utf8)) }

  mutating func says(_ payload: [UInt8]) -> TestPacket {
    defer { clientNext &+= UInt32(payload.count) }
    return .tcp(client, server, [.psh, .ack], seq: clientNext, ack: serverNext, payload: payload)
  }

  mutating func answers(_ text: String) -> TestPacket {
    defer { serverNext &+= UInt32(text.utf8.count) }
    return .tcp(server, client, [.psh, .ack], seq: serverNext, ack: clientNext, payload: Array(text.utf8))
  }

  func acknowledges() -> TestPacket { .tcp(server, client, .ack, seq: serverNext, ack: clientNext) }
}

/// Signatures in streams: split, doubled, out of order.
@Suite struct StreamScanningTests {
  private func runtime(_ rules: String, dropsOutOfOrder: Bool = false) -> TestRuntime {
    var options = IntrusionPrevention.Options()
    options.dropsOutOfOrder = dropsOutOfOrder
    return TestRuntime(IntrusionPrevention(rules: rules, options: options))
  }

  private func alerts(_ runtime: TestRuntime) -> UInt64 { runtime.observed("ips.alerts") ?? 0 }

  private let signature = #"alert tcp any any -> any any (content:"AttackSignature"; sid:1;)"#
  private let text = "some AttackSignature here"

  @Test func `a signature is found wherever the stream is cut in two`() {
    for cut in 0...text.utf8.count {
      let runtime = runtime(signature)
      var talk = Dialogue(first: .max &- 10)  // the numbers wrap, too
      talk.open(runtime)
      runtime.send(talk.says(String(text.prefix(cut))))
      runtime.send(talk.says(String(text.dropFirst(cut))))
      #expect(alerts(runtime) == 1, "cut at \(cut)")
    }
  }

  @Test func `a signature is found byte by byte, in either direction`() {
    let runtime = runtime(signature)
    var talk = Dialogue()
    talk.open(runtime)
    for byte in text { runtime.send(talk.says(String(byte))) }
    #expect(alerts(runtime) == 1)
    for byte in text { runtime.send(talk.answers(String(byte))) }
    #expect(alerts(runtime) == 2)
  }

  @Test func `the case of letters counts across a cut, unless the rule says nocase`() {
    for (rule, said, expected) in [
      (#"content:"AttackSignature";"#, "attackSignature", 0), (#"content:"AttackSignature";"#, "AttackSignaturE", 0),
      (#"content:"AttackSignature"; nocase;"#, "ATTACKsignature", 1), (#"content:"attacksignature";"#, "attacksignature", 1),
    ] as [(String, String, UInt64)] {
      for cut in 1..<said.utf8.count {
        let runtime = runtime("alert tcp any any -> any any (\(rule) sid:1;)")
        var talk = Dialogue()
        talk.open(runtime)
        runtime.send(talk.says(String(said.prefix(cut))))
        runtime.send(talk.says(String(said.dropFirst(cut))))
        #expect(alerts(runtime) == expected, "\(rule) on \(said) cut at \(cut)")
      }
    }
  }

  @Test func `a place in the stream is counted from its beginning, across a cut`() {
    for cut in 1..<7 {
      let runtime = runtime(#"alert tcp any any -> any any (content:"GET /x"; depth:6; content:"y"; distance:0; sid:1;)"#)
      var talk = Dialogue()
      talk.open(runtime)
      runtime.send(talk.says(String("GET /x".prefix(cut))))
      runtime.send(talk.says(String("GET /x".dropFirst(cut)) + " y"))
      #expect(alerts(runtime) == (cut < 6 ? 1 : 0), "cut at \(cut): the content that ends in an earlier segment is gone")
    }
  }

  @Test func `retransmitted bytes are not scanned twice, new ones behind them are`() {
    let runtime = runtime(signature)
    var talk = Dialogue()
    talk.open(runtime)
    let packet = talk.says(text)
    runtime.send(packet)
    runtime.send(packet)
    #expect(alerts(runtime) == 1 && runtime.observed("ips.tcp.retransmitted") == 1)
    let scanned = runtime.observed("ips.bytes.scanned")!
    // Half old, half new.
    talk.clientNext &-= 5
    runtime.send(talk.says("oldenAttackSignature"))
    #expect(alerts(runtime) == 2)
    #expect(runtime.observed("ips.bytes.scanned") == scanned + 15)
  }

  @Test func `a keep-alive is nothing new`() {
    let runtime = runtime(signature)
    var talk = Dialogue()
    talk.open(runtime)
    runtime.send(talk.says("abc"))
    runtime.send(.tcp(talk.client, talk.server, .ack, seq: talk.clientNext &- 1, ack: talk.serverNext, payload: [0]))
    #expect(runtime.observed("ips.tcp.retransmitted") == 1)
    #expect(runtime.observed("ips.tcp.out-of-order") == 0)
  }

  @Test func `a segment out of order is scanned on its own, and the stream goes on when its hole is filled`() {
    let runtime = runtime(signature)
    var talk = Dialogue()
    talk.open(runtime)
    let first = talk.says("some Attack")
    let second = talk.says("Signature, and all of it: AttackSignature")
    runtime.send(second)
    #expect(alerts(runtime) == 1 && runtime.observed("ips.tcp.out-of-order") == 1)
    runtime.send(first)
    // What the receiver acknowledges has passed: from there on it is a stream again.
    runtime.send(talk.acknowledges())
    #expect(runtime.observed("ips.tcp.holes-filled") == 1)
    runtime.send(talk.says("Attack"))
    runtime.send(talk.says("Signature"))
    #expect(alerts(runtime) == 2)
    #expect(runtime.observed("ips.tcp.out-of-order") == 1)
  }

  @Test func `dropping what is out of order, nothing that is split is missed`() {
    let runtime = runtime(signature, dropsOutOfOrder: true)
    var talk = Dialogue()
    talk.open(runtime)
    let first = talk.says("Attack")
    let second = talk.says("Signature")
    #expect(runtime.send(second) == .dropped("ips-out-of-order"))
    #expect(runtime.send(first).packet != nil)
    #expect(runtime.send(second).packet != nil)
    #expect(alerts(runtime) == 1)
  }

  @Test func `an acknowledgement of bytes that never passed hides nothing`() {
    let runtime = runtime(signature)
    var talk = Dialogue()
    talk.open(runtime)
    runtime.send(talk.answers("x"))
    // The client claims to have what the server is yet to send.
    talk.serverNext &+= 500
    runtime.send(talk.says("y"))
    talk.serverNext &-= 500
    runtime.send(talk.answers("AttackSignature"))
    #expect(alerts(runtime) == 1)
  }

  @Test func `a SYN in the middle of a connection does not move the stream`() {
    let runtime = runtime(signature)
    var talk = Dialogue()
    talk.open(runtime)
    runtime.send(talk.says("Attack"))
    runtime.send(.tcp(talk.client, talk.server, .syn, seq: 5_000_000))
    runtime.send(.tcp(talk.client, talk.server, [.syn, .ack], seq: 6_000_000, ack: talk.serverNext))
    runtime.send(talk.says("Signature"))
    #expect(alerts(runtime) == 1)
  }

  @Test(arguments: [1000, 9_000_000] as [UInt32])
  func `of two SYN the one that is answered counts`(answered: UInt32) {
    let runtime = runtime(signature)
    var talk = Dialogue(first: answered)
    for first in [1000, 9_000_000] as [UInt32] { runtime.send(.tcp(talk.client, talk.server, .syn, seq: first)) }
    talk.open(runtime)
    runtime.send(talk.says("Attack"))
    runtime.send(talk.says("Signature"))
    #expect(alerts(runtime) == 1)
  }

  @Test func `a SYN+ACK that the client will not believe does not hide what the server sends`() {
    let runtime = runtime(#"alert tcp any any -> any any (content:"AttackSignature"; flow:established,to_client; sid:1;)"#)
    var talk = Dialogue()
    func forge() { runtime.send(.tcp(talk.server, talk.client, [.syn, .ack], seq: 5_000_000, ack: 123)) }
    runtime.send(.tcp(talk.client, talk.server, .syn, seq: talk.clientNext))
    forge()
    talk.open(runtime)
    forge()
    runtime.send(talk.answers("Attack"))
    runtime.send(talk.answers("Signature"))
    #expect(alerts(runtime) == 1)
  }

  @Test func `a client's acknowledgement of nothing does not establish a connection`() {
    let runtime = runtime(#"alert tcp any any -> any any (content:"x"; flow:established; sid:1;)"#)
    var talk = Dialogue()
    runtime.send(.tcp(talk.client, talk.server, .syn, seq: talk.clientNext))
    runtime.send(.tcp(talk.server, talk.client, [.syn, .ack], seq: talk.serverNext, ack: talk.clientNext &+ 1))
    talk.clientNext &+= 1
    let right = talk.serverNext &+ 1
    talk.serverNext = 99
    runtime.send(talk.says("x"))
    #expect(alerts(runtime) == 0)
    talk.serverNext = right
    runtime.send(talk.says("x"))
    #expect(alerts(runtime) == 1)
  }

  @Test func `data that came with a SYN and was not taken is scanned when it comes again`() {
    let runtime = runtime(signature)
    var talk = Dialogue()
    runtime.send(.tcp(talk.client, talk.server, .syn, seq: talk.clientNext, payload: Array("Attack".utf8)))
    talk.clientNext &+= 1
    runtime.send(.tcp(talk.server, talk.client, [.syn, .ack], seq: talk.serverNext, ack: talk.clientNext))
    talk.serverNext &+= 1
    runtime.send(talk.says("AttackSig"))
    runtime.send(talk.says("nature"))
    #expect(alerts(runtime) == 1)
  }

  @Test func `the same ports used again begin a new stream`() {
    let runtime = runtime(signature)
    var talk = Dialogue()
    talk.open(runtime)
    runtime.send(talk.says("Attack"))
    runtime.send(.tcp(talk.client, talk.server, [.fin, .ack], seq: talk.clientNext, ack: talk.serverNext))
    runtime.send(.tcp(talk.server, talk.client, [.fin, .ack], seq: talk.serverNext, ack: talk.clientNext &+ 1))
    var again = Dialogue(first: 700_000_000)
    again.open(runtime)
    runtime.send(again.says("Signature"))
    #expect(alerts(runtime) == 0, "half of it belonged to another connection")
    runtime.send(again.says("Attack"))
    runtime.send(again.says("Signature"))
    #expect(alerts(runtime) == 1)
  }

  @Test func `established is what both sides have agreed on`() {
    let runtime = runtime(
      """
      alert tcp any any -> any any (content:"x"; flow:established; sid:1;)
      alert tcp any any -> any any (content:"x"; flow:not_established; sid:2;)
      """)
    var met = Dialogue("10.0.0.9:1", "192.0.2.1:80")
    runtime.send(met.says("x"))
    #expect(runtime.observed("ips.alerts.1:2") == 1 && runtime.observed("ips.alerts.1:1") == nil)
    var talk = Dialogue()
    talk.open(runtime)
    runtime.send(talk.says("x"))
    #expect(runtime.observed("ips.alerts.1:1") == 1)
  }

  @Test func `a stream goes on where it was when its flow moves`() {
    let (here, there) = (runtime(signature), runtime(signature))
    var talk = Dialogue()
    talk.open(here)
    here.send(talk.says("Attack"))
    here.migrate(flowOf: talk.says(""), to: there)
    there.send(talk.says("Signature"))
    #expect(alerts(there) == 1)
  }

  @Test func `a state that belongs to other rules is forgotten`() {
    let here = runtime(signature)
    let there = runtime(#"alert tcp any any -> any any (content:"BttackSignature"; sid:1;)"#)
    var talk = Dialogue()
    talk.open(here)
    here.send(talk.says("Attack"))
    here.migrate(flowOf: talk.says(""), to: there)
    #expect(there.observed("ips.flows.foreign") == 1)
    there.send(talk.says("Signature"))
    there.send(talk.says("Bttack"))
    there.send(talk.says("Signature"))
    #expect(alerts(there) == 1)
  }

  // MARK: Chance

  @Test(arguments: 0..<20)
  func `what is found in a stream does not depend on how it is cut, doubled, or overlaps`(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    let rules = (0..<8).map { index in
      let content = (0..<Int.random(in: 2...6, using: &random)).map { _ in "abAB".randomElement(using: &random)! }
      return "alert tcp any any -> any any (content:\"\(String(content))\";\(index % 2 == 0 ? " nocase;" : "") sid:\(index + 1);)"
    }.joined(separator: "\n")
    let stream = (0..<60).map { _ in Array("abABx".utf8).randomElement(using: &random)! }
    let ips = IntrusionPrevention(rules: rules)
    func found(_ pieces: [(at: Int, bytes: [UInt8])]) -> Set<String> {
      let runtime = TestRuntime(ips)
      var talk = Dialogue()
      talk.open(runtime)
      let start = talk.clientNext
      for piece in pieces {
        talk.clientNext = start &+ UInt32(piece.at)
        runtime.send(talk.says(piece.bytes))
      }
      return Set(runtime.chain.observe().map(\.name).filter { $0.hasPrefix("ips.alerts.1:") })
    }
    let whole = found([(0, stream)])
    for _ in 0..<10 {
      var pieces: [(at: Int, bytes: [UInt8])] = []
      var sent = 0
      while sent < stream.count {
        // Now and then some of what was sent comes again, in front of what is new.
        let from = max(0, sent - (Bool.random(using: &random) ? Int.random(in: 0...8, using: &random) : 0))
        let end = min(stream.count, sent + .random(in: 1...9, using: &random))
        pieces.append((from, Array(stream[from..<end])))
        sent = end
      }
      #expect(found(pieces) == whole, "seed \(seed): \(pieces)")
    }
  }

  @Test func `no segments, however odd, stop the program`() {
    var random = SeededGenerator(seed: 5)
    for dropsOutOfOrder in [false, true] {
      let runtime = runtime(
        """
        alert tcp any any -> any any (content:"abc"; content:"b"; distance:-2; within:3; sid:1;)
        alert tcp-stream any any -> any any (content:"aab"; offset:3; depth:9; flow:established; sid:2;)
        alert tcp any any -> any any (content:!"abcabc"; dsize:>2; sid:3;)
        """, dropsOutOfOrder: dropsOutOfOrder)
      let talk = Dialogue()
      let starts: [UInt32] = [0, 1, .max, .max - 5, 0x7fff_ffff, 0x8000_0000]
      for _ in 0..<6000 {
        let isAnswer = Bool.random(using: &random)
        let packet = TestPacket.tcp(
          isAnswer ? talk.server : talk.client, isAnswer ? talk.client : talk.server,
          TCPFlags(rawValue: .random(in: 0...63, using: &random)),
          seq: starts.randomElement(using: &random)! &+ .random(in: 0...12, using: &random),
          ack: starts.randomElement(using: &random)! &+ .random(in: 0...12, using: &random),
          payload: (0..<Int.random(in: 0...9, using: &random)).map { _ in Array("abcC".utf8).randomElement(using: &random)! })
        runtime.send(packet)
      }
      #expect(alerts(runtime) > 0)
      #expect(runtime.observed("ips.packets") == 6000)
    }
  }
}
