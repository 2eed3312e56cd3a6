import ControlMessages
import NetworkFunctions
import Wire

/// Counts, per flow and direction, packets and bytes, and for TCP what a lossless path would not show.
///
/// ## Theory of operation
///
/// The witness of every claim about resilience: put behind a migration or a recovery, it says whether
/// packets were lost, doubled or overtook one another. It changes and drops nothing.
///
/// A TCP segment is compared with the end of what was seen before it:
///
///     seen so far          |next
///     ─────────────────────┤
///        duplicate   ├──┤  │                all bytes seen before
///        in order          ├──┤
///        gap               │      ├──┤      bytes missing in between: the hole
///        late              │  ├──┤ ░░       a segment of the hole that arrives after all: reordered
///
/// One hole is remembered. A second gap while the first is open makes the hole reach over both, so a
/// duplicate from between them counts as late, not as duplicate. Segments without a byte of sequence
/// space (bare acknowledgements) and resets are not judged.
///
/// Settings: none.
public struct PacketCounter: NetworkFunction {
  public init() {}

  public init(reader: SettingsReader) throws(SettingsError) {
    try reader.allow([])
  }

  public struct FlowState: BitwiseCopyable, Sendable {
    public var forward = DirectionCount()
    public var reverse = DirectionCount()
    @inlinable init() {}
  }

  /// What went one way through a flow: 40 bytes.
  public struct DirectionCount: BitwiseCopyable, Sendable, Equatable {
    public var packets: UInt64 = 0
    public var bytes: UInt64 = 0
    /// Sequence number after the last byte seen.
    @usableFromInline var next: UInt32 = 0
    @usableFromInline var holeStart: UInt32 = 0
    @usableFromInline var holeEnd: UInt32 = 0
    public var gaps: UInt32 = 0
    public var duplicates: UInt32 = 0
    public var reordered: UInt32 = 0

    @inlinable init() {}

    /// Bytes skipped by a gap that have not come late either.
    public var missing: UInt32 { holeEnd &- holeStart }
  }

  /// Totals over all flows that ever passed here.
  public struct SharedState {
    public var packets: (forward: UInt64, reverse: UInt64) = (0, 0)
    public var bytes: (forward: UInt64, reverse: UInt64) = (0, 0)
    public var gaps: UInt64 = 0
    public var duplicates: UInt64 = 0
    public var reordered: UInt64 = 0
  }

  public func makeSharedState(for runtime: RuntimeShare) -> SharedState { SharedState() }
  @inlinable public func makeFlowState() -> FlowState { FlowState() }

  @inlinable @inline(__always)
  public func process(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    let length = UInt64(truncatingIfNeeded: frame.networkLength)
    switch frame.direction {
    case .forward:
      shared.packets.forward &+= 1
      shared.bytes.forward &+= length
      count(frame, length, &flow.forward, &shared)
    case .reverse:
      shared.packets.reverse &+= 1
      shared.bytes.reverse &+= length
      count(frame, length, &flow.reverse, &shared)
    }
    return .forward
  }

  @inlinable @inline(__always)
  func count(_ frame: borrowing Frame, _ length: UInt64, _ flow: inout DirectionCount, _ shared: inout SharedState) {
    let isFirst = flow.packets == 0
    flow.packets &+= 1
    flow.bytes &+= length
    guard frame.protocolNumber == IPProtocol.tcp, !frame.tcpFlags.contains(.rst) else { return }
    let flags = frame.tcpFlags
    var space = UInt32(truncatingIfNeeded: frame.payloadLength)
    if flags.contains(.syn) { space &+= 1 }
    if flags.contains(.fin) { space &+= 1 }
    let start = frame.tcpSequence
    let end = start &+ space

    // The first segment, or the SYN of a new connection on the same ports, is where counting begins.
    if isFirst || (flags.contains(.syn) && end != flow.next) {
      flow.next = end
      flow.holeStart = flow.holeEnd
    } else if space == 0 {
      return
    } else if start == flow.next {
      flow.next = end
    } else if Int32(bitPattern: start &- flow.next) > 0 {
      if flow.holeStart == flow.holeEnd { flow.holeStart = flow.next }
      flow.holeEnd = start
      flow.next = end
      flow.gaps &+= 1
      shared.gaps &+= 1
    } else if start &- flow.holeStart < flow.holeEnd &- flow.holeStart {
      // Bytes of the hole. Filled from either end it shrinks; filled from its middle it closes with the rest.
      if end &- flow.holeStart >= flow.holeEnd &- flow.holeStart {
        flow.holeEnd = start
      } else {
        flow.holeStart = end
      }
      flow.reordered &+= 1
      shared.reordered &+= 1
    } else {
      if Int32(bitPattern: end &- flow.next) > 0 { flow.next = end }
      flow.duplicates &+= 1
      shared.duplicates &+= 1
    }
  }

  public func observe(_ shared: borrowing SharedState) -> [Observation] {
    [
      Observation("counter.forward.packets", shared.packets.forward),
      Observation("counter.forward.bytes", shared.bytes.forward),
      Observation("counter.reverse.packets", shared.packets.reverse),
      Observation("counter.reverse.bytes", shared.bytes.reverse),
      Observation("counter.tcp.gaps", shared.gaps),
      Observation("counter.tcp.duplicates", shared.duplicates),
      Observation("counter.tcp.reordered", shared.reordered),
    ]
  }
}
