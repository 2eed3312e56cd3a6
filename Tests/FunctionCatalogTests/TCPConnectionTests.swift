import Testing
import Wire

@testable import FunctionCatalog

/// Connections told from the middle: `→` is a segment of the client, `←` one of the server, then the ruling
/// (if not accept) and the state after it.
@Suite struct TCPConnectionTests {
  /// Client sequence numbers begin at 1000, the server's at 5000.
  struct Tale {
    var connection = TCPConnection()

    mutating func forward(
      _ flags: TCPFlags, _ seq: UInt32, _ ack: UInt32 = 0, payload: Int = 0, window: UInt16 = 8192, scale: UInt8? = nil
    ) -> TCPConnection.Ruling {
      connection.handle(
        TCPSegment(flags, sequence: seq, acknowledgement: ack, window: window, payload: payload, windowScale: scale), .forward)
    }

    mutating func reverse(
      _ flags: TCPFlags, _ seq: UInt32, _ ack: UInt32 = 0, payload: Int = 0, window: UInt16 = 8192, scale: UInt8? = nil
    ) -> TCPConnection.Ruling {
      connection.handle(
        TCPSegment(flags, sequence: seq, acknowledgement: ack, window: window, payload: payload, windowScale: scale), .reverse)
    }

    var state: TCPState { connection.state }

    /// After the handshake.
    static func established(clientScale: UInt8? = nil, serverScale: UInt8? = nil) -> Tale {
      var tale = Tale()
      _ = tale.forward(.syn, 1000, scale: clientScale)
      _ = tale.reverse([.syn, .ack], 5000, 1001, scale: serverScale)
      _ = tale.forward(.ack, 1001, 5001)
      return tale
    }
  }

  @Test func `a connection opens, carries data and closes`() {
    var tale = Tale()
    #expect(tale.forward(.syn, 1000) == .accept && tale.state == .synSent)
    #expect(tale.reverse([.syn, .ack], 5000, 1001) == .accept && tale.state == .synReceived)
    #expect(tale.forward(.ack, 1001, 5001) == .accept && tale.state == .established)
    #expect(tale.forward([.ack, .psh], 1001, 5001, payload: 100) == .accept)
    #expect(tale.reverse(.ack, 5001, 1101, payload: 1000) == .accept && tale.state == .established)
    #expect(tale.forward([.fin, .ack], 1101, 6001) == .accept && tale.state == .finForward)
    #expect(tale.reverse(.ack, 6001, 1102, payload: 10) == .accept && tale.state == .finForward)
    #expect(tale.reverse([.fin, .ack], 6011, 1102) == .accept && tale.state == .closing)
    #expect(tale.forward(.ack, 1102, 6012) == .accept && tale.state == .timeWait)
    // The last acknowledgement was lost further on: the server repeats its FIN, the client its ACK.
    #expect(tale.reverse([.fin, .ack], 6011, 1102) == .accept && tale.state == .timeWait)
    #expect(tale.forward(.ack, 1102, 6012) == .accept && tale.state == .timeWait)
  }

  @Test func `the server can close first, and both can close at once`() {
    var server = Tale.established()
    #expect(server.reverse([.fin, .ack], 5001, 1001) == .accept && server.state == .finReverse)
    #expect(server.forward([.fin, .ack], 1001, 5002) == .accept && server.state == .closing)
    #expect(server.reverse(.ack, 5002, 1002) == .accept && server.state == .timeWait)

    var both = Tale.established()
    #expect(both.forward([.fin, .ack], 1001, 5001) == .accept && both.state == .finForward)
    #expect(both.reverse([.fin, .ack], 5001, 1001) == .accept && both.state == .closing)
    #expect(both.forward(.ack, 1002, 5002) == .accept && both.state == .closing)
    #expect(both.reverse(.ack, 5002, 1002) == .accept && both.state == .timeWait)
  }

