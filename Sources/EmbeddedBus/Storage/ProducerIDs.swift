/// Hands out producer ids, none of them twice in a data directory's life: a thousand at a time are
/// written down as used before the first of them is given.

struct ProducerIDs {
  private static let block: Int64 = 1000
  private let path: String
  private var nextID: Int64
  private var reserved: Int64

  init(directory: String) throws(StorageError) {
    path = directory + "/producer-ids"
    nextID = try readSmallFile(path).flatMap { Int64($0) } ?? 0
    reserved = nextID
  }

  mutating func take() throws(StorageError) -> Int64 {
    if nextID == reserved {
      try replaceSmallFile(path, with: String(reserved + Self.block))
      reserved += Self.block
    }
    defer { nextID += 1 }
    return nextID
  }
}
