import NetworkFunctions
import Wire

// A packet's way through the function: follow its flow, scan its payload, judge the rules that came up.

extension IntrusionPrevention {
  /// One call per packet; all of it is compiled in this module.
  @usableFromInline
  func inspect(_ frame: borrowing Frame, _ flow: inout FlowState, _ shared: inout SharedState) -> Verdict {
    inspect(frame, &flow, &shared, memory: StreamMemory())
  }

  func inspect(
    _ frame: borrowing Frame, _ flow: inout FlowState, _ shared: inout SharedState, memory: StreamMemory
  ) -> Verdict {
    shared.counters.packets &+= 1
    // One after the other: a set of two would be made of an array.
    if flow.flags.contains(.passed) || flow.flags.contains(.dropped) {
      if flow.flags.contains(.dropped) {
        shared.counters.packetsDropped &+= 1
        return .drop(Self.flowDroppedByRule)
      }
      // The same ports again: another connection, of which nothing has been said.
      guard frame.tcpFlags.contains(.syn), !frame.tcpFlags.contains(.ack) else { return .forward }
      flow = makeFlowState()
    }
    let place = follow(frame, &flow, &shared)
    if place == .outOfOrder, options.dropsOutOfOrder {
      shared.counters.packetsDropped &+= 1
      return .drop(Self.outOfOrder)
    }
    if isWatched(frame, &flow) { addUnprompted(frame, &shared.candidates) }
    let segment = Segment(place, flow[frame.direction], frame.direction == .forward, memory)
    return frame.withPayload { payload in
      unsafe payload.withUnsafeBytes { unsafe inspect($0, segment, frame, &flow, &shared) }
    }
  }

  @unsafe
  private func inspect(
    _ payload: UnsafeRawBufferPointer, _ before: Segment, _ frame: borrowing Frame, _ flow: inout FlowState,
    _ shared: inout SharedState
  ) -> Verdict {
    var segment = before
    let start = unsafe payload.baseAddress?.assumingMemoryBound(to: UInt8.self)
    if segment.memory.count > 0, case .inOrder(let skipped) = segment.place, isOfStream(frame, payload.count, flow) {
      let text = unsafe start ?? UnsafePointer(shared.joined.base)
      return unsafe inspectStream(text + skipped, payload.count - skipped, frame, &segment, &flow, &shared)
    }
    if let start = unsafe start, payload.count > 0 { unsafe scan(start, payload.count, segment.place, frame, &flow, &shared) }
    return shared.candidates.isEmpty ? .forward : judge(frame, &segment, &flow, &shared)
  }

  /// Whether the segment has bytes of its stream, or its end.
  private func isOfStream(_ frame: borrowing Frame, _ count: Int, _ flow: FlowState) -> Bool {
    guard frame.protocolNumber == IPProtocol.tcp else { return false }
    return count > 0 || (frame.tcpFlags.contains(.fin) && frame.tcpSequence == flow[frame.direction].next)
  }

  /// The same with a memory for more of the stream than the automaton's state.
  @unsafe
  private func inspectStream(
    _ text: UnsafePointer<UInt8>, _ count: Int, _ frame: borrowing Frame, _ segment: inout Segment, _ flow: inout FlowState,
    _ shared: inout SharedState
  ) -> Verdict {
    let (isForward, before, memory) = (segment.isForward, segment.before, segment.memory)
    // What was kept of another connection with these ports means nothing, though its numbers may have gone on to these.
    if !memory.flow[isForward].isTrue || memory.flow[isForward].next != before.next || before.position == 0 {
      let hasBegun = before.position == 0 && flow.flags.contains(isForward ? .sawSYN : .sawSYNACK)
      if isForward, hasBegun { (memory.flow.requests, memory.flow.requestCount) = (0, 0) }
      memory.flow[isForward].begin(at: before.next, isBeginning: hasBegun)
    }
    let end = unsafe scan(text, count, from: before.automaton, &shared)
    unsafe flow[frame.direction].advance(over: text, count: count, state: end, depth: program.automaton.depth(of: end))
    if memory.flow[isForward].isPrompted { promptByTail(segment, &shared) }
    if program.speaksOfHTTP {
      let endsStream = frame.tcpFlags.contains(.fin)
      if let verdict = unsafe readMessages(text, count, endsStream: endsStream, frame, &segment, &flow, &shared) {
        return verdict
      }
    }
    let verdict = judgeMessage(frame, &segment, &flow, &shared)
    if program.speaksOfHTTP { finishMessage(segment, shared) }
    unsafe keepStream(text, count, segment)
    memory.flow[isForward].next = flow[frame.direction].next
    return verdict
  }

