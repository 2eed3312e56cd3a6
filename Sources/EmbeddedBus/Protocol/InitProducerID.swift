/// InitProducerId: a number of its own for each idempotent producer. Transactions are refused.

struct InitProducerIDRequest: Equatable {
  var isTransactional: Bool

  init(_ reader: inout ProtocolReader, _ version: Int16) throws(ProtocolError) {
    isTransactional = version >= 2 ? try reader.compactNullableString() != nil : try reader.nullableString() != nil
    _ = try reader.integer(Int32.self)  // transaction timeout
    // From version 3 on a producer may name its old id and epoch. It gets a fresh id, as from Kafka.
  }
}

struct InitProducerIDResponse: Equatable {
  var error: ErrorCode
  var producerID: Int64 = -1

  func write(to writer: inout ProtocolWriter, _ version: Int16) {
    if version >= 2 { writer.noTaggedFields() }  // of the response header
    writer.integer(Int32(0))
    writer.integer(error.rawValue)
    writer.integer(producerID)
    writer.integer(error == .none ? Int16(0) : -1)
    if version >= 2 { writer.noTaggedFields() }
  }
}
