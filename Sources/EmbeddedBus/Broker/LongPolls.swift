/// Fetches that wait for records. A value: appends go in, the fetches to answer come out; how long a
/// fetch may wait is its connection's business.

struct LongPolls {
  typealias ID = Int

  struct Poll {
    var request: FetchRequest
    fileprivate var missingBytes: Int
    fileprivate var partitions: [ObjectIdentifier]
  }

  private var polls: [ID: Poll] = [:]
  private var waiting: [ObjectIdentifier: Set<ID>] = [:]
  private var ready: [ID] = []
  private var lastID = 0

  var count: Int { polls.count }

  mutating func park(_ request: FetchRequest, missingBytes: Int, partitions: [ObjectIdentifier]) -> ID {
    lastID += 1
    polls[lastID] = Poll(request: request, missingBytes: missingBytes, partitions: partitions)
    for partition in partitions { waiting[partition, default: []].insert(lastID) }
    return lastID
  }

  mutating func appended(_ bytes: Int, to partition: ObjectIdentifier) {
    guard let ids = waiting[partition] else { return }
    for id in ids.sorted() {
      guard let missing = polls[id]?.missingBytes, missing > 0 else { continue }
      polls[id]?.missingBytes = missing - bytes
      if missing <= bytes { ready.append(id) }
    }
  }

  /// The polls that have got what they wait for, each once and in the order in which they got it.
  mutating func takeReady() -> [ID] {
    defer { ready = [] }
    return ready
  }

  /// The poll ends, whether it got its records or not. nil: it has ended before.
  mutating func remove(_ id: ID) -> Poll? {
    guard let poll = polls.removeValue(forKey: id) else { return nil }
    for partition in poll.partitions {
      waiting[partition]?.remove(id)
      if waiting[partition]?.isEmpty == true { waiting[partition] = nil }
    }
    return poll
  }
}
