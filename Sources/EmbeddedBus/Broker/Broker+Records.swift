/// The broker's main business: storing records and giving them out.
import NIOCore

extension Broker {
  // MARK: Produce

  func produce(_ request: ProduceRequest, now: Int64) -> Answer {
    var failed = false
    let topics = request.topics.map { topic in
      ProduceResponse.Topic(
        name: topic.name,
        partitions: topic.partitions.map { partition in
          let result = append(partition, topic.name, request, now)
          if result.error != .none { failed = true }
          return result
        })
    }
    guard request.acks == 0 else { return .respond(.produce(topics)) }
    // There is no answer to put the error into; a closed connection makes the client ask for metadata again.
    return failed ? .close(reason: "a record that wants no acknowledgement was refused") : .silence
  }

  private func append(
    _ partition: ProduceRequest.Partition, _ topic: String, _ request: ProduceRequest, _ now: Int64
  ) -> ProduceResponse.Partition {
    func refuse(_ error: ErrorCode) -> ProduceResponse.Partition { .init(index: partition.index, error: error) }
    guard request.version >= 3 else { return refuse(.unsupportedForMessageFormat) }
    guard (-1...1).contains(request.acks) else { return refuse(.invalidRequiredAcks) }
    guard !request.isTransactional else { return refuse(.invalidTransactionState) }
    guard let log = log(topic: topic, partition: partition.index) else { return refuse(.unknownTopicOrPartition) }
    do throws(ErrorCode) {
      let batch = try RecordBatch(validating: partition.records ?? ByteBuffer(), maxBytes: configuration.limits.batchBytes)
      let appended = try store(batch, in: log, now)
      return .init(
        index: partition.index, error: .none, baseOffset: appended.baseOffset,
        logAppendTime: appended.logAppendTime, logStartOffset: log.startOffset)
    } catch {
      return refuse(error)
    }
  }

  private func store(_ batch: RecordBatch, in log: PartitionLog, _ now: Int64) throws(ErrorCode) -> PartitionLog.Appended {
    do throws(AppendError) {
      let appended = try log.append(batch, now: now)
      if !appended.isDuplicate { polls.appended(batch.header.size, to: ObjectIdentifier(log)) }
      return appended
    } catch {
      switch error {
      case .refused(let code): throw code
      case .storage(let failure):
        complain(failure, now: now)
        throw .storageError
      }
    }
  }

  // MARK: Fetch

  func fetch(_ request: FetchRequest, room: Int) -> Answer {
    guard request.sessionID == 0 else { return .respond(.fetch(.init(error: .fetchSessionIDNotFound, topics: []))) }
    let (response, isFinal) = read(request, room: room)
    let wanted = max(0, Int(request.minBytes))
    if isFinal || response.recordBytes >= wanted || request.maxWaitMilliseconds <= 0 { return .respond(.fetch(response)) }
    let partitions = request.topics.flatMap { topic in
      topic.partitions.compactMap { log(topic: topic.name, partition: $0.index).map { ObjectIdentifier($0) } }
    }
    let poll = polls.park(request, missingBytes: wanted - response.recordBytes, partitions: partitions)
    return .wait(poll, milliseconds: min(request.maxWaitMilliseconds, 60_000))
  }

  /// Ends a wait with what there is now; nil if it has ended before.
  func finish(_ poll: LongPolls.ID, room: Int) -> Response? {
    polls.remove(poll).map { .fetch(read($0.request, room: room).0) }
  }

  /// Final: waiting would not make it better, because there is an error in it or nothing was asked for.
  private func read(_ request: FetchRequest, room: Int) -> (FetchResponse, isFinal: Bool) {
    var rest = min(max(0, Int(request.maxBytes)), configuration.limits.responseBytes, room)
    var response = FetchResponse(topics: [])
    var isFinal = request.topics.allSatisfy(\.partitions.isEmpty)
    for topic in request.topics {
      var answers: [FetchResponse.Partition] = []
      answers.reserveCapacity(topic.partitions.count)
      for partition in topic.partitions {
        let answer = read(partition, of: topic.name, maxBytes: rest, atLeastOne: response.recordBytes == 0 && room > 0)
        let bytes = answer.records?.readableBytes ?? 0
        rest = max(0, rest - bytes)
        response.recordBytes += bytes
        if answer.error != .none { isFinal = true }
        answers.append(answer)
      }
      response.topics.append(.init(name: topic.name, partitions: answers))
    }
    return (response, isFinal)
  }

  private func read(
    _ wanted: FetchRequest.Partition, of topic: String, maxBytes: Int, atLeastOne: Bool
  ) -> FetchResponse.Partition {
    var answer = FetchResponse.Partition(index: wanted.index, error: .none)
    guard let log = log(topic: topic, partition: wanted.index) else {
      answer.error = .unknownTopicOrPartition
      return answer
    }
    answer.highWatermark = log.nextOffset
    answer.logStartOffset = log.startOffset
    guard wanted.leaderEpoch <= BrokerIdentity.leaderEpoch else {
      answer.error = .unknownLeaderEpoch
      return answer
    }
    guard (log.startOffset...log.nextOffset).contains(wanted.offset) else {
      answer.error = .offsetOutOfRange
      return answer
    }
    do throws(StorageError) {
      let bytes = min(maxBytes, max(0, Int(wanted.maxBytes)))
      answer.records = try log.read(from: wanted.offset, maxBytes: bytes, atLeastOne: atLeastOne)
    } catch {
      configuration.logger.error("\(error)")
      answer.error = .storageError
    }
    return answer
  }

  // MARK: ListOffsets

  func listOffsets(_ request: ListOffsetsRequest) -> [ListOffsetsResponse.Topic] {
    request.topics.map { topic in
      .init(name: topic.name, partitions: topic.partitions.map { offset($0, of: topic.name) })
    }
  }

  private func offset(_ wanted: ListOffsetsRequest.Partition, of topic: String) -> ListOffsetsResponse.Partition {
    guard let log = log(topic: topic, partition: wanted.index) else {
      return .init(index: wanted.index, error: .unknownTopicOrPartition)
    }
    switch wanted.target {
    case .earliest: return .init(index: wanted.index, error: .none, offset: log.startOffset)
    case .latest: return .init(index: wanted.index, error: .none, offset: log.nextOffset)
    case .timestamp(let timestamp):
      do throws(StorageError) {
        let found = try log.offset(atOrAfter: timestamp)
        return .init(index: wanted.index, error: .none, timestamp: found?.timestamp ?? -1, offset: found?.offset ?? -1)
      } catch {
        configuration.logger.error("\(error)")
        return .init(index: wanted.index, error: .storageError)
      }
    }
  }
}
