import CSchemas
import ControlMessages

extension RecordCodec {
  public static func encode(_ record: SnapshotRecord) -> [UInt8] {
    let writer = MessageWriter()
    let message = writer.make(nfvactor__v1__snapshot_record__init) {
      $0.version = version
      switch record {
      case .part(let part):
        $0.body_case = NFVACTOR__V1__SNAPSHOT_RECORD__BODY_PART
        $0.part = writer.make(nfvactor__v1__snapshot_part__init) {
          $0.position = part.position.value
          $0.writer = part.writer
          $0.index = part.index
          $0.bytes = writer.binary(part.bytes)
        }
      case .manifest(let manifest):
        $0.body_case = NFVACTOR__V1__SNAPSHOT_RECORD__BODY_MANIFEST
        $0.manifest = writer.make(nfvactor__v1__snapshot_manifest__init) {
          $0.cluster = writer.text(manifest.cluster.name)
          $0.position = manifest.position.value
          $0.writer = manifest.writer
          $0.timestamp = manifest.timestamp.milliseconds
          $0.slot = manifest.slot.number
          $0.commands_offset = manifest.commandsOffset.value
          $0.parts = manifest.parts
          $0.size = manifest.size
          $0.checksum = manifest.checksum
        }
      }
    }
    return writer.pack(message, nfvactor__v1__snapshot_record__get_packed_size, nfvactor__v1__snapshot_record__pack)
  }

  public static func decodeSnapshotRecord(_ record: [UInt8]) throws(CodecError) -> SnapshotRecord {
    guard record.count <= maximumRecordSize else { throw .tooLarge(bytes: record.count) }
    let arena = MessageArena(limit: MessageReader.memoryLimit(recordSize: record.count))
    guard let message = arena.unpack(record, with: nfvactor__v1__snapshot_record__unpack)?.pointee else { throw .malformed }
    defer { withExtendedLifetime(arena) {} }
    let reader = MessageReader(arena: arena)
    try reader.check(version: message.version)
    switch message.body_case {
    case NFVACTOR__V1__SNAPSHOT_RECORD__BODY_PART:
      let part = try reader.required(message.part, "part")
      return .part(
        SnapshotPart(position: Offset(part.position), writer: part.writer, index: part.index, bytes: reader.binary(part.bytes)))
    case NFVACTOR__V1__SNAPSHOT_RECORD__BODY_MANIFEST:
      let manifest = try reader.required(message.manifest, "manifest")
      return .manifest(
        SnapshotManifest(
          cluster: try reader.cluster(manifest.cluster, "manifest.cluster"), position: Offset(manifest.position),
          writer: manifest.writer,
          timestamp: Timestamp(milliseconds: manifest.timestamp), slot: Slot(manifest.slot),
          commandsOffset: Offset(manifest.commands_offset), parts: manifest.parts, size: manifest.size,
          checksum: manifest.checksum))
    default: throw .missing(field: "body")
    }
  }
}
