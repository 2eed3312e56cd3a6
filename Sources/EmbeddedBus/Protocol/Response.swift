/// A response as a value, and its bytes.
import NIOCore

enum Response {
  case apiVersions(ErrorCode)
  case metadata(MetadataResponse)
  case createTopics([CreateTopicsResponse.Topic])
  case produce([ProduceResponse.Topic])
  case fetch(FetchResponse)
  case listOffsets([ListOffsetsResponse.Topic])
  case initProducerID(InitProducerIDResponse)
  case noCoordinator

  /// The whole frame, with its length field.
  func frame(answering header: RequestHeader, allocator: ByteBufferAllocator) -> ByteBuffer {
    var start = allocator.buffer(capacity: 64 + payloadSize)
    start.writeInteger(Int32(0))
    var writer = ProtocolWriter(start)
    writer.integer(header.correlationID)
    write(to: &writer, header)
    var frame = writer.buffer
    frame.setInteger(Int32(frame.readableBytes - 4), at: frame.readerIndex)
    return frame
  }

  private var payloadSize: Int {
    guard case .fetch(let response) = self else { return 192 }
    return 256 + response.recordBytes
  }

  private func write(to writer: inout ProtocolWriter, _ header: RequestHeader) {
    let version = header.version
    switch self {
    case .apiVersions(let error): writeAPIVersions(error, version, to: &writer)
    case .metadata(let response): response.write(to: &writer, version)
    case .createTopics(let topics): CreateTopicsResponse.write(topics, to: &writer, version)
    case .produce(let topics): ProduceResponse.write(topics, to: &writer, version)
    case .fetch(let response): response.write(to: &writer, version)
    case .listOffsets(let topics): ListOffsetsResponse.write(topics, to: &writer, version)
    case .initProducerID(let response): response.write(to: &writer, version)
    case .noCoordinator: writeNoCoordinator(version, to: &writer)
    }
  }

  /// The header of this one response never carries tagged fields, so that a client that knows
  /// nothing of the broker's versions can read it.
  private func writeAPIVersions(_ error: ErrorCode, _ version: Int16, to writer: inout ProtocolWriter) {
    writer.integer(error.rawValue)
    if version >= 3 {
      writer.unsignedVarint(UInt32(APIKey.allCases.count + 1))
    } else {
      writer.integer(Int32(APIKey.allCases.count))
    }
    for api in APIKey.allCases {
      writer.integer(api.rawValue)
      writer.integer(api.versions.lowerBound)
      writer.integer(api.versions.upperBound)
      if version >= 3 { writer.noTaggedFields() }
    }
    if version >= 1 { writer.integer(Int32(0)) }  // throttle time
    if version >= 3 { writer.noTaggedFields() }
  }

  private func writeNoCoordinator(_ version: Int16, to writer: inout ProtocolWriter) {
    if version >= 1 { writer.integer(Int32(0)) }
    writer.integer(ErrorCode.coordinatorNotAvailable.rawValue)
    if version >= 1 { writer.nullableString("this broker keeps no consumer groups") }
    writer.integer(Int32(-1))
    writer.string("")
    writer.integer(Int32(-1))
  }
}
