import Wire

/// The stages of a runtime's service chain, run over a burst at a time.
///
/// A chain put together at deploy time has one stage per function and pays one indirect call per function
/// and burst. A chain known at compile time is one `Chain<A, Chain<B, C>>`, one stage, and pays one call per
/// burst. Both keep the flow state of all stages in one flat block of `stateSize` bytes per flow.
public struct ServiceChain {
  public let stages: [ServiceStage]
  /// Where each stage's state begins within a flow's block.
  private let offsets: [Int]
  /// How many functions' own drop reasons come before each stage's.
  private let reasonOffsets: [Int]
  /// The functions' own drop reasons, numbered as they come out of this chain.
  public let dropReasons: [DropReasonDescription]
  /// Bytes of flow state per flow, a multiple of 16.
  public let stateSize: Int
  @usableFromInline let first: StageLink

  public init(_ stages: [ServiceStage]) {
    precondition(!stages.isEmpty, "a chain has at least one stage")
    self.stages = stages
    var offset = 0
    var offsets: [Int] = []
    var reasonOffsets: [Int] = []
    var dropReasons: [DropReasonDescription] = []
    for stage in stages {
      reasonOffsets.append(dropReasons.count)
      dropReasons += stage.dropReasons.map { [shift = dropReasons.count] in $0.shifted(by: shift) }
      offset = (offset + stage.stateAlignment - 1) / stage.stateAlignment * stage.stateAlignment
      offsets.append(offset)
      offset += stage.stateSize
    }
    precondition(dropReasons.count <= 96, "the functions of a chain have at most 96 drop reasons of their own")
    self.offsets = offsets
    self.reasonOffsets = reasonOffsets
    self.dropReasons = dropReasons
    stateSize = max(16, (offset + 15) / 16 * 16)
    var first: StageLink?
    for index in stages.indices.reversed() {
      first = StageLink(stages[index], offset: offsets[index], reasonOffset: reasonOffsets[index], then: first)
    }
    self.first = first!
  }

  /// Names, layout versions and sizes of the stages: two runtimes can exchange flows only if these are equal.
  public var layout: String {
    stages.map { "\($0.name):\($0.layoutVersion):\($0.stateSize)" }.joined(separator: ",")
  }

  /// Lowercase names, in order.
  public var name: String { stages.map(\.name).joined(separator: "-") }

  /// Runs the frames of `mask` through the chain and returns those still to be forwarded; a dropped frame
  /// has its `dropReason`.
  ///
  /// Frames of one flow in `mask` must all have the same direction: each direction is swept as a whole.
  ///
  /// - Parameters:
  ///   - states: the flow state blocks; a frame's is at `slot * stride`.
  @inlinable
  @unsafe
  public func process(
    _ frames: UnsafeMutablePointer<Frame>, mask: UInt64, states: UnsafeMutableRawPointer, stride: Int
  ) -> UInt64 {
    // One direction after the other, also where one stage sees both: which way a packet goes no processor foresees, and a
    // function asks more than once.
    var reverse: UInt64 = 0
    var rest = mask
    while rest != 0 {
      let index = rest.trailingZeroBitCount
      rest &= rest &- 1
      unsafe reverse |= UInt64(frames[index].direction.rawValue) &<< UInt64(truncatingIfNeeded: index)
    }
    return unsafe first.process(frames, forward: mask & ~reverse, reverse: reverse, states, stride)
  }

  /// Runs one ICMP error, whose `slot` and `direction` are those of the flow it is about, through the chain.
  ///
  /// - Returns: whether it may pass; otherwise it has its `dropReason`.
  @unsafe
  public func processError(_ frame: UnsafeMutablePointer<Frame>, states: UnsafeMutableRawPointer, stride: Int) -> Bool {
    let isForward = unsafe frame.pointee.direction == .forward
    for step in 0..<stages.count {
      let stage = isForward ? step : stages.count - 1 - step
      let selection = unsafe FrameSelection(frame, 1, states + offsets[stage], stride, reasonOffsets[stage])
      if unsafe stages[stage].processError(selection) == 0 { return false }
    }
    return true
  }

  /// Calls one of the flow's life events on every stage, in order.
  @inlinable
  @unsafe
  public func tell(_ event: FlowEvent, state: UnsafeMutableRawPointer) {
    unsafe first.tell(event, state)
  }

