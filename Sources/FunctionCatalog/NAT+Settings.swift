import ControlMessages
import NetworkFunctions
import Wire

extension NAT {
  public init(reader: SettingsReader) throws(SettingsError) {
    try reader.allow(["pool", "ports", "mappings", "per-client", "filtering", "hold", "log", "ipv6", "nat64"])
    let pool = try reader.required("pool")
    var addresses: [IPv4Address] = []
    for item in try pool.oneOrMore() {
      for value in try item.ipv4Range() {
        let address = IPv4Address(value)
        guard !addresses.contains(address) else { throw item.error("\(address) is in the pool twice") }
        addresses.append(address)
        guard addresses.count <= 256 else { throw item.error("a pool has at most 256 addresses") }
      }
    }
    guard !addresses.isEmpty else { throw pool.error("a pool needs at least one address") }
    let translation = try reader.optional("nat64").map { reader throws(SettingsError) in try NAT64.Rules(reader: reader) }
    self = NAT(
      pool: addresses,
      ports: try reader.optional("ports")?.portRange(lowest: 1) ?? 1024...65_535,
      mappings: try reader.optional("mappings")?.integer(in: 64...16_777_216) ?? 131_072,
      perClient: try reader.optional("per-client")?.integer(in: 1...16_777_216) ?? .max,
      filtering: try reader.optional("filtering")?.choice([
        "endpoint-independent": .endpointIndependent, "address-dependent": .addressDependent,
        "address-and-port-dependent": .addressAndPortDependent,
      ]) ?? .addressAndPortDependent,
      hold: try reader.optional("hold")?.milliseconds(),
      keepsLog: try reader.optional("log")?.boolean() ?? false,
      passesIPv6: try reader.optional("ipv6")?.choice(["drop": false, "forward": true]) ?? false
    ).translatingIPv6(translation)
  }

  /// Refuses a range of ports that leaves a runtime without any.
  func check(_ share: RuntimeShare, _ reader: SettingsReader) throws(SettingsError) {
    guard ports.count / share.count >= 2 else {
      throw reader.error("\(ports.count) ports are too few for \(share.count) runtimes: each needs at least 2")
    }
  }
}

extension SettingsReader {
  /// `10.2.0.200`, `10.2.0.200-10.2.0.203`, or `10.2.0.200/30`.
  func ipv4Range() throws(SettingsError) -> ClosedRange<UInt32> {
    let text = try string()
    if text.contains("/") {
      let block = try addressBlock()
      guard let base = block.base.ipv4 else { throw error("'\(text)' is not an IPv4 block") }
      return base.value...(base.value | UInt32(truncatingIfNeeded: (UInt64(1) << UInt64(128 - block.length)) - 1))
    }
    let parts = text.split(separator: "-", omittingEmptySubsequences: false)
    guard (1...2).contains(parts.count), let first = IPv4Address(String(parts[0].trimmed)),
      let last = IPv4Address(String(parts[parts.count - 1].trimmed)), first <= last
    else { throw error("'\(text)' is not an IPv4 address, a range such as 10.2.0.200-10.2.0.203, or a block") }
    return first.value...last.value
  }
}
