import CProtobufC

/// The memory of one record's C messages: taken in chunks, given back at once.
///
/// `protobuf-c` allocates through it while unpacking, so a hostile record cannot take more than `limit` bytes and
/// nothing can be freed twice. Each block is preceded by its size, which tells the true length of a string: a C
/// string with a NUL inside would pass for a shorter one.
final class MessageArena {
  private static let alignment = 16
  /// Most records need less.
  private static let chunkSize = 1_024

  private let limit: Int
  private var taken = 0
  /// The newest chunk; each begins with the address of the one before.
  private var chunk: UnsafeMutableRawPointer?
  private var next = UnsafeMutableRawPointer(bitPattern: 16)!
  private var left = 0

  init(limit: Int) { self.limit = limit }

  deinit {
    while let last = chunk {
      chunk = last.load(as: UnsafeMutableRawPointer?.self)
      last.deallocate()
    }
  }

  /// Uninitialised memory, aligned for any C type; nil beyond the limit. It lives as long as the arena.
  func allocate(_ size: Int) -> UnsafeMutableRawPointer? {
    guard size >= 0, size <= limit - taken else { return nil }
    let whole = (size + Self.alignment - 1) / Self.alignment * Self.alignment + Self.alignment
    if whole > left {
      let size = max(Self.chunkSize, whole)
      let new = UnsafeMutableRawPointer.allocate(byteCount: Self.alignment + size, alignment: Self.alignment)
      new.storeBytes(of: chunk, as: UnsafeMutableRawPointer?.self)
      chunk = new
      next = new + Self.alignment
      left = size
    }
    let block = next
    next += whole
    left -= whole
    taken += whole
    block.storeBytes(of: size, as: Int.self)
    return block + Self.alignment
  }

  /// The size that a block of this arena was asked for with.
  func size(of block: UnsafeRawPointer) -> Int { (block - Self.alignment).load(as: Int.self) }

  func unpack<Message>(
    _ bytes: [UInt8],
    with unpack: (UnsafeMutablePointer<ProtobufCAllocator>?, Int, UnsafePointer<UInt8>?) -> UnsafeMutablePointer<Message>?
  ) -> UnsafeMutablePointer<Message>? { bytes.withUnsafeBytes { self.unpack($0, with: unpack) } }

  /// Runs a generated `unpack` on `bytes`, with this arena's memory. The result needs no `free_unpacked`.
  func unpack<Message>(
    _ bytes: UnsafeRawBufferPointer,
    with unpack: (UnsafeMutablePointer<ProtobufCAllocator>?, Int, UnsafePointer<UInt8>?) -> UnsafeMutablePointer<Message>?
  ) -> UnsafeMutablePointer<Message>? {
    var allocator = ProtobufCAllocator(
      alloc: { arena, size in Unmanaged<MessageArena>.fromOpaque(arena!).takeUnretainedValue().allocate(size) },
      free: { _, _ in },
      allocator_data: Unmanaged.passUnretained(self).toOpaque())
    return unpack(&allocator, bytes.count, bytes.bindMemory(to: UInt8.self).baseAddress)
  }
}
