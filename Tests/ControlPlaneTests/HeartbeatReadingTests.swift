// Heartbeats have a reader of their own; whatever the bytes are, it says what the general reader says or nothing.
import ControlMessages
import Testing

@testable import ControlCodec

@Suite struct HeartbeatReadingTests {
  private func read(_ bytes: [UInt8]) -> (own: Event?, general: Event?) {
    bytes.withUnsafeBytes { (RecordCodec.heartbeat($0), try? RecordCodec.decodeEventInFull($0)) }
  }

  private func heartbeat(_ random: inout RandomNumbers) -> Event {
    func number() -> UInt64 { random.next() >> (random.next() % 64) }
    return Event(
      producer: .node(.runtime, Samples.cluster, NodeID(UInt32(1 + random.next() % 60_000))!), incarnation: Incarnation(number()),
      sequence: number() | 1,
      body: .heartbeat(Heartbeat(node: NodeID(UInt32(1 + random.next() % 60_000))!, workerLoops: number(), busyLoops: number())))
  }

  @Test func `a heartbeat as ours are is read by it, and is the same`() {
    var random = RandomNumbers(seed: 1)
    for _ in 0..<2_000 {
      let event = heartbeat(&random)
      let (own, general) = read(RecordCodec.encode(event))
      #expect(own == event && general == event)
    }
  }

  @Test func `other records it leaves alone`() {
    for (name, event) in Samples.events where name != "heartbeat" {
      let (own, _) = read(RecordCodec.encode(event))
      if case .heartbeat = event.body { continue }
      #expect(own == nil, "\(name)")
    }
  }

  @Test(arguments: 1...20) func `of harmed bytes it never says anything else than the general reader`(seed: Int) {
    var random = RandomNumbers(seed: UInt64(seed))
    var understood = 0
    for _ in 0..<3_000 {
      var bytes = RecordCodec.encode(heartbeat(&random))
      for _ in 0...(random.next() % 3) where !bytes.isEmpty {
        let place = Int(random.next() % UInt64(bytes.count))
        switch random.next() % 4 {
        case 0: bytes[place] = UInt8(truncatingIfNeeded: random.next())
        case 1: bytes[place] ^= 1 << UInt8(random.next() % 8)
        case 2: bytes.remove(at: place)
        default: bytes.insert(UInt8(truncatingIfNeeded: random.next()), at: place)
        }
      }
      let (own, general) = read(bytes)
      if let own {
        understood += 1
        #expect(own == general, "\(bytes)")
      }
    }
    #expect(understood > 100)
  }
}