  /// Flows here that hold a part of another runtime's share, by the share's index; a share may be named more than once.
  public func countBorrowed(_ count: (_ share: Int, _ flows: Int) -> Void) {
    for stage in 0..<stages.count { stages[stage].countBorrowed(count) }
  }

  /// The next of what flows took from another runtime's shared state and need no more.
  public func takeReturn() -> SharedReturn? {
    for stage in stages.indices {
      guard var returned = stages[stage].takeReturn() else { continue }
      returned.place = returned.place << 8 | UInt32(stage)
      return returned
    }
    return nil
  }

  /// Takes back what was taken here and needed no more elsewhere; `false` when nothing of it is missing here.
  public func takeBack(_ returned: SharedReturn) -> Bool {
    let stage = Int(returned.place & 0xff)
    guard stage < stages.count else { return false }
    var inner = returned
    inner.place >>= 8
    return stages[stage].takeBack(inner)
  }

  /// Shows the first packets of flows that are about to be opened to every stage, which may ask for memory.
  @inlinable
  @unsafe
  public func foresee(_ frames: UnsafeMutablePointer<Frame>, mask: UInt64) { unsafe first.foresee(frames, mask) }

  /// Shows the state of a flow that is about to end to every stage, which may ask for memory.
  @inlinable
  @unsafe
  public func foreseeEnd(_ state: UnsafeMutableRawPointer) { unsafe first.foreseeEnd(state) }

  public func observe() -> [Observation] { stages.flatMap { $0.observe() } }

  /// Whether packets of no known flow are to be handed in from the server side, too.
  public var opensFromServerSide: Bool { stages.contains { $0.opensFromServerSide } }

  /// Bytes that a packet may gain in all functions together.
  public var growth: Int { stages.reduce(0) { $0 + $1.growth } }

  /// Calls `body` with every function of this type, from first to last, and its shared state: to replace rules, set
  /// states, take what a log holds. Called by the thread that processes packets, or before there is one.
  ///
  /// Costs a packet nothing, and what `body` costs is a pause between two bursts: whatever takes its time is made
  /// before, elsewhere, and only exchanged here.
  public func betweenBursts<Function: NetworkFunction>(
    _ type: Function.Type, _ body: (Function, inout Function.SharedState) -> Void
  ) {
    for stage in stages {
      withoutActuallyEscaping(body) { body in
        var search: any FunctionVisitor = FunctionSearch<Function>(body: body)
        stage.accept(&search)
      }
    }
  }
}

/// Calls its body with the functions of one type.
private struct FunctionSearch<Wanted: NetworkFunction>: FunctionVisitor {
  let body: (Wanted, inout Wanted.SharedState) -> Void

  func visit<Function: NetworkFunction>(_ function: Function, shared: inout Function.SharedState) {
    guard let function = function as? Wanted else { return }
    // The same function, so the same state, by another name.
    unsafe withUnsafeMutablePointer(to: &shared) { shared in
      unsafe shared.withMemoryRebound(to: Wanted.SharedState.self, capacity: 1) { unsafe body(function, &$0.pointee) }
    }
  }
}

/// One stage behind the other: where bursts go, and what happens to flows.
///
/// Constants of an object that somebody holds: they can be called without being retained, unlike elements of an array.
@usableFromInline
final class StageLink {
  private let run: (FrameSelection) -> UInt64
  private let hear: (FlowEvent, UnsafeMutableRawPointer) -> Void
  private let foreseeFirst: (UnsafeMutablePointer<Frame>, UInt64) -> Void
  private let foreseeLast: (UnsafeMutableRawPointer) -> Void
  private let offset: Int
  private let reasonOffset: Int
  private let next: StageLink?

  init(_ stage: ServiceStage, offset: Int, reasonOffset: Int, then next: StageLink?) {
    unsafe run = stage.process
    unsafe hear = stage.flowEvent
    unsafe foreseeFirst = stage.foresee
    unsafe foreseeLast = stage.foreseeEnd
    self.offset = offset
    self.reasonOffset = reasonOffset
    self.next = next
  }

  /// Runs frames of the forward direction through this stage and those behind it, and frames of the reverse direction the
  /// other way round; returns those to be forwarded.
  @usableFromInline
  @unsafe
  func process(
    _ frames: UnsafeMutablePointer<Frame>, forward: UInt64, reverse: UInt64, _ states: UnsafeMutableRawPointer, _ stride: Int
  ) -> UInt64 {
    var kept = unsafe run(frames, forward, states, stride) | reverse
    if let next { kept = unsafe next.process(frames, forward: kept & ~reverse, reverse: reverse, states, stride) }
    return unsafe kept & ~reverse | run(frames, kept & reverse, states, stride)
  }

