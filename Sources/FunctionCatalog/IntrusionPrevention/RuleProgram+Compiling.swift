// From rules as they were read to the flat records of a program.

/// The program's lists while they grow. Rules share equal lists of addresses and ports.
struct ProgramMemory {
  var ranges: [AddressRange] = []
  var ports: [PortRange] = []
  var tests: [Rule.FieldTest] = []
  var contents: [CompiledContent] = []
  var bytes: [UInt8] = []
  private var knownAddresses: [AddressSet: ListPart] = [:]
  private var knownPorts: [RulePorts: ListPart] = [:]

  mutating func compile(_ rule: Rule) -> CompiledRule {
    var compiled = CompiledRule()
    compiled.action = rule.action
    compiled.transport = rule.transport
    compiled.scope = rule.scope
    compiled.isBidirectional = rule.isBidirectional
    compiled.isAnchored = rule.contents.contains(where: \.isAnchored)
    compiled.priority = rule.priority
    compiled.flow = rule.flow
    compiled.source = part(of: rule.source)
    compiled.destination = part(of: rule.destination)
    compiled.sourcePorts = part(of: rule.sourcePorts)
    compiled.destinationPorts = part(of: rule.destinationPorts)
    compiled.tests = Self.append(rule.tests, to: &tests)
    let parts = rule.contents.enumerated().map { index, content in
      CompiledContent(
        content, bytesStart: append(content.bytes),
        isFollowedByRelative: index + 1 < rule.contents.count && rule.contents[index + 1].isRelative)
    }
    compiled.contents = Self.append(parts, to: &contents)
    compiled.flowbits = rule.flowbits
    compiled.threshold = rule.threshold
    compiled.sid = rule.sid
    compiled.gid = rule.gid
    compiled.revision = rule.revision
    return compiled
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
