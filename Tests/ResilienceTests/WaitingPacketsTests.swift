import FixedContainers
import Testing

@testable import FlowActors

/// The ring in which packets wait for a second holder: what comes out is what went in, also where it goes around.
@Suite struct WaitingPacketsTests {
  private func packet(_ number: Int, _ length: Int) -> [UInt8] { (0..<length).map { UInt8(truncatingIfNeeded: number &* 31 &+ $0) } }

  @Test func `packets come out as they went in, around the ring's end again and again`() {
    var ring = WaitingPackets(bytes: 4_096, memory: .plain)
    var random: UInt64 = 9
    func next() -> Int {
      random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Int(random >> 33)
    }
    var (put, taken, refused) = (0, 0, 0)
    var lengths: [Int] = []
    for _ in 0..<20_000 {
      // It is never empty for long: an empty one begins at its beginning.
      if next() % 2 == 0 || put - taken < 2 {
        let length = next() % 700
        guard ring.hasRoom(for: length) else {
          refused += 1
          continue
        }
        var entry = WaitingPackets.Entry(slot: UInt32(put), birth: UInt16(truncatingIfNeeded: put), epoch: 3)
        entry.mark = UInt32(put) * 2
        packet(put, length).withUnsafeBytes { ring.append(entry, $0) }
        lengths.append(length)
        put += 1
      } else {
        let entry = ring.first
        #expect(entry?.slot == UInt32(taken) && entry?.birth == UInt16(truncatingIfNeeded: taken) && entry?.mark == UInt32(taken) * 2)
        #expect(Array(ring.firstPacket) == packet(taken, lengths[taken]))
        ring.removeFirst()
        taken += 1
      }
    }
    #expect(taken > 5_000 && refused > 100)
    while !ring.isEmpty {
      #expect(Array(ring.firstPacket) == packet(taken, lengths[taken]))
      ring.removeFirst()
      taken += 1
    }
    #expect(taken == put && ring.first == nil)
  }

  @Test func `a ring without memory takes nothing`() {
    let ring = WaitingPackets(bytes: 0, memory: .plain)
    #expect(!ring.hasRoom(for: 0) && ring.isEmpty)
  }
}
