import CIntrinsics
import DPDKPorts
import Glibc
import Logging
import ModuleGraphs
import NodeSupport
import Wire

/// `nfvactor traffic` as a process: its ports, its one thread, its clock.
public enum TrafficNode {
  public enum Sink: Equatable, Sendable {
    /// Packets come back to where they were sent from.
    case samePort
    case port(PortSpec)
    /// Nobody looks.
    case none
  }

  public struct Settings: Sendable {
    public var port: PortSpec
    public var sink: Sink
    /// Sleep while there is nothing to do, instead of keeping a processor.
    public var isAdaptive: Bool
    /// How long to wait for a first packet to arrive before the run begins; 0: not at all.
    public var wait: UInt64
    /// How long after the last packet was sent the others may take.
    public var drain: UInt64
    /// How often to tell how far it is, in nanoseconds; nil: not at all.
    public var sampleInterval: UInt64?
    public var takeSample: @Sendable (TrafficSample) -> Void = { _ in }
    /// Takes what a watch has seen; with it SIGUSR1 begins one, and ends it.
    public var takeOutage: (@Sendable (TrafficOutage) -> Void)?

    public init(port: PortSpec, sink: Sink, isAdaptive: Bool, wait: UInt64, drain: UInt64) {
      self.port = port
      self.sink = sink
      self.isAdaptive = isAdaptive
      self.wait = wait
      self.drain = drain
    }
  }

  /// Sends what the plan says and reports what arrived; ends early, with a report, when shutdown is requested.
  public static func generate(_ plan: TrafficPlan, _ settings: Settings, share: HostShare, logger: Logger) throws -> TrafficReport
  {
    if let fault = plan.fault { throw NodeError("this traffic cannot be made: \(fault)") }
    if settings.takeOutage != nil { TrafficMark.listen() }
    var specs = [settings.port]
    if case .port(let spec) = settings.sink, spec != settings.port { specs.append(spec) }
    let environment = try share.start(
      name: "nfv-traffic-\(getpid())", megabytes: 64, usesPCI: specs.contains { $0.isPCI }, logger: logger)
    defer { environment.stop() }
    let pool = try MbufPool(name: "packets", count: packetBuffers)
    let ports = try specs.enumerated().map { number, spec throws(PortError) in try DPDKPort(spec, number: number, pool: pool) }
    defer { for port in ports { port.close() } }
    let exchange = TrafficExchange(plan, from: ports[0], to: ports[ports.count - 1], looks: settings.sink != .none, settings)
    if settings.wait > 0 {
      guard exchange.greet(for: settings.wait) else {
        if Shutdown.isRequested { return exchange.report() }
        throw NodeError(
          "nothing sent to \(settings.port) arrived within \(settings.wait / 1_000_000_000) seconds: is the other end there?")
      }
    }
    logger.info("Sending.", metadata: ["port": "\(settings.port)", "flows": "\(plan.flows)", "rate": "\(plan.rate)"])
    exchange.send()
    exchange.drain(for: settings.drain)
    return exchange.report()
  }

  /// Sends every frame back to where it came from until `duration` nanoseconds are over or shutdown is requested.
  public static func reflect(
    _ spec: PortSpec, duration: UInt64, isAdaptive: Bool, share: HostShare, logger: Logger
  ) throws -> ReflectionReport {
    let environment = try share.start(name: "nfv-reflect-\(getpid())", megabytes: 64, usesPCI: spec.isPCI, logger: logger)
    defer { environment.stop() }
    let port = try DPDKPort(spec, number: 0, pool: MbufPool(name: "packets", count: packetBuffers))
    defer { port.close() }
    var reflector = TrafficReflector(port)
    let clock = CycleClock()
    var pause = IdlePause(isAdaptive: isAdaptive)
    logger.info("Reflecting.", metadata: ["port": "\(spec)"])
    var now = Tick.zero
    while !Shutdown.isRequested, now.nanoseconds < duration {
      now = clock.tick(nfv_cycles())
      pause.after(work: reflector.pass(at: now), longest: 100_000)
    }
    return reflector.report(seconds: Double(now.nanoseconds) / 1e9)
  }
}

/// What a polling loop does when there was nothing to do.
struct IdlePause {
  let isAdaptive: Bool
  private var idlePasses = 0
  private var sleep = 0

  init(isAdaptive: Bool) {
    self.isAdaptive = isAdaptive
    if isAdaptive { Environment.allowShortSleeps() }
  }

  @inline(__always)
  mutating func after(work: Int, longest: Int) {
    guard work == 0 else {
      idlePasses = 0
      sleep = 0
      return
    }
    // No pause instruction on a core of its own: in a virtual machine it can cost a microsecond.
    guard isAdaptive else { return }
    nfv_relax()
    idlePasses &+= 1
    guard idlePasses > 256 else { return }
    sleep = min(longest, sleep + 5_000)
    var time = timespec(tv_sec: 0, tv_nsec: sleep)
    nanosleep(&time, nil)
  }
}
