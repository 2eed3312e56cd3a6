import ControlMessages
import DPDKPorts
import Dataplane
import FlowActors
import FunctionCatalog
import Glibc
import KafkaLog
import Logging
import NetworkFunctions
import NodeSupport
import Wire

/// A runtime as a process: the launch command says what it is, the agent which port and processors it has.
///
/// The calling thread becomes the worker, a second one follows the log.
public enum RuntimeNode {
  public static func run(order: LaunchOrder, port portSpec: PortSpec, share: HostShare, logger: Logger) throws {
    let begun = CycleClock.monotonicNanoseconds()
    let launch = try Launch(order: order, kind: .runtime, logger: logger)
    let spec = launch.spec
    let poolShare = RuntimeShare(index: Int(spec.poolShare.index), count: Int(spec.poolShare.count))
    let rules = FlowRules(spec.chain.flows)
    let stateSize = max(leastStateSize, try Catalog.standard.entrance(of: spec.chain).stateSize)

    let environment = try share.start(
      name: "nfv-runtime-\(spec.node)",
      megabytes: megabytesNeeded(
        flows: rules.capacity, ipv6Flows: rules.ipv6Capacity, stateSize: stateSize, replicas: Int(spec.replicas)),
      usesPCI: portSpec.isPCI, logger: launch.logger)
    defer { environment.stop() }
    // Rules are classified by the environment's `rte_acl`.
    let chain = try Catalog.standard(classifyingBy: AccessLists.compiler).makeChain(spec: spec.chain, share: poolShare)
    let pool = try MbufPool(name: "packets", count: packetBuffers)
    let port = try DPDKPort(portSpec, number: 0, pool: pool, large: LargePackets(name: "large packets", pool: pool))
    defer { port.close() }
    let wire = portSpec.impaired(port)
    defer { wire.close() }
    let address = FabricAddress(cluster: UInt16(order.partition), node: spec.node.number)
    let rings = WorkerRings()
    let worker = Worker.runtime(
      port: wire.port, address: address, identity: FlowOwner(spec), replicas: Int(spec.replicas), chain: chain, rules: rules,
      seed: .random(in: .min ... .max), rings: rings, now: .zero, memory: environment.containerMemory, announces: true)
    let clock = CycleClock()
    try launch.serve(
      worker, rings: rings, clock: clock, address: address, dropReasons: chain.dropReasons, capacity: rules.capacity,
      functions: FunctionControl(chain: chain, spec: spec.chain, node: spec.node, clock: clock), begun: begun)
    var numbers: Logger.Metadata = [:]
    for observation in chain.observe() { numbers[observation.name] = "\(observation.value)" }
    launch.logger.info("What the functions counted.", metadata: numbers)
  }
}

/// A virtual switch as a process.
public enum SwitchNode {
  public struct Ports: Sendable {
    public var client: PortSpec
    public var server: PortSpec
    public var fabric: PortSpec

    public init(client: PortSpec, server: PortSpec, fabric: PortSpec) {
      self.client = client
      self.server = server
      self.fabric = fabric
    }
  }

  public static func run(order: LaunchOrder, ports: Ports, share: HostShare, logger: Logger) throws {
    let begun = CycleClock.monotonicNanoseconds()
    let launch = try Launch(order: order, kind: .virtualSwitch, logger: logger)
    let spec = launch.spec
    guard let network = spec.network else { throw NodeError("the launch command of switch \(spec.node) names no networks") }
    var rules = FlowRules(spec.chain.flows)
    // A switch has an entry for each direction, and serves several runtimes.
    rules.capacity = min(16_777_216, rules.capacity * 4)
    rules.ipv6Capacity = min(rules.capacity, rules.ipv6Capacity * 4)

    let environment = try share.start(
      name: "nfv-switch-\(spec.node)",
      megabytes: megabytesNeeded(flows: rules.capacity, ipv6Flows: rules.ipv6Capacity, stateSize: 0),
      usesPCI: ports.client.isPCI || ports.server.isPCI || ports.fabric.isPCI, logger: launch.logger)
    defer { environment.stop() }
    let pool = try MbufPool(name: "packets", count: packetBuffers)
    let large = try LargePackets(name: "large packets", pool: pool)
    let client = try DPDKPort(ports.client, number: 0, pool: pool, large: large)
    defer { client.close() }
    let server = try DPDKPort(ports.server, number: 1, pool: pool, large: large)
    defer { server.close() }
    let fabric = try DPDKPort(ports.fabric, number: 2, pool: pool, large: large)
    defer { fabric.close() }
    let wire = ports.fabric.impaired(fabric)
    defer { wire.close() }
    let address = FabricAddress(cluster: UInt16(order.partition), node: spec.node.number)
    let rings = WorkerRings()
    let entrance = try Catalog.standard.entrance(of: spec.chain)
    let worker = Worker.virtualSwitch(
      ports: SwitchPorts(client: client, server: server, fabric: wire.port), address: address, identity: FlowOwner(spec),
      entrance: ServerSideEntrance(isOpen: entrance.isOpen, endpoints: entrance.endpoints, growth: entrance.growth),
      client: UplinkSettings(network.client), server: UplinkSettings(network.server), rules: rules,
      isReplicated: spec.replicas > 0, seed: .random(in: .min ... .max), rings: rings, now: .zero,
      memory: environment.containerMemory, announces: true)
    try launch.serve(
      worker, rings: rings, clock: CycleClock(), address: address, dropReasons: [], capacity: rules.capacity, functions: nil,
      begun: begun)
  }
}

