/// Which requests this broker answers, and in which versions.
///
/// Produce 0-2 are announced and then refused with an error, as Kafka 4 does: librdkafka looks for
/// them before it enables compression. FindCoordinator is announced because librdkafka enables LZ4
/// by it; its answer is always that there is no coordinator, since there are no groups here.
enum APIKey: Int16, CaseIterable {
  case produce = 0
  case fetch = 1
  case listOffsets = 2
  case metadata = 3
  case findCoordinator = 10
  case apiVersions = 18
  case createTopics = 19
  case initProducerID = 22

  var versions: ClosedRange<Int16> {
    switch self {
    case .produce: 0...8
    case .fetch: 4...11
    case .listOffsets: 1...5
    case .metadata: 0...8
    case .findCoordinator: 0...2
    case .apiVersions: 0...3
    case .createTopics: 0...4
    case .initProducerID: 0...4
    }
  }

  /// From this version on, requests and responses carry compact types and tagged fields.
  func isFlexible(_ version: Int16) -> Bool {
    switch self {
    case .apiVersions: version >= 3
    case .initProducerID: version >= 2
    default: false
    }
  }
}
