import Wire

/// Up to 64 frames that move together, and own their memory.
///
/// Which of them are still on their way is one word, `live`; a dropped frame keeps its place and has its
/// reason, until the batch gives the memory of all back at once. Receiving, processing and transmitting
/// all work on whole batches: that is where the speed is.
@safe
public final class PacketBatch {
  public static let capacity = 64

  @unsafe public let frames: UnsafeMutablePointer<Frame>
  public private(set) var count = 0
  /// Bit `i` is set while frame `i` has been neither dropped nor transmitted.
  public var live: UInt64 = 0

  public init() { unsafe frames = .allocate(capacity: Self.capacity) }

  deinit { unsafe frames.deallocate() }

  public var isEmpty: Bool { count == 0 }
  public var isFull: Bool { count == Self.capacity }

  /// Frames that were received and are neither live nor given back yet.
  @inlinable public var all: UInt64 { count == Self.capacity ? .max : (1 << UInt64(count)) &- 1 }

  /// Adds a frame of `length` bytes. The bytes stay where they are until the batch is given back.
  @unsafe
  public func append(bytes: UnsafeMutableRawPointer, length: Int, buffer: UnsafeMutableRawPointer?, arrival: Tick) {
    precondition(count < Self.capacity, "a batch holds at most 64 packets")
    unsafe (frames + count).initialize(to: Frame(bytes: bytes, length: length, buffer: buffer, arrival: arrival))
    live |= 1 << UInt64(count)
    count += 1
  }

  /// Takes over a frame, and with it its memory, from another batch.
  @unsafe
  public func append(copyOf frame: borrowing Frame) {
    precondition(count < Self.capacity, "a batch holds at most 64 packets")
    withUnsafePointer(to: frame) { source in
      UnsafeMutableRawPointer(frames + count).copyMemory(from: source, byteCount: MemoryLayout<Frame>.stride)
    }
    live |= 1 << UInt64(count)
    count += 1
  }

  /// Closes the gaps: only the frames of `mask` stay, in order. The others were given back or passed on.
  public func keep(_ mask: UInt64) {
    var kept = 0
    Self.forEach(in: mask) { index in
      if index != kept {
        unsafe UnsafeMutableRawPointer(frames + kept).copyMemory(from: frames + index, byteCount: MemoryLayout<Frame>.stride)
      }
      kept += 1
    }
    count = kept
    live = all
  }

  /// The frame at a place below `count`.
  @inlinable
  public subscript(index: Int) -> Frame {
    @inline(__always) unsafeAddress { unsafe UnsafePointer(frames + index) }
    @inline(__always) unsafeMutableAddress { unsafe frames + index }
  }

  @inlinable @inline(__always)
  public func drop(_ index: Int, _ reason: DropReason) {
    unsafe frames[index].dropReason = reason
    live &= ~(1 << UInt64(index))
  }

  /// Starts anew. Whoever calls this has given the memory back, or has passed it on.
  public func removeAll() {
    count = 0
    live = 0
  }
}

extension PacketBatch {
  /// Calls `body` with the place of every set bit, in order of arrival.
  @inlinable @inline(__always)
  public static func forEach(in mask: UInt64, _ body: (Int) -> Void) {
    var rest = mask
    while rest != 0 {
      body(rest.trailingZeroBitCount)
      rest &= rest &- 1
    }
  }
}
