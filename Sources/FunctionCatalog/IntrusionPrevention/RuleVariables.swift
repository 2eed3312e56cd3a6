import Wire

/// The addresses and ports that rules speak of by name (`$HOME_NET`), and the reading of their expressions.
///
///     expression   !expression | any | $NAME | [expression, …] | 10.0.0.0/8 | 10.0.0.1-10.0.0.9 | 80 | 1024: | !21:23
///
/// A group is the union of its positive members (everything if it has none) without its negated ones.
public struct RuleVariables: Hashable, Sendable {
  /// What is not here has the value that Suricata ships: home is RFC 1918, everything else is outside.
  public private(set) var values: [String: String]

  public init(_ values: [String: String] = [:]) {
    self.values = Self.shipped.merging(values) { $1 }
  }

  private static let shipped: [String: String] = [
    "HOME_NET": "[192.168.0.0/16,10.0.0.0/8,172.16.0.0/12]", "EXTERNAL_NET": "!$HOME_NET",
    "HTTP_SERVERS": "$HOME_NET", "SMTP_SERVERS": "$HOME_NET", "SQL_SERVERS": "$HOME_NET", "DNS_SERVERS": "$HOME_NET",
    "TELNET_SERVERS": "$HOME_NET", "AIM_SERVERS": "$EXTERNAL_NET", "DC_SERVERS": "$HOME_NET", "DNP3_SERVER": "$HOME_NET",
    "DNP3_CLIENT": "$HOME_NET", "MODBUS_CLIENT": "$HOME_NET", "MODBUS_SERVER": "$HOME_NET", "ENIP_CLIENT": "$HOME_NET",
    "ENIP_SERVER": "$HOME_NET", "HTTP_PORTS": "80", "SHELLCODE_PORTS": "!80", "ORACLE_PORTS": "1521", "SSH_PORTS": "22",
    "DNP3_PORTS": "20000", "MODBUS_PORTS": "502", "FILE_DATA_PORTS": "[$HTTP_PORTS,110,143]", "FTP_PORTS": "21",
    "GENEVE_PORTS": "6081", "VXLAN_PORTS": "4789", "TEREDO_PORTS": "3544",
  ]

  func addresses(_ text: String) throws(RuleRefusal) -> AddressSet {
    var effort = Effort()
    let set = try evaluate(text[...], &effort) { Self.addressRange($0) }
    if set.isEmpty { throw RuleRefusal("addresses", "'\(text)' is no address at all") }
    return set
  }

  func ports(_ text: String) throws(RuleRefusal) -> RulePorts {
    var effort = Effort()
    let set = try evaluate(text[...], &effort) { Self.portRange($0) }
    if set.isEmpty { throw RuleRefusal("ports", "'\(text)' is no port at all") }
    return set
  }

  // MARK: Expressions

  /// A name that stands for itself would never end, and a few that stand for several others each nearly so.
  private struct Effort {
    var depth = 0
    var steps = 0
  }

  private func evaluate<Bound>(
    _ text: Substring, _ effort: inout Effort, _ atom: (Substring) -> ClosedRange<Bound>?
  ) throws(RuleRefusal) -> RangeSet<Bound> {
    effort.depth += 1
    effort.steps += 1
    defer { effort.depth -= 1 }
    guard effort.depth < 32, effort.steps < 20_000 else {
      throw RuleRefusal("syntax", "groups or variables nested more than 32 deep, or more than 20000 in one expression")
    }
    let text = text.trimmed
    if text.first == "!" { return try evaluate(text.dropFirst(), &effort, atom).complement }
    if text == "any" { return .all }
    if text.first == "$" {
      let name = String(text.dropFirst())
      guard let value = values[name] else { throw RuleRefusal("unknown variable", "no variable is called '$\(name)'") }
      return try evaluate(value[...], &effort, atom)
    }
    if text.first == "[" {
      guard text.last == "]", text.count > 2 else { throw RuleRefusal("syntax", "'\(text)' is not a group [a,b]") }
      var included = RangeSet<Bound>.none
      var excluded = RangeSet<Bound>.none
      var hasIncluded = false
      for member in try members(of: text.dropFirst().dropLast()) {
        let member = member.trimmed
        if member.first == "!" {
          excluded = excluded.union(try evaluate(member.dropFirst(), &effort, atom))
        } else {
          included = included.union(try evaluate(member, &effort, atom))
          hasIncluded = true
        }
      }
      return (hasIncluded ? included : .all).subtracting(excluded)
    }
    guard let range = atom(text) else {
      throw RuleRefusal("syntax", "'\(text)' is neither an address, a port, nor a range of them")
    }
    return RangeSet(range)
  }

  /// Splits at commas outside of inner brackets.
  private func members(of text: Substring) throws(RuleRefusal) -> [Substring] {
    var members: [Substring] = []
    var depth = 0
    var start = text.startIndex
    for index in text.indices {
      switch text[index] {
      case "[": depth += 1
      case "]": depth -= 1
      case "," where depth == 0:
        members.append(text[start..<index])
        start = text.index(after: index)
      default: break
      }
      if depth < 0 { break }
    }
    guard depth == 0 else { throw RuleRefusal("syntax", "brackets do not match in '\(text)'") }
    return members + [text[start...]]
  }

  // MARK: Atoms

  /// `10.0.0.0/8`, `10.0.0.1`, `10.0.0.1-10.0.0.9`. Bits behind a prefix do not matter.
  private static func addressRange(_ text: Substring) -> ClosedRange<UInt128>? {
    let ends = text.split(separator: "-", omittingEmptySubsequences: false)
    if ends.count == 2 {
      guard let low = IPAddress(String(ends[0].trimmed)), let high = IPAddress(String(ends[1].trimmed)), low <= high,
        (low.ipv4 == nil) == (high.ipv4 == nil)
      else { return nil }
      return UInt128(low)...UInt128(high)
    }
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard (1...2).contains(parts.count), let address = IPAddress(String(parts[0])) else { return nil }
    let width = address.ipv4 == nil ? 128 : 32
    var prefix = width
    if parts.count == 2 {
      guard let given = parts[1].port, given <= width else { return nil }
      prefix = Int(given)
    }
    let host = width - prefix
    let below = host == 128 ? UInt128.max : (UInt128(1) << UInt128(host)) - 1
    let base = UInt128(address) & ~below
    return base...(base | below)
  }

  /// `80`, `1024:`, `:1023`, `5060:5061`.
  private static func portRange(_ text: Substring) -> ClosedRange<UInt16>? {
    let ends = text.split(separator: ":", omittingEmptySubsequences: false).map(\.trimmed)
    if ends.count == 1 { return ends[0].isEmpty ? nil : ends[0].port.map { $0...$0 } }
    guard ends.count == 2, !(ends[0].isEmpty && ends[1].isEmpty) else { return nil }
    guard let low = ends[0].isEmpty ? 0 : ends[0].port, let high = ends[1].isEmpty ? .max : ends[1].port, low <= high else {
      return nil
    }
    return low...high
  }
}
