import NetworkFunctions
import Wire

// A segment's way through the HTTP messages of its stream: heads are put together and cut into buffers, bodies are freed
// of their chunks, and rules are judged where a message ends or the segment does.

extension IntrusionPrevention {
  /// What of one message there is to be judged.
  struct MessageView: BitwiseCopyable {
    /// The head is complete, and its buffers are cut; this segment made it so.
    var hasHead = false
    var isHeadNew = false
    /// Bytes of the body that are there, of which some were known before this segment, and where they begin in the body.
    var body = 0
    var bodyKnown = 0
    var bodyPosition = 0
    var hasNewBody = false
    var isEnd = false
  }

  /// One segment in its stream, while it is looked at.
  struct Segment {
    let place: DirectionState.Place
    /// The stream as it was before the segment: what its contents are looked for behind.
    let before: DirectionState
    let isForward: Bool
    let memory: StreamMemory
    var view = MessageView()
    /// Whether this segment has shown that the connection speaks HTTP.
    var isRecognized = false

    init(_ place: DirectionState.Place, _ before: DirectionState, _ isForward: Bool, _ memory: StreamMemory) {
      (self.place, self.before, self.isForward, self.memory) = (place, before, isForward, memory)
    }

    /// What rules ask of the body of its direction.
    var bodyBit: UInt32 { (isForward ? Rule.Buffer.requestBody : .responseBody).bit }
  }

  // MARK: Room

  /// How the half of a direction is shared between the stream's end and its message.
  func rooms(_ memory: StreamMemory) -> (stream: Int, message: Int) {
    let half = memory.count / 2
    guard program.speaksOfHTTP else { return (program.hasSeveralContents ? half : 0, 0) }
    let stream = program.hasSeveralContents ? half / 4 : 0
    return (stream, half - stream)
  }

  /// Keeps the end of the stream, behind what is kept already.
  @unsafe
  func keepStream(_ text: UnsafePointer<UInt8>, _ count: Int, _ segment: Segment) {
    let room = rooms(segment.memory).stream
    guard room > 0, count > 0 else { return }
    let base = unsafe segment.memory.half(segment.isForward)
    let tail = Int(segment.memory.flow[segment.isForward].tail)
    if count >= room {
      unsafe base.update(from: text + (count - room), count: room)
      segment.memory.flow[segment.isForward].tail = UInt16(room)
    } else {
      let kept = min(tail, room - count)
      unsafe base.update(from: base + (tail - kept), count: kept)
      unsafe (base + kept).update(from: text, count: count)
      segment.memory.flow[segment.isForward].tail = UInt16(kept + count)
    }
  }

  /// Keeps what is needed of a message that goes on.
  private func keepMessage(_ segment: Segment, _ shared: borrowing SharedState) {
    let (stream, room) = rooms(segment.memory)
    let base = unsafe segment.memory.half(segment.isForward) + stream
    var state = segment.memory.flow[segment.isForward].message
    defer { segment.memory.flow[segment.isForward].message = state }
    switch state.phase {
    case .head:
      guard !state.isCut else { return }
      state.head = UInt16(min(shared.head.count, room))
      unsafe shared.head.copy(Int(state.head), to: base)
      if shared.head.count > room { state.isCut = true }
    case _ where state.phase.isBody && program.buffers & segment.bodyBit != 0 && !state.isEncoded:
      if segment.view.isHeadNew {
        state.head = UInt16(min(shared.head.count, room * 3 / 4))
        unsafe shared.head.copy(Int(state.head), to: base)
      }
      let body = min(segment.view.body, room - Int(state.head))
      state.body = UInt16(body)
      unsafe (base + Int(state.head)).update(from: shared.body.base + (segment.view.body - body), count: body)
    default: (state.head, state.body) = (0, 0)
    }
  }

  /// Brings back what was kept of the message: of its head if it is incomplete, of its body.
  private func recallMessage(_ segment: inout Segment, _ shared: inout SharedState) {
    let state = segment.memory.flow[segment.isForward].message
    let base = unsafe segment.memory.half(segment.isForward) + rooms(segment.memory).stream
    shared.head.removeAll()
    if state.phase == .head { unsafe shared.head.append(base, Int(state.head)) }
    guard state.phase.isBody else { return }
    unsafe shared.body.base.update(from: base + Int(state.head), count: Int(state.body))
    (segment.view.body, segment.view.bodyKnown) = (Int(state.body), Int(state.body))
    segment.view.bodyPosition = Int(state.position) - Int(state.body)
  }

