import CSchemas
import ControlMessages

extension RecordCodec {
  public static func encode(_ letter: DeadLetter) -> [UInt8] {
    let writer = MessageWriter()
    let message = writer.make(nfvactor__v1__dead_letter__init) {
      $0.version = version
      $0.topic = writer.text(letter.topic)
      $0.partition = letter.partition
      $0.offset = letter.offset.value
      $0.reason = writer.text(letter.reason)
    }
    return writer.pack(message, nfvactor__v1__dead_letter__get_packed_size, nfvactor__v1__dead_letter__pack)
  }

  public static func decodeDeadLetter(_ record: [UInt8]) throws(CodecError) -> DeadLetter {
    guard record.count <= maximumRecordSize else { throw .tooLarge(bytes: record.count) }
    let arena = MessageArena(limit: MessageReader.memoryLimit(recordSize: record.count))
    guard let message = arena.unpack(record, with: nfvactor__v1__dead_letter__unpack)?.pointee else { throw .malformed }
    defer { withExtendedLifetime(arena) {} }
    let reader = MessageReader(arena: arena)
    try reader.check(version: message.version)
    return DeadLetter(
      topic: try reader.text(message.topic, "topic"), partition: message.partition, offset: Offset(message.offset),
      reason: try reader.text(message.reason, "reason"))
  }
}
