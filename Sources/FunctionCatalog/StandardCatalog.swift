import ControlMessages
import NetworkFunctions

extension Catalog {
  /// The functions of this project, and the runs of them that are compiled as one.
  public static let standard = standard { RuleClassifier.linearScan($0) }

  /// - Parameter compiler: what the machine has for classifying packets by rules, such as DPDK's `rte_acl`.
  public static func standard(classifyingBy compiler: @escaping RuleClassifier.Compiler) -> Catalog {
    var catalog = Catalog()
    catalog.register("firewall") { reader throws(SettingsError) in try Firewall(reader: reader, compiler: compiler) }
    catalog.add(
      Registration(
        name: "nat",
        make: { reader, share throws(SettingsError) in ServiceStage("nat", try nat(reader, share), share: share) },
        check: { reader throws(SettingsError) in Entrance(try NAT(reader: reader)) }))
    catalog.register("load-balancer") { reader throws(SettingsError) in try LoadBalancer(reader: reader) }
    catalog.add(
      Registration(
        name: "ips",
        make: { reader, share throws(SettingsError) in
          try IntrusionPrevention(reader: reader).withMemory(StageOfInspection(share: share))
        },
        check: { reader throws(SettingsError) in
          try IntrusionPrevention(reader: reader).withMemory(EntranceOfInspection())
        }))
    catalog.register("packet-counter") { reader throws(SettingsError) in try PacketCounter(reader: reader) }
    catalog.register("rate-limiter") { reader throws(SettingsError) in try RateLimiter(reader: reader) }

    catalog.fuse(["firewall", "nat", "load-balancer"]) { readers, share throws(SettingsError) in
      let chain = try Firewall(reader: readers[0], compiler: compiler).then(
        try nat(readers[1], share).then(try LoadBalancer(reader: readers[2])))
      return ServiceStage("firewall-nat-load-balancer", chain, share: share)
    }
    catalog.fuse(["firewall", "nat", "ips"]) { readers, share throws(SettingsError) in
      let firewall = try Firewall(reader: readers[0], compiler: compiler)
      return try IntrusionPrevention(reader: readers[2]).withMemory(
        FusedInspection(firewall: firewall, nat: try nat(readers[1], share), share: share))
    }
    catalog.fuse(["firewall", "nat"]) { readers, share throws(SettingsError) in
      ServiceStage(
        "firewall-nat", try Firewall(reader: readers[0], compiler: compiler).then(try nat(readers[1], share)), share: share)
    }
    catalog.fuse(["firewall", "load-balancer"]) { readers, share throws(SettingsError) in
      let chain = try Firewall(reader: readers[0], compiler: compiler).then(try LoadBalancer(reader: readers[1]))
      return ServiceStage("firewall-load-balancer", chain, share: share)
    }
    catalog.fuse(["nat", "load-balancer"]) { readers, share throws(SettingsError) in
      ServiceStage("nat-load-balancer", try nat(readers[0], share).then(try LoadBalancer(reader: readers[1])), share: share)
    }
    return catalog
  }

  private static func nat(_ reader: SettingsReader, _ share: RuntimeShare) throws(SettingsError) -> NAT {
    let nat = try NAT(reader: reader)
    try nat.check(share, reader)
    return nat
  }
}

// Intrusion prevention is of one type for each memory that it can have for a flow's streams.

private struct StageOfInspection: FunctionUse {
  let share: RuntimeShare
  func use(_ function: some NetworkFunction) -> ServiceStage { ServiceStage("ips", function, share: share) }
}

private struct EntranceOfInspection: FunctionUse {
  func use(_ function: some NetworkFunction) -> Catalog.Entrance { Catalog.Entrance(function) }
}

private struct FusedInspection: FunctionUse {
  let firewall: Firewall
  let nat: NAT
  let share: RuntimeShare

  func use(_ function: some NetworkFunction) -> ServiceStage {
    ServiceStage("firewall-nat-ips", firewall.then(nat.then(function)), share: share)
  }
}
