/// Why a packet went no further. Every reason is a counter and has a sentence.
///
/// Codes below 128 belong to the platform, the others to the network functions, which declare
/// theirs with `DropReason.function(_:)` and describe them in `NetworkFunction.dropReasons`.
public struct DropReason: Hashable, Sendable, BitwiseCopyable {
  public let code: UInt8

  @inlinable init(code: UInt8) { self.code = code }

  /// A reason of a network function's own, number 0...95; unique within the function.
  @inlinable public static func function(_ number: UInt8) -> DropReason {
    precondition(number < 96, "a function has at most 96 drop reasons of its own")
    return DropReason(code: 128 &+ number)
  }

  @inlinable public var isPlatform: Bool { code < 128 }

  /// The same reason in a chain where the reasons of other functions come first.
  @inlinable public func shifted(by count: Int) -> DropReason {
    isPlatform ? self : DropReason(code: code &+ UInt8(truncatingIfNeeded: count))
  }

  // The frame.
  public static let truncated = DropReason(code: 1)
  public static let unknownEtherType = DropReason(code: 2)
  public static let notForThisNode = DropReason(code: 3)
  public static let scattered = DropReason(code: 4)
  public static let unexpectedARP = DropReason(code: 5)
  /// Not a loss: the packet was for the node itself, and it has seen to it.
  public static let handledARP = DropReason(code: 6)
  // The packet.
  public static let malformedIPv4 = DropReason(code: 10)
  public static let malformedIPv6 = DropReason(code: 11)
  public static let badIPv4Checksum = DropReason(code: 12)
  public static let tooManyExtensionHeaders = DropReason(code: 13)
  public static let fragment = DropReason(code: 14)
  public static let malformedTransport = DropReason(code: 15)
  public static let badTransportChecksum = DropReason(code: 16)
  public static let fragmentRefused = DropReason(code: 17)
  public static let timeToLiveExceeded = DropReason(code: 18)
  public static let packetTooBig = DropReason(code: 19)
  // The flow.
  public static let noFlow = DropReason(code: 20)
  public static let notConnectionStart = DropReason(code: 21)
  public static let flowTableFull = DropReason(code: 22)
  public static let keyTaken = DropReason(code: 23)
  /// Migration: no room to hold the packet, or to send it after its flow.
  public static let flowMigrating = DropReason(code: 24)
  public static let icmpErrorWithoutFlow = DropReason(code: 26)
  // The virtual switch.
  public static let noRuntime = DropReason(code: 30)
  public static let unknownSource = DropReason(code: 31)
  public static let unresolvedNextHop = DropReason(code: 32)
  public static let waitingForNextHop = DropReason(code: 33)
  public static let noRoute = DropReason(code: 34)
  public static let standsBy = DropReason(code: 35)
  // The port.
  public static let transmitQueueFull = DropReason(code: 40)
  public static let notServing = DropReason(code: 41)
  public static let fenced = DropReason(code: 42)
  public static let replicationBusy = DropReason(code: 43)
  public static let awaitsRecovery = DropReason(code: 44)

  /// Name (for metrics) and sentence (for people) of each platform reason.
  public static let platform: [DropReasonDescription] = [
    .init(.truncated, "truncated", "The frame ends before its headers say it does."),
    .init(.unknownEtherType, "unknown-ethertype", "The frame carries neither IPv4, IPv6 nor ARP."),
    .init(.notForThisNode, "not-for-this-node", "The destination MAC address is not one of this node's."),
    .init(
      .flowMigrating, "flow-migrating",
      "The packet's flow is moving, and there was no room to hold the packet or to send it after the flow."),
    .init(.icmpErrorWithoutFlow, "icmp-error-without-flow", "An ICMP error about a packet of no flow that is known here."),
    .init(.scattered, "scattered", "The packet is larger than the largest buffer, or there was none left."),
    .init(.unexpectedARP, "unexpected-arp", "An ARP packet, or one of neighbor discovery, arrived where none is handled, or was malformed."),
    .init(.malformedIPv4, "malformed-ipv4", "The IPv4 header contradicts itself or the frame."),
    .init(.malformedIPv6, "malformed-ipv6", "The IPv6 header or an extension header contradicts itself or the frame."),
    .init(.badIPv4Checksum, "bad-ipv4-checksum", "The IPv4 header checksum is wrong."),
    .init(.tooManyExtensionHeaders, "too-many-extension-headers", "More IPv6 extension headers than are walked (8)."),
    .init(.fragment, "fragment", "An IP fragment where none is put together, or behind an IPv6 extension header."),
    .init(
      .fragmentRefused, "fragment-refused",
      "IP fragments that overlap, are tiny, are too many or contradict each other, and those that came with them."),
    .init(.timeToLiveExceeded, "ttl-exceeded", "The packet's time to live or hop limit is used up."),
    .init(.packetTooBig, "packet-too-big", "The packet is larger than the next link takes, and may not be cut."),
    .init(.malformedTransport, "malformed-transport", "The TCP, UDP or ICMP header contradicts itself or the packet."),
    .init(.badTransportChecksum, "bad-transport-checksum", "The TCP, UDP, ICMP or Mobility checksum is wrong."),
    .init(.noFlow, "no-flow", "The packet belongs to no flow and may not open one from its side."),
    .init(.notConnectionStart, "not-connection-start", "A TCP packet of no known flow without SYN, or with more than SYN."),
    .init(.flowTableFull, "flow-table-full", "There is no room for another flow."),
    .init(.keyTaken, "key-taken", "The answers to this flow would be indistinguishable from another flow's."),
    .init(.noRuntime, "no-runtime", "No runtime is serving to which a new flow could be given."),
    .init(.unknownSource, "unknown-source", "A packet from the fabric that no known node of the cluster sent."),
    .init(.unresolvedNextHop, "unresolved-next-hop", "The next hop did not answer ARP."),
    .init(.waitingForNextHop, "waiting-for-next-hop", "Too many packets already wait for the next hop's address."),
    .init(.noRoute, "no-route", "The destination is on no attached network and there is no gateway."),
    .init(.standsBy, "stands-by", "Another switch has the uplinks, and this one does not know the packet's flow."),
    .init(.transmitQueueFull, "transmit-queue-full", "The port did not accept the packet."),
    .init(.notServing, "not-serving", "The node is not (or no longer) configured to serve."),
    .init(.fenced, "fenced", "A packet of a runtime or switch whose life was declared over."),
    .init(.replicationBusy, "replication-busy", "The channel to the holder of the flow's replica had no room."),
    .init(.awaitsRecovery, "awaits-recovery", "After a failure it is not known yet who has the packet's flow."),
  ]
}

public struct DropReasonDescription: Sendable {
  public let reason: DropReason
  /// Lower case with dashes: a metric's label.
  public let name: String
  public let sentence: String

  public init(_ reason: DropReason, _ name: String, _ sentence: String) {
    self.reason = reason
    self.name = name
    self.sentence = sentence
  }

  public func shifted(by count: Int) -> DropReasonDescription {
    DropReasonDescription(reason.shifted(by: count), name, sentence)
  }
}
