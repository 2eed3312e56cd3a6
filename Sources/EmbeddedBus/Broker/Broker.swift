/// The broker: requests in, answers out. It owns the topics; it knows nothing of sockets, and time is a parameter.
///
/// Used by one thread, the event loop of its server.
import Logging
import NIOCore

#if canImport(Glibc)
  import Glibc
#else
  import Musl
#endif

final class Broker {
  enum Answer {
    case respond(Response)
    /// A fetch that waits: to be finished when it is ready or its time is over.
    case wait(LongPolls.ID, milliseconds: Int32)
    /// The client wants no answer (acks = 0).
    case silence
    case close(reason: String)
  }

  let configuration: BusConfiguration
  let clusterID: String
  private(set) var topics: [String: Topic] = [:]
  var polls = LongPolls()
  private var producerIDs: ProducerIDs
  private let topicsDirectory: String
  private var lock: DirectoryLock?
  private var lastStorageComplaint = Int64.min
  private var swallowedComplaints = 0

  init(_ configuration: BusConfiguration) throws(BusError) {
    self.configuration = configuration
    let directory = configuration.dataDirectory
    topicsDirectory = directory + "/topics"
    do throws(StorageError) {
      try makeDirectory(topicsDirectory)
    } catch {
      throw .storage(error.description)
    }
    lock = try DirectoryLock(directory)
    do throws(StorageError) {
      producerIDs = try ProducerIDs(directory: directory)
      clusterID = try Self.identity(in: directory)
    } catch {
      throw .storage(error.description)
    }
    try openTopics()
  }

  /// `room` is how many bytes of records an answer may hold for now.
  func answer(_ request: Request, now: Int64, room: Int, endpoint: (host: String, port: Int)) -> Answer {
    switch request {
    case .apiVersions: .respond(.apiVersions(.none))
    case .unknownAPIVersions: .respond(.apiVersions(.unsupportedVersion))
    case .metadata(let request): .respond(.metadata(metadata(request, endpoint)))
    case .createTopics(let request): .respond(.createTopics(request.topics.map { create($0, validateOnly: request.validateOnly) }))
    case .produce(let request): produce(request, now: now)
    case .fetch(let request): fetch(request, room: room)
    case .listOffsets(let request): .respond(.listOffsets(listOffsets(request)))
    case .initProducerID(let request): .respond(.initProducerID(initProducerID(request)))
    case .findCoordinator: .respond(.noCoordinator)
    }
  }

  func log(topic: String, partition: Int32) -> PartitionLog? {
    guard let topic = topics[topic], topic.partitions.indices.contains(Int(partition)) else { return nil }
    return topic.partitions[Int(partition)]
  }

  /// One line a second at most: a full disk must not fill it further.
  func complain(_ error: StorageError, now: Int64) {
    guard lastStorageComplaint == .min || now >= lastStorageComplaint + 1000 || now < lastStorageComplaint else {
      swallowedComplaints += 1
      return
    }
    configuration.logger.error("\(error)\(swallowedComplaints > 0 ? " (and \(swallowedComplaints) more)" : "")")
    lastStorageComplaint = now
    swallowedComplaints = 0
  }

  func enforceRetention(now: Int64) {
    for topic in topics.values {
      for log in topic.partitions {
        do throws(StorageError) { try log.enforce(topic.settings.retention, now: now) } catch { complain(error, now: now) }
      }
    }
  }

  /// Closes the logs and gives the directory free; nothing is answered from here on but errors.
  func close() {
    topics = [:]
    lock = nil
  }

  var allLogs: [PartitionLog] { topics.values.flatMap(\.partitions) }

  // MARK: Topics

  private func metadata(_ request: MetadataRequest, _ endpoint: (host: String, port: Int)) -> MetadataResponse {
    let names = request.topics ?? topics.keys.sorted()
    return MetadataResponse(
      host: endpoint.host, port: endpoint.port, clusterID: clusterID,
      topics: names.map { name in
        if topics[name] == nil, request.mayCreate, let partitions = configuration.autoCreatePartitions {
          let error = add(name, settings(partitions: partitions))
          if error != .none { return .init(error: error, name: name, partitions: 0) }
        }
        guard let topic = topics[name] else {
          return .init(error: Topic.isValid(name: name) ? .unknownTopicOrPartition : .invalidTopic, name: name, partitions: 0)
        }
        return .init(error: .none, name: name, partitions: topic.partitions.count)
      })
  }

