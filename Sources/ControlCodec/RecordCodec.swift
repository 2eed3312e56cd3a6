/// Events and commands to and from the bytes of the log.
///
/// Bytes come from outside. Whatever they are, decoding gives a value or a `CodecError`: it does not trap, and
/// it takes memory in proportion to the record, which is bounded. No C pointer leaves this target.
///
/// ```
///   Event ──MessageWriter──▶ C structs in a MessageArena ──pack──▶ bytes
///   Event ◀─MessageReader─── C structs in a MessageArena ◀─unpack── bytes
/// ```
public enum RecordCodec {
  /// Of both envelopes.
  public static let version: UInt32 = 1
  /// Longer records are refused: Kafka's own default bound, and the decoder's promise about memory.
  public static let maximumRecordSize = 1_000_000
}

/// Why a record could not be read.
public enum CodecError: Error, Hashable, Sendable, CustomStringConvertible {
  case tooLarge(bytes: Int)
  /// Not the wire format, or more than the decoder's memory.
  case malformed
  /// Written by a version with another envelope.
  case unsupportedVersion(UInt32)
  case missing(field: String)
  case invalid(field: String, reason: String)

  public var description: String {
    switch self {
    case .tooLarge(let bytes): "a record of \(bytes) bytes; the most is \(RecordCodec.maximumRecordSize)"
    case .malformed: "not a record in the wire format"
    case .unsupportedVersion(let version): "envelope version \(version); this program reads version \(RecordCodec.version)"
    case .missing(let field): "\(field) is missing"
    case .invalid(let field, let reason): "\(field): \(reason)"
    }
  }
}
