import ControlMessages
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

@testable import FunctionCatalog

/// Settings of a running chain that are exchanged for others, and checks that speak for and against a backend.
@Suite struct ChainChangeTests {
  static func services(_ backends: String) -> String {
    "services:\n  - {virtual: 10.1.0.100:80/tcp, backends: [\(backends)]}\nother: forward"
  }

  static func change(_ old: ServiceChainSpec, _ new: ServiceChainSpec, on chain: ServiceChain) throws -> ChainChange {
    var plans: [LoadBalancerPlan] = []
    chain.betweenBursts(LoadBalancer.self) { _, shared in plans.append(shared.plan) }
    return try ChainChange(
      from: old, to: new.functions, plans: plans, opensFromServerSide: chain.opensFromServerSide,
      compiler: { RuleClassifier.linearScan($0) })
  }

  @Test func `rules and backends of one chain change together`() throws {
    let old = Example.spec(
      ("firewall", "rules:\n  - {action: allow, protocol: tcp}"), ("nat", Example.nat),
      ("load-balancer", Self.services("10.2.0.11:80, 10.2.0.12:80")))
    let new = Example.spec(
      ("firewall", "rules:\n  - {action: deny, from: 10.0.0.66}\n  - {action: allow, protocol: tcp}"), ("nat", Example.nat),
      ("load-balancer", Self.services("{address: 10.2.0.12:80, drain: true}, 10.2.0.13:80")))
    #expect(old.hasSameFixedSettings(as: new))
    let chain = try Catalog.standard.makeChain(spec: old, share: .whole)
    let runtime = TestRuntime(chain)
    func open(_ client: UInt32) -> TestRuntime.Outcome {
      runtime.send(.tcp(Endpoint(IPv4Address(0x0a00_0000 + client), port: 1000), "10.1.0.100:80", .syn))
    }
    let before = (1...4).map { open($0).packet!.destination }
    #expect(Set(before) == ["10.2.0.11:80", "10.2.0.12:80"])

    var change = try Self.change(old, new, on: chain)
    change.exchange(in: chain)
    #expect(open(0x42) == .dropped("denied-by-rule"))
    for client in 1...4 as ClosedRange<UInt32> {
      #expect(open(client).packet?.destination == before[Int(client) - 1], "flows that live keep their backend")
    }
    #expect((5...8).map { open($0).packet!.destination } == Array(repeating: "10.2.0.13:80", count: 4))
    #expect(runtime.observed("load-balancer.10.1.0.100:80/tcp.10.2.0.12:80.flows") == 2)
    #expect(runtime.observed("load-balancer.10.1.0.100:80/tcp.10.2.0.11:80.flows") == nil)

    // And back: a backend that returns finds its count.
    change.exchange(in: chain)
    #expect(runtime.observed("load-balancer.10.1.0.100:80/tcp.10.2.0.11:80.flows") == 2)
    #expect(open(0x42).packet != nil)
    runtime.expireAll()
    #expect(runtime.observed("load-balancer.10.1.0.100:80/tcp.10.2.0.11:80.flows") == 0)
    change.exchange(in: chain)
    #expect(runtime.observed("load-balancer.10.1.0.100:80/tcp.10.2.0.13:80.flows") == 0)
  }

  @Test func `what is not live is not the same chain`() {
    let old = Example.spec(("firewall", "established: keep\nrules: []"), ("nat", Example.nat))
    #expect(old.hasSameFixedSettings(as: Example.spec(("firewall", "rules: []\ndefault: allow\nestablished: keep"), ("nat", Example.nat))))
    #expect(!old.hasSameFixedSettings(as: Example.spec(("firewall", "established: re-evaluate\nrules: []"), ("nat", Example.nat))))
    #expect(!old.hasSameFixedSettings(as: Example.spec(("firewall", "established: keep"), ("nat", "pool: [10.2.0.200]"))))
    #expect(!old.hasSameFixedSettings(as: Example.spec(("nat", Example.nat), ("firewall", "established: keep\nrules: []"))))
    #expect(!old.hasSameFixedSettings(as: Example.spec(("firewall", "established: keep"))))
  }

