/// Walks a log file batch by batch, reading ahead in chunks; optionally checks each batch's checksum.
import NIOCore

struct BatchScanner {
  private let file: LogFile
  private let end: Int
  private let chunk: Int
  private let verifying: Bool
  private var position: Int
  private var buffer = ByteBuffer()
  private var bufferPosition = 0

  init(file: LogFile, from position: Int, to end: Int, chunk: Int, verifying: Bool = false) {
    self.file = file
    self.position = position
    self.end = end
    self.chunk = chunk
    self.verifying = verifying
  }

  /// The next batch and where it starts; nil at the end or where no whole, valid batch follows.
  mutating func next() throws(StorageError) -> (BatchHeader, Int)? {
    guard let header = try header(at: position), position + header.size <= end else { return nil }
    if verifying {
      guard let batch = try bytes(at: position, count: header.size),
        RecordBatch.checksum(of: batch) == header.checksum else { return nil }
    }
    defer { position += header.size }
    return (header, position)
  }

  /// Whether a valid batch follows the broken one at `position`: then it is damage, not an unfinished write.
  mutating func findsBatch(after position: Int) throws(StorageError) -> Bool {
    guard let broken = try header(at: position) else { return false }
    let following = position + broken.size
    guard let header = try header(at: following), following + header.size <= end,
      let batch = try bytes(at: following, count: header.size) else { return false }
    return RecordBatch.checksum(of: batch) == header.checksum
  }

  private mutating func header(at position: Int) throws(StorageError) -> BatchHeader? {
    guard let bytes = try bytes(at: position, count: BatchHeader.size) else { return nil }
    return BatchHeader(bytes, at: bytes.readerIndex)
  }

  private mutating func bytes(at position: Int, count: Int) throws(StorageError) -> ByteBuffer? {
    guard position + count <= end else { return nil }
    if position < bufferPosition || position + count > bufferPosition + buffer.readableBytes {
      buffer = try file.read(at: position, count: min(max(chunk, count), end - position))
      bufferPosition = position
    }
    return buffer.getSlice(at: buffer.readerIndex + position - bufferPosition, length: count)
  }
}