  @Test func `both sides can open at once`() {
    var tale = Tale()
    #expect(tale.forward(.syn, 1000) == .accept)
    #expect(tale.reverse(.syn, 5000) == .accept && tale.state == .simultaneousOpen)
    #expect(tale.forward([.syn, .ack], 1000, 5001) == .accept && tale.state == .established)
    #expect(tale.reverse([.syn, .ack], 5000, 1001) == .accept && tale.state == .established)
    #expect(tale.forward(.ack, 1001, 5001, payload: 5) == .accept)
    #expect(tale.reverse(.ack, 5001, 1006) == .accept)
  }

  @Test func `what gets lost is sent again and passes`() {
    var tale = Tale()
    #expect(tale.forward(.syn, 1000) == .accept)
    #expect(tale.forward(.syn, 1000) == .accept && tale.state == .synSent)
    #expect(tale.reverse([.syn, .ack], 5000, 1001) == .accept)
    #expect(tale.forward(.syn, 1000) == .accept && tale.state == .synReceived)
    #expect(tale.reverse([.syn, .ack], 5000, 1001) == .accept && tale.state == .synReceived)
    #expect(tale.forward(.ack, 1001, 5001) == .accept)
    #expect(tale.reverse([.syn, .ack], 5000, 1001) == .accept && tale.state == .established)
    #expect(tale.forward(.ack, 1001, 5001, payload: 500) == .accept)
    #expect(tale.reverse(.ack, 5001, 1501) == .accept)
    #expect(tale.forward(.ack, 1001, 5001, payload: 500) == .accept)
    // A keep-alive: one byte before what is acknowledged.
    #expect(tale.forward(.ack, 1500, 5001) == .accept && tale.state == .established)
    #expect(tale.connection.sent.forward == 1501 && tale.connection.acked.forward == 1501)
  }

  @Test func `a first segment that is no bare SYN starts nothing`() {
    for flags: TCPFlags in [.ack, [.syn, .ack], [.fin, .ack], .rst, [.rst, .ack]] {
      var tale = Tale()
      #expect(tale.forward(flags, 1000, 1) == .notConnectionStart)
      #expect(tale.connection == TCPConnection())
    }
  }

  @Test func `a client that talks before it was answered is refused`() {
    var tale = Tale()
    _ = tale.forward(.syn, 1000)
    #expect(tale.forward(.ack, 1001, 5001, payload: 10) == .invalidState)
    #expect(tale.forward([.fin, .ack], 1001, 5001) == .invalidState)
    #expect(tale.reverse([.fin, .ack], 5001, 1001) == .invalidState)
    #expect(tale.state == .synSent)
  }

  @Test func `an answer to something else opens nothing`() {
    var tale = Tale()
    _ = tale.forward(.syn, 1000)
    #expect(tale.reverse([.syn, .ack], 5000, 777) == .accept && tale.state == .synSent)
    #expect(tale.reverse([.syn, .ack], 5000, 1001) == .accept && tale.state == .synReceived)
    #expect(tale.forward(.ack, 1001, 123_456) == .accept && tale.state == .synReceived)
  }

  @Test func `a refused connection can be tried again on the same ports`() {
    var tale = Tale()
    _ = tale.forward(.syn, 1000)
    #expect(tale.reverse([.rst, .ack], 0, 999) == .resetOutOfWindow && tale.state == .synSent)
    #expect(tale.reverse([.rst, .ack], 0, 1001) == .accept && tale.state == .resetByReverse)
    #expect(tale.forward(.syn, 70_000) == .accept && tale.state == .synSent)
    #expect(tale.reverse([.syn, .ack], 5000, 70_001) == .accept && tale.state == .synReceived)
  }

  @Test func `a half-open connection is found and reset, and the client begins again`() {
    // The server still has an older connection of these ports: RFC 9293 §3.5.1, figure 9.
    var tale = Tale()
    _ = tale.forward(.syn, 1000)
    #expect(tale.reverse(.ack, 300_000, 400_000) == .accept && tale.state == .synSent)
    #expect(tale.forward(.rst, 400_000) == .accept && tale.state == .synSent)
    #expect(tale.forward(.syn, 1000) == .accept)
    #expect(tale.reverse([.syn, .ack], 5000, 1001) == .accept && tale.state == .synReceived)
  }

