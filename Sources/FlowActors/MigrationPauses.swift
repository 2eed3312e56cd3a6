/// How long flows were paused by their migration, as a histogram of quarter octaves.
///
/// A pause is what packets saw of it: from the first that the target held to its release. A flow without packets had none.
public struct MigrationPauses: Equatable, Sendable {
  /// Flows by class; class 0 has had no pause.
  private var counts: InlineArray<256, UInt32> = .init(repeating: 0)

  public init() {}

  /// The class of a pause: one byte, which a message can carry.
  static func classOf(_ nanoseconds: UInt64) -> UInt8 {
    let value = max(nanoseconds, 4)
    let octave = 63 - value.leadingZeroBitCount
    return UInt8(1 + (octave - 2) * 4 + Int(value >> UInt64(octave - 2) & 3))
  }

  /// The first duration that is longer than those of a class, in nanoseconds.
  static func end(ofClass number: UInt8) -> UInt64 {
    let quarter = UInt64(number - 1)
    return (5 + quarter & 3) << (quarter >> 2)
  }

  mutating func note(_ pauseClass: UInt8) { counts[Int(pauseClass)] += 1 }

  /// Flows that had a pause.
  public var count: Int { (1..<256).reduce(0) { $0 + Int(counts[$1]) } }

  /// In nanoseconds, at most a quarter more than the truth: the pause that this share of the paused flows did not exceed; 0
  /// when there was none.
  public func percentile(_ share: Double) -> UInt64 {
    var rest = max(1, Int((Double(count) * share).rounded(.up)))
    for number in 1..<256 {
      rest -= Int(counts[number])
      if rest <= 0 { return Self.end(ofClass: UInt8(number)) }
    }
    return 0
  }

  public static func == (a: MigrationPauses, b: MigrationPauses) -> Bool { (0..<256).allSatisfy { a.counts[$0] == b.counts[$0] } }
}
