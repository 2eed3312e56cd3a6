/// The records of one partition, in append-only files.
///
/// A batch is written by one `pwrite` before anything is acknowledged, so what was acknowledged
/// survives the death of the process; whether it survives the death of the machine is the fsync
/// policy's business. Timestamps given by the log never go backwards within a partition, even if
/// the machine's clock does.
///
/// Used by one thread: the broker's event loop.
import NIOCore

#if canImport(Glibc)
  import Glibc
#else
  import Musl
#endif

final class PartitionLog {
  struct Options: Sendable {
    var segmentBytes = 128 << 20
    var timestamps = BusConfiguration.Timestamps.logAppendTime
    var fsync = BusConfiguration.Fsync.never
    var rememberedProducers = 4096
    var calls = WriteCalls()
  }

  struct Appended: Equatable {
    var baseOffset: Int64
    /// -1 where records keep the time given by their producer.
    var logAppendTime: Int64
    var isDuplicate = false
  }

  let directory: String
  let options: Options
  /// What was found and done when the log was opened, in sentences; empty if all was well.
  private(set) var repairs: [String] = []
  private(set) var producers: ProducerStates
  private var hasUnsynchronizedData = false
  /// Older files that were never flushed since their last write.
  private var unsynchronized: [LogFile] = []
  private var segments: [Segment]
  private var active: LogFile
  private var lastTimestamp: Int64 = -1
  /// The older segment that was read last stays open.
  private var reading: (baseOffset: Int64, file: LogFile)?
  /// After a failed fsync the kernel may have dropped what was not written; nothing is appended until the log is opened anew.
  private var isBroken = false

  var startOffset: Int64 { segments[0].baseOffset }
  /// The offset of the next record: the high watermark.
  var nextOffset: Int64 { segments[segments.count - 1].nextOffset }
  var size: Int { segments.reduce(0) { $0 + $1.size } }
  var segmentCount: Int { segments.count }

  init(opening directory: String, options: Options = Options()) throws(StorageError) {
    self.directory = directory
    self.options = options
    producers = ProducerStates(capacity: options.rememberedProducers)
    try makeDirectory(directory)
    var bases = try fileNames(in: directory).compactMap(Segment.baseOffset(fileName:)).sorted()
    if bases.isEmpty { bases = [0] }
    segments = bases.map { Segment(baseOffset: $0, directory: directory) }
    active = try LogFile(opening: segments[segments.count - 1].path, forWriting: true, calls: options.calls)
    try recover()
  }

  // MARK: Append

  /// Stores a batch, or finds that it is stored already.
  func append(_ given: RecordBatch, now: Int64) throws(AppendError) -> Appended {
    switch producers.judge(given.header) {
    case .duplicate(let batch):
      return Appended(
        baseOffset: batch.baseOffset,
        logAppendTime: options.timestamps == .logAppendTime ? batch.timestamp : -1, isDuplicate: true)
    case .refuse(let code): throw .refused(code)
    case .append: break
    }
    do throws(StorageError) {
      guard !isBroken else { throw StorageError("append after a failed fsync to", active.path, code: EIO) }
      return try store(given, now: now)
    } catch {
      throw .storage(error)
    }
  }

  private func store(_ given: RecordBatch, now: Int64) throws(StorageError) -> Appended {
    if segments[segments.count - 1].size > 0,
      segments[segments.count - 1].size + given.header.size > options.segmentBytes { try roll() }
    var batch = given
    batch.place(at: nextOffset, leaderEpoch: BrokerIdentity.leaderEpoch)
    if options.timestamps == .logAppendTime { batch.stamp(max(now, lastTimestamp)) }
    let position = segments[segments.count - 1].size
    do throws(StorageError) {
      try active.write(batch.bytes, at: position)
    } catch {
      try? active.truncate(to: position)  // if this fails too, the next write or open clears the rest away
      throw error
    }
    if options.fsync == .always {
      do throws(StorageError) {
        try active.synchronize()
      } catch {
        isBroken = true
        try? active.truncate(to: position)  // refused, so it must not reappear
        throw error
      }
    } else {
      hasUnsynchronizedData = true
    }
    segments[segments.count - 1].note(batch.header)
    producers.record(batch.header)
    lastTimestamp = max(lastTimestamp, batch.header.maxTimestamp)
    return Appended(
      baseOffset: batch.header.baseOffset,
      logAppendTime: options.timestamps == .logAppendTime ? batch.header.maxTimestamp : -1)
  }

