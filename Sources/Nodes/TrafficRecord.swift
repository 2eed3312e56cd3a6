import Wire

/// What every generated packet carries first in its payload, so that the sink needs nothing else to know it.
///
///     | "NF" | run | flow    | sequence | nanoseconds       |
///       2      2     4         4          6                   = 18 bytes, most significant first
///
/// Network functions may rewrite addresses and ports on the way; they leave the payload alone. Eighteen bytes are
/// what a UDP frame of 64 bytes has room for. The run tells packets of an earlier generator apart, which can still
/// be on their way in a reflector.
struct TrafficRecord: Equatable {
  static let size = 18
  private static let magic: UInt16 = 0x4e46

  /// Number of frames that only ask whether the other end is there yet.
  static let greeting: UInt32 = .max

  var run: UInt16
  var flow: UInt32
  var sequence: UInt32
  /// When it was written, on the generator's clock; 48 bits last for three days.
  var time: UInt64

  init(run: UInt16, flow: UInt32, sequence: UInt32, time: UInt64) {
    self.run = run
    self.flow = flow
    self.sequence = sequence
    self.time = time & 0xffff_ffff_ffff
  }

  /// `nil` for a payload that no generator wrote.
  @inline(__always)
  init?(_ payload: RawSpan) {
    guard payload.byteCount >= Self.size else { return nil }
    let head = unsafe UInt64(bigEndian: payload.unsafeLoadUnaligned(fromUncheckedByteOffset: 0, as: UInt64.self))
    let tail = unsafe UInt64(bigEndian: payload.unsafeLoadUnaligned(fromUncheckedByteOffset: 8, as: UInt64.self))
    let last = unsafe UInt16(bigEndian: payload.unsafeLoadUnaligned(fromUncheckedByteOffset: 16, as: UInt16.self))
    guard UInt16(truncatingIfNeeded: head >> 48) == Self.magic else { return nil }
    run = UInt16(truncatingIfNeeded: head >> 32)
    flow = UInt32(truncatingIfNeeded: head)
    sequence = UInt32(truncatingIfNeeded: tail >> 32)
    time = (tail & 0xffff_ffff) << 16 | UInt64(last)
  }

  /// The sum of the words that are the same in every record of a run.
  static func constantSum(run: UInt16) -> UInt64 { UInt64(magic) + UInt64(run) }

  /// The sum of the words that differ between records of a flow.
  @inline(__always)
  var changingSum: UInt64 { words(sequence) &+ (time >> 32) &+ words(UInt32(truncatingIfNeeded: time)) }

  /// Writes 18 bytes.
  @unsafe @inline(__always)
  func write(to bytes: UnsafeMutableRawPointer) {
    let head = UInt64(Self.magic) << 48 | UInt64(run) << 32 | UInt64(flow)
    let tail = UInt64(sequence) << 32 | time >> 16
    unsafe bytes.storeBytes(of: head.bigEndian, as: UInt64.self)
    unsafe bytes.storeBytes(of: tail.bigEndian, toByteOffset: 8, as: UInt64.self)
    unsafe bytes.storeBytes(of: UInt16(truncatingIfNeeded: time).bigEndian, toByteOffset: 16, as: UInt16.self)
  }
}
