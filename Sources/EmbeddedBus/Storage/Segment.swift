/// A stretch of a partition's log: one file named by its first offset, and where in it things are.
///
/// The index is sparse (one entry per 16 KiB, 24 bytes each), lives in memory only and is rebuilt when
/// the log is opened; from an entry one walks batch by batch.

struct Segment {
  struct IndexEntry {
    var offset: Int64
    var position: Int
    /// The largest timestamp of all that lies before this entry in the segment.
    var timestampBefore: Int64
  }

  static let indexInterval = 16 << 10

  let baseOffset: Int64
  let path: String
  private(set) var size = 0
  private(set) var nextOffset: Int64
  private(set) var maxTimestamp: Int64 = -1
  private(set) var index: [IndexEntry] = []
  /// Where the newest batch is: readers at the end of the log need no search.
  private var newest: (offset: Int64, position: Int)?

  init(baseOffset: Int64, directory: String) {
    self.baseOffset = baseOffset
    nextOffset = baseOffset
    let digits = String(baseOffset)
    path = directory + "/" + String(repeating: "0", count: 20 - digits.count) + digits + ".log"
  }

  static func baseOffset(fileName: String) -> Int64? {
    guard fileName.count == 24, fileName.hasSuffix(".log") else { return nil }
    return Int64(fileName.dropLast(4))
  }

  /// Takes note of a batch that is stored at the segment's end.
  mutating func note(_ header: BatchHeader) {
    if index.isEmpty || size - index[index.count - 1].position >= Self.indexInterval {
      index.append(IndexEntry(offset: header.baseOffset, position: size, timestampBefore: maxTimestamp))
    }
    newest = (header.baseOffset, size)
    size += header.size
    nextOffset = header.lastOffset + 1
    maxTimestamp = max(maxTimestamp, header.maxTimestamp)
  }

  /// A position at or before the batch that holds `offset`.
  func floor(offset: Int64) -> Int {
    if let newest, newest.offset <= offset { return newest.position }
    let after = index.partitioningIndex { $0.offset > offset }
    return after == 0 ? 0 : index[after - 1].position
  }

  /// A position at or before the first batch with a timestamp of at least `timestamp`.
  func floor(timestamp: Int64) -> Int {
    let after = index.partitioningIndex { $0.timestampBefore >= timestamp }
    return after == 0 ? 0 : index[after - 1].position
  }
}

extension Array {
  /// The first index whose element satisfies a predicate that is false up to somewhere and true from there on.
  func partitioningIndex(where belongsToSecond: (Element) -> Bool) -> Int {
    var low = 0
    var high = count
    while low < high {
      let middle = (low + high) / 2
      if belongsToSecond(self[middle]) { high = middle } else { low = middle + 1 }
    }
    return low
  }
}
