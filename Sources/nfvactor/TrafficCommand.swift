import ArgumentParser
import DPDKPorts
import Foundation
import NodeSupport
import Nodes
import Wire

/// `nfvactor traffic`: packets that can be told apart, and what became of them.
struct TrafficCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "traffic",
    abstract: "Sends measured traffic through a port, and looks at what arrives; or reflects what others send.",
    discussion: """
      Every packet carries its flow, its number and the time. The sink, on a second port or on the same one, reports loss, \
      duplicates, reordering and latency. SIGTERM ends the run with its summary. On stdout is the summary, on stderr the log.

      Ports: af_packet:INTERFACE, vhost:SOCKET, virtio:SOCKET, pcap:IN,OUT, null, ring, pci:ADDRESS, dev:DEVARGS.

      Two ends of a cable between two processes:
        nfvactor traffic --port vhost:/tmp/a.sock --reflect --processors 1
        nfvactor traffic --port virtio:/tmp/a.sock --wait 5 --flows 1000 --seconds 10 --processors 0

      Ends with 0 when the run took place, whatever it found; 69 when a port cannot be had or nobody is at the other end.
      """)

  enum Stats: String, CaseIterable, ExpressibleByArgument { case text, json, none }

  enum Polling: String, CaseIterable, ExpressibleByArgument { case busy, adaptive }

  @Option(help: ArgumentHelp("Where to send.", valueName: "port"))
  var port: String

  @Option(help: ArgumentHelp("Where packets arrive: another port, 'same', or 'none' to look at nothing.", valueName: "port"))
  var sink = "same"

  @Flag(help: "Send back whatever arrives at --port with its MAC addresses swapped, and nothing else.")
  var reflect = false

  @Option(help: "Flows at a time.")
  var flows = 1

  @Option(
    name: .customLong("protocol"), help: "udp or tcp; TCP flows begin with a SYN, which a sink on a port of its own answers.")
  var transport = TrafficPlan.Transport.udp

  @Option(help: ArgumentHelp("Source addresses: a.b.c.d, a.b.c.d-e.f.g.h or a.b.c.d/n.", valueName: "range"))
  var source = "10.0.0.1-10.0.0.254"

  @Option(help: ArgumentHelp("Source ports: n or n-m.", valueName: "range"))
  var sourcePorts = "10000-59999"

  @Option(help: ArgumentHelp("Destination addresses.", valueName: "range"))
  var destination = "10.1.0.1"

  @Option(help: ArgumentHelp("Destination ports.", valueName: "range"))
  var destinationPorts = "80"

  @Option(help: ArgumentHelp("Destination MAC address; the sink port's own if not given.", valueName: "mac"))
  var destinationMac: String?

  @Option(help: "Packets per second; 0 for as many as the port takes.")
  var rate: UInt64 = 1_000

  @Option(
    help: ArgumentHelp(
      "Instead of --rate, one that changes evenly between points, as SECONDS:RATE,...: 0:1000,15:50000,60:2000.",
      valueName: "points"))
  var ramp: TrafficRamp?

  @Option(
    help: ArgumentHelp(
      "So often, print a line of JSON with the packets offered, sent and received so far.", valueName: "seconds"))
  var every: Double?

  @Flag(
    help: ArgumentHelp(
      "Print a line of JSON about the packets written between one SIGUSR1 and the next: which were lost, when, and of how many flows."))
  var watch = false

  @Option(help: "Bytes of a frame with its check sequence, or 'imix' (7 x 64, 4 x 594, 1 x 1518).")
  var size = "64"

  @Option(
    help: ArgumentHelp(
      "Share of packets that open a new flow, 0 to 1; half of the flows are then short ones.", valueName: "share"))
  var newFlows = 0.0

  @Option(help: "How long to send.")
  var seconds: Double?

  @Option(help: "How many packets to send.")
  var count: UInt64?

  @Option(help: ArgumentHelp("Wait so long for a first packet to arrive before the run begins.", valueName: "seconds"))
  var wait: Double = 0

  @Option(help: ArgumentHelp("End so long after the last arrival when packets are missing.", valueName: "seconds"))
  var drain: Double = 0.5

  @Option(help: "busy keeps a processor; adaptive sleeps while there is nothing to do.")
  var polling = Polling.busy

  @Option(help: "Processors the worker may run on, such as 0,1.")
  var processors = "0"

  @Option(help: "Packet memory: huge, ordinary, or auto (huge pages if enough are free).")
  var memory = HostShare.Memory.auto

  @Option(help: "What to print on stdout: text, json or none.")
  var stats = Stats.text

  @OptionGroup var log: LogOptions

  func validate() throws {
    guard !watch || (newFlows == 0 && transport == .udp && sink != "none") else {
      throw ValidationError("--watch needs a sink, and flows that last: UDP without --new-flows")
    }
    guard every ?? 1 >= 0.01 else { throw ValidationError("--every is a number of seconds, at least 0.01") }
    for (name, value) in [("--seconds", seconds ?? 0), ("--every", every ?? 0), ("--wait", wait), ("--drain", drain)] {
      guard (0...86_400).contains(value) else { throw ValidationError("\(name) is a number of seconds, at most 86400") }
    }
    if !reflect, let fault = try plan().fault { throw ValidationError("this traffic cannot be made: \(fault)") }
    _ = try share()
    do {
      _ = try PortSpec(port)
      if sink != "same", sink != "none" { _ = try PortSpec(sink) }
    } catch {
      throw ValidationError("\(error)")
    }
  }

  func run() throws {
    let logger = log.start("traffic")
    let spec = try PortSpec(port)
    let duration = seconds.map(Self.nanoseconds) ?? (count == nil && !reflect ? Self.nanoseconds(10) : .max)
    if reflect {
      let report = try TrafficNode.reflect(
        spec, duration: duration, isAdaptive: polling == .adaptive, share: share(), logger: logger)
      try show(report) { printText(report) }
      return
    }
    var plan = try plan()
    plan.duration = duration
    let target: TrafficNode.Sink =
      switch sink {
      case "same": .samePort
      case "none": .none
      default: .port(try PortSpec(sink))
      }
    var settings = TrafficNode.Settings(
      port: spec, sink: target, isAdaptive: polling == .adaptive, wait: Self.nanoseconds(wait), drain: Self.nanoseconds(drain))
    if watch {
      settings.takeOutage = { outage in
        guard let line = try? JSONEncoder().encode(outage) else { return }
        print(String(decoding: line, as: UTF8.self))
        fflush(nil)
      }
    }
    if let every {
      settings.sampleInterval = Self.nanoseconds(every)
      settings.takeSample = { sample in
        guard let line = try? JSONEncoder().encode(sample) else { return }
        print(String(decoding: line, as: UTF8.self))
        fflush(nil)
      }
    }
    let report = try TrafficNode.generate(plan, settings, share: share(), logger: logger)
    try show(report) { printText(report) }
  }

  private func plan() throws -> TrafficPlan {
    var plan = TrafficPlan()
    plan.flows = flows
    plan.transport = transport
    plan.sources = try Self.addresses(source, "--source")
    plan.sourcePorts = try Self.ports(sourcePorts, "--source-ports")
    plan.destinations = try Self.addresses(destination, "--destination")
    plan.destinationPorts = try Self.ports(destinationPorts, "--destination-ports")
    if let destinationMac {
      guard let address = MACAddress(destinationMac) else {
        throw ValidationError("--destination-mac '\(destinationMac)' is not like 02:00:00:00:00:01")
      }
      plan.destinationMAC = address
    }
    plan.rate = rate
    plan.ramp = ramp
    plan.newFlowShare = newFlows
    plan.count = count ?? .max
    if size == "imix" {
      plan.sizes = TrafficPlan.imix.map { max($0, plan.smallestFrame) }
    } else {
      guard let bytes = Int(size) else { throw ValidationError("--size '\(size)' is neither a number nor 'imix'") }
      plan.sizes = [bytes]
    }
    return plan
  }

  private func share() throws -> HostShare { HostShare(processors: try parseProcessors(processors), memory: memory) }

  private static func nanoseconds(_ seconds: Double) -> UInt64 { UInt64(seconds * 1e9) }

  static func addresses(_ text: String, _ option: String) throws -> ClosedRange<UInt32> {
    if text.contains("/") {
      guard let block = AddressBlock(text), let first = block.base.ipv4 else {
        throw ValidationError("\(option) '\(text)' is not a block such as 10.0.0.0/24")
      }
      let size = UInt64(1) << UInt64(128 - block.length)
      return first.value...UInt32(UInt64(first.value) + size - 1)
    }
    let ends = text.split(separator: "-", omittingEmptySubsequences: false).map { IPv4Address(String($0)) }
    guard (1...2).contains(ends.count), let first = ends[0], let last = ends[ends.count - 1], first <= last else {
      throw ValidationError("\(option) '\(text)' is neither an address nor a range such as 10.0.0.1-10.0.0.9")
    }
    return first.value...last.value
  }

  static func ports(_ text: String, _ option: String) throws -> ClosedRange<UInt16> {
    let ends = text.split(separator: "-", omittingEmptySubsequences: false).map { UInt16($0) }
    guard (1...2).contains(ends.count), let first = ends[0], let last = ends[ends.count - 1], first <= last else {
      throw ValidationError("\(option) '\(text)' is neither a port nor a range such as 1024-65535")
    }
    return first...last
  }

  private func show(_ report: some Encodable, text: () -> Void) throws {
    switch stats {
    case .json:
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
      print(String(decoding: try encoder.encode(report), as: UTF8.self))
    case .text: text()
    case .none: break
    }
  }

  private func printText(_ report: TrafficReport) {
    let packets = report.packets
    func rate(_ rate: TrafficReport.Rate) -> String {
      String(format: "%.0f packets/s, %.3f Mbit/s", rate.packetsPerSecond, rate.bitsPerSecond / 1e6)
    }
    print("port      \(report.port) -> \(report.sink ?? "nobody looks")")
    print(String(format: "time      %.3f s, %u flows", report.seconds, report.flows))
    print("sent      \(packets.sent) packets, \(rate(report.sent))")
    if report.sink != nil {
      let share = packets.sent == 0 ? 0 : Double(packets.lost) * 100 / Double(packets.sent)
      print("received  \(packets.received) packets, \(rate(report.received))")
      print("lost      \(packets.lost)" + String(format: " (%.4f %%)", share))
      print("order     \(packets.duplicated) duplicated, \(packets.reordered) reordered")
    }
    if let latency = report.latency {
      print(
        String(
          format: "latency   p50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f  max %.1f us", latency.p50, latency.p90, latency.p99,
          latency.p999, latency.max))
    }
    let rest = [
      ("damaged", packets.damaged), ("not ours", packets.foreign), ("not taken by the port", packets.untaken),
      ("skipped, being late", packets.skipped), ("missed by the device", packets.missed), ("SYNs answered", packets.answers),
    ].filter { $0.1 > 0 }
    if !rest.isEmpty { print("besides   " + rest.map { "\($0.1) \($0.0)" }.joined(separator: ", ")) }
  }

  private func printText(_ report: ReflectionReport) {
    print("port      \(report.port)")
    print(String(format: "time      %.3f s", report.seconds))
    print("received  \(report.received) packets")
    print("reflected \(report.reflected) packets, \(report.dropped) dropped, \(report.missed) missed by the device")
  }
}

extension TrafficPlan.Transport: ExpressibleByArgument {}

extension TrafficRamp: ExpressibleByArgument {
  public init?(argument: String) {
    var points: [Point] = []
    for word in argument.split(separator: ",", omittingEmptySubsequences: false) {
      let parts = word.split(separator: ":", omittingEmptySubsequences: false)
      guard parts.count == 2, let seconds = Double(parts[0]), (0...86_400).contains(seconds), let rate = UInt64(parts[1]) else {
        return nil
      }
      points.append(Point(nanoseconds: UInt64(seconds * 1e9), rate: rate))
    }
    self.init(points)
  }
}
