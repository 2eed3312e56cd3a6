import Testing

/// A life that is over by somebody's word, and the next one in its place.
@Suite struct ChannelFenceTests {
  @Test func `what is sent to the life after a fenced one arrives`() {
    let pair = ChannelPair()
    pair.settle()
    for number in 0..<50 as Range<UInt8> {
      #expect(pair.a.send([number]))
      pair.settle()
    }
    // This one is never acknowledged.
    #expect(pair.a.send([100]))
    _ = pair.a.frames(pair.now)
    pair.a.channel.fence(3)
    #expect(!pair.a.isEstablished && pair.a.counters.messagesAbandoned == 1 && pair.a.unacknowledged == 0)
    #expect(pair.a.send([101]), "it waits for whoever comes next")
    pair.restartB(incarnation: 4)
    pair.settle()
    #expect(pair.b.delivered == [[101]])
    for number in 0..<50 as Range<UInt8> { #expect(pair.a.send([number])) }
    pair.settle()
    #expect(pair.b.delivered.count == 51 && pair.a.unacknowledged == 0)
  }

  @Test func `frames of a fenced life are refused, whoever knows it`() {
    let pair = ChannelPair()
    pair.settle()
    #expect(pair.b.send([1]))
    let late = pair.b.frames(pair.now)
    pair.a.channel.fence(3)
    for frame in late { #expect(pair.a.receive(frame, pair.now) == .refused(.session)) }
    #expect(pair.a.delivered.isEmpty && pair.a.channel.peerIncarnation == 3)
  }
}
