import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

@testable import FunctionCatalog

/// NAT's books against a shadow that only knows who has what: no endpoint is ever two clients', and none is lost.
@Suite struct NATBooksTests {
  struct Client: Hashable { var address: UInt32, port: UInt16 }
  struct External: Hashable { var address: IPv4Address, port: UInt16 }
  struct Live {
    var client: Client
    var external: External
    var state: NAT.FlowState
    var runtime: Int
  }

  /// Several runtimes; one that dies is replaced by one with a share nobody had before.
  struct World {
    let nat: NAT
    let shares = 32
    var books: [Int: NAT.SharedState] = [:]
    var flows: [Live] = []
    var nextShare = 0
    var refusals = 0

    /// What the logs of all runtimes say, read like an operator who wants to know whose an endpoint is.
    var logged: [Int: [External: Client]] = [:]
    var time = Tick.zero

    init(hold: UInt64 = 0, perClient: Int = .max, filtering: NAT.Filtering = .addressAndPortDependent) {
      nat = NAT(
        pool: ["10.2.0.200", "10.2.0.201"], ports: 1024...2047, mappings: 256, perClient: perClient, filtering: filtering,
        hold: hold, keepsLog: true)
      for _ in 0..<3 { start() }
    }

    mutating func start() {
      books[nextShare] = nat.makeSharedState(for: RuntimeShare(index: nextShare, count: shares))
      logged[nextShare] = [:]
      nextShare += 1
    }

    mutating func readLogs() {
      for (share, books) in books {
        while let entry = books.log.entries?.take() {
          let external = External(address: entry.external, port: entry.externalPort)
          let client = Client(address: entry.client.ipv4!.value, port: entry.clientPort)
          switch entry.event {
          case .created: #expect(logged[share]!.updateValue(client, forKey: external) == nil, "one client at a time")
          case .removed: #expect(logged[share]!.removeValue(forKey: external) == client, "whoever had it")
          case .exhausted: break
          }
        }
      }
    }

    mutating func open(_ client: Client, destination: UInt32, on runtime: Int) {
      var state = nat.makeFlowState()
      var packet = TestPacket.udp(
        Endpoint(IPv4Address(client.address), port: client.port), Endpoint(IPv4Address(destination), port: 53))
      let verdict = packet.withFrame(arrival: time) { frame in
        #expect(frame.parse(checksums: .verify) == nil)
        return nat.process(&frame, flow: &state, shared: &books[runtime]!)
      }
      guard verdict == .forward else {
        #expect(verdict == .drop(NAT.poolExhausted) || verdict == .drop(NAT.clientLimit))
        refusals += 1
        return
      }
      flows.append(
        Live(
          client: client, external: External(address: state.external, port: state.externalPort), state: state, runtime: runtime))
    }

    /// Somebody outside sends to the external endpoint of a flow, at whatever runtime owns it.
    mutating func comeIn(to index: Int, from remote: UInt32) {
      let external = flows[index].external
      guard let owner = books.keys.sorted().first(where: { books[$0]!.pool.owns(external.address, external.port) != nil }) else {
        return
      }
      var state = nat.makeFlowState()
      var packet = TestPacket.udp(Endpoint(IPv4Address(remote), port: 99), Endpoint(external.address, port: external.port))
      let verdict = packet.withFrame(arrival: time) { frame in
        #expect(frame.parse(checksums: .verify) == nil)
        frame.direction = .reverse
        return nat.process(&frame, flow: &state, shared: &books[owner]!)
      }
      guard verdict == .forward else {
        #expect(verdict == .drop(NAT.filtered))
        return
      }
      #expect(packet.destination == Endpoint(IPv4Address(flows[index].client.address), port: flows[index].client.port))
      flows.append(Live(client: flows[index].client, external: external, state: state, runtime: owner))
    }

    /// Time goes on and something happens, often enough that all that has rested is free.
    mutating func rest() {
      guard nat.hold > 0 else { return }
      for _ in 0..<10 {
        for runtime in books.keys {
          var state = nat.makeFlowState()
          var packet = TestPacket.udp("198.18.0.1:1", "198.18.0.2:2")
          packet.withFrame(arrival: time) { frame in
            _ = frame.parse(checksums: .verify)
            frame.direction = .reverse
            _ = nat.process(&frame, flow: &state, shared: &books[runtime]!)
          }
        }
        time = time.advanced(byMilliseconds: 100)
      }
    }

    mutating func expire(_ index: Int) {
      var flow = flows.remove(at: index)
      nat.flowExpires(&flow.state, shared: &books[flow.runtime]!, now: .zero)
    }

    mutating func migrate(_ index: Int, to target: Int) {
      let source = flows[index].runtime
      nat.flowMigratesOut(&flows[index].state, shared: &books[source]!)
      nat.flowMigratesIn(&flows[index].state, shared: &books[target]!)
      flows[index].runtime = target
    }

    mutating func crash(_ runtime: Int, recoveringOn replica: Int) {
      books[runtime] = nil
      logged[runtime] = nil
      for index in flows.indices where flows[index].runtime == runtime {
        nat.flowRecovers(&flows[index].state, shared: &books[replica]!)
        flows[index].runtime = replica
      }
      start()
    }

    /// What the reliable channel does: every return reaches its owner once, if that still lives.
    mutating func deliverReturns() {
      for runtime in books.keys.sorted() {
        while let returned = books[runtime]!.takeReturn() {
          let accepted = books.keys.sorted().count { owner in books[owner]!.accept(returned) }
          #expect(accepted <= 1)
        }
      }
    }
  }

