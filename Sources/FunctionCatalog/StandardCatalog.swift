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
        make: { reader, share throws(SettingsError) in
          let nat = try nat(reader, share)
          guard let rules = nat.translation else { return ServiceStage("nat", nat, share: share) }
          return ServiceStage("nat", NAT64(nat, rules), share: share)
        },
        check: { reader throws(SettingsError) in
          let nat = try NAT(reader: reader)
          return nat.translation.map { Entrance(NAT64(nat, $0)) } ?? Entrance(nat)
        }))
    catalog.add(
      Registration(
        name: "load-balancer",
        make: { reader, share throws(SettingsError) in
          let balancer = try LoadBalancer(reader: reader)
          return balancer.hasIPv6Services
            ? ServiceStage("load-balancer", DualStackLoadBalancer(balancer), share: share)
            : ServiceStage("load-balancer", balancer, share: share)
        },
        check: { reader throws(SettingsError) in
          let balancer = try LoadBalancer(reader: reader)
          return balancer.hasIPv6Services ? Entrance(DualStackLoadBalancer(balancer)) : Entrance(balancer)
        }))
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
      guard let nat = try ipv4NAT(readers[1], share), let balancer = try ipv4Balancer(readers[2]) else { return nil }
      let chain = try Firewall(reader: readers[0], compiler: compiler).then(nat.then(balancer))
      return ServiceStage("firewall-nat-load-balancer", chain, share: share)
    }
    catalog.fuse(["firewall", "nat", "ips"]) { readers, share throws(SettingsError) in
      guard let nat = try ipv4NAT(readers[1], share) else { return nil }
      let firewall = try Firewall(reader: readers[0], compiler: compiler)
      return try IntrusionPrevention(reader: readers[2]).withMemory(FusedInspection(firewall: firewall, nat: nat, share: share))
    }
    catalog.fuse(["firewall", "nat"]) { readers, share throws(SettingsError) in
      guard let nat = try ipv4NAT(readers[1], share) else { return nil }
      return ServiceStage("firewall-nat", try Firewall(reader: readers[0], compiler: compiler).then(nat), share: share)
    }
    catalog.fuse(["firewall", "load-balancer"]) { readers, share throws(SettingsError) in
      guard let balancer = try ipv4Balancer(readers[1]) else { return nil }
      return ServiceStage(
        "firewall-load-balancer", try Firewall(reader: readers[0], compiler: compiler).then(balancer), share: share)
    }
    catalog.fuse(["nat", "load-balancer"]) { readers, share throws(SettingsError) in
      guard let nat = try ipv4NAT(readers[0], share), let balancer = try ipv4Balancer(readers[1]) else { return nil }
      return ServiceStage("nat-load-balancer", nat.then(balancer), share: share)
    }
    return catalog
  }

  private static func nat(_ reader: SettingsReader, _ share: RuntimeShare) throws(SettingsError) -> NAT {
    let nat = try NAT(reader: reader)
    try nat.check(share, reader)
    return nat
  }

  /// `nil` for one that translates IPv6, which is a function of another type.
  private static func ipv4NAT(_ reader: SettingsReader, _ share: RuntimeShare) throws(SettingsError) -> NAT? {
    let nat = try nat(reader, share)
    return nat.translation == nil ? nat : nil
  }

  /// `nil` for one with IPv6 services, which is a function of another type.
  private static func ipv4Balancer(_ reader: SettingsReader) throws(SettingsError) -> LoadBalancer? {
    let balancer = try LoadBalancer(reader: reader)
    return balancer.hasIPv6Services ? nil : balancer
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
