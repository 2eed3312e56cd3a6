import CIntrinsics

/// A hash index from 64-bit hashes to 32-bit values, for keys that live elsewhere.
///
/// Buckets are cache lines of eight entries. An entry may stand in one of two buckets; the second is found
/// from the first and the entry's tag alone (partial-key cuckoo hashing), so entries can be moved without
/// looking at their keys. A lookup reads one line, seldom two; the caller compares the keys of the
/// (nearly always single) candidate. Capacity is set once; at the set load an insertion all but never fails,
/// and when it does it says so.
///
///     | 8 tags of 16 bits | 8 values of 32 bits | spare |      64 bytes; tag 0 = empty
@safe
public struct FlowTable: ~Copyable {
  @usableFromInline typealias Tags = (UInt64, UInt64)

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
  func tags(_ bucket: UInt64) -> UnsafeMutablePointer<UInt16> {
    unsafe (buckets + Int(bucket) &* 64).assumingMemoryBound(to: UInt16.self)
  }

  @inlinable @inline(__always)
  func values(_ bucket: UInt64) -> UnsafeMutablePointer<UInt32> {
    unsafe (buckets + (Int(bucket) &* 64 &+ 16)).assumingMemoryBound(to: UInt32.self)
  }

  /// Asks for the line that a lookup of `hash` reads first.
  @inlinable @inline(__always)
  public func prefetch(_ hash: UInt64) { unsafe nfv_prefetch(buckets + Int(hash & mask) &* 64) }

  /// The first value stored under `hash` that satisfies `matches`.
  ///
  /// `matches` sees every entry with an equal tag: usually exactly the right one.
  @inlinable @inline(__always)
  public func find(_ hash: UInt64, where matches: (UInt32) -> Bool) -> UInt32? {
    let tag = tag(hash)
    let first = hash & mask
    if let found = find(in: first, tag, where: matches) { return found }
    return find(in: otherBucket(first, tag), tag, where: matches)
  }

  @inlinable @inline(__always)
  func find(in bucket: UInt64, _ tag: UInt64, where matches: (UInt32) -> Bool) -> UInt32? {
    let base = unsafe buckets + Int(bucket) &* 64
    let pattern = tag &* 0x0001_0001_0001_0001
    var half = 0
    while half < 2 {
      // Four tags at once: a lane that is zero after the exclusive or is an equal tag. (A lane above an
      // equal one can show up wrongly; `matches` sorts that out.)
      let lanes = unsafe base.load(fromByteOffset: half &* 8, as: UInt64.self) ^ pattern
      var hits = (lanes &- 0x0001_0001_0001_0001) & ~lanes & 0x8000_8000_8000_8000
      while hits != 0 {
        let entry = half &* 4 &+ hits.trailingZeroBitCount / 16
        let value = unsafe base.load(fromByteOffset: 16 &+ entry &* 4, as: UInt32.self)
        if matches(value) { return value }
        hits &= hits &- 1
      }
      half &+= 1
    }
    return nil
  }

  /// Adds an entry; `false` when there is no room within reach. Does not look for an equal key.
  public mutating func insert(_ hash: UInt64, _ value: UInt32) -> Bool {
    var tag = tag(hash)
    var value = value
    let first = hash & mask
    if place(first, tag, value) || place(otherBucket(first, tag), tag, value) {
      count += 1
      return true
    }
    // Both buckets are full: put out an entry, which has its own second bucket, and so on. Should the walk
    // find no room it is walked backwards, so that a failed insertion leaves everything where it was.
    var bucket = first
    var path: [(bucket: UInt64, entry: Int)] = []
    for step in 0..<Self.longestDisplacement {
      let entry = (step &+ Int(truncatingIfNeeded: hash >> 32)) & 7
      path.append((bucket, entry))
      (tag, value) = swap(bucket, entry, tag, value)
      bucket = otherBucket(bucket, tag)
      if place(bucket, tag, value) {
        count += 1
        return true
      }
    }
    for (bucket, entry) in path.reversed() { (tag, value) = swap(bucket, entry, tag, value) }
    return false
  }

  private func place(_ bucket: UInt64, _ tag: UInt64, _ value: UInt32) -> Bool {
    let tags = unsafe tags(bucket)
    for entry in 0..<8 where unsafe tags[entry] == 0 {
      unsafe tags[entry] = UInt16(tag)
      unsafe values(bucket)[entry] = value
      return true
    }
    return false
  }

  private func swap(_ bucket: UInt64, _ entry: Int, _ tag: UInt64, _ value: UInt32) -> (UInt64, UInt32) {
    let old = unsafe (UInt64(tags(bucket)[entry]), values(bucket)[entry])
    unsafe tags(bucket)[entry] = UInt16(tag)
    unsafe values(bucket)[entry] = value
    return old
  }

  /// Removes the entry of this hash and value; `false` if there is none.
  @discardableResult
  public mutating func remove(_ hash: UInt64, _ value: UInt32) -> Bool {
    let tag = tag(hash)
    let first = hash & mask
    for bucket in [first, otherBucket(first, tag)] {
      for entry in 0..<8 where unsafe UInt64(tags(bucket)[entry]) == tag && values(bucket)[entry] == value {
        unsafe tags(bucket)[entry] = 0
        count -= 1
        return true
      }
    }
    return false
  }
}
