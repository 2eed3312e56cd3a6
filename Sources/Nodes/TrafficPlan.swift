import Wire

/// What a traffic generator is to send: which flows, how large, how fast, how long.
///
/// Flows have numbers; a number stands for one combination of addresses and ports. Some flows last for the whole
/// run; if packets are to open new flows, half of the places belong to short flows, which give way in turn:
///
///     place   0 ┄┄┄┄┄┄┄┄ flows/2 ┄┄┄┄┄┄┄┄ flows
///             │   long    │ short: reborn, one place after the other, under the next unused number │
///
/// With a share `s` of packets that open a flow, a short flow has about `1 + 1/(2s)` packets, however many places there are.
public struct TrafficPlan: Sendable {
  public enum Transport: String, Sendable, CaseIterable { case udp, tcp }

  /// Flows that are alive at a time.
  public var flows = 1
  public var transport = Transport.udp
  public var sources: ClosedRange<UInt32> = 0x0a00_0001...0x0a00_00fe
  public var sourcePorts: ClosedRange<UInt16> = 10_000...59_999
  public var destinations: ClosedRange<UInt32> = 0x0a01_0001...0x0a01_0001
  public var destinationPorts: ClosedRange<UInt16> = 80...80
  /// `nil`: the address of the sink's port.
  public var destinationMAC: MACAddress?
  /// Packets per second; 0 for as many as the port takes.
  public var rate: UInt64 = 0
  /// Instead of `rate`: one that changes.
  public var ramp: TrafficRamp?
  /// Frame sizes, sent in turn. As everywhere in benchmarks they count the four bytes of the check sequence, which the device adds.
  public var sizes = [64]
  /// Share of packets that open a new flow, 0 to 1.
  public var newFlowShare = 0.0
  /// Nanoseconds to send for.
  public var duration: UInt64 = .max
  /// Packets to send.
  public var count: UInt64 = .max

  public init() {}

  /// Simple IMIX: 7 x 64, 4 x 594, 1 x 1518, mixed as evenly as they can be.
  public static let imix = [64, 594, 64, 64, 594, 64, 1_518, 64, 594, 64, 594, 64]

  public static let largestFrame = 1_518

  /// Ethernet, IPv4, transport header, record and check sequence.
  public var smallestFrame: Int { payloadOffset + TrafficRecord.size + 4 }

  var headerLength: Int { transport == .tcp ? 20 : 8 }
  var payloadOffset: Int { 14 + 20 + headerLength }

  /// How many combinations of addresses and ports there are.
  public var combinations: UInt64 {
    let addresses = (UInt64(sources.count)).multipliedReportingOverflow(by: UInt64(destinations.count))
    let ports = UInt64(sourcePorts.count) * UInt64(destinationPorts.count)
    let all = addresses.partialValue.multipliedReportingOverflow(by: ports)
    return addresses.overflow || all.overflow ? .max : all.partialValue
  }

  /// Why it cannot be carried out, or `nil`.
  public var fault: String? {
    guard (1...16_777_216).contains(flows) else { return "flows are from 1 to 16777216" }
    guard combinations >= UInt64(flows) else {
      return "\(flows) flows need as many combinations of addresses and ports, and there are \(combinations)"
    }
    guard !sizes.isEmpty, sizes.allSatisfy({ (smallestFrame...Self.largestFrame).contains($0) }) else {
      return
        "a \(transport) frame has \(smallestFrame) to \(Self.largestFrame) bytes: headers, the 18 bytes that are looked for, and the check sequence"
    }
    guard (0.0...1.0).contains(newFlowShare) else { return "the share of new flows is from 0 to 1" }
    guard newFlowShare == 0 || flows >= 2 else { return "long and short flows together are at least 2" }
    guard max(rate, ramp?.points.map(\.rate).max() ?? 0) <= 1_000_000_000 else { return "the rate is at most 1000000000 packets per second" }
    return nil
  }

  /// Places of short flows.
  var shortFlows: Int { newFlowShare > 0 ? flows / 2 : 0 }

  /// Where the flow of this number lives; the sink follows the generator without being told.
  @inline(__always)
  func place(of flow: UInt32) -> Int {
    let number = Int(flow)
    guard number >= flows else { return number }
    return shortFlows == 0 ? number % flows : flows - shortFlows + (number - flows) % shortFlows
  }

  struct Endpoints {
    var source: UInt32
    var destination: UInt32
    var sourcePort: UInt16
    var destinationPort: UInt16
  }

  /// Neighbouring numbers differ in their source address first. Combinations come again when all were used.
  func endpoints(of flow: UInt32) -> Endpoints {
    var rest = UInt64(flow)
    func digit(_ count: Int) -> UInt64 {
      defer { rest /= UInt64(count) }
      return rest % UInt64(count)
    }
    return Endpoints(
      source: sources.lowerBound + UInt32(digit(sources.count)),
      destination: destinations.lowerBound + UInt32(digit(destinations.count)),
      sourcePort: sourcePorts.lowerBound + UInt16(digit(sourcePorts.count)),
      destinationPort: destinationPorts.lowerBound + UInt16(digit(destinationPorts.count)))
  }
}
