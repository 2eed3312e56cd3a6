/// The log of one partition: what it keeps, what it refuses and what it does with a damaged file.
import Foundation
import NIOCore
import Synchronization
import Testing

@testable import EmbeddedBus

@Suite struct PartitionLogTests {
  private let scratch = ScratchDirectory()

  private func open(_ change: (inout PartitionLog.Options) -> Void = { _ in }) throws -> PartitionLog {
    var options = PartitionLog.Options()
    change(&options)
    return try PartitionLog(opening: scratch.path + "/0", options: options)
  }

  private func batch(_ values: String..., producerID: Int64 = -1, sequence: Int32 = -1, timestamp: Int64 = 1000, step: Int = 0) throws -> RecordBatch {
    let batch = TestBatch(
      values: values, timestamp: timestamp, timestampStep: step, producerID: producerID,
      epoch: producerID < 0 ? -1 : 0, sequence: sequence)
    return try RecordBatch(validating: ByteBuffer(bytes: batch.bytes), maxBytes: 1 << 20)
  }

  private func offsets(_ log: PartitionLog, from offset: Int64 = 0) throws -> [Int64] {
    var found: [Int64] = []
    var next = offset
    while let bytes = try log.read(from: next, maxBytes: 200, atLeastOne: true) {
      var position = bytes.readerIndex
      while let header = BatchHeader(bytes, at: position) {
        #expect(RecordBatch.checksum(of: bytes.getSlice(at: position, length: header.size)!) == header.checksum)
        found += Array(header.baseOffset...header.lastOffset)
        position += header.size
        next = header.lastOffset + 1
      }
      #expect(position == bytes.writerIndex)
    }
    return found
  }

  private var newestFile: String {
    let names = try! FileManager.default.contentsOfDirectory(atPath: scratch.path + "/0").filter { $0.hasSuffix(".log") }
    return scratch.path + "/0/" + names.sorted().last!
  }

  @Test func `the checksum is the Castagnoli one`() {
    #expect(Array("123456789".utf8).withUnsafeBytes { CRC32C.checksum($0) } == 0xe306_9283)
    for length in 0..<100 {
      let bytes = (0..<length).map { UInt8(truncatingIfNeeded: $0 * 37 + length) }
      #expect(bytes.withUnsafeBytes { CRC32C.checksum($0) } == referenceCRC32C(bytes))
    }
  }

  @Test func `a log opened again goes on where it ended`() throws {
    do {
      let log = try open()
      _ = try log.append(try batch("a", "b"), now: 5000)
      _ = try log.append(try batch("c"), now: 5001)
    }
    let log = try open()
    #expect(log.repairs == [])
    #expect(log.nextOffset == 3)
    #expect(try log.append(try batch("d"), now: 5002).baseOffset == 3)
    #expect(try offsets(log) == [0, 1, 2, 3])
  }

  @Test func `times given by the log never go backwards, also after it was opened again`() throws {
    do {
      let log = try open()
      #expect(try log.append(try batch("a"), now: 5000).logAppendTime == 5000)
      #expect(try log.append(try batch("b"), now: 4000).logAppendTime == 5000)
    }
    #expect(try open().append(try batch("c"), now: 3000).logAppendTime == 5000)
  }

  @Test func `a write cut at any byte loses that batch and no other`() throws {
    do {
      let log = try open()
      _ = try log.append(try batch("first", "second"), now: 5000)
    }
    let whole = newestFile
    let before = try Data(contentsOf: URL(fileURLWithPath: whole))
    do { _ = try open().append(try batch("third", "fourth", producerID: 7, sequence: 0), now: 5001) }
    let after = try Data(contentsOf: URL(fileURLWithPath: whole))
    for length in before.count..<after.count {
      try after.prefix(length).write(to: URL(fileURLWithPath: whole))
      let log = try open()
      #expect(log.nextOffset == 2, "cut after \(length) of \(after.count) bytes")
      #expect(log.repairs.isEmpty == (length == before.count))
      #expect(try Data(contentsOf: URL(fileURLWithPath: whole)) == before)
      // The producer sends it again, as it was never acknowledged.
      #expect(try log.append(try batch("third", "fourth", producerID: 7, sequence: 0), now: 5001).isDuplicate == false)
      #expect(try offsets(log) == [0, 1, 2, 3])
    }
  }

