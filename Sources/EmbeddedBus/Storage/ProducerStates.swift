/// What a partition remembers of its idempotent producers, so that a batch sent twice is stored once.
///
/// A producer numbers its records per partition without gaps. Of each producer the last five batches
/// are kept, as many as a client may have under way; the rule is that of Kafka's ProducerAppendInfo.
/// The number of producers is bounded: the one silent for longest is forgotten, and a producer that
/// is not known may start at any number.
struct ProducerStates {
  struct Batch: Equatable {
    var firstSequence: Int32
    var lastSequence: Int32
    var baseOffset: Int64
    var timestamp: Int64
  }

  enum Verdict: Equatable {
    case append
    case duplicate(Batch)
    case refuse(ErrorCode)
  }

  private struct State {
    var epoch: Int16
    var batches: [Batch]
  }

  static let remembered = 5
  private let capacity: Int
  private var states: [Int64: State] = [:]

  init(capacity: Int) { self.capacity = capacity }

  var count: Int { states.count }

  func judge(_ header: BatchHeader) -> Verdict {
    guard header.hasProducer, let state = states[header.producerID] else { return .append }
    if header.producerEpoch < state.epoch { return .refuse(.invalidProducerEpoch) }
    if header.producerEpoch > state.epoch {
      return header.baseSequence == 0 ? .append : .refuse(.outOfOrderSequenceNumber)
    }
    let same = state.batches.first {
      $0.firstSequence == header.baseSequence && $0.lastSequence == header.lastSequence
    }
    if let same { return .duplicate(same) }
    guard let last = state.batches.last else { return .append }
    if header.baseSequence == SequenceNumber.advance(last.lastSequence, by: 1) { return .append }
    // Older than the five: it is stored, only its offset is forgotten.
    let age = (last.lastSequence &- header.lastSequence) & Int32.max
    return .refuse(age < Int32.max / 2 ? .duplicateSequenceNumber : .outOfOrderSequenceNumber)
  }

  mutating func record(_ header: BatchHeader) {
    guard header.hasProducer else { return }
    var state = states[header.producerID] ?? State(epoch: header.producerEpoch, batches: [])
    if state.epoch != header.producerEpoch { state = State(epoch: header.producerEpoch, batches: []) }
    if state.batches.count == Self.remembered { state.batches.removeFirst() }
    state.batches.append(
      Batch(
        firstSequence: header.baseSequence, lastSequence: header.lastSequence,
        baseOffset: header.baseOffset, timestamp: header.maxTimestamp))
    states[header.producerID] = state
    if states.count > capacity { forgetTheSilent() }
  }

  /// An eighth at once, so that the search for them is rare.
  private mutating func forgetTheSilent() {
    let byAge = states.sorted { $0.value.batches.last!.baseOffset < $1.value.batches.last!.baseOffset }
    for (id, _) in byAge.prefix(max(1, capacity / 8)) { states[id] = nil }
  }
}