  @Test func `a host that restarted resets its connection through a challenge`() {
    var tale = Tale.established()
    #expect(tale.forward(.syn, 9_000_000) == .accept && tale.state == .established)
    #expect(tale.reverse(.ack, 5001, 1001) == .accept)
    #expect(tale.forward(.rst, 1001) == .accept && tale.state == .resetByForward)
    #expect(tale.forward(.syn, 9_000_000) == .accept && tale.state == .synSent)
  }

  @Test func `a reset counts only where its receiver would believe it`() {
    let start: UInt32 = 1001
    for (seq, ruling, state) in [
      (start, TCPConnection.Ruling.accept, TCPState.resetByForward),  // what the server waits for
      (start + 500, .accept, .established),  // in the window: a challenge will follow
      (start + 65_535, .accept, .established),
      (start + 65_536, .resetOutOfWindow, .established),
      (start &- 1, .resetOutOfWindow, .established),
      (start &+ 0x8000_0000, .resetOutOfWindow, .established),
    ] {
      var tale = Tale.established()
      #expect(tale.forward(.rst, seq) == ruling, "\(seq)")
      #expect(tale.state == state, "\(seq)")
    }
  }

  @Test func `a reset after lost segments passes, wherever between acknowledged and sent it lies`() {
    var tale = Tale.established()
    _ = tale.forward(.ack, 1001, 5001, payload: 1000)
    _ = tale.forward(.ack, 2001, 5001, payload: 1000)
    #expect(tale.forward(.rst, 2001) == .accept && tale.state == .established)
    #expect(tale.forward(.rst, 3001) == .accept && tale.state == .resetByForward)
  }

  @Test func `a window is scaled only when both sides offered to`() {
    var scaled = Tale.established(clientScale: 2, serverScale: 7)
    // The server offers 8192 << 7.
    _ = scaled.reverse(.ack, 5001, 1001, window: 8192)
    #expect(scaled.forward(.rst, 1001 + 8192 << 7) == .accept)
    #expect(scaled.forward(.rst, 1001 + 8192 << 7 + 1) == .resetOutOfWindow)

    var oneSided = Tale.established(clientScale: nil, serverScale: 7)
    _ = oneSided.reverse(.ack, 5001, 1001, window: 8192)
    #expect(oneSided.forward(.rst, 1001 + 8192 << 7) == .resetOutOfWindow)
  }

  @Test func `sequence numbers wrap`() {
    var tale = Tale()
    _ = tale.forward(.syn, 0xffff_fff0)
    _ = tale.reverse([.syn, .ack], 0xffff_ffff, 0xffff_fff1)
    #expect(tale.forward(.ack, 0xffff_fff1, 0, payload: 100) == .accept && tale.state == .established)
    #expect(tale.reverse(.ack, 0, 0x55) == .accept)
    #expect(tale.connection.acked.forward == 0x55 && tale.connection.sent.forward == 0x55)
    #expect(tale.forward(.rst, 0xffff_fff1) == .resetOutOfWindow)
    #expect(tale.forward(.rst, 0x55) == .accept && tale.state == .resetByForward)
  }

  @Test func `a stranger's acknowledgements and data do not move the numbers`() {
    var tale = Tale.established()
    let before = tale.connection
    #expect(tale.forward(.ack, 0x7000_0000, 0x7000_0000, payload: 1000) == .accept)
    #expect(tale.reverse(.ack, 0x9000_0000, 0x1234_5678, payload: 1) == .accept)
    #expect(tale.connection == before)
  }

  @Test func `after a reset only the one who may not have heard it can speak`() {
    var tale = Tale.established()
    #expect(tale.reverse(.rst, 5001) == .accept && tale.state == .resetByReverse)
    #expect(tale.forward(.ack, 1001, 5001, payload: 10) == .accept)
    #expect(tale.reverse(.rst, 5001) == .accept)
    #expect(tale.reverse(.ack, 5001, 1011) == .invalidState)
    #expect(tale.state == .resetByReverse)
  }