  private func roll() throws(StorageError) {
    let segment = Segment(baseOffset: nextOffset, directory: directory)
    let file = try LogFile(opening: segment.path, forWriting: true, calls: options.calls)
    try file.truncate(to: 0)
    if options.fsync != .never { try synchronizeDirectory(directory) }
    if hasUnsynchronizedData, options.fsync != .never { unsynchronized.append(active) }
    hasUnsynchronizedData = false
    segments.append(segment)
    active = file
  }

  // MARK: Read

  /// Whole batches from the one that holds `offset` on; nil if there is nothing (yet) or not even one fits.
  /// The first batch is given even if it is longer than `maxBytes`, when `atLeastOne` is set: else a
  /// reader with a small buffer would stand still for ever.
  func read(from offset: Int64, maxBytes: Int, atLeastOne: Bool) throws(StorageError) -> ByteBuffer? {
    guard offset < nextOffset, let place = try locate({ $0.lastOffset >= offset }, in: segmentIndex(holding: offset), { $0.floor(offset: offset) })
    else { return nil }
    guard atLeastOne || place.header.size <= maxBytes else { return nil }
    let segment = segments[place.segment]
    let count = min(max(maxBytes, place.header.size), segment.size - place.position)
    var bytes = try file(of: place.segment).read(at: place.position, count: count)
    var end = bytes.readerIndex
    while let header = BatchHeader(bytes, at: end), end + header.size <= bytes.writerIndex { end += header.size }
    bytes.moveWriterIndex(to: end)
    return bytes
  }

  /// The first record at or after a time; nil if there is none. In a compressed batch with the
  /// producer's times the batch's first record is given, which is never too late.
  func offset(atOrAfter timestamp: Int64) throws(StorageError) -> (offset: Int64, timestamp: Int64)? {
    let first = segments.firstIndex { $0.size > 0 && $0.maxTimestamp >= timestamp }
    guard let first,
      let place = try locate({ $0.maxTimestamp >= timestamp }, in: first, { $0.floor(timestamp: timestamp) })
    else { return nil }
    let header = place.header
    if header.usesLogAppendTime { return (header.baseOffset, header.maxTimestamp) }
    if header.isCompressed { return (header.baseOffset, header.baseTimestamp) }
    var records = RecordCursor(batch: try file(of: place.segment).read(at: place.position, count: header.size), header)
    while let record = records.next() { if record.timestamp >= timestamp { return record } }
    return (header.baseOffset, header.maxTimestamp)
  }

  private func segmentIndex(holding offset: Int64) -> Int {
    let index = max(0, segments.partitioningIndex { $0.baseOffset > offset } - 1)
    // Past what is readable of a damaged segment the next one goes on.
    return segments[index].nextOffset <= offset && index + 1 < segments.count ? index + 1 : index
  }

  private func locate(
    _ isWanted: (BatchHeader) -> Bool, in segment: Int, _ floor: (Segment) -> Int
  ) throws(StorageError) -> (segment: Int, position: Int, header: BatchHeader)? {
    var scanner = BatchScanner(
      file: try file(of: segment), from: floor(segments[segment]), to: segments[segment].size, chunk: Segment.indexInterval)
    while let (header, position) = try scanner.next() {
      if isWanted(header) { return (segment, position, header) }
    }
    return nil
  }

