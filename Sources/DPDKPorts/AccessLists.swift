import CDPDK
import FunctionCatalog
import Synchronization
import Wire

/// A firewall's rules compiled into DPDK's tries (`rte_acl`): what a new flow costs hardly depends on how many there are.
///
/// One list per address family; both hold the rules without addresses. `RuleClassifier.linearScan` is the oracle that
/// `AccessListTests` compares it with. The environment must have been started; compiling ten thousand rules takes
/// a good part of a second and belongs on a control thread.
public enum AccessLists {
  /// `Catalog.standard(classifyingBy: AccessLists.compiler)`
  public static let compiler: RuleClassifier.Compiler = { rules throws(RuleCompilationError) in
    let ipv4 = try AccessList(rules, isIPv6: false)
    let ipv6 = try AccessList(rules, isIPv6: true)
    return RuleClassifier { key in (key.isIPv6 ? ipv6 : ipv4)?.firstMatch(key) }
  }

  fileprivate static let count = Atomic<Int>(0)
}

/// One `rte_acl` context, freed with the last classifier that uses it. Classifying does not change it, so it may be
/// asked from any thread.
private final class AccessList: @unchecked Sendable {
  private let list: UnsafeMutableRawPointer
  private let isIPv6: Bool

  /// `nil` when no rule speaks of this family: DPDK compiles no empty list.
  init?(_ rules: [FirewallRule], isIPv6: Bool) throws(RuleCompilationError) {
    let native = rules.enumerated().flatMap { nfv_acl_rule.rules($0.element, number: UInt32($0.offset + 1), isIPv6: isIPv6) }
    guard !native.isEmpty else { return nil }
    let name = "rules\(AccessLists.count.add(1, ordering: .relaxed).newValue)"
    var made: UnsafeMutableRawPointer?
    let result = unsafe nfv_acl_create(name, isIPv6 ? 1 : 0, native, UInt32(native.count), &made)
    guard result == 0, let made = unsafe made else {
      throw RuleCompilationError(
        "DPDK cannot compile \(rules.count) rules (\(errorText(-result))); give it more memory, or use fewer")
    }
    unsafe list = made
    self.isIPv6 = isIPv6
  }

  deinit { unsafe nfv_acl_free(list) }

  func firstMatch(_ key: ClassificationKey) -> Int? {
    var native = nfv_acl_key()
    native.protocol = key.protocolNumber
    native.direction = key.direction.rawValue
    native.source_port = key.sourcePort
    native.destination_port = key.destinationPort
    native.source = nfv_acl_rule.words(key.source, isIPv6: isIPv6)
    native.destination = nfv_acl_rule.words(key.destination, isIPv6: isIPv6)
    var number: UInt32 = 0
    let result = unsafe nfv_acl_classify(list, isIPv6 ? 1 : 0, &native, 1, &number)
    precondition(result == 0, "a list that was compiled can be asked")
    return number == 0 ? nil : Int(number) - 1
  }
}

extension nfv_acl_rule {
  fileprivate typealias Words = (UInt32, UInt32, UInt32, UInt32)

  /// The rule as DPDK knows it: not at all if it speaks of the other family, twice if it names two protocols.
  fileprivate static func rules(_ rule: FirewallRule, number: UInt32, isIPv6: Bool) -> [nfv_acl_rule] {
    for case let block? in [rule.source, rule.destination] where (block.base.ipv4 == nil) != isIPv6 { return [] }
    var native = nfv_acl_rule()
    native.number = number
    if let direction = rule.direction { (native.direction, native.direction_mask) = (direction.rawValue, 0xff) }
    native.source_ports = (rule.sourcePorts.lowerBound, rule.sourcePorts.upperBound)
    native.destination_ports = (rule.destinationPorts.lowerBound, rule.destinationPorts.upperBound)
    if let block = rule.source {
      native.source = words(block.base, isIPv6: isIPv6)
      native.source_length = UInt8(isIPv6 ? block.length : block.length - 96)
    }
    if let block = rule.destination {
      native.destination = words(block.base, isIPv6: isIPv6)
      native.destination_length = UInt8(isIPv6 ? block.length : block.length - 96)
    }
    let protocols: [UInt8]
    switch rule.transport {
    case .any: return [native]
    case .tcp: protocols = [IPProtocol.tcp]
    case .udp: protocols = [IPProtocol.udp]
    case .icmp: protocols = [IPProtocol.icmp, IPProtocol.icmpv6]
    }
    native.protocol_mask = 0xff
    return protocols.map { number in
      var rule = native
      rule.protocol = number
      return rule
    }
  }

  fileprivate static func words(_ address: IPAddress, isIPv6: Bool) -> Words {
    let (high, low) = (address.high, address.low)
    if !isIPv6 { return (UInt32(truncatingIfNeeded: low), 0, 0, 0) }
    return (
      UInt32(truncatingIfNeeded: high >> 32), UInt32(truncatingIfNeeded: high), UInt32(truncatingIfNeeded: low >> 32),
      UInt32(truncatingIfNeeded: low)
    )
  }
}
