import Wire

/// The states of a TCP connection as somebody in the middle can know them (RFC 9293 §3.3.2), and the one
/// table that says what each kind of segment does in each.
///
///     none ──syn──▶ synSent ──synAck──▶ synReceived ──ack──▶ established
///                      └──────syn from the other side──▶ simultaneousOpen ──synAck──▶ established
///     established ──fin──▶ finForward / finReverse ──other fin──▶ closing ──both acknowledged──▶ timeWait
///     any ──rst──▶ resetByForward / resetByReverse
///     timeWait, reset ──syn──▶ synSent                       (the ports are used again)
///
/// The middle sees segments that may yet be lost and misses none that arrive, so an end can be behind
/// what is written here, never ahead. Where the ends have to sort something out between themselves (half-open
/// connections, challenge acknowledgements: RFC 9293 §3.5.1, RFC 5961) the table lets them talk and
/// believes nothing that they say.
public enum TCPState: UInt8, CaseIterable, Sendable, BitwiseCopyable {
  case none, synSent, synReceived, simultaneousOpen, established
  case finForward, finReverse, closing, timeWait
  case resetByForward, resetByReverse
}

extension TCPState {
  /// The state as a byte of a flow's state.
  @inlinable public var code: UInt8 {
    @inline(__always) get { unsafe unsafeBitCast(self, to: UInt8.self) }
  }

  /// The state that a byte says, which may have travelled; of a byte that is no state, `none`.
  ///
  /// Cases are numbered from 0 in the order written, in memory as in `rawValue` (a test compares them): so a state is its byte,
  /// and needs no switch, which is what `init(rawValue:)` is.
  @inlinable @inline(__always)
  public init(code: UInt8) {
    self = unsafe code <= unsafeBitCast(TCPState.resetByReverse, to: UInt8.self) ? unsafeBitCast(code, to: TCPState.self) : .none
  }
}

/// What the table says should become of a segment.
public enum TCPStep: Equatable, Sendable, BitwiseCopyable {
  /// A connection begins here, whatever was before.
  case open
  /// It answers the opening if it acknowledges the SYN; otherwise the ends must sort it out.
  case answer(TCPState)
  /// It takes part in the connection, which then is in this state.
  case move(TCPState)
  /// It may pass, but nothing is learned from it.
  case pass
  /// It ends the connection if its sequence number is one the other end would believe.
  case reset
  case refuse
  case refuseAsNoStart
}

extension TCPState {
  @inlinable @inline(__always)
  public func step(_ direction: Direction, _ kind: TCPSegment.Kind) -> TCPStep {
    switch (self, direction, kind) {
    case (.none, .forward, .syn): return .open
    case (.none, _, _): return .refuseAsNoStart
    case (_, _, .malformed): return .refuse

    case (.synSent, .forward, .syn): return .open
    case (.synSent, .reverse, .synAck): return .answer(.synReceived)
    case (.synSent, .reverse, .syn): return .answer(.simultaneousOpen)
    // The server holds an older connection of these ports and says so; the client will reset it.
    case (.synSent, .reverse, .ack): return .pass
    case (.synSent, _, .rst): return .reset
    case (.synSent, _, _): return .refuse

    case (.synReceived, .forward, .ack): return .answer(.established)
    case (.synReceived, .forward, .fin): return .answer(.finForward)
    case (.synReceived, .reverse, .synAck), (.synReceived, .reverse, .ack): return .move(.synReceived)
    case (.synReceived, .reverse, .fin): return .move(.finReverse)
    case (.synReceived, _, .syn): return .pass
    case (.synReceived, .forward, .synAck): return .pass
    case (.synReceived, _, .rst): return .reset

    case (.simultaneousOpen, _, .synAck), (.simultaneousOpen, _, .ack): return .answer(.established)
    case (.simultaneousOpen, .forward, .fin): return .move(.finForward)
    case (.simultaneousOpen, .reverse, .fin): return .move(.finReverse)
    case (.simultaneousOpen, _, .syn): return .pass
    case (.simultaneousOpen, _, .rst): return .reset

    case (.established, _, .ack): return .move(.established)
    case (.established, .forward, .fin): return .move(.finForward)
    case (.established, .reverse, .fin): return .move(.finReverse)
    case (.finForward, .forward, .fin), (.finForward, _, .ack): return .move(.finForward)
    case (.finForward, .reverse, .fin): return .move(.closing)
    case (.finReverse, .reverse, .fin), (.finReverse, _, .ack): return .move(.finReverse)
    case (.finReverse, .forward, .fin): return .move(.closing)
    case (.closing, _, .fin), (.closing, _, .ack): return .move(.closing)
    // A SYN here is a restarted host or a forgery; the other end answers with a challenge (RFC 5961 §4).
    case (.established, _, .syn), (.finForward, _, .syn), (.finReverse, _, .syn), (.closing, _, .syn): return .pass
    case (.established, _, .synAck), (.finForward, _, .synAck), (.finReverse, _, .synAck), (.closing, _, .synAck): return .pass
    case (.established, _, .rst), (.finForward, _, .rst), (.finReverse, _, .rst), (.closing, _, .rst): return .reset

    case (.timeWait, .forward, .syn): return .open
    case (.timeWait, .reverse, .syn): return .refuse
    case (.timeWait, _, .ack), (.timeWait, _, .fin), (.timeWait, _, .synAck): return .pass
    case (.timeWait, _, .rst): return .reset

    // Whoever was reset may not have heard it and may say so; whoever reset has nothing more to say.
    case (.resetByForward, .forward, .syn), (.resetByReverse, .forward, .syn): return .open
    case (.resetByForward, .reverse, .syn), (.resetByReverse, .reverse, .syn): return .refuse
    case (.resetByForward, _, .rst), (.resetByReverse, _, .rst): return .pass
    case (.resetByForward, .reverse, _), (.resetByReverse, .forward, _): return .pass
    case (.resetByForward, .forward, _), (.resetByReverse, .reverse, _): return .refuse
    }
  }
}

/// `TCPState.step` of every state, way and kind of segment, written down: what would be some jumps that no processor foresees is one
/// load. Three cache lines.
struct TCPStepTable {
  private let steps: FixedMemory<TCPStep>

  init() {
    steps = FixedMemory(count: TCPState.allCases.count * 16, repeating: .refuse)
    for state in TCPState.allCases {
      for direction in [Direction.forward, .reverse] {
        for kind in TCPSegment.Kind.allCases { steps[Self.place(state, direction, kind)] = state.step(direction, kind) }
      }
    }
  }

  @inline(__always)
  subscript(state: TCPState, direction: Direction, kind: TCPSegment.Kind) -> TCPStep { steps[Self.place(state, direction, kind)] }

  @inline(__always)
  private static func place(_ state: TCPState, _ direction: Direction, _ kind: TCPSegment.Kind) -> Int {
    Int(state.code) << 4 | Int(direction.rawValue) << 3 | Int(kind.rawValue)
  }
}