  /// Cuts the kept head of a message whose body goes on, if that has not been done for this segment.
  func recallHead(_ segment: inout Segment, _ shared: inout SharedState) -> Bool {
    if segment.view.hasHead { return true }
    let state = segment.memory.flow[segment.isForward].message
    guard state.phase.isBody || segment.view.isEnd, state.head > 0 else { return false }
    shared.head.removeAll()
    let base = unsafe segment.memory.half(segment.isForward) + rooms(segment.memory).stream
    unsafe shared.head.append(base, Int(state.head))
    _ = shared.head.readFrame(isRequest: segment.isForward, asked: .ordinary)
    shared.head.cut(isRequest: segment.isForward, wanted: program.buffers)
    segment.view.hasHead = true
    return true
  }

  // MARK: Reading

  /// Reads the stream's next bytes; judges whatever is prompted in a message before the last.
  ///
  /// - Returns: `nil` if nothing was decided; then what was prompted last is still to be judged, and `finishMessage` to be called.
  @unsafe
  func readMessages(
    _ text: UnsafePointer<UInt8>, _ count: Int, endsStream: Bool, _ frame: borrowing Frame, _ segment: inout Segment,
    _ flow: inout FlowState, _ shared: inout SharedState
  ) -> Verdict? {
    recallMessage(&segment, &shared)
    var state = segment.memory.flow[segment.isForward].message
    let wasLost = state.phase == .lost
    var at = 0
    while at < count {
      let byte = unsafe text[at]
      switch state.phase {
      case .other: at = count
      case .lost where at > 0: at = count
      case .between, .lost:
        // Empty lines between messages mean nothing (RFC 9112 §2.2).
        if byte == 10 || byte == 13 { at += 1 } else { state.phase = .head }
      case .head:
        let end = unsafe endOfHead(text, from: at, count, &state)
        if !state.isCut { unsafe shared.head.append(text + at, (end ?? count) - at) }
        at = end ?? count
        let likeness = shared.head.likeness(isRequest: segment.isForward)
        guard likeness != .isNot, likeness == .isHTTP || end == nil else {
          state.phase = state.isRecognized || wasLost ? .lost : .other
          at = count
          continue
        }
        if likeness == .isHTTP, !state.isRecognized {
          state.isRecognized = true
          segment.isRecognized = !flow.flags.contains(.http)
          flow.flags.insert(.http)
        }
        if end != nil { completeHead(&state, &segment, &shared) }
      case .length, .chunk, .untilEnd:
        let length = state.phase == .untilEnd ? count - at : Int(min(state.remaining, UInt64(count - at)))
        unsafe readBody(text + at, length, &state, &segment, &shared)
        at += length
        guard state.phase != .untilEnd else { continue }
        state.remaining -= UInt64(length)
        if state.remaining == 0 {
          if state.phase == .chunk { state.phase = .chunkEnd } else { segment.view.isEnd = true }
        }
      case .chunkEnd:
        if byte == 10 { (state.phase, state.remaining) = (.chunkSize, 0) }
        at += 1
      case .chunkSize: at += readChunkSize(byte, &state)
      case .trailers:
        if let end = unsafe endOfHead(text, from: at, count, &state) {
          at = end
          segment.view.isEnd = true
        } else {
          at = count
        }
      }
      guard segment.view.isEnd, at < count else { continue }
      segment.memory.flow[segment.isForward].message = state
      let verdict = judgeMessage(frame, &segment, &flow, &shared)
      if flow.flags.contains(.passed) || flow.flags.contains(.dropped) { return verdict }
      state = segment.memory.flow[segment.isForward].message
      if state.phase != .other { state.beginNext() }
      segment.view = MessageView()
      shared.head.removeAll()
    }
    if endsStream, state.phase == .untilEnd { segment.view.isEnd = true }
    segment.memory.flow[segment.isForward].message = state
    return nil
  }

