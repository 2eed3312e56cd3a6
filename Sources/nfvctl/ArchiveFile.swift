import ControlMessages
import Glibc
import LogAnalysis
import NodeSupport

/// A log in a file. Opening it reads its ends; its records are read as they are asked for, in bounded memory, and each one
/// is checked against the chain.
final class ArchiveFile: LogSource {
  let path: String
  let madeAt: Timestamp
  let trailer: ArchiveTrailer
  private let file: ByteFile

  init(_ path: String) throws {
    self.path = path
    file = try ByteFile(reading: path)
    do {
      madeAt = try ArchiveFormat.readHeader(file.read(at: 0, ArchiveFormat.headerLength))
      let footer = try file.read(at: file.size - min(file.size, UInt64(ArchiveFormat.footerLength)), ArchiveFormat.footerLength)
      guard let position = ArchiveFormat.readFooter(footer) else { throw ArchiveError.truncated(at: file.size) }
      let (head, body) = try file.frame(at: position)
      trailer = try ArchiveTrailer(head, body, at: position)
    } catch let error as ArchiveError { throw Complaint(path, error) }
  }

  var name: String { path }

  func partitions(of topic: String) -> [UInt32] { trailer.sections.filter { $0.place.topic == topic }.map(\.place.partition) }

  private func section(_ place: LogPartition) -> ArchiveSection? { trailer.sections.first { $0.place == place } }

  func extent(of place: LogPartition) -> Range<UInt64>? {
    section(place).map { $0.first.value..<max($0.first.value, $0.last.value) &+ 1 }
  }

  func open(_ place: LogPartition, from offset: Offset?) -> any PartitionReader {
    ArchivePartition(file, path, section(place), from: offset)
  }
}

private final class ArchivePartition: PartitionReader {
  private let file: ByteFile
  private let path: String
  private var reader: ArchiveSectionReader?
  private let from: Offset?

  init(_ file: ByteFile, _ path: String, _ section: ArchiveSection?, from: Offset?) {
    self.file = file
    self.path = path
    self.from = from
    reader = section.map { ArchiveSectionReader($0) }
  }

  func next() throws -> LogRecord? {
    do {
      while reader?.isAtEnd == false {
        let (head, body) = try file.frame(at: reader!.position)
        let record = try reader!.take(head, body)
        if from.map({ record.offset >= $0 }) ?? true { return record }
      }
      return nil
    } catch let error as ArchiveError { throw Complaint(path, error) }
  }
}

/// A file of bytes, read through a buffer, or written through one.
final class ByteFile {
  private static let bufferSize = 1 << 18

  private let descriptor: Int32
  private(set) var size: UInt64 = 0
  private let path: String
  /// Of the file, from `bufferStart` on; of what is written, what is not in the file yet.
  private var buffer: [UInt8] = []
  private var bufferStart: UInt64 = 0

  init(reading path: String) throws {
    self.path = path
    descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw Complaint("\(path): \(String(cString: strerror(errno)))", status: ExitStatus.usage) }
    var status = stat()
    guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
      close(descriptor)
      throw Complaint("\(path) is no file; a log is read from a file, not from a pipe", status: ExitStatus.usage)
    }
    size = UInt64(status.st_size)
  }

  /// Makes the file; one that is there is not overwritten.
  init(creating path: String) throws {
    self.path = path
    descriptor = Glibc.open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o640)
    guard descriptor >= 0 else {
      let reason = errno == EEXIST ? "is there already; choose another name or remove it" : String(cString: strerror(errno))
      throw Complaint("\(path) \(reason)", status: ExitStatus.usage)
    }
  }

  deinit { close(descriptor) }

  func remove() { unlink(path) }

  // MARK: Reading

  func frame(at position: UInt64) throws -> (ArchiveFrameHead, [UInt8]) {
    guard let head = ArchiveFrameHead(try read(at: position, ArchiveFormat.frameHeadLength)) else {
      throw ArchiveError.damaged(at: position, "no record begins here")
    }
    let body = try read(at: position + UInt64(ArchiveFormat.frameHeadLength), head.length)
    return (head, body)
  }

  func read(at position: UInt64, _ count: Int) throws -> [UInt8] {
    guard position <= size, UInt64(count) <= size - position else { throw ArchiveError.truncated(at: size) }
    if position < bufferStart || position + UInt64(count) > bufferStart + UInt64(buffer.count) {
      try fill(from: position, atLeast: count)
    }
    let start = Int(position - bufferStart)
    return Array(buffer[start..<(start + count)])
  }

  private func fill(from position: UInt64, atLeast count: Int) throws {
    let wanted = Int(min(UInt64(max(count, Self.bufferSize)), size - position))
    var failure: Int32 = 0
    buffer = [UInt8](unsafeUninitializedCapacity: wanted) { bytes, filled in
      while filled < wanted {
        let got = pread(descriptor, bytes.baseAddress! + filled, wanted - filled, off_t(position) + off_t(filled))
        if got < 0, errno == EINTR { continue }
        if got < 0 { failure = errno }
        guard got > 0 else { break }
        filled += got
      }
    }
    bufferStart = position
    guard failure == 0 else { throw Complaint("\(path): \(String(cString: strerror(failure)))") }
    // It was cut while it was read.
    guard buffer.count >= count else { throw ArchiveError.truncated(at: position + UInt64(buffer.count)) }
  }

  // MARK: Writing

  func write(_ bytes: [UInt8]) throws {
    buffer += bytes
    if buffer.count >= Self.bufferSize { try flush() }
  }

  /// Writes everything and forces it to the disk.
  func finish() throws {
    try flush()
    guard fsync(descriptor) == 0 else { throw Complaint("\(path): \(String(cString: strerror(errno)))") }
  }

  private func flush() throws {
    try buffer.withUnsafeBytes { bytes in
      var rest = bytes[...]
      while !rest.isEmpty {
        let count = Glibc.write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { throw Complaint("\(path): \(String(cString: strerror(errno)))") }
        rest = rest.dropFirst(count)
      }
    }
    size += UInt64(buffer.count)
    buffer.removeAll(keepingCapacity: true)
  }
}

extension Complaint {
  init(_ path: String, _ error: ArchiveError) { self.init("\(path): \(error)", status: ExitStatus.damaged) }
}

extension ExitStatus {
  /// Two things that should be the same are not: decisions, schemas, or a log and what follows from it.
  static let different: Int32 = 3
  /// A file whose content is not what it claims to be (EX_DATAERR).
  static let damaged: Int32 = 65
}