  /// Finds again the patterns, in what is kept of the stream, of rules whose other contents may be in what comes now.
  private func promptByTail(_ segment: Segment, _ shared: inout SharedState) {
    let notes = segment.memory.flow[segment.isForward]
    segment.memory.flow[segment.isForward].isPrompted = false
    guard segment.before.next &- notes.promptEnd < UInt32(notes.tail) else { return }
    _ = unsafe scan(
      UnsafePointer(segment.memory.half(segment.isForward)), Int(notes.tail), from: PatternAutomaton.root, &shared)
  }

  // MARK: Flow

  /// Follows the flow by one packet and says what of its payload is to be scanned.
  private func follow(_ frame: borrowing Frame, _ flow: inout FlowState, _ shared: inout SharedState) -> DirectionState.Place {
    guard frame.protocolNumber == IPProtocol.tcp else {
      if frame.direction == .reverse { flow.flags.insert(.established) }
      return .inOrder(skipping: 0)
    }
    let (place, filledHole) = flow.follow(frame)
    if filledHole { shared.counters.holesFilled &+= 1 }
    switch place {
    case .inOrder: break
    case .retransmitted: shared.counters.retransmitted &+= 1
    case .outOfOrder:
      shared.counters.outOfOrder &+= 1
      if !options.dropsOutOfOrder {
        flow[frame.direction].note(end: frame.tcpSequence &+ UInt32(truncatingIfNeeded: frame.payloadLength))
      }
    }
    return place
  }

  /// Whether a rule that no pattern prompts may match packets of this direction: their addresses and ports stay the same.
  private func isWatched(_ frame: borrowing Frame, _ flow: inout FlowState) -> Bool {
    let (looked, watched): (FlowState.Flags, FlowState.Flags) =
      frame.direction == .forward ? (.lookedForward, .watchedForward) : (.lookedReverse, .watchedReverse)
    if !flow.flags.contains(looked) {
      flow.flags.insert(looked)
      let list = unpromptedRules(frame)
      if list.contains(where: { program.headerMatches(program.rules[Int(program.unprompted[$0])], frame) }) {
        flow.flags.insert(watched)
      }
    }
    return flow.flags.contains(watched)
  }

  private func addUnprompted(_ frame: borrowing Frame, _ candidates: inout CandidateRules) {
    for index in unpromptedRules(frame) { candidates.insert(program.unprompted[index]) }
  }

  private func unpromptedRules(_ frame: borrowing Frame) -> Range<Int> {
    let transport: Rule.Transport =
      switch frame.protocolNumber {
      case IPProtocol.tcp: .tcp
      case IPProtocol.udp: .udp
      default: frame.icmpType != nil ? .icmp : .any
      }
    let list = Int(transport.rawValue)
    return Int(program.unpromptedStart[list])..<Int(program.unpromptedStart[list + 1])
  }

  // MARK: Scanning

  @unsafe
  private func scan(
    _ text: UnsafePointer<UInt8>, _ count: Int, _ place: DirectionState.Place, _ frame: borrowing Frame,
    _ flow: inout FlowState, _ shared: inout SharedState
  ) {
    let isStream = frame.protocolNumber == IPProtocol.tcp
    switch place {
    case .inOrder(let skipped) where isStream:
      let direction = frame.direction
      let (text, count) = unsafe (text + skipped, count - skipped)
      let end = unsafe scan(text, count, from: flow[direction].automaton, &shared)
      unsafe flow[direction].advance(over: text, count: count, state: end, depth: program.automaton.depth(of: end))
    case .inOrder, .outOfOrder:
      _ = unsafe scan(text, count, from: PatternAutomaton.root, &shared)
    case .retransmitted: break
    }
  }

