import ModuleGraphs
import Testing
import Wire

@testable import Nodes

/// What the generator writes, without a device: every byte of a frame is written, and its sums are right.
struct TrafficGeneratorTests {
  /// Frames with rubbish in them, as they come out of a pool.
  final class RubbishPort: PacketPort {
    override func makeFrame(in batch: PacketBatch, length: Int, now: Tick) -> Bool {
      let bytes = UnsafeMutableRawPointer.allocate(byteCount: length, alignment: 8)
      bytes.initializeMemory(as: UInt8.self, repeating: 0xa5, count: length)
      batch.append(bytes: bytes, length: length, buffer: bytes, arrival: now)
      return true
    }

    override func release(_ batch: PacketBatch, mask: UInt64) {
      PacketBatch.forEach(in: mask) { batch[$0].buffer?.deallocate() }
    }
  }

  private static func plan(_ transport: TrafficPlan.Transport, _ sizes: [Int]) -> TrafficPlan {
    var plan = TrafficPlan()
    plan.transport = transport
    plan.sizes = sizes
    plan.flows = 50
    plan.newFlowShare = 0.1
    return plan
  }

  @Test(arguments: TrafficPlan.Transport.allCases, [[76], [77, 1_518], TrafficPlan.imix.map { max($0, 76) }])
  func `every frame parses, its checksums hold, and its record is its flow's next`(
    transport: TrafficPlan.Transport, sizes: [Int]
  ) {
    let plan = Self.plan(transport, sizes)
    var generator = TrafficGenerator(
      plan: plan, run: 7, source: MACAddress(1), destination: MACAddress(2), waitsForAnswers: false)
    let port = RubbishPort(name: "rubbish", address: MACAddress(1))
    let batch = PacketBatch()
    var next: [UInt32: UInt32] = [:]
    for burst in 0..<40 {
      generator.fill(batch, from: port, count: 32, now: Tick(nanoseconds: 0x1234_5678_9abc + UInt64(burst)))
      #expect(batch.count == 32)
      for index in 0..<batch.count {
        #expect(Int(batch[index].length) == sizes[(burst * 32 + index) % sizes.count] - 4)
        #expect(batch[index].parse(checksums: .verify) == nil)
        let record = batch[index].withPayload { TrafficRecord($0) }
        let expected = record.map {
          TrafficRecord(run: 7, flow: $0.flow, sequence: next[$0.flow, default: 0], time: 0x1234_5678_9abc + UInt64(burst))
        }
        #expect(record != nil && record == expected)
        if let record { next[record.flow] = record.sequence + 1 }
        let isClean = batch[index].withPayload { payload in
          (TrafficRecord.size..<payload.byteCount).allSatisfy { payload.unsafeLoad(fromByteOffset: $0, as: UInt8.self) == 0 }
        }
        #expect(isClean, "behind the record are zeros")
      }
      port.release(batch, mask: batch.all)
      batch.removeAll()
    }
    #expect(generator.flowsBegun > 50)
  }

  @Test func `a port that was full is asked again after five microseconds`() {
    var offers = OfferPacing()
    #expect(offers.mayOffer(at: .zero))
    offers.note(refused: 0, at: Tick(nanoseconds: 100))
    #expect(offers.mayOffer(at: Tick(nanoseconds: 100)))
    offers.note(refused: 0b10, at: Tick(nanoseconds: 100))
    #expect(!offers.mayOffer(at: Tick(nanoseconds: 5_099)))
    #expect(offers.mayOffer(at: Tick(nanoseconds: 5_100)))
  }
}
