/// Where fixed containers get their memory: huge pages on the wire, plain memory in tests.
///
/// A value handed in from the rim, so that the containers stay pure. Memory comes zeroed, and lives as
/// long as the process's node: containers are made once, at start, and never give memory back.
public struct MemorySource {
  let reserve: (_ byteCount: Int, _ alignment: Int) -> UnsafeMutableRawPointer?

  /// - Parameter reserve: returns zeroed memory, or `nil` when there is none.
  @unsafe
  public init(reserve: @escaping (_ byteCount: Int, _ alignment: Int) -> UnsafeMutableRawPointer?) {
    unsafe self.reserve = reserve
  }

  /// Ordinary pages from the allocator.
  public static let plain = unsafe MemorySource { byteCount, alignment in
    let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: alignment)
    unsafe memory.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    return unsafe memory
  }

  /// Zeroed room for `count` values, aligned to cache lines.
  @unsafe
  public func allocate<Element: BitwiseCopyable>(_ type: Element.Type, count: Int) -> UnsafeMutablePointer<Element> {
    let byteCount = max(1, count) * MemoryLayout<Element>.stride
    guard let memory = unsafe reserve(byteCount, 64) else {
      fatalError("there is no memory for \(byteCount) bytes; set a smaller flow capacity or provide more huge pages")
    }
    return unsafe memory.bindMemory(to: Element.self, capacity: max(1, count))
  }
}

extension MemorySource: @unchecked Sendable {}
