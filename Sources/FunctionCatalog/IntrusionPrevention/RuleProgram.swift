import Wire

/// The rules as packets meet them: plain records in fixed memory, and the automaton over their fast patterns.
///
/// Made once, at start, and only read afterwards, so all flows and every runtime in a process share it.
///
///     bytes ─▶ automaton ─▶ match ─▶ pattern ─▶ rules to be judged ─▶ header, fields, flowbits, contents
///
/// A rule without a content to look for has no pattern; it is in `unprompted` and judged for every packet of its transport.
struct RuleProgram {
  let automaton: PatternAutomaton
  /// Over the fast patterns of rules with buffers of HTTP.
  let bufferAutomaton: PatternAutomaton
  let rules: FixedMemory<CompiledRule>
  let ranges: FixedMemory<AddressRange>
  let ports: FixedMemory<PortRange>
  let tests: FixedMemory<Rule.FieldTest>
  let contents: FixedMemory<CompiledContent>
  let contentBytes: FixedMemory<UInt8>
  let bufferContents: FixedMemory<BufferContents>
  /// Which buffers of HTTP any rule has contents for, and in which some rule has its fast pattern: bits.
  let buffers: UInt32
  let fastBuffers: UInt32
  /// Whether any rule is of HTTP, and whether any has several contents in a stream.
  let speaksOfHTTP: Bool
  let hasSeveralContents: Bool
  /// By pattern, where its rules begin in `prompted`; one more at the end.
  let promptedStart: FixedMemory<UInt32>
  let prompted: FixedMemory<UInt32>
  /// The same by pattern of `bufferAutomaton`.
  let bufferPromptedStart: FixedMemory<UInt32>
  let bufferPrompted: FixedMemory<UInt32>
  /// With buffers of HTTP, and no pattern among them.
  let unpromptedOfHTTP: FixedMemory<UInt32>
  /// By transport (`Rule.Transport`), likewise.
  let unpromptedStart: FixedMemory<UInt32>
  let unprompted: FixedMemory<UInt32>
  /// Differs between sets of rules: a state of the automaton of one means nothing to another.
  let fingerprint: UInt32

  init(_ set: RuleSet) {
    var memory = ProgramMemory()
    let rules = set.rules.map { memory.compile($0) }

    var stream = PromptingPatterns()
    var buffer = PromptingPatterns()
    var unpromptedRules: [[UInt32]] = Array(repeating: [], count: 4)
    var unpromptedOfHTTP: [UInt32] = []
    for (index, rule) in set.rules.enumerated() {
      let hasBuffers = rules[index].buffers.count > 0
      if let fast = rule.fastPattern {
        let pattern = rule.contents[fast].bytes.map(PatternAutomaton.fold)
        if hasBuffers { buffer.add(pattern, UInt32(index)) } else { stream.add(pattern, UInt32(index)) }
      } else if hasBuffers {
        unpromptedOfHTTP.append(UInt32(index))
      } else {
        // A rule for any transport is judged for all of them.
        for transport in 0..<4 where rule.transport == .any || rule.transport.rawValue == transport {
          unpromptedRules[transport].append(UInt32(index))
        }
      }
    }
    automaton = PatternAutomaton(stream.patterns)
    bufferAutomaton = PatternAutomaton(buffer.patterns)
    buffers = memory.bufferContents.reduce(0) { $0 | $1.buffer.bit }
    fastBuffers = rules.reduce(0) { $0 | ($1.fastBuffer == .raw ? 0 : $1.fastBuffer.bit) }
    speaksOfHTTP = rules.contains { $0.application == .http }
    hasSeveralContents = rules.contains(where: \.hasSeveralContents)
    self.rules = FixedMemory(rules, or: CompiledRule())
    ranges = FixedMemory(memory.ranges, or: AddressRange(low: 0, high: 0))
    ports = FixedMemory(memory.ports, or: PortRange(low: 0, high: 0))
    tests = FixedMemory(memory.tests, or: Rule.FieldTest(field: .sameAddress, low: 0, high: 0))
    contents = FixedMemory(memory.contents, or: CompiledContent())
    contentBytes = FixedMemory(memory.bytes, or: 0)
    bufferContents = FixedMemory(memory.bufferContents, or: BufferContents(buffer: .raw, contents: ListPart()))
    (promptedStart, prompted) = Self.flatten(stream.rules)
    (bufferPromptedStart, bufferPrompted) = Self.flatten(buffer.rules)
    self.unpromptedOfHTTP = FixedMemory(unpromptedOfHTTP, or: 0)
    (unpromptedStart, unprompted) = Self.flatten(unpromptedRules)
    fingerprint = Self.fingerprint(of: set.rules)
  }

  /// Without the automata.
  var byteCount: Int {
    bufferContents.byteCount + bufferPromptedStart.byteCount + bufferPrompted.byteCount + unpromptedOfHTTP.byteCount
      + rules.byteCount + ranges.byteCount + ports.byteCount + tests.byteCount + contents.byteCount + contentBytes.byteCount
      + promptedStart.byteCount + prompted.byteCount + unpromptedStart.byteCount + unprompted.byteCount
  }

  private static func flatten(_ lists: [[UInt32]]) -> (start: FixedMemory<UInt32>, all: FixedMemory<UInt32>) {
    var starts: [UInt32] = [0]
    for list in lists { starts.append(starts[starts.count - 1] + UInt32(list.count)) }
    return (FixedMemory(starts, or: 0), FixedMemory(lists.flatMap { $0 }, or: 0))
  }

