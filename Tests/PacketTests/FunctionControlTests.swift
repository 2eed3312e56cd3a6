import ControlMessages
import FunctionCatalog
import Glibc
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

@testable import Dataplane
@testable import Nodes

/// The control thread's hand on the functions of a running chain.
@Suite struct FunctionControlTests {
  static let node = NodeID(7)!

  static func spec(_ backends: [String], nat: [Settings.Entry] = []) -> ServiceChainSpec {
    func list(_ values: [Settings]) -> Settings { Settings(.list(values)) }
    let service = Settings(
      .map([
        .init("virtual", Settings(.scalar("10.1.0.100:80/tcp"))), .init("backends", list(backends.map { Settings(.scalar($0)) })),
      ]))
    let pool = Settings.Entry("pool", Settings(.scalar("10.2.0.200")))
    return ServiceChainSpec(functions: [
      .init(kind: "nat", settings: Settings(.map([pool, .init("log", Settings(.scalar("true")))] + nat))),
      .init(
        kind: "load-balancer",
        settings: Settings(.map([.init("services", list([service])), .init("other", Settings(.scalar("forward")))]))),
    ])
  }

  let spec = spec(["10.2.0.11:80"], nat: [.init("nat64", Settings(.scalar("2001:db8:64::/96")))])
  let chain: ServiceChain
  let runtime: TestRuntime
  let control: FunctionControl

  init() throws {
    chain = try Catalog.standard.makeChain(spec: spec, share: .whole)
    runtime = TestRuntime(chain)
    control = FunctionControl(chain: chain, spec: spec, node: Self.node, clock: CycleClock())
  }

  /// What is compiled elsewhere is there after a while.
  private func nextErrand(refused: (Slot, String) -> Void = { _, _ in }) -> ChainErrand? {
    for _ in 0..<2_000 {
      var wasRefused = false
      if let errand = control.nextErrand(refused: { wasRefused = true; refused($0, $1) }) { return errand }
      if wasRefused { return nil }
      usleep(1_000)
    }
    return nil
  }

  private func destination(_ client: UInt8) -> Endpoint? {
    runtime.send(.tcp(Endpoint(IPv4Address(0x0a00_0000 + UInt32(client)), port: 1_000), "10.1.0.100:80", .syn)).packet?.destination
  }

  @Test func `a change is compiled, carried out between two bursts, and acknowledged then`() throws {
    #expect(destination(1) == "10.2.0.11:80")
    #expect(control.nextErrand(refused: { _, _ in }) == nil)
    var new = Self.spec(["10.2.0.12:80"]).functions
    new[0] = spec.functions[0]
    control.change(SettingsChange(version: 2, functions: new), slot: Slot(5))
    let errand = try #require(nextErrand())
    #expect(destination(2) == "10.2.0.11:80", "not yet")
    #expect(control.nextErrand(refused: { _, _ in }) == nil, "one at a time")
    errand.run(on: chain)
    #expect(destination(3) == "10.2.0.12:80" && destination(1) == "10.2.0.11:80")
    #expect(control.errandDone() == Slot(5) && control.errandDone() == nil)
  }

  @Test func `a change that cannot be is refused with its slot, and the next one is carried out`() throws {
    var wrong = Self.spec(["10.2.0.12:99999"]).functions
    wrong[0] = spec.functions[0]
    control.change(SettingsChange(version: 2, functions: wrong), slot: Slot(5))
    control.change(SettingsChange(version: 3, functions: spec.functions), slot: Slot(6))
    var refusals: [(Slot, String)] = []
    #expect(nextErrand { refusals.append(($0, $1)) } == nil)
    #expect(refusals.count == 1 && refusals[0].0 == Slot(5) && refusals[0].1.contains("'10.2.0.12:99999' is not an address with a port"))
    let errand = try #require(nextErrand())
    errand.run(on: chain)
    #expect(control.errandDone() == Slot(6) && destination(1) == "10.2.0.11:80")
  }

  @Test func `a backend that does not answer gets no new flows, and the log hears of it`() throws {
    // Nobody listens there: the port was the kernel's to give, and is given back.
    let listener = try #require(BackendCheckTests.Listener(AF_INET))
    listener.close()
    var service = LoadBalancerService(
      IPAddress("10.1.0.100")!, port: 80,
      backends: [.init(BackendCheckTests.loopback, port: listener.port), .init(BackendCheckTests.loopback, port: listener.port &+ 1, isDraining: true)])
    var health = HealthCheck()
    (health.interval, health.timeout, health.fall) = (1_000, 1_000, 1)
    service.health = health
    let chain = ServiceChain([ServiceStage("load-balancer", LoadBalancer(services: [service]), share: .whole)])
    let control = FunctionControl(
      chain: chain, spec: ServiceChainSpec(functions: [.init(kind: "load-balancer", settings: Settings(.map([])))]), node: Self.node,
      clock: CycleClock())
    let runtime = TestRuntime(chain)
    var changes = control.check(now: 1)
    for _ in 0..<50 where !changes.contains(where: { !$0.isUp }) {
      changes += control.check(now: 1_500)
      usleep(500)
    }
    let change = try #require(changes.first { !$0.isUp })
    #expect(change.node == Self.node && change.service == "10.1.0.100:80/tcp" && change.backend == "127.0.0.1:\(listener.port)")
    #expect(change.reason == "Connection refused")
    #expect(runtime.send(.tcp("10.0.0.1:1", "10.1.0.100:80", .syn)).packet != nil)
    let errand = try #require(control.nextErrand(refused: { _, _ in }))
    errand.run(on: chain)
    #expect(runtime.send(.tcp("10.0.0.2:1", "10.1.0.100:80", .syn)) == .dropped("no-backend"))
    #expect(control.errandDone() == nil, "nobody asked for it")
    #expect(control.nextErrand(refused: { _, _ in }) == nil)
  }

  @Test func `what functions say goes into records at a pace, clients of either family by their addresses`() throws {
    #expect(control.takeLog(now: 100) == nil)
    runtime.now = Tick(milliseconds: 1)
    #expect(runtime.send(.udp("10.0.0.1:5000", "192.0.2.1:53")).packet != nil)
    #expect(runtime.send(.udp("[2001:db8:1::7]:5000", "[2001:db8:64::c000:201]:53")).packet != nil)
    #expect(control.takeLog(now: 110) == nil, "fifty a second")
    let log = try #require(control.takeLog(now: 120))
    #expect(log.node == Self.node && log.lost == 0)
    #expect(log.entries.map(\.source) == ["10.0.0.1", "2001:db8:1::7"])
    #expect(log.entries.allSatisfy { $0.destination == "10.2.0.200" && $0.kind == .mapping(.created, vlan: 0) })
    runtime.expireAll()
    let ends = try #require(control.takeLog(now: 140))
    #expect(Set(ends.entries.map(\.source)) == ["10.0.0.1", "2001:db8:1::7"])
    #expect(ends.entries.allSatisfy { $0.kind == .mapping(.removed, vlan: 0) })
  }
}
