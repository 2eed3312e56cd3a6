/// A record batch of format 2: the unit in which records are produced, stored and fetched.
///
/// ```
///  0 base offset        8 | 21 attributes         2 | 43 producer id      8
///  8 length after here  4 | 23 last offset delta  4 | 51 producer epoch   2
/// 12 leader epoch       4 | 27 base timestamp     8 | 53 base sequence    4
/// 16 magic              1 | 35 max timestamp      8 | 57 record count     4
/// 17 CRC-32C            4 |                         | 61 records
/// ```
/// The checksum covers everything from the attributes on. So a broker may set the base offset and the
/// leader epoch without touching what the producer signed, and has to sign anew if it sets the time.
import NIOCore

struct BatchHeader: Equatable {
  static let size = 61
  /// No batch may be longer, whatever the configuration says: it bounds what a damaged length field can make us read.
  static let largestBatch = 64 << 20

  var baseOffset: Int64
  var length: Int32
  var magic: Int8
  var checksum: UInt32
  var attributes: Int16
  var lastOffsetDelta: Int32
  var baseTimestamp: Int64
  var maxTimestamp: Int64
  var producerID: Int64
  var producerEpoch: Int16
  var baseSequence: Int32
  var recordCount: Int32

  /// nil when there are fewer than 61 bytes, or a length or magic that no batch of format 2 has.
  init?(_ buffer: ByteBuffer, at index: Int) {
    guard index >= buffer.readerIndex, index + Self.size <= buffer.writerIndex else { return nil }
    func field<T: FixedWidthInteger>(_ offset: Int, _: T.Type = T.self) -> T {
      buffer.getInteger(at: index + offset, as: T.self)!  // within the 61 bytes checked above
    }
    baseOffset = field(0)
    length = field(8)
    magic = field(16)
    checksum = field(17)
    attributes = field(21)
    lastOffsetDelta = field(23)
    baseTimestamp = field(27)
    maxTimestamp = field(35)
    producerID = field(43)
    producerEpoch = field(51)
    baseSequence = field(53)
    recordCount = field(57)
    guard magic == 2, Int(length) >= Self.size - 12, Int(length) + 12 <= Self.largestBatch, lastOffsetDelta >= 0,
      baseOffset >= 0, baseOffset < Int64.max - Int64(Int32.max) - 1
    else { return nil }
  }

  /// Bytes of the whole batch.
  var size: Int { Int(length) + 12 }
  var lastOffset: Int64 { baseOffset + Int64(lastOffsetDelta) }
  var isCompressed: Bool { attributes & 0x7 != 0 }
  var usesLogAppendTime: Bool { attributes & 0x8 != 0 }
  var isTransactional: Bool { attributes & 0x10 != 0 }
  var isControl: Bool { attributes & 0x20 != 0 }
  var hasProducer: Bool { producerID >= 0 }
  var lastSequence: Int32 { SequenceNumber.advance(baseSequence, by: lastOffsetDelta) }
}

/// Sequence numbers of a producer run from 0 to 2^31 - 1 and around.
enum SequenceNumber {
  static func advance(_ sequence: Int32, by count: Int32) -> Int32 { (sequence &+ count) & Int32.max }
}

/// A batch that has been checked, on its way into a log.
struct RecordBatch {
  private(set) var bytes: ByteBuffer
  private(set) var header: BatchHeader

