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

  /// A number that differs between processes and is the same throughout one: where the memory happens to lie.
  @usableFromInline var place: UInt64 { UInt64(UInt(bitPattern: base)) }
}

@usableFromInline
final class FixedMemoryOwner<Element: BitwiseCopyable> {
  let base: UnsafeMutablePointer<Element>

  @unsafe
  init(_ base: UnsafeMutablePointer<Element>) { unsafe self.base = base }

  deinit { unsafe base.deallocate() }
}
