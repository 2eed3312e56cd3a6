import CIntrinsics

/// A hash index from 64-bit hashes to 32-bit values, for keys that live elsewhere.
///
/// Buckets are cache lines of eight entries. An entry may stand in one of two buckets; the second is found
/// from the first and the entry's tag alone (partial-key cuckoo hashing), so entries can be moved without
/// looking at their keys. A bucket knows how many of its entries stand in their second bucket: as long as there
/// are none, a lookup reads one line, also when it finds nothing. The caller compares the keys of the
/// (nearly always single) candidate. Capacity is set once; at the set load an insertion all but never fails,
/// and when it does it says so.
///
///     | 8 tags of 16 bits | 8 values of 32 bits | entries away | which are guests | spare |   64 bytes; tag 0 = empty
@safe
public struct FlowTable: ~Copyable {
  @usableFromInline let buckets: UnsafeMutableRawPointer
  @usableFromInline let mask: UInt64
  public private(set) var count = 0

  /// Room for `capacity` entries at three quarters load.
  public init(capacity: Int, memory: MemorySource) {
    var bucketCount = 16
    while bucketCount * 6 < capacity { bucketCount *= 2 }
    unsafe buckets = UnsafeMutableRawPointer(memory.allocate(UInt64.self, count: bucketCount * 8))
    mask = UInt64(bucketCount - 1)
  }

  /// How far an insertion goes in moving others before it gives up.
  static var longestDisplacement: Int { 64 }

  @inlinable @inline(__always)
  func tag(_ hash: UInt64) -> UInt64 {
    let tag = hash >> 48
    return tag == 0 ? 1 : tag
  }

  @inlinable @inline(__always)
  func otherBucket(_ bucket: UInt64, _ tag: UInt64) -> UInt64 { (bucket ^ (tag &* 0x5bd1_e995)) & mask }

  @inlinable @inline(__always)
  func line(_ bucket: UInt64) -> UnsafeMutableRawPointer { unsafe buckets + Int(bucket) &* 64 }

  @inlinable @inline(__always)
  func tags(_ bucket: UInt64) -> UnsafeMutablePointer<UInt16> { unsafe line(bucket).assumingMemoryBound(to: UInt16.self) }

  @inlinable @inline(__always)
  func values(_ bucket: UInt64) -> UnsafeMutablePointer<UInt32> {
    unsafe (line(bucket) + 16).assumingMemoryBound(to: UInt32.self)
  }

  /// Entries that belong into this bucket and stand in their second one.
  @inlinable @inline(__always)
  func away(_ bucket: UInt64) -> UnsafeMutablePointer<UInt32> { unsafe (line(bucket) + 48).assumingMemoryBound(to: UInt32.self) }

  /// One bit per entry: it stands here because its first bucket was full.
  @inlinable @inline(__always)
  func guests(_ bucket: UInt64) -> UnsafeMutablePointer<UInt32> {
    unsafe (line(bucket) + 52).assumingMemoryBound(to: UInt32.self)
  }

  /// Asks for the line that a lookup of `hash` reads first.
  @inlinable @inline(__always)
  public func prefetch(_ hash: UInt64) { unsafe nfv_prefetch(line(hash & mask)) }

  /// The first value stored under `hash` that satisfies `matches`.
  ///
  /// `matches` sees every entry with an equal tag: usually exactly the right one.
  @inlinable @inline(__always)
  public func find(_ hash: UInt64, where matches: (UInt32) -> Bool) -> UInt32? {
    let tag = tag(hash)
    let first = hash & mask
    if let value = find(first, tag, matches) { return value }
    guard unsafe away(first).pointee != 0 else { return nil }
    return find(otherBucket(first, tag), tag, matches)
  }

  @inlinable @inline(__always)
  func find(_ bucket: UInt64, _ tag: UInt64, _ matches: (UInt32) -> Bool) -> UInt32? {
    let base = unsafe line(bucket)
    let pattern = tag &* 0x0001_0001_0001_0001
    // Four tags at a time: a lane that became zero is a hit (Bit Twiddling Hacks, "determine if a word has a zero byte";
    // a lane above a hit may be a false one, which `matches` sorts out.)
    for half in 0..<2 {
      let lanes = unsafe base.load(fromByteOffset: half &* 8, as: UInt64.self) ^ pattern
      var hits = (lanes &- 0x0001_0001_0001_0001) & ~lanes & 0x8000_8000_8000_8000
      while hits != 0 {
        let entry = half &* 4 &+ hits.trailingZeroBitCount / 16
        let value = unsafe base.load(fromByteOffset: 16 &+ entry &* 4, as: UInt32.self)
        if matches(value) { return value }
        hits &= hits &- 1
      }
    }
    return nil
  }

  /// Adds an entry; `false` when there is no room within reach. Does not look for an equal key.
  public mutating func insert(_ hash: UInt64, _ value: UInt32) -> Bool {
    let entry = Entry(tag: UInt16(tag(hash)), value: value, isGuest: false)
    let first = hash & mask
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
    let tags = unsafe tags(bucket)
    for index in 0..<8 where unsafe tags[index] == 0 {
      write(bucket, index, entry)
      return true
    }
    return false
  }

  @inline(__always)
  private func write(_ bucket: UInt64, _ index: Int, _ entry: Entry) {
    unsafe tags(bucket)[index] = entry.tag
    unsafe values(bucket)[index] = entry.value
    let bit: UInt32 = 1 << UInt32(index)
    unsafe guests(bucket).pointee = entry.isGuest ? guests(bucket).pointee | bit : guests(bucket).pointee & ~bit
  }

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
      let index = (step &+ chooser) & 7
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
      tag: tags(bucket)[index], value: values(bucket)[index], isGuest: guests(bucket).pointee >> UInt32(index) & 1 != 0)
  }

  /// Removes the entry of this hash and value; `false` if there is none.
  @discardableResult
  public mutating func remove(_ hash: UInt64, _ value: UInt32) -> Bool {
    let tag = tag(hash)
    let first = hash & mask
    let second = otherBucket(first, tag)
    guard clear(first, tag, value) || clear(second, tag, value) else { return false }
    count -= 1
    return true
  }

  private func clear(_ bucket: UInt64, _ tag: UInt64, _ value: UInt32) -> Bool {
    for index in 0..<8 where unsafe UInt64(tags(bucket)[index]) == tag && values(bucket)[index] == value {
      if read(bucket, index).isGuest { unsafe away(otherBucket(bucket, tag)).pointee &-= 1 }
      unsafe tags(bucket)[index] = 0
      return true
    }
    return false
  }
}