  /// Checks all that can be checked without decompressing. The errors are those that Kafka gives.
  init(validating bytes: ByteBuffer, maxBytes: Int) throws(ErrorCode) {
    guard bytes.readableBytes > 16 else { throw .corruptMessage }
    let magic = bytes.getInteger(at: bytes.readerIndex + 16, as: Int8.self)
    guard let magic, magic >= 2 else { throw .unsupportedForMessageFormat }
    guard bytes.readableBytes <= maxBytes else { throw .messageTooLarge }
    guard let header = BatchHeader(bytes, at: bytes.readerIndex), header.size <= bytes.readableBytes else { throw .corruptMessage }
    guard header.size == bytes.readableBytes else { throw .invalidRecord }  // one request, one batch
    guard Self.checksum(of: bytes) == header.checksum else { throw .corruptMessage }
    guard header.recordCount > 0, header.lastOffsetDelta == header.recordCount - 1 else { throw .invalidRecord }
    guard header.attributes & 0x7 <= 4 else { throw .unsupportedCompressionType }
    guard !header.isControl else { throw .invalidRecord }
    guard !header.isTransactional else { throw .invalidTransactionState }
    guard !header.hasProducer || (header.producerEpoch >= 0 && header.baseSequence >= 0) else { throw .invalidRecord }
    if !header.isCompressed {
      var records = RecordCursor(batch: bytes, header)
      for _ in 0..<header.recordCount { guard records.next() != nil else { throw .invalidRecord } }
      guard records.isAtEnd else { throw .invalidRecord }
    }
    self.bytes = bytes
    self.header = header
  }

  /// Gives the batch its place in the log.
  mutating func place(at offset: Int64, leaderEpoch: Int32) {
    header.baseOffset = offset
    bytes.setInteger(offset, at: bytes.readerIndex)
    bytes.setInteger(leaderEpoch, at: bytes.readerIndex + 12)
  }

  /// Makes `timestamp` the time of every record in it (`LogAppendTime`).
  mutating func stamp(_ timestamp: Int64) {
    header.attributes |= 0x8
    header.maxTimestamp = timestamp
    bytes.setInteger(header.attributes, at: bytes.readerIndex + 21)
    bytes.setInteger(timestamp, at: bytes.readerIndex + 35)
    header.checksum = Self.checksum(of: bytes)
    bytes.setInteger(header.checksum, at: bytes.readerIndex + 17)
  }

  /// The checksum of the batch that fills `bytes`, of which there are at least 61.
  static func checksum(of bytes: ByteBuffer) -> UInt32 {
    bytes.withUnsafeReadableBytes { CRC32C.checksum(UnsafeRawBufferPointer(rebasing: $0[21...])) }
  }
}

/// Walks the records of an uncompressed batch, reading of each only its length, time and offset.
struct RecordCursor {
  private var buffer: ByteBuffer
  private let header: BatchHeader

  /// `batch` starts with the batch whose header is given.
  init(batch: ByteBuffer, _ header: BatchHeader) {
    let start = batch.readerIndex + BatchHeader.size
    let end = min(batch.readerIndex + header.size, batch.writerIndex)
    buffer = start <= end ? batch.getSlice(at: start, length: end - start) ?? ByteBuffer() : ByteBuffer()
    self.header = header
  }

  var isAtEnd: Bool { buffer.readableBytes == 0 }

  mutating func next() -> (offset: Int64, timestamp: Int64)? {
    guard let length = varint(), length >= 0, length <= Int64(buffer.readableBytes) else { return nil }
    let end = buffer.readerIndex + Int(length)
    guard buffer.readInteger(as: Int8.self) != nil, let timestampDelta = varint(), let offsetDelta = varint(),
      offsetDelta >= 0, offsetDelta <= Int64(header.lastOffsetDelta), buffer.readerIndex <= end
    else { return nil }
    buffer.moveReaderIndex(to: end)
    return (header.baseOffset + offsetDelta, header.baseTimestamp &+ timestampDelta)
  }

  private mutating func varint() -> Int64? {
    var value: UInt64 = 0
    for shift in stride(from: UInt64(0), through: 63, by: 7) {
      guard let byte = buffer.readInteger(as: UInt8.self) else { return nil }
      value |= UInt64(byte & 0x7f) << shift
      if byte & 0x80 == 0 { return Int64(bitPattern: value >> 1) ^ -Int64(bitPattern: value & 1) }
    }
    return nil
  }
}
