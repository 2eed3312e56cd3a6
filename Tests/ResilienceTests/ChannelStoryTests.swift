import ReliableChannels
import Testing

/// What a channel does, told one frame at a time.
@Suite struct ChannelStoryTests {
  @Test func `three frames make a session, and what waited goes out`() {
    let pair = ChannelPair()
    #expect(pair.a.send([1, 2, 3]))
    let hello = pair.a.frames(pair.now)
    #expect(hello.map { ChannelPair.header($0)?.kind } == [.hello])
    #expect(pair.b.receive(hello[0], pair.now) == .sessionBegan(abandoned: 0))
    let answer = pair.b.frames(pair.now)
    #expect(pair.a.receive(answer[0], pair.now) == .sessionBegan(abandoned: 0))
    let data = pair.a.frames(pair.now)
    #expect(data.map { ChannelPair.header($0)?.kind } == [.data])
    #expect(pair.b.receive(data[0], pair.now) == .taken)
    #expect(pair.b.delivered == [[1, 2, 3]])
    #expect(pair.b.frames(pair.now).map { ChannelPair.header($0)?.kind } == [.acknowledgement], "in the same pass")
  }

  @Test func `small messages share a frame and a large one spans frames`() {
    let pair = ChannelPair()
    pair.settle()
    let small = (0..<20).map { [UInt8](repeating: $0, count: 64) }
    for message in small { #expect(pair.a.send(message)) }
    let frames = pair.a.frames(pair.now)
    #expect(frames.count == 1 && frames[0].count == 14 + 64 + 20 * 66)
    pair.b.receive(frames[0], pair.now)
    let large = (0..<65_535).map { UInt8(truncatingIfNeeded: $0 * 7) }
    #expect(pair.a.send(large) && pair.a.send([]) && pair.a.send([9]))
    pair.settle()
    #expect(pair.b.delivered == small + [large, [], [9]])
  }

  @Test func `a full queue says so, and has room again when frames were acknowledged`() {
    let pair = ChannelPair {
      ($0.sendFrames, $0.largestMessage) = (4, 1_000)
    }
    pair.settle()
    let message = [UInt8](repeating: 5, count: 700)
    var accepted = 0
    while pair.a.send(message) { accepted += 1 }
    #expect(accepted == 8 && pair.a.counters.messagesRefused == 1)
    pair.settle()
    #expect(pair.a.send(message) && pair.b.delivered.count == 8 && pair.a.unacknowledged == 1)
  }

  @Test func `a gap is filled without waiting for the timeout`() {
    let pair = ChannelPair()
    pair.settle()
    var frames: [[UInt8]] = []
    for number in 0..<5 as Range<UInt8> {
      #expect(pair.a.send([number]))
      frames += pair.a.frames(pair.now)
    }
    for frame in frames.dropFirst() { pair.b.receive(frame, pair.now) }
    #expect(pair.b.delivered == [])
    for answer in pair.b.frames(pair.now) { pair.a.receive(answer, pair.now) }
    let again = pair.a.frames(pair.now)
    #expect(again.count == 1 && ChannelPair.header(again[0])?.sequence == ChannelPair.header(frames[0])?.sequence)
    pair.b.receive(again[0], pair.now)
    #expect(pair.b.delivered == [[0], [1], [2], [3], [4]])
    #expect(pair.a.counters.fastRetransmits == 1 && pair.a.counters.timeouts == 0)
  }

  @Test func `the last frame of all is sent again after the timeout, each time later`() {
    let pair = ChannelPair()
    pair.settle()
    #expect(pair.a.send([1]))
    _ = pair.a.frames(pair.now)
    var waits: [Int] = []
    for _ in 0..<4 {
      var waited = 0
      repeat {
        pair.wait(microseconds: 500)
        waited += 1
      } while !pair.a.frames(pair.now).contains { ChannelPair.header($0)?.kind == .data } && waited < 1_000
      waits.append(waited)
    }
    // First the initial timeout of 10 ms, then doubled, and doubled again.
    #expect(waits == [20, 40, 80, 160])
    pair.settle()
    #expect(pair.b.delivered == [])
    pair.wait(microseconds: 100_000)
    pair.settle()
    #expect(pair.b.delivered == [[1]])
  }

  @Test func `a receiver without credit stops the sender and loses nothing`() {
    let pair = ChannelPair { ($0.receiveFrames, $0.sendFrames) = (4, 64) }
    pair.settle()
    pair.b.channel.credit = 0
    for number in 0..<40 as Range<UInt8> {
      #expect(pair.a.send([number]))
      _ = pair.a.channel.poll(now: pair.now)
      for frame in pair.a.frames(pair.now) { pair.b.receive(frame, pair.now) }
    }
    pair.settle()
    #expect(pair.b.delivered.count == 4, "what had been promised")
    pair.b.channel.credit = 4
    pair.settle()
    #expect(pair.b.delivered == (0..<40).map { [$0] } && pair.a.counters.timeouts == 0)
  }

  @Test func `a restarted peer is noticed at its first frame and its old frames are refused`() {
    let pair = ChannelPair()
    pair.settle()
    #expect(pair.b.send([1]))
    let late = pair.b.frames(pair.now)[0]
    #expect(pair.a.send([2]))
    _ = pair.a.frames(pair.now)
    pair.restartB(incarnation: 4)
    #expect(pair.a.receive(pair.b.frames(pair.now)[0], pair.now) == .sessionBegan(abandoned: 1))
    #expect(pair.a.receive(late, pair.now) == .refused(.session))
    #expect(pair.a.send([3]) && pair.b.send([4]))
    pair.settle()
    #expect(pair.b.delivered == [[3]] && pair.a.delivered == [[4]])
    #expect(pair.a.counters.messagesAbandoned == 1 && pair.a.counters[.session] == 1)
  }

  @Test func `a life that is over is refused by those who know the next`() {
    let pair = ChannelPair()
    pair.settle()
    let former = pair.b
    pair.restartB(incarnation: 4)
    pair.settle()
    #expect(former.send([1]))
    for frame in former.frames(pair.now) { #expect(pair.a.receive(frame, pair.now) == .refused(.session)) }
    #expect(pair.a.delivered == [] && pair.a.peerIncarnation == 4)
  }

  @Test func `a silent peer is reported once, and heard again`() {
    let pair = ChannelPair()
    pair.settle()
    var reports = 0
    for _ in 0..<100 {
      pair.now = pair.now.advanced(byMilliseconds: 1)
      if pair.a.channel.poll(now: pair.now) { reports += 1 }
      _ = pair.a.frames(pair.now)
    }
    #expect(reports == 1 && pair.a.isPeerSilent)
    _ = pair.b.channel.poll(now: pair.now)
    for frame in pair.b.frames(pair.now) { pair.a.receive(frame, pair.now) }
    #expect(!pair.a.isPeerSilent)
  }

  @Test func `an idle channel shows that it lives`() {
    let pair = ChannelPair()
    pair.settle()
    for _ in 0..<200 {
      pair.wait(microseconds: 1_000)
      pair.settle()
    }
    #expect(pair.a.counters.silences == 0 && pair.b.counters.silences == 0)
    #expect((38...50).contains(pair.a.counters.framesSent), "one frame in 5 ms: \(pair.a.counters.framesSent)")
  }
}
