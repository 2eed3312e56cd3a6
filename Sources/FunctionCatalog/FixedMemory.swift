import CIntrinsics

/// Memory for a fixed number of plain values, set aside at start and shared by all who hold it.
///
/// What network functions keep their tables in: an `Array` inside shared state would be checked for
/// uniqueness on every write and could copy itself. Every access is checked against `count`.
///
/// Safe because the pointer never leaves this type, every index is checked, and the memory lives as long
/// as any value that refers to it. Not for use by two threads.
@safe
@usableFromInline
struct FixedMemory<Element: BitwiseCopyable> {
  @usableFromInline let base: UnsafeMutablePointer<Element>
  @usableFromInline let count: Int
  /// Only keeps the memory alive; never touched per packet.
  @usableFromInline let owner: FixedMemoryOwner<Element>

  @usableFromInline
  init(count: Int, repeating value: Element) {
    self.count = count
    unsafe base = .allocate(capacity: max(1, count))
    unsafe base.initialize(repeating: value, count: count)
    owner = unsafe FixedMemoryOwner(base)
  }

  @inlinable
  subscript(index: Int) -> Element {
    @inline(__always) get {
      precondition(UInt(bitPattern: index) < UInt(bitPattern: count), "an index is within the memory set aside")
      return unsafe base[index]
    }
    @inline(__always) nonmutating _modify {
      precondition(UInt(bitPattern: index) < UInt(bitPattern: count), "an index is within the memory set aside")
      yield unsafe &base[index]
    }
  }

  /// Asks for the line that this value is in.
  @inline(__always)
  func prefetch(_ index: Int) {
    precondition(UInt(bitPattern: index) < UInt(bitPattern: count), "an index is within the memory set aside")
    unsafe nfv_prefetch(base + index)
  }

  /// A hash keyed by where the memory happens to lie, which is the same throughout a process and differs between
  /// processes: nobody outside can choose words that share a bucket.
  @inline(__always)
  func keyedHash(_ word: UInt64) -> UInt64 {
    let key = UInt64(UInt(bitPattern: base)) &* 0x9e37_79b9_7f4a_7c15
    let product = (word ^ key).multipliedFullWidth(by: 0xe703_7ed1_a0b4_28db)
    return product.high ^ product.low
  }

  /// Where a word belongs in this memory, used as a hash table: a share of `count` as large as its hash is of 2^64.
  @inline(__always)
  func place(of word: UInt64) -> Int { Int(truncatingIfNeeded: keyedHash(word).multipliedFullWidth(by: UInt64(count)).high) }
}

@usableFromInline
final class FixedMemoryOwner<Element: BitwiseCopyable> {
  let base: UnsafeMutablePointer<Element>

  @unsafe
  init(_ base: UnsafeMutablePointer<Element>) { unsafe self.base = base }

  deinit { unsafe base.deallocate() }
}