  private func create(_ wanted: CreateTopicsRequest.Topic, validateOnly: Bool) -> CreateTopicsResponse.Topic {
    func refuse(_ error: ErrorCode, _ message: String) -> CreateTopicsResponse.Topic {
      .init(name: wanted.name, error: error, message: message)
    }
    guard Topic.isValid(name: wanted.name) else { return refuse(.invalidTopic, "a name has 1 to 249 of a-z A-Z 0-9 . _ -") }
    guard topics[wanted.name] == nil else { return refuse(.topicAlreadyExists, "topic exists") }
    guard !wanted.hasAssignments else { return refuse(.invalidReplicaAssignment, "there is one broker, which has every partition") }
    guard wanted.replicationFactor == 1 || wanted.replicationFactor == -1 else {
      return refuse(.invalidReplicationFactor, "there is one broker: the replication factor is 1")
    }
    let partitions = wanted.partitions == -1 ? configuration.autoCreatePartitions ?? 1 : Int(wanted.partitions)
    guard partitions > 0 else { return refuse(.invalidPartitions, "a topic has at least one partition") }
    var settings = settings(partitions: partitions)
    for (name, value) in wanted.settings {
      guard settings.set(name, to: value) else {
        return refuse(.invalidConfig, "this broker does not know \(name.prefix(64))=\((value ?? "null").prefix(64))")
      }
    }
    if validateOnly { return .init(name: wanted.name, error: .none) }
    switch add(wanted.name, settings) {
    case .none: return .init(name: wanted.name, error: .none)
    case .policyViolation: return refuse(.policyViolation, "this broker has at most \(configuration.limits.partitions) partitions")
    case let error: return refuse(error, "the topic's files cannot be made: see the broker's log")
    }
  }

  private func settings(partitions: Int) -> TopicSettings {
    TopicSettings(partitions: partitions, retention: configuration.retention, timestamps: configuration.timestamps)
  }

  private func add(_ name: String, _ settings: TopicSettings) -> ErrorCode {
    guard Topic.isValid(name: name) else { return .invalidTopic }
    let others = topics.values.reduce(0) { $0 + ($1.name == name ? 0 : $1.partitions.count) }
    guard others + settings.partitions <= configuration.limits.partitions else { return .policyViolation }
    do throws(StorageError) {
      topics[name] = try Topic(name: name, settings: settings, under: topicsDirectory, options: logOptions)
      return .none
    } catch {
      configuration.logger.error("topic \(name) cannot be made: \(error)")
      return .storageError
    }
  }

  private var logOptions: PartitionLog.Options {
    PartitionLog.Options(
      segmentBytes: configuration.segmentBytes, fsync: configuration.fsync,
      rememberedProducers: configuration.limits.producersPerPartition, calls: configuration.calls)
  }

  private func openTopics() throws(BusError) {
    do throws(StorageError) {
      for name in try fileNames(in: topicsDirectory) where Topic.isValid(name: name) {
        guard let settings = try Topic.storedSettings(name: name, under: topicsDirectory) else {
          configuration.logger.warning("topic \(name) was not made to its end and is left out")
          continue
        }
        topics[name] = try Topic(name: name, settings: settings, under: topicsDirectory, options: logOptions)
      }
    } catch {
      throw .storage(error.description)
    }
    for log in allLogs { for repair in log.repairs { configuration.logger.warning("\(repair)") } }
    for wanted in configuration.topics {
      guard Topic.isValid(name: wanted.name), wanted.partitions > 0 else {
        throw .invalidConfiguration("\(wanted.name) with \(wanted.partitions) partitions is no topic")
      }
      let present = topics[wanted.name]?.settings
      var settings = present ?? settings(partitions: wanted.partitions)
      settings.partitions = max(settings.partitions, wanted.partitions)
      settings.retention = wanted.retention ?? settings.retention
      guard settings != present else { continue }
      topics[wanted.name] = nil  // closes its logs, which are then opened anew
      guard add(wanted.name, settings) == .none else { throw .storage("topic \(wanted.name) cannot be made in \(topicsDirectory)") }
    }
  }

  // MARK: Identity

  private func initProducerID(_ request: InitProducerIDRequest) -> InitProducerIDResponse {
    guard !request.isTransactional else { return .init(error: .coordinatorNotAvailable) }
    do throws(StorageError) {
      return .init(error: .none, producerID: try producerIDs.take())
    } catch {
      configuration.logger.error("\(error)")
      return .init(error: .storageError)
    }
  }

  private static func identity(in directory: String) throws(StorageError) -> String {
    let path = directory + "/cluster-id"
    if let id = try readSmallFile(path), !id.isEmpty { return id }
    let id = "nfv-" + String(UInt64.random(in: .min ... .max), radix: 36)
    try replaceSmallFile(path, with: id)
    return id
  }
}

extension TopicSettings {
  /// Takes a setting of Kafka's; false if it asks for something that this broker does not do.
  fileprivate mutating func set(_ name: String, to value: String?) -> Bool {
    switch name {
    case "retention.ms":
      guard let number = value.flatMap({ Int64($0) }) else { return false }
      retention.milliseconds = number < 0 ? nil : number
    case "retention.bytes":
      guard let number = value.flatMap({ Int($0) }) else { return false }
      retention.bytes = number < 0 ? nil : number
    case "message.timestamp.type":
      guard let type = value.flatMap(BusConfiguration.Timestamps.init(rawValue:)) else { return false }
      timestamps = type
    case "cleanup.policy": return value == "delete"
    case "compression.type": return value == "producer"
    // With one broker these say nothing, so they may say anything.
    case "min.insync.replicas", "unclean.leader.election.enable", "segment.bytes", "segment.ms", "max.message.bytes": break
    default: return false
    }
    return true
  }
}
