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
  /// Behind a pointer, since a class's own properties are checked for exclusive access whenever they are touched.
  @usableFromInline let state: UnsafeMutablePointer<(count: Int, live: UInt64)>

  public init() {
    unsafe frames = .allocate(capacity: Self.capacity)
    unsafe state = .allocate(capacity: 1)
    unsafe state.initialize(to: (0, 0))
  }

  deinit {
    unsafe frames.deallocate()
    unsafe state.deallocate()
  }

  @inlinable public internal(set) var count: Int {
    @inline(__always) get { unsafe state.pointee.count }
    @usableFromInline @inline(__always) set { unsafe state.pointee.count = newValue }
  }

  /// Bit `i` is set while frame `i` has been neither dropped nor transmitted.
  @inlinable public var live: UInt64 {
    @inline(__always) get { unsafe state.pointee.live }
    @inline(__always) set { unsafe state.pointee.live = newValue }
  }

  public var isEmpty: Bool { count == 0 }
  public var isFull: Bool { count == Self.capacity }

  /// Frames that were received and are neither live nor given back yet.
  @inlinable public var all: UInt64 { count == Self.capacity ? .max : (1 << UInt64(count)) &- 1 }

  /// Fills an empty batch: `write` initializes frames from the first on and returns how many, at most `capacity`.
  @inlinable @inline(__always)
  @unsafe
  public func fill(_ write: (UnsafeMutablePointer<Frame>) -> Int) {
    let filled = unsafe write(frames)
    precondition(filled <= Self.capacity, "a batch holds at most 64 packets")
    count = filled
    live = all
  }

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

  /// Puts another frame into the place of one whose memory the caller has taken.
  @unsafe
  public func replace(
    _ index: Int, bytes: UnsafeMutableRawPointer, length: Int, buffer: UnsafeMutableRawPointer?, arrival: Tick
  ) {
    unsafe (frames + index).initialize(to: Frame(bytes: bytes, length: length, buffer: buffer, arrival: arrival))
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

/// A batch's frames, and which of them are live, in registers while a burst is worked on.
///
///     var burst = Burst(batch)
///     ...
///     batch.live = burst.live
@safe
public struct Burst {
  @unsafe public let frames: UnsafeMutablePointer<Frame>
  public var live: UInt64

  @inlinable @inline(__always)
  public init(_ batch: PacketBatch) {
    unsafe frames = batch.frames
    live = batch.live
  }

  /// The frame at a place below the batch's count.
  @inlinable
  public subscript(index: Int) -> Frame {
    @inline(__always) unsafeAddress { unsafe UnsafePointer(frames + index) }
    @inline(__always) nonmutating unsafeMutableAddress { unsafe frames + index }
  }

  @inlinable @inline(__always)
  public mutating func drop(_ index: Int, _ reason: DropReason) {
    unsafe frames[index].dropReason = reason
    live &= ~(1 << UInt64(truncatingIfNeeded: index))
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