  @Test(arguments: [1, 2, 3, 4]) func `no endpoint is used twice and none is lost in 25000 random events`(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    var world = World()
    for step in 0..<25_000 {
      let runtimes = world.books.keys.sorted()
      let runtime = runtimes.randomElement(using: &random)!
      switch Int.random(in: 0..<1000, using: &random) {
      case 0..<420:
        let client = Client(
          address: 0x0a00_0000 + .random(in: 0..<40, using: &random), port: 2000 + .random(in: 0..<4, using: &random))
        world.open(client, destination: .random(in: 1..<1000, using: &random), on: runtime)
      case 420..<800:
        if let index = world.flows.indices.randomElement(using: &random) { world.expire(index) }
      case 800..<970:
        if let index = world.flows.indices.randomElement(using: &random), world.flows[index].runtime != runtime {
          world.migrate(index, to: runtime)
        }
      case 970..<999: world.deliverReturns()
      default:
        guard world.nextShare < world.shares else { continue }
        world.deliverReturns()
        let replica = runtimes.filter { $0 != runtime }.randomElement(using: &random)!
        world.crash(runtime, recoveringOn: replica)
      }
      if step % 20 == 0 || step > 24_900 { check(world, "seed \(seed), step \(step)") }
    }
    // Nothing is left when everybody has gone home and everything was returned.
    while !world.flows.isEmpty { world.expire(world.flows.count - 1) }
    world.deliverReturns()
    for (share, books) in world.books {
      #expect(
        books.used == 0 && books.mappings.count == 0 && books.foreign == 0 && books.lost == 0, "seed \(seed), share \(share)")
    }
    #expect(world.refusals > 0, "the pool was small enough to run out")
  }

  /// Many short lives with other settings each: endpoints that rest, clients with limits, packets from outside.
  @Test(arguments: 0..<8) func `the books hold through thousands of histories`(part: Int) {
    for history in 0..<250 {
      let seed = part * 250 + history
      var random = SeededGenerator(seed: UInt64(seed))
      let hold: UInt64 = [0, 50].randomElement(using: &random)!
      let perClient = [2, Int.max].randomElement(using: &random)!
      var world = World(
        hold: hold, perClient: perClient,
        filtering: [.endpointIndependent, .addressDependent, .addressAndPortDependent].randomElement(using: &random)!)
      for _ in 0..<60 {
        world.time = world.time.advanced(byMilliseconds: .random(in: 0...20, using: &random))
        let runtimes = world.books.keys.sorted()
        let runtime = runtimes.randomElement(using: &random)!
        let flow = world.flows.indices.randomElement(using: &random)
        switch (Int.random(in: 0..<100, using: &random), flow) {
        case (0..<45, _), (_, nil):
          let client = Client(
            address: 0x0a00_0000 + .random(in: 0..<6, using: &random), port: 2000 + .random(in: 0..<4, using: &random))
          world.open(client, destination: .random(in: 1..<9, using: &random), on: runtime)
        case (45..<70, let flow?): world.expire(flow)
        case (70..<85, let flow?): if world.flows[flow].runtime != runtime { world.migrate(flow, to: runtime) }
        case (85..<92, _): world.deliverReturns()
        case (92..<97, let flow?): world.comeIn(to: flow, from: .random(in: 1..<12, using: &random))
        default:
          world.deliverReturns()
          world.readLogs()
          if world.nextShare < world.shares { world.crash(runtime, recoveringOn: runtimes.first { $0 != runtime }!) }
        }
      }
      check(world, "seed \(seed)")
      world.readLogs()
      for (share, books) in world.books {
        #expect(world.logged[share]!.count == books.mappings.count, "the log says who has what: seed \(seed)")
      }
      while !world.flows.isEmpty { world.expire(world.flows.count - 1) }
      world.deliverReturns()
      world.time = world.time.advanced(byMilliseconds: 1000)
      world.rest()
      world.readLogs()
      for (share, books) in world.books {
        #expect(books.used == 0 && books.mappings.count == 0 && books.contacts.count == 0, "seed \(seed), share \(share)")
        #expect(world.logged[share]!.isEmpty, "seed \(seed), share \(share)")
      }
    }
  }

  private func check(_ world: World, _ place: String) {
    var holders: [External: Client] = [:]
    for flow in world.flows {
      let external = External(address: flow.state.external, port: flow.state.externalPort)
      #expect(external == flow.external, "a flow keeps its endpoint: \(place)")
      let holder = holders.updateValue(flow.client, forKey: external)
      #expect(holder == nil || holder == flow.client, "an endpoint has one client: \(place)")
    }
    for books in world.books.values {
      let own = holders.keys.filter { books.pool.owns($0.address, $0.port) != nil }.count
      #expect(books.used >= own, "whoever owns an endpoint in use knows it: \(place)")
      #expect(books.used == books.mappings.count, "an endpoint is taken if and only if it is mapped: \(place)")
    }
  }

  @Test(arguments: [1, 2, 63, 64, 65, 4095, 4096, 4097, 32_257]) func `a port set finds what a scan finds`(capacity: Int) {
    var random = SeededGenerator(seed: UInt64(capacity))
    let set = PortSet(lanes: 2, capacity: capacity)
    var free = [Bool](repeating: false, count: capacity)
    for _ in 0..<400 {
      let position = Int.random(in: 0..<capacity, using: &random)
      if free[position] { set.take(1, position) } else { set.give(1, position) }
      free[position].toggle()
      let start = Int.random(in: 0..<capacity, using: &random)
      let expected = free[start...].firstIndex(of: true) ?? free.firstIndex(of: true)
      #expect(set.first(1, from: start) == expected)
      #expect(set.isFree(1, position) == free[position])
      #expect(set.first(0, from: start) == nil)
    }
  }
}
