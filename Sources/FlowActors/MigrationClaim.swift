import Wire

/// Which of some flows does a runtime have? Asked when another one has died while flows were on their way between the two:
/// messages of kind `claim` and `claimed`.
public enum MigrationClaim {
  /// Writes a question about `count` flows of a life that is over into `scratch`, and hands it to `send`.
  public static func write(
    number: UInt32, lost: FlowOwner, count: Int, to scratch: UnsafeMutableRawPointer, keys: (Int) -> FlowKeyPair,
    send: (RawSpan) -> Bool
  ) -> Bool {
    // Batches of migrations have numbers of their own; the run tells the two apart.
    var header = MigrationMessage(.claim, run: .max, batch: number)
    (header.count, header.node, header.word) = (UInt16(count), lost.node, lost.incarnation)
    var writer = MigrationWriter(header, into: scratch)
    for index in 0..<count { writer.put(keys(index), timeoutClass: 0) }
    return send(writer.message.bytes)
  }

  /// The number of a question by `write` that a message answers; `nil` for the question of a migration.
  public static func number(_ message: RawSpan) -> UInt32? {
    message.withUnsafeBytes { MigrationMessage($0) }.flatMap { $0.run == .max ? $0.batch : nil }
  }

  /// The flows that the answerer has, as bits.
  public static func flows(_ message: RawSpan) -> UInt32 {
    message.withUnsafeBytes { UInt32(truncatingIfNeeded: MigrationMessage($0)?.word ?? 0) }
  }

  /// The life that a question is about; `nil` when it is malformed.
  public static func lost(_ message: RawSpan) -> FlowOwner? {
    message.withUnsafeBytes { bytes in
      guard let header = MigrationMessage(bytes), header.kind == .claim else { return nil }
      var reader = MigrationReader(bytes)
      for _ in 0..<header.count { guard reader.keys() != nil else { return nil } }
      return reader.isAtEnd ? FlowOwner(node: header.node, incarnation: header.word) : nil
    }
  }

  /// Answers a question: `has` says of each flow whether it is here.
  public static func answer(
    _ message: RawSpan, to scratch: UnsafeMutableRawPointer, has: (FlowKeyPair) -> Bool, send: (RawSpan) -> Bool
  ) -> Bool {
    message.withUnsafeBytes { bytes in
      guard let header = MigrationMessage(bytes), header.kind == .claim else { return false }
      var reader = MigrationReader(bytes)
      var bits: UInt64 = 0
      for index in 0..<Int(header.count) {
        guard let (keys, _) = reader.keys() else { return false }
        if has(keys) { bits |= 1 << UInt64(index) }
      }
      var answer = MigrationMessage(.claimed, run: header.run, batch: header.batch)
      (answer.count, answer.word) = (header.count, bits)
      return send(MigrationWriter(answer, into: scratch).message.bytes)
    }
  }
}