  @Test func `a tail of zeros or of noise is cut off`() throws {
    do { _ = try open().append(try batch("kept"), now: 5000) }
    let whole = try Data(contentsOf: URL(fileURLWithPath: newestFile))
    var random = SystemRandomNumberGenerator()
    for round in 0..<50 {
      let tail = Data((0..<Int.random(in: 1...300, using: &random)).map { _ in round == 0 ? 0 : UInt8.random(in: 0...255, using: &random) })
      try (whole + tail).write(to: URL(fileURLWithPath: newestFile))
      let log = try open()
      #expect(log.nextOffset == 1 && log.repairs.count == 1, "tail \([UInt8](tail))")
    }
  }

  @Test func `a flipped bit among stored records is reported, and what follows is set aside`() throws {
    do {
      let log = try open()
      for value in ["a", "b", "c"] { _ = try log.append(try batch(value), now: 5000) }
    }
    var damaged = try Data(contentsOf: URL(fileURLWithPath: newestFile))
    damaged[damaged.count / 3 + 65] ^= 4
    try damaged.write(to: URL(fileURLWithPath: newestFile))
    let log = try open()
    #expect(log.nextOffset == 1)
    #expect(log.repairs.count == 1 && log.repairs[0].contains("set aside"))
    let names = try FileManager.default.contentsOfDirectory(atPath: scratch.path + "/0")
    #expect(names.contains { $0.contains("damaged-at") })
  }

  @Test func `a batch sent twice is stored once, also after the log was opened again`() throws {
    do {
      let log = try open()
      #expect(try log.append(try batch("a", "b", producerID: 3, sequence: 0), now: 5000).baseOffset == 0)
      #expect(try log.append(try batch("c", producerID: 3, sequence: 2), now: 5001).baseOffset == 2)
    }
    let log = try open()
    let again = try log.append(try batch("a", "b", producerID: 3, sequence: 0), now: 6000)
    #expect(again == .init(baseOffset: 0, logAppendTime: 5000, isDuplicate: true))
    #expect(log.nextOffset == 3)
    #expect(throws: AppendError.self) { try log.append(try batch("e", producerID: 3, sequence: 4), now: 6000) }
    #expect(try log.append(try batch("d", producerID: 3, sequence: 3), now: 6000).baseOffset == 3)
  }

