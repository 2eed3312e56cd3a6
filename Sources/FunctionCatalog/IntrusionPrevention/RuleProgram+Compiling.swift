// From rules as they were read to the flat records of a program.

/// The program's lists while they grow. Rules share equal lists of addresses and ports.
struct ProgramMemory {
  var ranges: [AddressRange] = []
  var ports: [PortRange] = []
  var tests: [Rule.FieldTest] = []
  var contents: [CompiledContent] = []
  var bufferContents: [BufferContents] = []
  var bytes: [UInt8] = []
  private var knownAddresses: [AddressSet: ListPart] = [:]
  private var knownPorts: [RulePorts: ListPart] = [:]

  mutating func compile(_ rule: Rule) -> CompiledRule {
    var compiled = CompiledRule()
    compiled.action = rule.action
    compiled.transport = rule.transport
    compiled.scope = rule.scope
    compiled.isBidirectional = rule.isBidirectional
    compiled.isAnchored = rule.contents.contains { $0.buffer == .raw && $0.isAnchored }
    compiled.priority = rule.priority
    compiled.flow = rule.flow
    compiled.source = part(of: rule.source)
    compiled.destination = part(of: rule.destination)
    compiled.sourcePorts = part(of: rule.sourcePorts)
    compiled.destinationPorts = part(of: rule.destinationPorts)
    compiled.tests = Self.append(rule.tests, to: &tests)
    compiled.contents = compile(rule.contents.filter { $0.buffer == .raw })
    compiled.hasSeveralContents =
      (compiled.contents.count > 1 || (compiled.contents.count == 1 && rule.application == .http))
      && (rule.transport == .tcp || rule.transport == .any) && rule.scope != .packet
    compiled.application = rule.application
    var buffers: [Rule.Buffer] = []
    for content in rule.contents where content.buffer != .raw && !buffers.contains(content.buffer) {
      buffers.append(content.buffer)
    }
    let bufferParts = buffers.map { buffer in
      BufferContents(buffer: buffer, contents: compile(rule.contents.filter { $0.buffer == buffer }))
    }
    compiled.buffers = Self.append(bufferParts, to: &bufferContents)
    for content in rule.contents where content.buffer.isBody {
      compiled.asksForBody = true
      // What must not be there can come until the end.
      if content.isNegated || content.size != nil || content.isAtEnd { compiled.asksForWholeBody = true }
    }
    compiled.hasFastPattern = rule.fastPattern != nil
    compiled.fastBuffer = rule.fastPattern.map { rule.contents[$0].buffer } ?? .raw
    compiled.flowbits = rule.flowbits
    compiled.threshold = rule.threshold
    compiled.sid = rule.sid
    compiled.gid = rule.gid
    compiled.revision = rule.revision
    return compiled
  }

  /// Contents of one buffer.
  private mutating func compile(_ list: [Rule.Content]) -> ListPart {
    let parts = list.enumerated().map { index, content in
      CompiledContent(
        content, bytesStart: append(content.bytes), isFollowedByRelative: index + 1 < list.count && list[index + 1].isRelative)
    }
    return Self.append(parts, to: &contents)
  }

  private mutating func part(of set: AddressSet) -> ListPart {
    if set.isAll { return ListPart() }
    if let known = knownAddresses[set] { return known }
    let part = Self.append(set.ranges.map { AddressRange(low: $0.lowerBound, high: $0.upperBound) }, to: &ranges)
    knownAddresses[set] = part
    return part
  }

  private mutating func part(of set: RulePorts) -> ListPart {
    if set.isAll { return ListPart() }
    if let known = knownPorts[set] { return known }
    let part = Self.append(set.ranges.map { PortRange(low: $0.lowerBound, high: $0.upperBound) }, to: &ports)
    knownPorts[set] = part
    return part
  }

  private mutating func append(_ content: [UInt8]) -> UInt32 { Self.append(content, to: &bytes).start }

  private static func append<Element>(_ new: [Element], to list: inout [Element]) -> ListPart {
    defer { list += new }
    return ListPart(start: UInt32(list.count), count: UInt32(new.count))
  }
}

extension FixedMemory {
  var byteCount: Int { count * MemoryLayout<Element>.stride }

  /// Room for exactly these; `filler` is not seen.
  init(_ elements: [Element], or filler: Element) {
    self.init(count: elements.count, repeating: filler)
    for (index, element) in elements.enumerated() { self[index] = element }
  }
}