  /// Prompts what was left open and has more to go by now, and judges.
  func judgeMessage(
    _ frame: borrowing Frame, _ segment: inout Segment, _ flow: inout FlowState, _ shared: inout SharedState
  ) -> Verdict {
    let isOpen = segment.memory.flow[segment.isForward].message.isOpen
    if isOpen, segment.view.hasNewBody || segment.view.isEnd {
      segment.memory.flow[segment.isForward].message.isOpen = false
      if recallHead(&segment, &shared) { promptByHead(segment, &shared) }
      _ = unsafe scanBuffer(
        shared.body.base, segment.view.body, segment.isForward ? .requestBody : .responseBody, from: PatternAutomaton.root,
        &shared)
    }
    return shared.candidates.isEmpty ? .forward : judge(frame, &segment, &flow, &shared)
  }

  /// After all is judged: what goes on is kept.
  func finishMessage(_ segment: Segment, _ shared: borrowing SharedState) {
    if segment.view.isEnd, segment.memory.flow[segment.isForward].message.phase != .other {
      segment.memory.flow[segment.isForward].message.beginNext()
    }
    keepMessage(segment, shared)
  }

  /// Behind the empty line that ends a head.
  @unsafe
  private func endOfHead(_ text: UnsafePointer<UInt8>, from start: Int, _ count: Int, _ state: inout MessageState) -> Int? {
    for at in start..<count {
      let byte = unsafe text[at]
      if byte == 10 {
        if state.newlines == 1 { return at + 1 }
        state.newlines = 1
      } else if byte != 13 {
        state.newlines = 0
      }
    }
    return nil
  }

  private func completeHead(_ state: inout MessageState, _ segment: inout Segment, _ shared: inout SharedState) {
    var asked = FlowNotes.RequestKind.ordinary
    let status = segment.isForward ? 0 : shared.head.status
    if segment.isForward {
      segment.memory.flow.ask(shared.head.requestKind)
    } else if status / 100 != 1 || status == 101 {
      asked = segment.memory.flow.answer()
    }
    let (framing, isEncoded) = shared.head.readFrame(isRequest: segment.isForward, asked: asked)
    state.isEncoded = isEncoded
    switch framing {
    case .none:
      state.phase = .between
      segment.view.isEnd = true
    case .length(let length): (state.phase, state.remaining) = (.length, length)
    case .chunks: (state.phase, state.remaining, state.newlines) = (.chunkSize, 0, 0)
    case .untilEnd: state.phase = .untilEnd
    }
    if isEncoded, framing != .none, program.buffers & segment.bodyBit != 0 { shared.counters.bodiesEncoded &+= 1 }
    if state.isCut { shared.counters.headsCut &+= 1 }
    // From here on they speak something else (RFC 9110 §7.8, §9.3.6).
    if status == 101 || (asked == .connect && status / 100 == 2) {
      state.phase = .other
      segment.memory.flow[!segment.isForward].message.phase = .other
    }
    shared.head.cut(isRequest: segment.isForward, wanted: program.buffers)
    (segment.view.hasHead, segment.view.isHeadNew) = (true, true)
    promptByHead(segment, &shared)
  }

  @unsafe
  private func readBody(
    _ bytes: UnsafePointer<UInt8>, _ count: Int, _ state: inout MessageState, _ segment: inout Segment,
    _ shared: inout SharedState
  ) {
    let isWanted = program.buffers & segment.bodyBit != 0 && !state.isEncoded
    if isWanted, count > 0, segment.view.body + count <= shared.body.count {
      unsafe (shared.body.base + segment.view.body).update(from: bytes, count: count)
      segment.view.body += count
      segment.view.hasNewBody = true
      state.automaton = unsafe scanBuffer(
        bytes, count, segment.isForward ? .requestBody : .responseBody, from: state.automaton, &shared)
    }
    state.position = UInt32(min(Int(state.position) + count, Int(Int32.max)))
  }

  /// One byte of `1a;name=value` and its line's end; a size of none is the last. Returns the bytes read.
  private func readChunkSize(_ byte: UInt8, _ state: inout MessageState) -> Int {
    let letter = byte | 0x20
    let digit: UInt8? = byte &- 48 < 10 ? byte - 48 : letter &- 97 < 6 ? letter - 87 : nil
    if byte == 10 {
      (state.phase, state.newlines) = state.remaining == 0 ? (.trailers, 1) : (.chunk, 0)
    } else if let digit, state.newlines == 0 {
      guard state.remaining < 1 << 56 else {
        state.phase = .lost
        return 1
      }
      state.remaining = state.remaining << 4 | UInt64(digit)
    } else if byte != 13 {
      // What follows the size is an extension.
      state.newlines = 1
    }
    return 1
  }