  @Test func `a log of many files reads as one`() throws {
    do {
      let log = try open { $0.segmentBytes = 300 }
      for number in 0..<40 { _ = try log.append(try batch("\(number)", "x"), now: Int64(1000 + number)) }
      #expect(log.segmentCount > 5)
      #expect(try offsets(log) == Array(0..<80))
    }
    let log = try open { $0.segmentBytes = 300 }
    for start in Int64(0)..<80 { #expect(try offsets(log, from: start).last == 79) }
    for number in 0..<40 {
      #expect(try log.offset(atOrAfter: Int64(1000 + number))?.offset == Int64(2 * number))
    }
    #expect(try log.offset(atOrAfter: 1040) == nil)
  }

  @Test func `retention removes the oldest files, by age and by size, and never what is new`() throws {
    let log = try open { $0.segmentBytes = 300 }
    for number in 0..<40 { _ = try log.append(try batch("\(number)"), now: Int64(1000 + number)) }
    let before = log.size
    try log.enforce(.init(), now: 1_000_000)
    #expect(log.size == before)
    try log.enforce(.init(bytes: before / 2), now: 1_000_000)
    #expect(log.size >= before / 2 && log.size < before / 2 + 300)
    let start = log.startOffset
    #expect(start > 0 && log.nextOffset == 40)
    #expect(try offsets(log, from: start) == Array(start..<40))
    try log.enforce(.init(milliseconds: 10), now: 1039)
    #expect(log.startOffset > start && log.startOffset <= 29)
    try log.enforce(.init(milliseconds: 10), now: 1_000_000)
    #expect(log.startOffset == 40 && log.nextOffset == 40)
    #expect(try log.append(try batch("next"), now: 1_000_001).baseOffset == 40)
    #expect(try open { $0.segmentBytes = 300 }.startOffset == 40)
  }

  @Test func `with the producers' times a record is found inside its batch`() throws {
    let log = try open { $0.timestamps = .createTime }
    #expect(try log.append(try batch("a", "b", "c", timestamp: 100, step: 10), now: 9999).logAppendTime == -1)
    #expect(try log.offset(atOrAfter: 105)?.offset == 1)
    #expect(try log.offset(atOrAfter: 105)?.timestamp == 110)
    #expect(try log.offset(atOrAfter: 120)?.offset == 2)
    #expect(try log.offset(atOrAfter: 121) == nil)
  }

  @Test(arguments: 0..<200) func `a disk that is full after any number of bytes loses nothing that was acknowledged`(room: Int) throws {
    let left = Room(bytes: room)
    var acknowledged: [Int64] = []
    do {
      let log = try open {
        $0.calls.write = { file, bytes, count, position in
          let taken = left.take(count)
          if taken == 0 {
            errno = ENOSPC
            return -1
          }
          return pwrite(file, bytes, taken, position)
        }
      }
      for number in 0..<4 {
        if let appended = try? log.append(try batch("\(number)"), now: 5000) { acknowledged.append(appended.baseOffset) }
      }
      #expect(acknowledged.count == room / 70 || acknowledged.count < 4)
      left.add(10_000)
      acknowledged.append(try log.append(try batch("after"), now: 5000).baseOffset)
      #expect(try offsets(log) == acknowledged)
    }
    let log = try open()
    #expect(log.repairs == [])
    #expect(try offsets(log) == acknowledged)
  }

  @Test func `after a failed fsync a log takes nothing more until it is opened again`() throws {
    do {
      let log = try open {
        $0.fsync = .always
        $0.calls.synchronize = { _ in
          errno = EIO
          return -1
        }
      }
      #expect(throws: AppendError.self) { try log.append(try batch("a"), now: 1) }
      #expect(throws: AppendError.self) { try log.append(try batch("b"), now: 1) }
      #expect(log.nextOffset == 0)
    }
    let log = try open()
    #expect(log.nextOffset == 0)
    #expect(try log.append(try batch("a"), now: 1).baseOffset == 0)
  }

  @Test func `a batch that lies about itself is refused with the protocol's error`() throws {
    func error(_ change: (inout [UInt8]) -> Void) -> ErrorCode? {
      var bytes = TestBatch(values: ["a", "b"]).bytes
      change(&bytes)
      do throws(ErrorCode) { _ = try RecordBatch(validating: ByteBuffer(bytes: bytes), maxBytes: 1000) } catch { return error }
      return nil
    }
    func signed(_ change: @escaping (inout [UInt8]) -> Void) -> (inout [UInt8]) -> Void {
      { bytes in
        change(&bytes)
        let checksum = referenceCRC32C(bytes[21...])
        for index in 0..<4 { bytes[17 + index] = UInt8(truncatingIfNeeded: checksum >> (24 - 8 * UInt32(index))) }
      }
    }
    #expect(error { _ in } == nil)
    #expect(error { $0 = [] } == .corruptMessage)
    #expect(error { $0[16] = 1 } == .unsupportedForMessageFormat)
    #expect(error { $0[16] = 0 } == .unsupportedForMessageFormat)
    #expect(error { $0[16] = 3 } == .corruptMessage)
    #expect(error { $0[30] ^= 1 } == .corruptMessage)
    #expect(error { $0.removeLast() } == .corruptMessage)
    #expect(error { $0 += $0 } == .invalidRecord)
    #expect(error { $0[8] = 0x7f } == .corruptMessage)
    #expect(error { $0 += [UInt8](repeating: 0, count: 1000) } == .messageTooLarge)
    #expect(error(signed { $0[60] = 3 }) == .invalidRecord)
    #expect(error(signed { $0[60] = 1 }) == .invalidRecord)
    #expect(error(signed { $0[61] = 0x7e }) == .invalidRecord)
    #expect(error(signed { $0[22] = 5 }) == .unsupportedCompressionType)
    #expect(error(signed { $0[22] = 0x10 }) == .invalidTransactionState)
    #expect(error(signed { $0[22] = 0x20 }) == .invalidRecord)
    #expect(error(signed { $0[22] = 4 }) == nil)  // compressed: what is inside is the reader's to check
  }
}

/// Bytes that a disk still has.
private final class Room: Sendable {
  private let bytes: Mutex<Int>

  init(bytes: Int) { self.bytes = Mutex(bytes) }

  func take(_ wanted: Int) -> Int {
    bytes.withLock { bytes in
      let taken = min(wanted, bytes)
      bytes -= taken
      return taken
    }
  }

  func add(_ more: Int) { bytes.withLock { $0 += more } }
}