  @Test func `a wrong change is refused with its place, and nothing has changed`() throws {
    let old = Example.spec(("firewall", "rules:\n  - {action: allow, protocol: tcp}"))
    let chain = try Catalog.standard.makeChain(spec: old, share: .whole)
    for (text, message) in [
      ("rules:\n  - {action: alow}", "chain[0].firewall.rules[0].action: 'alow' is not one of: allow, deny"),
      (
        "rules:\n  - {action: allow, direction: both}",
        "no rule let the server side open flows when this chain began; that takes effect when it begins anew"
      ),
    ] {
      do {
        _ = try Self.change(old, Example.spec(("firewall", text)), on: chain)
        Issue.record("'\(text)' was taken")
      } catch { #expect("\(error)".hasSuffix(message), "\(error)") }
    }
    let open = Example.spec(("firewall", "rules:\n  - {action: allow, direction: both}"))
    _ = try Self.change(open, open, on: try Catalog.standard.makeChain(spec: open, share: .whole))
  }

  @Test func `a plan gives numbers once, and says when it has none left`() {
    func service(_ backends: Range<Int>) -> LoadBalancerService {
      LoadBalancerService(
        "10.1.0.100", port: 80,
        backends: backends.map { .init(IPv4Address(UInt32(0x0a02_0000 + $0)), port: 80) })
    }
    var plan = LoadBalancerPlan([service(0..<10)])
    #expect(plan.capacity == 1024)
    for round in 1..<101 {
      let isNumbered = plan.change(to: [service(round * 10..<round * 10 + 10)])
      #expect(isNumbered)
      #expect(Set(plan.numbers[0]).count == 10)
    }
    let isBack = plan.change(to: [service(0..<10)])
    #expect(isBack && plan.numbers == [Array(0..<10)])
    let isRefused = !plan.change(to: [service(2_000..<2_100)])
    #expect(isRefused && plan.numbers == [Array(0..<10)])
  }

  // MARK: Health

  @Test func `a backend goes down after so many failures in a row and comes up after so many successes`() {
    var rules = HealthCheck()
    (rules.rise, rules.fall) = (2, 3)
    var health = BackendHealth()
    let story: [(Bool, Bool)] = [
      (true, true), (false, true), (false, true), (true, true), (false, true), (false, true), (false, false), (false, false),
      (true, false), (false, false), (true, false), (true, true), (true, true),
    ]
    for (step, (succeeds, isUp)) in story.enumerated() {
      let before = health.isUp
      let hasChanged = health.note(succeeds, rules)
      #expect(health.isUp == isUp && hasChanged == (before != isUp), "step \(step)")
    }
    #expect(health.checks == 13 && health.failures == 7)
  }

  @Test(arguments: [
    ("{interval: 2s, timeout: 3s}", "a check has to end before the next one begins"),
    ("{interval: 1ms}", "checks are 100ms to 1h apart"), ("{rise: 0}", "0 is out of range; it must be from 1 to 100"),
    ("{intervall: 2s}", "unknown key 'intervall'; did you mean 'interval'? (known: interval, timeout, rise, fall, port)"),
  ])
  func `a wrong setting of checks is refused`(text: String, message: String) {
    let text = "services:\n  - {virtual: 10.1.0.100:80/tcp, backends: [10.2.0.11:80], health: \(text)}"
    do {
      _ = try LoadBalancer(reader: SettingsReader(text: text))
      Issue.record("it was taken")
    } catch { #expect("\(error)".hasSuffix(message), "\(error)") }
  }

  @Test func `backends of a UDP service need a TCP port to be checked`() {
    let text = "services:\n  - {virtual: 10.1.0.100:53/udp, backends: [10.2.0.11:53], health: {interval: 1s}}"
    #expect(throws: SettingsError.self) { try LoadBalancer(reader: SettingsReader(text: text)) }
    #expect(throws: Never.self) { try LoadBalancer(reader: SettingsReader(text: text.replacing("1s}", with: "1s, port: 8053}"))) }
  }
}
