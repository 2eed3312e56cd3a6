import ControlMessages
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

@testable import FunctionCatalog

@Suite struct LoadBalancerTests {
  let runtime = TestRuntime(try! LoadBalancer(reader: SettingsReader(text: Example.loadBalancer)))

  static func client(_ number: Int) -> Endpoint { Endpoint(IPv4Address(0x0a00_0000 + UInt32(number)), port: 1000) }

  @Test func `a packet to the virtual address goes to a backend and the answer comes from the virtual address`() {
    let syn = TestPacket.tcp("10.0.0.1:1000", "10.1.0.100:80", .syn, seq: 1)
    let sent = runtime.send(syn).packet!
    #expect(sent == .tcp("10.0.0.1:1000", "10.2.0.12:8080", .syn, seq: 1), "the one with weight 2 is first")
    let answer = sent.answered([.syn, .ack], seq: 7)
    #expect(runtime.send(answer).packet == .tcp("10.1.0.100:80", "10.0.0.1:1000", [.syn, .ack], seq: 7, ack: 2))
  }

  @Test func `flows are spread by weight, and one that ended makes room`() {
    for number in 0..<30 { #expect(runtime.send(.tcp(Self.client(number), "10.1.0.100:80", .syn)).packet != nil) }
    #expect(runtime.observed("load-balancer.10.1.0.100:80/tcp.10.2.0.11:8080.flows") == 10)
    #expect(runtime.observed("load-balancer.10.1.0.100:80/tcp.10.2.0.12:8080.flows") == 20)
    for number in 0..<30 { runtime.expire(flowOf: .tcp(Self.client(number), "10.1.0.100:80", .ack)) }
    #expect(runtime.observed("load-balancer.10.1.0.100:80/tcp.10.2.0.11:8080.flows") == 0)
    #expect(runtime.observed("load-balancer.10.1.0.100:80/tcp.10.2.0.12:8080.flows") == 0)
  }

  @Test func `a flow stays with its backend`() {
    let first = runtime.send(.tcp("10.0.0.1:1000", "10.1.0.100:80", .syn)).packet!
    for number in 2..<50 { _ = runtime.send(.tcp(Self.client(number), "10.1.0.100:80", .syn)) }
    #expect(runtime.send(.tcp("10.0.0.1:1000", "10.1.0.100:80", .ack)).packet?.destination == first.destination)
  }

  @Test func `other packets pass or are dropped as configured`() throws {
    let packet = TestPacket.udp("10.0.0.1:1", "192.0.2.1:53")
    #expect(runtime.send(packet) == .forwarded(packet))
    #expect(runtime.send(packet.answered()) == .forwarded(packet.answered()))
    let ipv6 = TestPacket.udp("[2001:db8::1]:1", "[2001:db8::2]:2")
    #expect(runtime.send(ipv6) == .forwarded(ipv6))
    let strict = TestRuntime(
      LoadBalancer(services: try LoadBalancer(reader: SettingsReader(text: Example.loadBalancer)).services))
    #expect(strict.send(packet) == .dropped("no-service"))
    #expect(strict.send(.udp("10.0.0.1:1", "10.1.0.100:80")) == .dropped("no-service"), "the service is TCP")
  }

  @Test func `a drained backend keeps its flows and gets no new ones`() {
    let service = { (weight: UInt16) in
      LoadBalancerService(
        "10.1.0.100", port: 80, backends: [.init("10.2.0.11", port: 80, weight: weight), .init("10.2.0.12", port: 80, weight: 0)])
    }
    let (before, after) = (TestRuntime(LoadBalancer(services: [service(1)])), TestRuntime(LoadBalancer(services: [service(0)])))
    let syn = TestPacket.tcp("10.0.0.1:1000", "10.1.0.100:80", .syn)
    let sent = before.send(syn).packet!
    #expect(sent.destination == "10.2.0.11:80")
    before.migrate(flowOf: syn, to: after)
    #expect(after.send(syn).packet == sent)
    #expect(after.observed("load-balancer.10.1.0.100:80/tcp.10.2.0.11:80.flows") == 1)
    #expect(after.send(.tcp("10.0.0.2:1000", "10.1.0.100:80", .syn)) == .dropped("no-backend"))
  }

  @Test func `runtimes begin their search at different backends`() {
    let service = LoadBalancerService(
      "10.1.0.100", port: 80, backends: (1...3).map { .init(IPv4Address(0x0a02_0000 + $0), port: 80) })
    let firsts = (0..<3).map { index in
      TestRuntime(LoadBalancer(services: [service]), share: RuntimeShare(index: index, count: 3))
        .send(.tcp("10.0.0.1:1", "10.1.0.100:80", .syn)).packet!.destination
    }
    #expect(Set(firsts).count == 3)
  }

  /// The law of the counters: on every runtime, their sum is the number of balanced flows there, and each is
  /// the number of flows to its backend.
  @Test(arguments: 0..<6) func `the counters add up whatever happens to flows and backends`(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    var services = try! LoadBalancer(reader: SettingsReader(text: Example.loadBalancer)).services
    services[0].policy = seed % 2 == 0 ? .leastLoaded : .maglev
    let balancer = LoadBalancer(services: services)
    func start(_ index: Int) -> TestRuntime {
      TestRuntime(balancer, share: RuntimeShare(index: index, count: 3))
    }
    var runtimes = (0..<3).map(start)
    var home: [Int: (runtime: Int, backend: Endpoint)] = [:]
    for step in 0..<3000 {
      let number = Int.random(in: 0..<200, using: &random)
      let packet = TestPacket.tcp(Self.client(number), "10.1.0.100:80", .syn)
      let target = Int.random(in: 0..<3, using: &random)
      if step % 300 == 299 {
        let backend = services[0].backends.randomElement(using: &random)!
        let state = LoadBalancerPlan.BackendState.allCases.randomElement(using: &random)!
        runtimes[target].chain.betweenBursts(LoadBalancer.self) { balancer, shared in
          for other in balancer.services[0].backends { balancer.setState(of: other, .up, shared: &shared) }
          balancer.setState(of: backend, state, shared: &shared)
        }
      }
      switch (home[number], Int.random(in: 0..<100, using: &random)) {
      case (nil, _): home[number] = (target, runtimes[target].send(packet).packet!.destination)
      case (let at?, 0..<40):
        #expect(runtimes[at.runtime].expire(flowOf: packet))
        home[number] = nil
      case (let at?, 40..<95):
        if at.runtime != target { #expect(runtimes[at.runtime].migrate(flowOf: packet, to: runtimes[target])) }
        home[number]!.runtime = target
      case (let at?, _):
        let replica = (at.runtime + 1) % 3
        runtimes[at.runtime].crash(recoveringOn: runtimes[replica])
        runtimes[at.runtime] = start(at.runtime)
        for (key, value) in home where value.runtime == at.runtime { home[key]!.runtime = replica }
      }
      guard step % 50 == 0 else { continue }
      for (index, runtime) in runtimes.enumerated() {
        for backend: Endpoint in ["10.2.0.11:8080", "10.2.0.12:8080"] {
          let expected = home.values.count { $0.runtime == index && $0.backend == backend }
          #expect(
            runtime.observed("load-balancer.10.1.0.100:80/tcp.\(backend).flows") == UInt64(expected), "seed \(seed) step \(step)")
        }
      }
    }
  }

  // MARK: States of backends

  @Test(arguments: [LoadBalancerPlan.BackendState.draining, .down], [LoadBalancerService.Policy.leastLoaded, .maglev])
  func `a backend that is not up gets no new flows and keeps those it has`(
    state: LoadBalancerPlan.BackendState, policy: LoadBalancerService.Policy
  ) {
    let backends = (1...3).map { LoadBalancerService.Backend(IPv4Address(0x0a02_0000 + $0), port: 80) }
    let service = LoadBalancerService("10.1.0.100", port: 80, backends: backends, policy: policy)
    let runtime = TestRuntime(LoadBalancer(services: [service]))
    let before = (0..<60).map { runtime.send(.tcp(Self.client($0), "10.1.0.100:80", .syn)).packet!.destination }
    #expect(Set(before).count == 3)

    runtime.chain.betweenBursts(LoadBalancer.self) { balancer, shared in
      let isKnown = balancer.setState(of: backends[0], state, shared: &shared)
      let isStrangerKnown = balancer.setState(of: .init("10.9.9.9", port: 80), state, shared: &shared)
      #expect(isKnown && !isStrangerKnown)
    }
    for number in 0..<60 {
      #expect(runtime.send(.tcp(Self.client(number), "10.1.0.100:80", .ack)).packet!.destination == before[number])
    }
    let after = (60..<120).map { runtime.send(.tcp(Self.client($0), "10.1.0.100:80", .syn)).packet!.destination }
    #expect(!after.contains("10.2.0.1:80") && Set(after).count == 2)
    #expect(runtime.observed("load-balancer.10.1.0.100:80/tcp.10.2.0.1:80.up") == 0)

    runtime.chain.betweenBursts(LoadBalancer.self) { balancer, shared in _ = balancer.setState(of: backends[0], .up, shared: &shared) }
    let again = (120..<180).map { runtime.send(.tcp(Self.client($0), "10.1.0.100:80", .syn)).packet!.destination }
    #expect(again.contains("10.2.0.1:80"))
    for backend in backends {
      runtime.chain.betweenBursts(LoadBalancer.self) { balancer, shared in _ = balancer.setState(of: backend, .down, shared: &shared) }
    }
    #expect(runtime.send(.tcp(Self.client(200), "10.1.0.100:80", .syn)) == .dropped("no-backend"))
  }

  @Test func `with Maglev, runtimes choose alike, and a flow is sent where it was before they restarted`() {
    let service = LoadBalancerService(
      "10.1.0.100", port: 80, backends: (1...7).map { .init(IPv4Address(0x0a02_0000 + $0), port: 80) }, policy: .maglev)
    let runtimes = (0..<3).map { TestRuntime(LoadBalancer(services: [service]), share: RuntimeShare(index: $0, count: 3)) }
    for number in 0..<200 {
      let chosen = runtimes.map { $0.send(.tcp(Self.client(number), "10.1.0.100:80", .syn)).packet!.destination }
      #expect(Set(chosen).count == 1)
    }
  }

  @Test(arguments: [
    ("other: drop", "'services' is missing"),
    ("services: []", "line 1: services: a load balancer needs at least one service"),
    (
      "services:\n  - {virtual: 10.1.0.100:80, backends: []}",
      "line 2: services[0].virtual: '10.1.0.100:80' is not an address, a port and a protocol, such as 10.1.0.100:80/tcp"
    ),
    (
      "services:\n  - {virtual: 10.1.0.100:0/tcp, backends: []}",
      "line 2: services[0].virtual: '10.1.0.100:0' is not an address with a port, such as 10.2.0.11:80 or \"[2001:db8::11]:80\""
    ),
    ("services:\n  - {virtual: 10.1.0.100:80/tcp}", "line 2: services[0]: 'backends' is missing"),
    (
      "services:\n  - {virtual: 10.1.0.100:80/tcp, backends: [10.0.0.1:1, 10.0.0.1:1]}",
      "line 2: services[0].backends[1]: 10.0.0.1:1 is a backend of 10.1.0.100:80/tcp twice"
    ),
    (
      "services:\n  - {virtual: 10.1.0.100:80/tcp, backends: [], policy: random}",
      "line 2: services[0].policy: 'random' is not one of: least-loaded, maglev"
    ),
    (
      "services:\n  - {virtual: 10.1.0.100:80/tcp, backends: [{address: 10.0.0.1:1, wieght: 2}]}",
      "line 2: services[0].backends[0].wieght: unknown key 'wieght'; did you mean 'weight'? (known: address, weight, drain)"
    ),
  ])
  func `a wrong setting is refused with its line`(text: String, message: String) {
    #expect(throws: SettingsError.self) { try LoadBalancer(reader: SettingsReader(text: text)) }
    do throws(SettingsError) { _ = try LoadBalancer(reader: SettingsReader(text: text)) } catch {
      #expect("\(error)".replacingPrefix("line 1: 'services'", with: "'services'") == message)
    }
  }
}