  @unsafe
  private func scan(_ text: UnsafePointer<UInt8>, _ count: Int, from state: UInt32, _ shared: inout SharedState) -> UInt32 {
    shared.counters.bytesScanned &+= UInt64(truncatingIfNeeded: count)
    var scan = PatternScan(from: state, in: program.automaton)
    while let found = unsafe scan.next(in: program.automaton, text, count: count) {
      var number = found
      while number != 0 {
        let match = program.automaton.matches[Int(number)]
        let pattern = Int(match.pattern)
        for index in Int(program.promptedStart[pattern])..<Int(program.promptedStart[pattern + 1]) {
          shared.candidates.insert(program.prompted[index])
        }
        number = match.next
      }
    }
    return scan.state
  }

  // MARK: Judging

  /// Judges the candidates in order until one decides; none are left behind.
  func judge(
    _ frame: borrowing Frame, _ segment: inout Segment, _ flow: inout FlowState, _ shared: inout SharedState
  ) -> Verdict {
    while let number = shared.candidates.popFirst() {
      let rule = program.rules[Int(number)]
      guard suits(rule, frame, flow) else { continue }
      shared.counters.judged &+= 1
      guard contentsMatch(rule, number, frame, flow, &segment, &shared) else { continue }
      flow.flowbits = rule.flowbits.apply(to: flow.flowbits)
      if rule.flowbits.isSilent { continue }
      let consequence = rule.threshold.map { shared.thresholds.count(number, $0, frame) } ?? .alert
      if consequence == .none { continue }
      if let verdict = enforce(number, rule, speaks: consequence == .alert, frame, &flow, &shared) {
        shared.candidates.removeAll()
        return verdict
      }
    }
    return .forward
  }

  /// Everything but the contents.
  private func suits(_ rule: CompiledRule, _ frame: borrowing Frame, _ flow: FlowState) -> Bool {
    if let isEstablished = rule.flow.isEstablished, isEstablished != flow.flags.contains(.established) { return false }
    return rule.flowbits.hold(flow.flowbits) && program.headerMatches(rule, frame) && program.fieldsMatch(rule, frame)
  }

  /// Tells, and decides if the rule does.
  private func enforce(
    _ number: UInt32, _ rule: CompiledRule, speaks: Bool, _ frame: borrowing Frame, _ flow: inout FlowState,
    _ shared: inout SharedState
  ) -> Verdict? {
    let isStream = frame.protocolNumber == IPProtocol.tcp
    if rule.action == .pass {
      if isStream { flow.flags.insert(.passed) }
      return .forward
    }
    let drops = rule.action == .drop && options.prevents
    if speaks {
      shared.counters.alerts &+= 1
      shared.alertsByRule[Int(number)] &+= 1
      shared.alerts.append(RuleAlert(rule, drops ? .dropped : .forwarded, frame))
    }
    guard drops else { return nil }
    if isStream { flow.flags.insert(.dropped) }
    shared.counters.packetsDropped &+= 1
    return .drop(Self.droppedByRule)
  }

  // MARK: Contents

  private func contentsMatch(
    _ rule: CompiledRule, _ number: UInt32, _ frame: borrowing Frame, _ flow: FlowState, _ segment: inout Segment,
    _ shared: inout SharedState
  ) -> Bool {
    if rule.application == .http, !flow.flags.contains(.http) {
      leaveOpen(rule, frame, segment)
      return false
    }
    if rule.buffers.count > 0 { return buffersMatch(rule, number, frame, &segment, &shared) }
    if rule.contents.count == 0 { return true }
    // What was sent before has been looked at before.
    if segment.place == .retransmitted { return false }
    if packetMatches(rule, frame, segment, &shared) { return true }
    guard rule.hasSeveralContents, segment.memory.count > 0, case .inOrder = segment.place,
      frame.protocolNumber == IPProtocol.tcp
    else { return false }
    // What came before it was known to be HTTP has not been found yet.
    let behind = segment.isRecognized && rule.application == .http ? -1 : nil
    if streamMatches(rule, frame, segment, behind: behind, &shared) { return true }
    leaveOpen(rule, frame, segment)
    return false
  }