  @inline(__always)
  @unsafe
  private func run(
    _ frames: UnsafeMutablePointer<Frame>, _ mask: UInt64, _ states: UnsafeMutableRawPointer, _ stride: Int
  ) -> UInt64 {
    mask == 0 ? 0 : unsafe run(FrameSelection(frames, mask, states + offset, stride, reasonOffset))
  }

  @usableFromInline
  @unsafe
  func tell(_ event: FlowEvent, _ state: UnsafeMutableRawPointer) {
    unsafe hear(event, state + offset)
    unsafe next?.tell(event, state)
  }

  @usableFromInline
  @unsafe
  func foresee(_ frames: UnsafeMutablePointer<Frame>, _ mask: UInt64) {
    unsafe foreseeFirst(frames, mask)
    unsafe next?.foresee(frames, mask)
  }

  @usableFromInline
  @unsafe
  func foreseeEnd(_ state: UnsafeMutableRawPointer) {
    unsafe foreseeLast(state + offset)
    unsafe next?.foreseeEnd(state)
  }
}

/// What happens to a flow's state besides packets.
public enum FlowEvent: Sendable {
  case begins, migratesOut, migratesIn, recovers
  /// In the worker's time.
  case expires(Tick)
}

/// The frames of a burst that one stage shall process, and where their flow states are.
@unsafe
public struct FrameSelection {
  @usableFromInline let frames: UnsafeMutablePointer<Frame>
  @usableFromInline let mask: UInt64
  @usableFromInline let states: UnsafeMutableRawPointer
  @usableFromInline let stride: Int
  @usableFromInline let reasonOffset: Int

  @inlinable
  init(
    _ frames: UnsafeMutablePointer<Frame>, _ mask: UInt64, _ states: UnsafeMutableRawPointer, _ stride: Int, _ reasonOffset: Int
  ) {
    unsafe self.frames = frames
    self.mask = mask
    unsafe self.states = states
    self.stride = stride
    self.reasonOffset = reasonOffset
  }
}

/// A network function with its shared state, behind calls that do not know its type.
///
/// The closures are made where the function's type is known, so what they call is specialised code: an
/// indirect call per burst, none per packet.
public struct ServiceStage {
  public let name: String
  public let layoutVersion: UInt16
  public let stateSize: Int
  public let stateAlignment: Int
  public let dropReasons: [DropReasonDescription]
  @usableFromInline let process: (FrameSelection) -> UInt64
  @usableFromInline let processError: (FrameSelection) -> UInt64
  @usableFromInline let flowEvent: (FlowEvent, UnsafeMutableRawPointer) -> Void
  @usableFromInline let countBorrowed: ((_ share: Int, _ flows: Int) -> Void) -> Void
  @usableFromInline let takeReturn: () -> SharedReturn?
  @usableFromInline let takeBack: (SharedReturn) -> Bool
  @usableFromInline let foresee: (UnsafeMutablePointer<Frame>, UInt64) -> Void
  @usableFromInline let foreseeEnd: (UnsafeMutableRawPointer) -> Void
  public let observe: () -> [Observation]
  public let opensFromServerSide: Bool
  public let growth: Int
  @usableFromInline let accept: (inout any FunctionVisitor) -> Void

  @inlinable
  public init<Function: NetworkFunction>(_ name: String, _ function: Function, share: RuntimeShare) {
    self.name = name
    layoutVersion = Function.layoutVersion
    stateSize = MemoryLayout<Function.FlowState>.stride
    stateAlignment = MemoryLayout<Function.FlowState>.alignment
    dropReasons = Function.dropReasons
    let host = FunctionHost(function, share: share)
    unsafe process = { selection in unsafe host.process(selection) }
    unsafe processError = { selection in unsafe host.processError(selection) }
    unsafe flowEvent = { event, state in unsafe host.tell(event, state) }
    countBorrowed = { count in host.countBorrowed(count) }
    takeReturn = { host.takeReturn() }
    takeBack = { host.takeBack($0) }
    unsafe foresee = { frames, mask in unsafe host.foresee(frames, mask) }
    unsafe foreseeEnd = { state in unsafe host.foreseeEnd(state) }
    observe = { host.observe() }
    opensFromServerSide = function.opensFromServerSide
    growth = function.growth
    accept = { visitor in host.accept(&visitor) }
  }
}

