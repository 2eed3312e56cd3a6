import ControlMessages
import NetworkFunctions

/// Other settings for the functions of a running chain: made where there is time, then exchanged for the present ones
/// between two bursts, all at once.
///
/// What can change: the rules and the default of a firewall; the services of a load balancer with their backends, weights
/// and drains. `ServiceChainSpec.hasSameFixedSettings` says the same of settings that nobody has looked into yet.
public struct ChainChange: Sendable {
  /// By firewall and by load balancer, in the order of the chain; `nil` for one that stays as it is.
  private var ruleSets: [FirewallRuleSet?] = []
  private var plans: [LoadBalancerPlan?] = []

  /// - Parameters:
  ///   - plans: of the load balancers of the running chain, as they are now; where there is none, as its settings begin.
  ///   - opensFromServerSide: whether the running chain takes new flows from the server side at all.
  public init(
    from old: ServiceChainSpec, to new: [ServiceChainSpec.Function], plans present: [LoadBalancerPlan],
    opensFromServerSide: Bool, compiler: RuleClassifier.Compiler
  ) throws(SettingsError) {
    var balancers = 0
    guard old.functions.map(\.kind) == new.map(\.kind) else {
      throw SettingsError(path: "chain", line: 0, message: "a running chain keeps its functions and their order")
    }
    for (index, (before, after)) in zip(old.functions, new).enumerated() {
      let reader = SettingsReader(after.settings, path: "chain[\(index)].\(after.kind)")
      switch after.kind {
      case "firewall":
        _ = try Firewall(reader: reader, compiler: { RuleClassifier.linearScan($0) })
        let rules = before == after ? nil : try FirewallRuleSet(reader: reader, compiler: compiler)
        if let rules, rules.admitsFromServerSide, !opensFromServerSide {
          throw reader.error("no rule let the server side open flows when this chain began; that takes effect when it begins anew")
        }
        ruleSets.append(rules)
      case "load-balancer":
        let balancer = try LoadBalancer(reader: reader)
        let begun = try LoadBalancer(reader: SettingsReader(before.settings, path: reader.path)).services
        var plan = balancers < present.count ? present[balancers] : LoadBalancerPlan(begun)
        balancers += 1
        if balancer.hasIPv6Services, !begun.contains(where: \.isIPv6) {
          throw reader.error(
            "this chain began without an IPv6 service and has no room for the addresses; that takes effect when it begins anew")
        }
        if before != after, !plan.change(to: balancer.services) {
          throw reader.error("too many backends have come and gone for the counters of this chain")
        }
        plans.append(before == after ? nil : plan)
      default: break
      }
    }
  }

  /// Of load balancers alone.
  public init(plans: [LoadBalancerPlan]) { self.plans = plans }

  /// What the load balancers will have, where that changes.
  public var newPlans: [LoadBalancerPlan?] { plans }

  /// Puts the new in the place of the old, and keeps the old. By the worker's thread.
  public mutating func exchange(in chain: ServiceChain) {
    var position = 0
    chain.betweenBursts(Firewall.self) { firewall, shared in
      if position < ruleSets.count, ruleSets[position] != nil { firewall.exchangeRules(&ruleSets[position]!, shared: &shared) }
      position += 1
    }
    position = 0
    chain.betweenBursts(LoadBalancer.self) { balancer, shared in
      if position < plans.count, plans[position] != nil { balancer.exchange(&plans[position]!, shared: &shared) }
      position += 1
    }
  }
}