/// What both kinds of node do around their worker.
struct Launch {
  let order: LaunchOrder
  let consumer: KafkaConsumer
  let slot: Slot
  let spec: LaunchSpec
  let logger: Logger

  /// Reads the launch command and checks that it is for this kind of process.
  init(order: LaunchOrder, kind: NodeKind, logger: Logger) throws {
    self.order = order
    consumer = try KafkaConsumer(order.kafka)
    (slot, spec) = try order.read(from: consumer, patience: 10_000) { Shutdown.isRequested }
    guard spec.kind == kind else {
      throw NodeError("the command at \(ServiceTopics.commands)[\(order.partition)]@\(order.offset) launches a \(spec.kind), not a \(kind)")
    }
    var logger = logger
    logger[metadataKey: "cluster"] = "\(spec.cluster)"
    logger[metadataKey: "node"] = "\(spec.node)"
    logger[metadataKey: "incarnation"] = "\(spec.incarnation)"
    self.logger = logger
  }

  /// Tells the log that the node has started, and turns the worker on this thread until shutdown.
  func serve(
    _ worker: Worker, rings: WorkerRings, clock: CycleClock, address: FabricAddress, dropReasons: [DropReasonDescription],
    capacity: Int, functions: FunctionControl?, begun: UInt64
  ) throws {
    let started = NodeStarted(
      node: spec.node, kind: spec.kind, host: spec.host, processID: UInt32(getpid()),
      ports: NodePorts(
        input: HardwareAddress(bits: address.address(of: .client).value),
        output: HardwareAddress(bits: address.address(of: .server).value),
        control: HardwareAddress(bits: address.control.value)),
      startup: (CycleClock.monotonicNanoseconds() - begun) / 1_000_000, canMigrate: spec.kind == .runtime,
      canReplicate: spec.kind == .runtime && spec.replicas > 0)
    let control = try NodeControl(
      order: order, slot: slot, spec: spec, consumer: consumer, rings: rings, published: worker.published,
      dropNames: dropNames(of: dropReasons), started: started, capacity: capacity, functions: functions, logger: logger)
    logger.info("Serving.", metadata: ["startup": "\(started.startup) ms", "polling": "\(spec.polling)"])
    let thread = control.start()
    LifeLine.hold()
    WorkerLoop(worker: worker, clock: clock, polling: spec.polling == .busy ? .busy : .adaptive).run()
    pthread_join(thread, nil)
    logger.info("Stopped.")
  }
}

extension FlowOwner {
  init(_ spec: LaunchSpec) { self.init(node: spec.node.number, incarnation: spec.incarnation.number) }
}

extension FlowRules {
  init(_ spec: FlowTableSpec) {
    self.init()
    capacity = Int(spec.capacity)
    ipv6Capacity = min(Int(spec.ipv6Capacity), capacity)
    acceptsMidstream = spec.midstream == .accept
    timeouts = [
      spec.tcpTransitoryTimeout, spec.tcpEstablishedTimeout, spec.udpTimeout, spec.icmpTimeout, spec.otherTimeout,
    ].map { UInt32(clamping: $0) }
  }
}

extension UplinkSettings {
  init(_ side: NetworkSpec.Side) {
    self.init(
      interfaces: side.addresses.map { Interface(address: IPv4Address($0.address), prefixLength: Int($0.prefixLength)) },
      gateway: side.gateway.map { IPv4Address($0) },
      answersFor: side.answersFor.map { IPv4Address($0.first)...IPv4Address($0.last) })
    ipv6.interfaces = side.ipv6.addresses.map { (IPAddress(high: $0.high, low: $0.low), AddressBlock($0)) }
    ipv6.gateway = side.ipv6.gateway.map { IPAddress(high: $0.high, low: $0.low) }
    ipv6.answersFor = side.ipv6.answersFor.map { AddressBlock($0) }
  }
}

extension AddressBlock {
  fileprivate init(_ prefix: IPv6Prefix) {
    self.init(around: IPAddress(high: prefix.high, low: prefix.low), length: Int(prefix.length))
  }
}