  // MARK: Prompting

  /// Scans the buffers in which rules have their patterns, and adds the rules that have none.
  private func promptByHead(_ segment: Segment, _ shared: inout SharedState) {
    var rest = program.fastBuffers & ~(Rule.Buffer.requestBody.bit | Rule.Buffer.responseBody.bit)
    while rest != 0 {
      let buffer = Rule.Buffer(rawValue: UInt8(rest.trailingZeroBitCount)) ?? .raw
      rest &= rest - 1
      guard (buffer.isOfRequest ?? segment.isForward) == segment.isForward, let window = shared.head.window(buffer) else {
        continue
      }
      _ = unsafe scanBuffer(window.bytes, window.count, buffer, from: PatternAutomaton.root, &shared)
    }
    for index in 0..<program.unpromptedOfHTTP.count { shared.candidates.insert(program.unpromptedOfHTTP[index]) }
  }

  @unsafe
  private func scanBuffer(
    _ text: UnsafePointer<UInt8>, _ count: Int, _ buffer: Rule.Buffer, from state: UInt32, _ shared: inout SharedState
  ) -> UInt32 {
    shared.counters.bytesScanned &+= UInt64(truncatingIfNeeded: count)
    var scan = PatternScan(from: state, in: program.bufferAutomaton)
    while let found = unsafe scan.next(in: program.bufferAutomaton, text, count: count) {
      var number = found
      while number != 0 {
        let match = program.bufferAutomaton.matches[Int(number)]
        let pattern = Int(match.pattern)
        for index in Int(program.bufferPromptedStart[pattern])..<Int(program.bufferPromptedStart[pattern + 1]) {
          let rule = program.bufferPrompted[index]
          if program.rules[Int(rule)].fastBuffer == buffer { shared.candidates.insert(rule) }
        }
        number = match.next
      }
    }
    return scan.state
  }

  // MARK: Matching

  /// Whether the message has what the rule wants in its buffers, and more of it than when that was asked before.
  func buffersMatch(
    _ rule: CompiledRule, _ number: UInt32, _ frame: borrowing Frame, _ segment: inout Segment, _ shared: inout SharedState
  ) -> Bool {
    guard segment.memory.count > 0 else { return false }
    if !rule.asksForBody {
      guard segment.view.isHeadNew else { return false }
    } else {
      let state = segment.memory.flow[segment.isForward].message
      if state.isEncoded || state.hasMatched(number) { return false }
    }
    let isTime = !rule.asksForBody || (rule.asksForWholeBody ? segment.view.isEnd : segment.view.hasNewBody)
    guard isTime, partsMatch(rule, frame, &segment, &shared) else {
      if rule.asksForBody { segment.memory.flow[segment.isForward].message.isOpen = true }
      return false
    }
    if rule.asksForBody { segment.memory.flow[segment.isForward].message.noteMatch(number) }
    return true
  }

  private func partsMatch(
    _ rule: CompiledRule, _ frame: borrowing Frame, _ segment: inout Segment, _ shared: inout SharedState
  ) -> Bool {
    for index in Int(rule.buffers.start)..<Int(rule.buffers.start + rule.buffers.count) {
      let part = program.bufferContents[index]
      if part.buffer.isBody {
        let body = unsafe ContentWindow(shared.body.base, count: segment.view.body, position: segment.view.bodyPosition)
        guard segment.view.body > 0 else { return false }
        let known = rule.asksForWholeBody ? -1 : segment.view.bodyKnown
        guard contentsMatch(part.contents, body, behind: known, &shared) else { return false }
      } else {
        guard recallHead(&segment, &shared), let window = shared.head.window(part.buffer),
          contentsMatch(part.contents, window, behind: -1, &shared)
        else { return false }
      }
    }
    guard rule.contents.count > 0 else { return true }
    if streamMatches(rule, frame, segment, behind: -1, &shared) { return true }
    // A head that came in several segments is not all there otherwise.
    let end = Int(segment.before.position) + (segment.view.isHeadNew ? frame.payloadLength : 0)
    return segment.view.hasHead
      && contentsMatch(rule.contents, shared.head.window(position: max(0, end - shared.head.count)), behind: -1, &shared)
  }
}
