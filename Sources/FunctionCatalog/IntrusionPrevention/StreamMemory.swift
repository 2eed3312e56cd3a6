/// What is kept of a flow's streams besides the automaton's states: the last bytes of each direction, and the HTTP message
/// that it is in.
///
/// It lies behind `IntrusionPreventionState` in the state of a flow, as many bytes as the settings say, and travels with it:
///
///     notes │ client's half                                │ server's half                                │
///           │ last bytes of the stream │ head of a message, │ ...
///           │                          │ end of its body    │
///
/// The first part of a half is for contents in different segments of a stream, the second for buffers of HTTP; without rules
/// for one of them the other has all. What does not fit is forgotten: of a stream and of a body the earlier bytes, of a head the
/// later ones.
@safe
struct StreamMemory {
  private let notes: UnsafeMutablePointer<FlowNotes>?
  private let bytes: UnsafeMutablePointer<UInt8>?
  /// Bytes for both directions, without the notes; 0 if nothing is kept.
  let count: Int

  /// Nothing is kept.
  init() {
    unsafe notes = nil
    unsafe bytes = nil
    count = 0
  }

  /// Good as long as the flow's state may be changed.
  @unsafe
  init(_ notes: UnsafeMutablePointer<FlowNotes>, _ bytes: UnsafeMutablePointer<UInt8>, count: Int) {
    unsafe self.notes = notes
    unsafe self.bytes = bytes
    self.count = count
  }

  /// Only for a memory that keeps something.
  var flow: FlowNotes {
    get { unsafe notes!.pointee }
    nonmutating _modify { yield unsafe &notes!.pointee }
  }

  @unsafe
  func half(_ isForward: Bool) -> UnsafeMutablePointer<UInt8> { unsafe bytes! + (isForward ? 0 : count / 2) }
}

/// What is known of both directions.
struct FlowNotes: BitwiseCopyable, Sendable {
  var forward = StreamNotes()
  var reverse = StreamNotes()
  /// Requests that wait for their answers, two bits each, the oldest lowest: those whose answers are framed in their own way.
  var requests: UInt32 = 0
  var requestCount: UInt32 = 0

  subscript(isForward: Bool) -> StreamNotes {
    get { isForward ? forward : reverse }
    _modify {
      if isForward { yield &forward } else { yield &reverse }
    }
  }

  enum RequestKind: UInt32 { case ordinary, head, connect }

  mutating func ask(_ kind: RequestKind) {
    guard requestCount < 16 else { return }
    requests |= kind.rawValue << (2 * requestCount)
    requestCount += 1
  }

  mutating func answer() -> RequestKind {
    guard requestCount > 0 else { return .ordinary }
    defer {
      requests >>= 2
      requestCount -= 1
    }
    return RequestKind(rawValue: requests & 3) ?? .ordinary
  }
}

/// What is known of one direction.
struct StreamNotes: BitwiseCopyable, Sendable {
  /// Up to where in the stream this is true: elsewhere it means nothing.
  var next: UInt32 = 0
  var isTrue = false
  /// Whether there is a rule whose pattern was found and whose other contents were not, and where the pattern ended.
  var isPrompted = false
  /// Bytes of the stream that are kept.
  var tail: UInt16 = 0
  var promptEnd: UInt32 = 0
  var message = MessageState()

  /// Where the stream's end was kept before, it is forgotten.
  mutating func begin(at next: UInt32, isBeginning: Bool) {
    self = StreamNotes()
    self.next = next
    isTrue = true
    message.phase = isBeginning ? .between : .lost
  }
}

/// Where in an HTTP message a direction of a flow is.
struct MessageState: BitwiseCopyable, Sendable {
  enum Phase: UInt8, BitwiseCopyable, Sendable {
    /// A message may begin with the next byte; with the next segment.
    case between, lost
    case head
    /// A body of known length, of chunks, up to the end of the stream.
    case length, chunkSize, chunk, chunkEnd, trailers, untilEnd
    /// This is not HTTP, or not any more.
    case other

    var isBody: Bool {
      switch self {
      case .length, .chunkSize, .chunk, .chunkEnd, .trailers, .untilEnd: true
      case .between, .lost, .head, .other: false
      }
    }
  }

  var phase = Phase.between
  /// How much of an empty line the head ends with.
  var newlines: UInt8 = 0
  /// Whether the first line was seen to be one of HTTP; whether the head is larger than what is kept of it; whether the body
  /// is in an encoding that is not undone here; whether some rule was prompted and asks for more of the body.
  var isRecognized = false
  var isCut = false
  var isEncoded = false
  var isOpen = false
  /// Bytes that are kept of head and body.
  var head: UInt16 = 0
  var body: UInt16 = 0
  /// Bytes of the body, or of the chunk, that are to come.
  var remaining: UInt64 = 0
  /// Bytes of the body that have come.
  var position: UInt32 = 0
  var automaton = PatternAutomaton.root
  /// Rules with contents in the body that have matched in this message, from 1: each says so once.
  var matched = SIMD4<UInt32>()

  /// Of a message that begins where another ends.
  mutating func beginNext() {
    let wasRecognized = isRecognized
    self = MessageState()
    isRecognized = wasRecognized
  }

  func hasMatched(_ rule: UInt32) -> Bool { any(matched .== SIMD4(repeating: rule + 1)) }

  mutating func noteMatch(_ rule: UInt32) {
    for index in 0..<4 where matched[index] == 0 {
      matched[index] = rule + 1
      return
    }
  }
}
