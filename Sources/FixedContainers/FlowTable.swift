import CIntrinsics

/// A hash index from 64-bit hashes to 32-bit values, for keys that live elsewhere.
///
/// Buckets are cache lines of ten entries. An entry may stand in one of two buckets; the second is found
/// from the first and the entry's tag alone (partial-key cuckoo hashing), so entries can be moved without
/// looking at their keys. A bucket knows how many of its entries stand in their second bucket: as long as there
/// are none, a lookup reads one line, also when it finds nothing. The caller compares the keys of the
/// (nearly always single) candidate. Capacity is set once; at the set load an insertion all but never fails,
/// and when it does it says so.
///
///     | 10 tags of 16 bits | 10 values of 32 bits | entries away | which are guests |   64 bytes; tag 0 = empty
///
/// There are as many buckets as it takes, not a power of two: a hash's bucket is a share of all as large as its lower half is
/// of 2^32, and its two buckets add up to a number that the tag gives, modulo their count.
@safe
public struct FlowTable: ~Copyable {
  @usableFromInline let buckets: UnsafeMutableRawPointer
  @usableFromInline let bucketCount: UInt64
  public private(set) var count = 0

  static var entriesPerBucket: Int { 10 }

  /// Room for `capacity` entries, 6.4 in each bucket of ten: then less than 2 in 100 stand in their second one.
  public init(capacity: Int, memory: MemorySource) {
    let count = max(16, (capacity * 5 + 31) / 32)
    precondition(count <= Int(UInt32.max), "buckets are numbered with 32 bits")
    unsafe buckets = UnsafeMutableRawPointer(memory.allocate(UInt64.self, count: count * 8))
    bucketCount = UInt64(count)
  }

  /// How far an insertion goes in moving others before it gives up.
  static var longestDisplacement: Int { 64 }

  @inlinable @inline(__always)
  func tag(_ hash: UInt64) -> UInt64 {
    let tag = hash >> 48
    return tag == 0 ? 1 : tag
  }

  @inlinable @inline(__always)
  func firstBucket(_ hash: UInt64) -> UInt64 { ((hash & 0xffff_ffff) &* bucketCount) >> 32 }

  @inlinable @inline(__always)
  func otherBucket(_ bucket: UInt64, _ tag: UInt64) -> UInt64 {
    // Consecutive tags are to be far apart, also where buckets are many more than tags.
    let sum = ((tag &* 0x5bd1_e995 & 0xffff_ffff) &* bucketCount) >> 32
    return sum >= bucket ? sum &- bucket : sum &+ bucketCount &- bucket
  }

  @inlinable @inline(__always)
  func line(_ bucket: UInt64) -> UnsafeMutableRawPointer { unsafe buckets + Int(truncatingIfNeeded: bucket) &* 64 }

  @inlinable @inline(__always)
  func tags(_ bucket: UInt64) -> UnsafeMutablePointer<UInt16> { unsafe line(bucket).assumingMemoryBound(to: UInt16.self) }

  @inlinable @inline(__always)
  func values(_ bucket: UInt64) -> UnsafeMutablePointer<UInt32> {
    unsafe (line(bucket) + 20).assumingMemoryBound(to: UInt32.self)
  }

  /// Entries that belong into this bucket and stand in their second one.
  @inlinable @inline(__always)
  func away(_ bucket: UInt64) -> UnsafeMutablePointer<UInt16> { unsafe (line(bucket) + 60).assumingMemoryBound(to: UInt16.self) }

  /// One bit per entry: it stands here because its first bucket was full.
  @inlinable @inline(__always)
  func guests(_ bucket: UInt64) -> UnsafeMutablePointer<UInt16> {
    unsafe (line(bucket) + 62).assumingMemoryBound(to: UInt16.self)
  }

  /// Asks for the line that a lookup of `hash` reads first.
  @inlinable @inline(__always)
  public func prefetch(_ hash: UInt64) { unsafe nfv_prefetch(line(firstBucket(hash))) }

  /// The first value stored under `hash` that satisfies `matches`.
  ///
  /// `matches` sees every entry with an equal tag: usually exactly the right one.
  @inlinable @inline(__always)
  public func find(_ hash: UInt64, where matches: (UInt32) -> Bool) -> UInt32? {
    let tag = tag(hash)
    let first = firstBucket(hash)
    if let value = find(first, tag, matches) { return value }
    guard unsafe away(first).pointee != 0 else { return nil }
    return find(otherBucket(first, tag), tag, matches)
  }

  @inlinable @inline(__always)
  func find(_ bucket: UInt64, _ tag: UInt64, _ matches: (UInt32) -> Bool) -> UInt32? {
    let base = unsafe line(bucket)
    var hits = unsafe nfv_equal_tags(base, UInt16(truncatingIfNeeded: tag))
    while hits != 0 {
      let value = unsafe base.load(fromByteOffset: 20 &+ hits.trailingZeroBitCount &* 4, as: UInt32.self)
      if matches(value) { return value }
      hits &= hits &- 1
    }
    return nil
  }

