/// Who waits, who is woken, and that nobody is woken twice.
import NIOCore
import Testing

@testable import EmbeddedBus

@Suite struct LongPollsTests {
  private final class Partition {}
  private let first = Partition()
  private let second = Partition()

  private func request() throws -> FetchRequest {
    var reader = ProtocolReader(ByteBuffer(bytes: RawRequest.fetch("t", from: 0).dropFirst(13)))
    return try FetchRequest(&reader, 4)
  }

  @Test func `a fetch is ready when its bytes have come, to any of its partitions`() throws {
    var polls = LongPolls()
    let both = polls.park(try request(), missingBytes: 10, partitions: [ObjectIdentifier(first), ObjectIdentifier(second)])
    let one = polls.park(try request(), missingBytes: 1, partitions: [ObjectIdentifier(second)])
    polls.appended(6, to: ObjectIdentifier(first))
    #expect(polls.takeReady() == [])
    polls.appended(6, to: ObjectIdentifier(second))
    #expect(polls.takeReady() == [both, one])
    polls.appended(6, to: ObjectIdentifier(second))
    #expect(polls.takeReady() == [])
  }

  @Test func `a fetch that has ended is forgotten`() throws {
    var polls = LongPolls()
    let id = polls.park(try request(), missingBytes: 1, partitions: [ObjectIdentifier(first)])
    #expect(polls.remove(id) != nil)
    #expect(polls.remove(id) == nil)
    polls.appended(5, to: ObjectIdentifier(first))
    #expect(polls.takeReady() == [])
    #expect(polls.count == 0)
  }
}