  /// The rule's pattern is here; perhaps the rest comes in another segment.
  private func leaveOpen(_ rule: CompiledRule, _ frame: borrowing Frame, _ segment: Segment) {
    guard rule.hasFastPattern, rule.fastBuffer == .raw, segment.memory.count > 0, case .inOrder = segment.place,
      frame.protocolNumber == IPProtocol.tcp
    else { return }
    segment.memory.flow[segment.isForward].isPrompted = true
    segment.memory.flow[segment.isForward].promptEnd = segment.before.next &+ UInt32(truncatingIfNeeded: frame.payloadLength)
  }

  /// In the packet, or in the stream as far as the automaton's state stands for it.
  private func packetMatches(
    _ rule: CompiledRule, _ frame: borrowing Frame, _ segment: Segment, _ shared: inout SharedState
  ) -> Bool {
    let (isStream, before) = (frame.protocolNumber == IPProtocol.tcp, segment.before)
    return frame.withPayload { payload in
      unsafe payload.withUnsafeBytes { bytes in
        // A packet without payload can only satisfy contents that must not be there.
        let start = unsafe bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) ?? UnsafePointer(shared.joined.base)
        if !isStream || rule.scope != .stream {
          let packet = unsafe ContentWindow(start, count: bytes.count, position: 0)
          if contentsMatch(rule.contents, packet, behind: -1, &shared) { return true }
        }
        guard isStream, rule.scope != .packet, case .inOrder(let skipped) = segment.place else { return false }
        // Often the stream's window would be the packet's, counted from the same beginning.
        let carried = unsafe carry(before, shared.joined.base)
        let isElsewhere = rule.isAnchored && before.position > 0
        guard carried > 0 || skipped > 0 || isElsewhere || rule.scope == .stream else { return false }
        let (new, count) = unsafe (start + skipped, bytes.count - skipped)
        let stream = unsafe join(new, count, carried, shared.joined.base, position: before.position - carried)
        return contentsMatch(rule.contents, stream, behind: -1, &shared)
      }
    }
  }

  /// In the stream as far as it is kept, up to and with this segment.
  ///
  /// - Parameter behind: -1 if what is found may all have been there before; `nil` if not.
  func streamMatches(
    _ rule: CompiledRule, _ frame: borrowing Frame, _ segment: Segment, behind: Int?, _ shared: inout SharedState
  ) -> Bool {
    guard case .inOrder(let skipped) = segment.place else { return false }
    let tail = Int(segment.memory.flow[segment.isForward].tail)
    return frame.withPayload { payload in
      unsafe payload.withUnsafeBytes { bytes in
        let room = unsafe shared.joined.base
        unsafe room.update(from: segment.memory.half(segment.isForward), count: tail)
        let new = bytes.count - skipped
        if new > 0, let start = unsafe bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) {
          unsafe (room + tail).update(from: start + skipped, count: new)
        }
        let window = unsafe ContentWindow(room, count: tail + max(0, new), position: segment.before.position - tail)
        return contentsMatch(rule.contents, window, behind: behind ?? tail, &shared)
      }
    }
  }

  func contentsMatch(_ contents: ListPart, _ window: ContentWindow, behind: Int, _ shared: inout SharedState) -> Bool {
    var matching = ContentMatching(program, window, behind: behind)
    let holds = matching.matches(contents)
    if matching.budget < 0 { shared.counters.searchesGivenUp &+= 1 }
    return holds
  }

  /// Writes the end of the stream that the automaton's state stands for before place 255 of `room`; returns its length.
  @unsafe
  private func carry(_ before: DirectionState, _ room: UnsafeMutablePointer<UInt8>) -> Int {
    let end = unsafe room + PatternAutomaton.longestPattern
    let count = min(program.automaton.spell(before.automaton, before: end), before.position)
    for index in 0..<min(count, 32) where before.upperCase >> UInt32(index) & 1 != 0 {
      unsafe (end - 1 - index).pointee &= ~0x20
    }
    return count
  }

  @unsafe
  private func join(
    _ new: UnsafePointer<UInt8>, _ count: Int, _ carried: Int, _ room: UnsafeMutablePointer<UInt8>, position: Int
  ) -> ContentWindow {
    let end = unsafe room + PatternAutomaton.longestPattern
    if carried == 0 { return unsafe ContentWindow(new, count: count, position: position) }
    unsafe end.update(from: new, count: count)
    return unsafe ContentWindow(UnsafePointer(end - carried), count: carried + count, position: position)
  }
}