  /// Adds an entry; `false` when there is no room within reach. Does not look for an equal key.
  @inline(__always)
  public mutating func insert(_ hash: UInt64, _ value: UInt32) -> Bool {
    let entry = Entry(tag: UInt16(truncatingIfNeeded: tag(hash)), value: value, isGuest: false)
    let first = firstBucket(hash)
    guard place(first, entry) || placeAsGuest(entry, from: first) || displace(entry, first, chooser: Int(hash >> 32 & 7)) else {
      return false
    }
    count += 1
    return true
  }

  struct Entry {
    var tag: UInt16
    var value: UInt32
    var isGuest: Bool
  }

  @inline(__always)
  private func place(_ bucket: UInt64, _ entry: Entry) -> Bool {
    let free = unsafe nfv_equal_tags(line(bucket), 0)
    guard free != 0 else { return false }
    write(bucket, free.trailingZeroBitCount, entry)
    return true
  }

  @inline(__always)
  private func write(_ bucket: UInt64, _ index: Int, _ entry: Entry) {
    unsafe tags(bucket)[index] = entry.tag
    unsafe values(bucket)[index] = entry.value
    let bit: UInt16 = 1 << UInt16(truncatingIfNeeded: index)
    unsafe guests(bucket).pointee = entry.isGuest ? guests(bucket).pointee | bit : guests(bucket).pointee & ~bit
  }

  @inline(never)
  private func placeAsGuest(_ entry: Entry, from first: UInt64) -> Bool {
    guard place(otherBucket(first, UInt64(entry.tag)), Entry(tag: entry.tag, value: entry.value, isGuest: true)) else {
      return false
    }
    unsafe away(first).pointee &+= 1
    return true
  }

  /// Both buckets are full: puts out an entry, which has its own second bucket, and so on. Should the walk
  /// find no room it is walked backwards, so that a failed insertion leaves everything where it was.
  @inline(never)
  private func displace(_ entry: Entry, _ first: UInt64, chooser: Int) -> Bool {
    var entry = entry
    var bucket = first
    var path = InlineArray<64, (bucket: UInt64, index: Int)>(repeating: (0, 0))
    for step in 0..<Self.longestDisplacement {
      let index = (step &+ chooser) % Self.entriesPerBucket
      path[step] = (bucket, index)
      (entry, bucket) = exchange(bucket, index, entry)
      if place(bucket, entry) { return true }
    }
    for step in (0..<Self.longestDisplacement).reversed() {
      entry = putBack(entry, path[step].bucket, path[step].index)
    }
    return false
  }

  /// Writes `entry` over another one, which is on its way to its other bucket then: as a guest, or back home.
  private func exchange(_ bucket: UInt64, _ index: Int, _ entry: Entry) -> (Entry, UInt64) {
    var old = read(bucket, index)
    write(bucket, index, entry)
    let other = otherBucket(bucket, UInt64(old.tag))
    if old.isGuest { unsafe away(other).pointee &-= 1 } else { unsafe away(bucket).pointee &+= 1 }
    old.isGuest.toggle()
    return (old, other)
  }

  /// Undoes one `exchange`: `entry` stands again where it stood, and what replaced it is returned.
  private func putBack(_ entry: Entry, _ bucket: UInt64, _ index: Int) -> Entry {
    var entry = entry
    entry.isGuest.toggle()
    if entry.isGuest {
      unsafe away(otherBucket(bucket, UInt64(entry.tag))).pointee &+= 1
    } else {
      unsafe away(bucket).pointee &-= 1
    }
    let replacement = read(bucket, index)
    write(bucket, index, entry)
    return replacement
  }

  private func read(_ bucket: UInt64, _ index: Int) -> Entry {
    unsafe Entry(
      tag: tags(bucket)[index], value: values(bucket)[index], isGuest: guests(bucket).pointee >> UInt16(index) & 1 != 0)
  }

  /// Removes the entry of this hash and value; `false` if there is none.
  @discardableResult
  public mutating func remove(_ hash: UInt64, _ value: UInt32) -> Bool {
    let tag = tag(hash)
    let first = firstBucket(hash)
    guard clear(first, tag, value) || clear(otherBucket(first, tag), tag, value) else { return false }
    count -= 1
    return true
  }

  @inline(__always)
  private func clear(_ bucket: UInt64, _ tag: UInt64, _ value: UInt32) -> Bool {
    var hits = unsafe nfv_equal_tags(line(bucket), UInt16(truncatingIfNeeded: tag))
    while hits != 0 {
      let index = hits.trailingZeroBitCount
      if unsafe values(bucket)[index] == value {
        if unsafe guests(bucket).pointee >> UInt16(truncatingIfNeeded: index) & 1 != 0 {
          unsafe away(otherBucket(bucket, tag)).pointee &-= 1
        }
        unsafe tags(bucket)[index] = 0
        return true
      }
      hits &= hits &- 1
    }
    return false
  }
}
