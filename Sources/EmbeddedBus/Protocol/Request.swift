/// A request as a value: bytes become this once, at the edge, or the connection is closed.
import NIOCore

struct RequestHeader: Equatable {
  var apiKey: Int16
  var version: Int16
  var correlationID: Int32
  var clientID: String?
}

enum Request {
  case apiVersions
  /// The client asked for ApiVersions in a version that is not known: Kafka answers in version 0.
  case unknownAPIVersions
  case metadata(MetadataRequest)
  case createTopics(CreateTopicsRequest)
  case produce(ProduceRequest)
  case fetch(FetchRequest)
  case listOffsets(ListOffsetsRequest)
  case initProducerID(InitProducerIDRequest)
  case findCoordinator

  /// Parses one frame, without its length field.
  static func parse(_ frame: ByteBuffer) throws(ProtocolError) -> (RequestHeader, Request) {
    var reader = ProtocolReader(frame)
    let apiKey: Int16 = try reader.integer()
    let version: Int16 = try reader.integer()
    let correlationID: Int32 = try reader.integer()
    guard let api = APIKey(rawValue: apiKey) else { throw .unsupported(apiKey: apiKey, version: version) }
    var header = RequestHeader(apiKey: apiKey, version: version, correlationID: correlationID)
    guard api.versions.contains(version) else {
      guard api == .apiVersions else { throw .unsupported(apiKey: apiKey, version: version) }
      header.version = 0
      return (header, .unknownAPIVersions)
    }
    header.clientID = try reader.nullableString()
    if api.isFlexible(version) { try reader.skipTaggedFields() }
    return (header, try body(api, version, &reader))
  }

  private static func body(
    _ api: APIKey, _ version: Int16, _ reader: inout ProtocolReader
  ) throws(ProtocolError) -> Request {
    switch api {
    case .apiVersions: .apiVersions
    case .metadata: .metadata(try MetadataRequest(&reader, version))
    case .createTopics: .createTopics(try CreateTopicsRequest(&reader, version))
    case .produce: .produce(try ProduceRequest(&reader, version))
    case .fetch: .fetch(try FetchRequest(&reader, version))
    case .listOffsets: .listOffsets(try ListOffsetsRequest(&reader, version))
    case .initProducerID: .initProducerID(try InitProducerIDRequest(&reader, version))
    case .findCoordinator: .findCoordinator
    }
  }
}
