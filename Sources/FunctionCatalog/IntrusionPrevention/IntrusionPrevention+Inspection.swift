import NetworkFunctions
import Wire

// A packet's way through the function: follow its flow, scan its payload, judge the rules that came up.

extension IntrusionPrevention {
  /// One call per packet; all of it is compiled in this module.
  @usableFromInline
  func inspect(_ frame: borrowing Frame, _ flow: inout FlowState, _ shared: inout SharedState) -> Verdict {
    shared.counters.packets &+= 1
    if !flow.flags.isDisjoint(with: [.passed, .dropped]) {
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
    // The stream as it was before this segment is what its contents are looked for behind.
    let before = flow[frame.direction]
    frame.withPayload { payload in
      unsafe payload.withUnsafeBytes { bytes in
        guard let start = unsafe bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), bytes.count > 0 else { return }
        unsafe scan(start, bytes.count, place, frame, &flow, &shared)
      }
    }
    if shared.candidates.isEmpty { return .forward }
    return judge(frame, place, before, &flow, &shared)
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
  private func judge(
    _ frame: borrowing Frame, _ place: DirectionState.Place, _ before: DirectionState, _ flow: inout FlowState,
    _ shared: inout SharedState
  ) -> Verdict {
    while let number = shared.candidates.popFirst() {
      let rule = program.rules[Int(number)]
      guard suits(rule, frame, flow) else { continue }
      shared.counters.judged &+= 1
      guard contentsMatch(rule, frame, place, before, &shared) else { continue }
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
    _ rule: CompiledRule, _ frame: borrowing Frame, _ place: DirectionState.Place, _ before: DirectionState,
    _ shared: inout SharedState
  ) -> Bool {
    if rule.contents.count == 0 { return true }
    // What was sent before has been looked at before.
    if place == .retransmitted { return false }
    let isStream = frame.protocolNumber == IPProtocol.tcp
    return frame.withPayload { payload in
      unsafe payload.withUnsafeBytes { bytes in
        // A packet without payload can only satisfy contents that must not be there.
        let start = unsafe bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) ?? UnsafePointer(shared.joined.base)
        if !isStream || rule.scope != .stream {
          let packet = unsafe ContentWindow(start, count: bytes.count, position: 0)
          if contentsMatch(rule, packet, &shared) { return true }
        }
        guard isStream, rule.scope != .packet, case .inOrder(let skipped) = place else { return false }
        // Often the stream's window would be the packet's, counted from the same beginning.
        let carried = unsafe carry(before, shared.joined.base)
        let isElsewhere = rule.isAnchored && before.position > 0
        guard carried > 0 || skipped > 0 || isElsewhere || rule.scope == .stream else { return false }
        let (new, count) = unsafe (start + skipped, bytes.count - skipped)
        let stream = unsafe join(new, count, carried, shared.joined.base, position: before.position - carried)
        return contentsMatch(rule, stream, &shared)
      }
    }
  }

  private func contentsMatch(_ rule: CompiledRule, _ window: ContentWindow, _ shared: inout SharedState) -> Bool {
    var matching = ContentMatching(program, window)
    let holds = matching.matches(rule.contents)
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