  private func file(of segment: Int) throws(StorageError) -> LogFile {
    if segment == segments.count - 1 { return active }
    if let reading, reading.baseOffset == segments[segment].baseOffset { return reading.file }
    let file = try LogFile(opening: segments[segment].path, forWriting: false, calls: options.calls)
    reading = (segments[segment].baseOffset, file)
    return file
  }

  // MARK: Upkeep

  /// Removes the oldest segments that are too old or too much. Whole segments only: the log may be
  /// larger than the limit by less than one segment.
  func enforce(_ retention: BusConfiguration.Retention, now: Int64) throws(StorageError) {
    if let age = retention.milliseconds, let newest = segments.last, newest.size > 0, newest.maxTimestamp < now - age {
      try roll()
    }
    while segments.count > 1 {
      let oldest = segments[0]
      let isTooOld = retention.milliseconds.map { oldest.maxTimestamp < now - $0 } ?? false
      let isTooMuch = retention.bytes.map { size - oldest.size >= $0 } ?? false
      guard isTooOld || isTooMuch else { return }
      if reading?.baseOffset == oldest.baseOffset { reading = nil }
      guard unlink(oldest.path) == 0 || errno == ENOENT else { throw StorageError("remove", oldest.path) }
      segments.removeFirst()
    }
  }

  /// Descriptors to flush on another thread and close there.
  func takeUnsynchronized() -> [Int32] {
    var files = unsynchronized
    if hasUnsynchronizedData { files.append(active) }
    unsynchronized = []
    hasUnsynchronizedData = false
    return files.compactMap { $0.duplicate() }
  }

  /// A flush on another thread failed.
  func markBroken() { isBroken = true }

  func synchronize() throws(StorageError) {
    for file in unsynchronized { try file.synchronize() }
    if hasUnsynchronizedData { try active.synchronize() }
    unsynchronized = []
    hasUnsynchronizedData = false
  }

  // MARK: Open

  /// Reads every batch's header; in the newest segment also checks every batch's checksum and cuts off
  /// what a death in the middle of a write has left there.
  private func recover() throws(StorageError) {
    for index in segments.indices {
      let isActive = index == segments.count - 1
      let file = try file(of: index)
      let length = try file.size()
      var scanner = BatchScanner(file: file, from: 0, to: length, chunk: 1 << 20, verifying: isActive)
      while let (header, _) = try scanner.next(), header.baseOffset >= segments[index].nextOffset {
        segments[index].note(header)
        producers.record(header)
        lastTimestamp = max(lastTimestamp, header.maxTimestamp)
      }
      let valid = segments[index].size
      guard valid < length else { continue }
      guard isActive else {
        repairs.append("\(file.path) is damaged at byte \(valid) of \(length): the records from offset \(segments[index].nextOffset) up to the next file are lost")
        continue
      }
      if try scanner.findsBatch(after: valid) {
        let copy = file.path + ".damaged-at-\(valid)"
        try save(file, from: valid, to: length, as: copy)
        repairs.append("\(file.path) is damaged at byte \(valid) of \(length), with records after it: they are set aside in \(copy)")
      } else {
        repairs.append("\(file.path) ended in an unfinished write: \(length - valid) bytes cut off, no acknowledged record among them")
      }
      try file.truncate(to: valid)
    }
    reading = nil
  }

  private func save(_ file: LogFile, from start: Int, to end: Int, as path: String) throws(StorageError) {
    let copy = try LogFile(opening: path, forWriting: true, calls: options.calls)
    var position = start
    while position < end {
      let bytes = try file.read(at: position, count: min(1 << 20, end - position))
      if bytes.readableBytes == 0 { break }
      try copy.write(bytes, at: position - start)
      position += bytes.readableBytes
    }
    try copy.synchronize()
  }
}

/// Why a batch was not appended.
enum AppendError: Error {
  case refused(ErrorCode)
  case storage(StorageError)
}