  /// FNV-1a over what makes the automaton and gives the flowbits their places; the same in every process.
  private static func fingerprint(of rules: [Rule]) -> UInt32 {
    var hash: UInt32 = 0x811c_9dc5
    func mix(_ byte: UInt8) { hash = (hash ^ UInt32(byte)) &* 0x0100_0193 }
    for rule in rules {
      for shift in [0, 8, 16, 24] as [UInt32] { mix(UInt8(truncatingIfNeeded: rule.sid >> shift)) }
      for content in rule.contents {
        content.bytes.forEach(mix)
        mix(content.isNegated ? 1 : 0)
        mix(content.buffer.rawValue)
      }
      let bits = rule.flowbits
      for word in [bits.set, bits.unset, bits.toggled, bits.required, bits.forbidden, bits.anyOf] {
        for shift in stride(from: 0, to: 64, by: 8) { mix(UInt8(truncatingIfNeeded: word >> UInt64(shift))) }
      }
    }
    return hash | 1
  }

  // MARK: Asked per packet

  @inline(__always)
  func isAmong(_ address: IPAddress, _ list: ListPart) -> Bool {
    if list.count == 0 { return true }
    let value = UInt128(address)
    // Ranges ascend.
    var (low, high) = (Int(list.start), Int(list.start + list.count))
    while low < high {
      let middle = (low + high) / 2
      let range = ranges[middle]
      if value < range.low { high = middle } else if range.high < value { low = middle + 1 } else { return true }
    }
    return false
  }

  @inline(__always)
  func isAmong(_ port: UInt16, _ list: ListPart) -> Bool {
    if list.count == 0 { return true }
    var (low, high) = (Int(list.start), Int(list.start + list.count))
    while low < high {
      let middle = (low + high) / 2
      let range = ports[middle]
      if port < range.low { high = middle } else if range.high < port { low = middle + 1 } else { return true }
    }
    return false
  }

  /// Whether the packet goes from and to where the rule says.
  func headerMatches(_ rule: CompiledRule, _ frame: borrowing Frame) -> Bool {
    switch rule.transport {
    case .any: break
    case .tcp: guard frame.protocolNumber == IPProtocol.tcp else { return false }
    case .udp: guard frame.protocolNumber == IPProtocol.udp else { return false }
    case .icmp: guard frame.icmpType != nil else { return false }
    }
    if let toServer = rule.flow.toServer, toServer != (frame.direction == .forward) { return false }
    // The identifier of an echo is nobody's port.
    let hasPorts = frame.protocolNumber == IPProtocol.tcp || frame.protocolNumber == IPProtocol.udp
    let (from, to): (UInt16, UInt16) = hasPorts ? (frame.sourcePort, frame.destinationPort) : (0, 0)
    // Ports first: they are cheaper, and decide more often.
    if isAmong(from, rule.sourcePorts), isAmong(to, rule.destinationPorts), isAmong(frame.sourceAddress, rule.source),
      isAmong(frame.destinationAddress, rule.destination)
    {
      return true
    }
    return rule.isBidirectional && isAmong(to, rule.sourcePorts) && isAmong(from, rule.destinationPorts)
      && isAmong(frame.destinationAddress, rule.source) && isAmong(frame.sourceAddress, rule.destination)
  }

  func fieldsMatch(_ rule: CompiledRule, _ frame: borrowing Frame) -> Bool {
    for index in Int(rule.tests.start)..<Int(rule.tests.start + rule.tests.count) {
      let test = tests[index]
      if !test.holds(frame.value(of: test.field)) { return false }
    }
    return true
  }
}

/// Patterns while they are collected, and the rules that each prompts.
private struct PromptingPatterns {
  private var numbers: [[UInt8]: Int] = [:]
  private(set) var patterns: [[UInt8]] = []
  private(set) var rules: [[UInt32]] = []

  mutating func add(_ pattern: [UInt8], _ rule: UInt32) {
    if let number = numbers[pattern] { return rules[number].append(rule) }
    numbers[pattern] = patterns.count
    patterns.append(pattern)
    rules.append([rule])
  }
}

/// A stretch of one of the program's lists. Of addresses and ports an empty one means any.
struct ListPart: BitwiseCopyable {
  var start: UInt32 = 0
  var count: UInt32 = 0
}

struct AddressRange: BitwiseCopyable {
  var low: UInt128
  var high: UInt128
}

struct PortRange: BitwiseCopyable {
  var low: UInt16
  var high: UInt16
}

/// What has to be in one buffer of an HTTP message.
struct BufferContents: BitwiseCopyable {
  var buffer: Rule.Buffer
  var contents: ListPart
}

/// A rule with its lists elsewhere.
struct CompiledRule: BitwiseCopyable {
  var action = Rule.Action.alert
  var transport = Rule.Transport.any
  var scope = Rule.Scope.packetAndStream
  var isBidirectional = false
  /// Whether some content has to be at a place counted from the beginning.
  var isAnchored = false
  var priority: UInt8 = 3
  var flow = Rule.FlowCondition()
  var source = ListPart()
  var sourcePorts = ListPart()
  var destination = ListPart()
  var destinationPorts = ListPart()
  var tests = ListPart()
  /// Of the packet or stream.
  var contents = ListPart()
  /// Of parts of an HTTP message.
  var buffers = ListPart()
  var application = Rule.Application.any
  /// The buffer with the fast pattern.
  var fastBuffer = Rule.Buffer.raw
  var hasFastPattern = false
  var hasSeveralContents = false
  var asksForBody = false
  var asksForWholeBody = false
  var flowbits = Rule.Flowbits()
  var threshold: Rule.Threshold?
  var sid: UInt32 = 0
  var gid: UInt32 = 1
  var revision: UInt32 = 0
}