/// Keeps a function and its shared state alive and in one place.
@usableFromInline
final class FunctionHost<Function: NetworkFunction> {
  @usableFromInline let function: Function
  @usableFromInline let shared: UnsafeMutablePointer<Function.SharedState>

  @inlinable
  init(_ function: Function, share: RuntimeShare) {
    self.function = function
    unsafe shared = .allocate(capacity: 1)
    unsafe shared.initialize(to: function.makeSharedState(for: share))
  }

  deinit {
    unsafe shared.deinitialize(count: 1)
    unsafe shared.deallocate()
  }

  @inlinable @inline(__always)
  @unsafe
  func process(_ selection: FrameSelection) -> UInt64 {
    let frames = unsafe selection.frames
    let states = unsafe selection.states
    let stride = unsafe selection.stride
    var kept = unsafe selection.mask
    var rest = kept
    while rest != 0 {
      let index = rest.trailingZeroBitCount
      rest &= rest &- 1
      let state = unsafe (states + Int(frames[index].slot) &* stride).assumingMemoryBound(to: Function.FlowState.self)
      switch unsafe function.process(&frames[index], flow: &state.pointee, shared: &shared.pointee) {
      case .forward: break
      case .drop(let reason):
        unsafe frames[index].dropReason = reason.shifted(by: selection.reasonOffset)
        kept &= ~(1 << UInt64(index))
      }
    }
    return kept
  }

  /// The one frame of a selection.
  @inlinable
  @unsafe
  func processError(_ selection: FrameSelection) -> UInt64 {
    let frame = unsafe selection.frames
    let state = unsafe (selection.states + Int(frame.pointee.slot) &* selection.stride).assumingMemoryBound(
      to: Function.FlowState.self)
    switch unsafe function.processError(&frame.pointee, flow: &state.pointee, shared: &shared.pointee) {
    case .forward: return 1
    case .drop(let reason):
      unsafe frame.pointee.dropReason = reason.shifted(by: selection.reasonOffset)
      return 0
    }
  }

  @inlinable
  @unsafe
  func tell(_ event: FlowEvent, _ memory: UnsafeMutableRawPointer) {
    let state = unsafe memory.assumingMemoryBound(to: Function.FlowState.self)
    switch event {
    case .begins: unsafe state.initialize(to: function.makeFlowState())
    case .expires(let now):
      unsafe function.flowExpires(&state.pointee, shared: &shared.pointee, now: now)
      unsafe function.freeFlowState(&state.pointee)
    case .migratesOut: unsafe function.flowMigratesOut(&state.pointee, shared: &shared.pointee)
    case .migratesIn: unsafe function.flowMigratesIn(&state.pointee, shared: &shared.pointee)
    case .recovers: unsafe function.flowRecovers(&state.pointee, shared: &shared.pointee)
    }
  }

  @inlinable
  func countBorrowed(_ count: (_ share: Int, _ flows: Int) -> Void) { unsafe function.countBorrowed(&shared.pointee, count) }

  @inlinable
  func takeReturn() -> SharedReturn? { unsafe function.takeReturn(&shared.pointee) }

  @inlinable
  func takeBack(_ returned: SharedReturn) -> Bool { unsafe function.takeBack(returned, shared: &shared.pointee) }

  @inlinable
  @unsafe
  func foresee(_ frames: UnsafeMutablePointer<Frame>, _ mask: UInt64) {
    var rest = mask
    while rest != 0 {
      let index = rest.trailingZeroBitCount
      rest &= rest &- 1
      unsafe function.foresee(frames[index], shared: &shared.pointee)
    }
  }

  @inlinable
  @unsafe
  func foreseeEnd(_ memory: UnsafeMutableRawPointer) {
    let state = unsafe memory.assumingMemoryBound(to: Function.FlowState.self)
    unsafe function.foreseeEnd(&state.pointee, shared: &shared.pointee)
  }

  @inlinable
  func observe() -> [Observation] { unsafe function.observe(shared.pointee) }

  @usableFromInline
  func accept(_ visitor: inout any FunctionVisitor) { open(&visitor) }

  private func open(_ visitor: inout some FunctionVisitor) { unsafe function.accept(&visitor, shared: &shared.pointee) }
}