  /// Two real ends, a lossy path in front of the firewall and another behind it: whatever legal ends send
  /// is never dropped, and a connection that both have finished is known to be.
  @Test(arguments: 0..<200) func `legal ends are never dropped`(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    var tale = Tale()
    var client = TCPEnd(isn: UInt32.random(in: 0 ... .max, using: &random), toSend: Int.random(in: 0...5000, using: &random))
    var server = TCPEnd(isn: UInt32.random(in: 0 ... .max, using: &random), toSend: Int.random(in: 0...5000, using: &random))
    client.state = .synSent
    let loss = Int.random(in: 0...3, using: &random)
    for _ in 0..<4000 where !(client.isDone && server.isDone) {
      let fromClient = Bool.random(using: &random)
      guard let segment = fromClient ? client.next(&random) : server.next(&random) else { continue }
      if Int.random(in: 0..<10, using: &random) < loss { continue }  // lost before the firewall
      let ruling = tale.connection.handle(segment, fromClient ? .forward : .reverse)
      #expect(ruling == .accept, "seed \(seed): \(segment) from \(fromClient ? "client" : "server") in \(tale.state)")
      if Int.random(in: 0..<10, using: &random) < loss { continue }  // lost behind it
      if fromClient { server.receive(segment) } else { client.receive(segment) }
    }
    #expect(client.isDone && server.isDone, "seed \(seed)")
    #expect([.timeWait, .closing].contains(tale.state), "seed \(seed): \(tale.state)")
  }
}

/// One end of a connection that sends its bytes, closes, and repeats what was not acknowledged.
struct TCPEnd {
  enum State { case listen, synSent, synReceived, open }
  var state = State.listen
  let isn: UInt32
  let toSend: Int
  /// Relative to the SYN: 0 is the SYN, 1... the bytes, toSend + 1 the FIN.
  var acknowledged: UInt32 = 0
  var sent: UInt32 = 0
  var peerISN: UInt32 = 0
  var received: UInt32 = 0
  var peerHasClosed = false

  init(isn: UInt32, toSend: Int) {
    self.isn = isn
    self.toSend = toSend
  }

  var finNumber: UInt32 { UInt32(toSend) + 1 }
  var isDone: Bool { acknowledged == finNumber + 1 && peerHasClosed }

  mutating func next(_ random: inout SeededGenerator) -> TCPSegment? {
    switch state {
    case .listen: return nil
    case .synSent:
      sent = max(sent, 1)
      return TCPSegment(.syn, sequence: isn)
    case .synReceived:
      sent = max(sent, 1)
      return TCPSegment([.syn, .ack], sequence: isn, acknowledgement: peerISN &+ received)
    case .open:
      // Anything from what is not acknowledged on, so also again; sometimes a bare acknowledgement.
      let first = max(1, acknowledged)
      let from = Bool.random(using: &random) ? first : UInt32.random(in: first...max(first, sent), using: &random)
      let left = Int(finNumber) - Int(from)
      let ack = peerISN &+ received
      if left < 0 || Int.random(in: 0..<4, using: &random) == 0 {
        return TCPSegment(.ack, sequence: isn &+ sent, acknowledgement: ack)
      }
      let count = min(left, Int.random(in: 0...1460, using: &random))
      let closes = count == left
      sent = max(sent, from + UInt32(count) + (closes ? 1 : 0))
      return TCPSegment(closes ? [.fin, .ack] : .ack, sequence: isn &+ from, acknowledgement: ack, payload: count)
    }
  }

  mutating func receive(_ segment: TCPSegment) {
    switch (state, segment.kind) {
    case (.listen, .syn), (.synReceived, .syn):
      peerISN = segment.sequence
      received = 1
      state = .synReceived
      return
    case (.synSent, .synAck):
      peerISN = segment.sequence
      received = 1
      acknowledged = 1
      state = .open
      return
    case (.synReceived, .ack), (.synReceived, .fin):
      state = .open
    case (.open, .synAck), (.open, .ack), (.open, .fin): break
    default: return
    }
    acknowledged = max(acknowledged, min(segment.acknowledgement &- isn, finNumber + 1))
    let start = segment.sequence &- peerISN
    if segment.kind != .synAck, start <= received, start &+ segment.space > received, start < 0x8000_0000 {
      received = start &+ segment.space
      if segment.kind == .fin { peerHasClosed = true }
    }
  }
}
