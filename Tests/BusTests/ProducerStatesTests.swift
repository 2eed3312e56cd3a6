/// Which batch of an idempotent producer is new, which is known and which comes too early.
import NIOCore
import Testing

@testable import EmbeddedBus

@Suite struct ProducerStatesTests {
  private func header(id: Int64 = 1, epoch: Int16 = 0, _ sequences: ClosedRange<Int32>, at offset: Int64 = 0) -> BatchHeader {
    let values = [String](repeating: "x", count: Int(sequences.upperBound - sequences.lowerBound) + 1)
    let bytes = TestBatch(values: values, producerID: id, epoch: epoch, sequence: sequences.lowerBound).bytes
    var header = BatchHeader(ByteBuffer(bytes: bytes), at: 0)!
    header.baseOffset = offset
    return header
  }

  @Test func `the story of a producer`() {
    var states = ProducerStates(capacity: 10)
    #expect(states.judge(header(0...1)) == .append)
    states.record(header(0...1, at: 10))
    #expect(states.judge(header(0...1)) == .duplicate(.init(firstSequence: 0, lastSequence: 1, baseOffset: 10, timestamp: 1_700_000_000_000)))
    #expect(states.judge(header(2...2)) == .append)
    #expect(states.judge(header(3...3)) == .refuse(.outOfOrderSequenceNumber))
    #expect(states.judge(header(1...2)) == .refuse(.outOfOrderSequenceNumber))
    #expect(states.judge(header(epoch: 1, 0...0)) == .append)
    #expect(states.judge(header(epoch: 1, 2...2)) == .refuse(.outOfOrderSequenceNumber))
    states.record(header(epoch: 1, 0...0, at: 12))
    #expect(states.judge(header(epoch: 0, 2...2)) == .refuse(.invalidProducerEpoch))
  }

  @Test func `a batch older than the last five is known, but not where it is`() {
    var states = ProducerStates(capacity: 10)
    for number in Int32(0)..<7 { states.record(header(number...number, at: Int64(number))) }
    #expect(states.judge(header(1...1)) == .refuse(.duplicateSequenceNumber))
    #expect(states.judge(header(2...2)) == .duplicate(.init(firstSequence: 2, lastSequence: 2, baseOffset: 2, timestamp: 1_700_000_000_000)))
  }

  @Test func `after the largest sequence number comes zero`() {
    var states = ProducerStates(capacity: 10)
    var last = header(0...1, at: 0)
    last.baseSequence = .max - 1
    states.record(last)
    #expect(states.judge(header(0...0)) == .append)
    #expect(states.judge(header(1...1)) == .refuse(.outOfOrderSequenceNumber))
    var crossing = header(0...3)
    crossing.baseSequence = .max - 1
    #expect(crossing.lastSequence == 1)
  }

  @Test func `memory is bounded: the one silent for longest is forgotten`() {
    var states = ProducerStates(capacity: 8)
    for id in Int64(0)..<1000 { states.record(header(id: id, 0...0, at: id)) }
    #expect(states.count <= 8)
    #expect(states.judge(header(id: 999, 5...5)) == .refuse(.outOfOrderSequenceNumber))
    #expect(states.judge(header(id: 0, 5...5)) == .append)
  }
}
