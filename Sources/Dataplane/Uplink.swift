import FlowActors
import ModuleGraphs
import Wire

/// One side of a virtual switch towards the world: its networks, its neighbors, and the packets that wait
/// for a neighbor's address.
///
/// Answers ARP and neighbor solicitations for its own addresses and for those of the functions behind it (virtual IPs, NAT pools).
/// Per packet it only finds the next hop and rewrites the link addresses.
final class Uplink {
  let port: PacketPort
  let settings: UplinkSettings
  private var neighbors = NeighborTable<IPv4Address>()
  private var neighbors6 = NeighborTable<IPAddress>()
  /// Packets that wait for a next hop, in order of arrival.
  private let waiting = PacketBatch()
  private var waitingFor: [IPAddress] = []
  private var waitingSince: [Tick] = []
  /// ARP packets on their way out, sent at the end of a pass.
  private let outgoing = PacketBatch()

  static let longestWait: UInt64 = 3_000

  /// Whether the addresses are ours to answer for.
  private(set) var isHeld = false
  /// Milliseconds from taking the addresses to each announcement: one could be lost, and another switch that was only thought
  /// to be dead could speak up once more.
  private static let announcements: [UInt64] = [0, 50, 200, 600, 1_500, 4_000]
  private var announcementsLeft: ArraySlice<UInt64> = []
  private var heldSince = Tick.zero
  private var lastAnnouncement: UInt64 = 0
  /// Announcements that another one's claim made necessary.
  private(set) var defences: UInt64 = 0

  init(port: PacketPort, settings: UplinkSettings) {
    self.port = port
    self.settings = settings
  }

  // MARK: Whose the addresses are

  /// The addresses are ours from now on: whoever knows them by another's link address learns of it.
  func take(now: Tick) {
    isHeld = true
    heldSince = now
    announcementsLeft = Self.announcements[...]
    keepAnnouncing(now: now)
  }

  /// They are another's: nothing is said in their name any more.
  func leave() {
    isHeld = false
    announcementsLeft = []
  }

  /// Announces when it is time to.
  func keepAnnouncing(now: Tick) {
    guard let next = announcementsLeft.first, now.milliseconds &- heldSince.milliseconds >= next else { return }
    announcementsLeft.removeFirst()
    announce(now: now)
  }

  /// Somebody else claims one of our addresses (RFC 5227 §2.4 c): at most ten answers a second.
  private func defend(now: Tick) {
    guard isHeld, now.milliseconds &- lastAnnouncement >= 100 else { return }
    defences += 1
    announce(now: now)
  }

  // MARK: ARP

  /// Handles a frame of family `.arp`; its memory stays the batch's.
  func hear(_ frame: borrowing Frame, now: Tick) -> Bool {
    guard let packet = ARPPacket(frame) else { return false }
    if settings.answers(packet.sender) {
      if packet.senderMAC != port.address { defend(now: now) }
      return true
    }
    // One that stands by learns who there is, and says nothing.
    let isOurs = settings.answers(packet.target)
    // A probe (RFC 5227) speaks for nobody.
    if packet.sender.value != 0 { neighbors.hear(packet.sender, at: packet.senderMAC, isForUs: isOurs, now: now) }
    if isHeld, packet.operation == .request, isOurs, packet.sender != packet.target {
      send(
        ARPPacket(
          operation: .reply, senderMAC: port.address, sender: packet.target, targetMAC: packet.senderMAC,
          target: packet.sender),
        to: packet.senderMAC, now: now)
    }
    return true
  }

  /// Handles a neighbor solicitation or advertisement; `false` if the frame is none that counts.
  func hearNeighbor(_ frame: borrowing Frame, now: Tick) -> Bool {
    guard let message = NeighborMessage(frame) else { return false }
    switch message.kind {
    case .advertisement:
      if settings.ipv6.answers(message.target) {
        if message.linkAddress.map({ $0 != port.address }) == true { defend(now: now) }
        return true
      }
      if let link = message.linkAddress { neighbors6.hear(message.target, at: link, isForUs: false, now: now) }
    case .solicitation:
      let isOurs = settings.ipv6.answers(message.target)
      if let link = message.linkAddress { neighbors6.hear(message.source, at: link, isForUs: isOurs, now: now) }
      guard isHeld, isOurs else { return true }
      // Who has no address yet hears it with everybody else (RFC 4861 §7.2.4).
      let isProbe = message.source == NeighborMessage.unspecified
      send(
        NeighborMessage(
          kind: .advertisement, source: message.target, target: message.target, linkAddress: port.address, isSolicited: !isProbe),
        to: isProbe
          ? NeighborMessage.group(NeighborMessage.allNodes) : (message.source, message.linkAddress ?? frame.sourceMAC), now: now)
    }
    return true
  }

  private func send(_ message: NeighborMessage, to destination: (address: IPAddress, link: MACAddress), now: Tick) {
    if outgoing.isFull { flush() }
    guard port.makeFrame(in: outgoing, length: NeighborMessage.frameLength, now: now) else { return }
    message.write(to: outgoing[outgoing.count - 1], from: port.address, to: destination)
  }

  private func ask(_ address: IPAddress, now: Tick) {
    // The question would say that the address it is asked from is here.
    guard isHeld else { return }
    if let address = address.ipv4 { return ask(address, now: now) }
    guard let sender = settings.ipv6.source(for: address) else { return }
    send(
      NeighborMessage(kind: .solicitation, source: sender, target: address, linkAddress: port.address),
      to: NeighborMessage.solicitedNode(address), now: now)
  }

  private func ask(_ address: IPv4Address, now: Tick) {
    guard isHeld, let sender = settings.source(for: address) else { return }
    send(
      ARPPacket(operation: .request, senderMAC: port.address, sender: sender, targetMAC: .zero, target: address),
      to: .broadcast, now: now)
  }

  /// Tells the network who has our addresses now (gratuitous ARP, RFC 5227 §3).
  private func announce(now: Tick) {
    lastAnnouncement = now.milliseconds
    for address in settings.announced {
      send(
        ARPPacket(operation: .request, senderMAC: port.address, sender: address, targetMAC: .zero, target: address),
        to: .broadcast, now: now)
    }
    // Unsolicited advertisements (RFC 4861 §7.2.6).
    for address in settings.ipv6.announced {
      send(
        NeighborMessage(kind: .advertisement, source: address, target: address, linkAddress: port.address),
        to: NeighborMessage.group(NeighborMessage.allNodes), now: now)
    }
  }

  private func send(_ packet: ARPPacket, to destination: MACAddress, now: Tick) {
    if outgoing.isFull { flush() }
    guard port.makeFrame(in: outgoing, length: ARPPacket.frameLength, now: now) else { return }
    packet.write(to: outgoing[outgoing.count - 1], destination: destination)
  }

  /// Sends what ARP has to say.
  func flush() {
    guard !outgoing.isEmpty else { return }
    let refused = port.transmit(outgoing, mask: outgoing.live)
    port.release(outgoing, mask: refused)
    outgoing.removeAll()
  }

  // MARK: Errors

  /// How many errors may be sent, and since when that was counted (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f).
  private var errorCredit = Uplink.errorBurst
  private var creditSince: UInt64 = 0
  private static let errorBurst: UInt64 = 64
  /// Milliseconds for one.
  private static let errorPace: UInt64 = 10

  /// Tells the packet's sender why it goes no further, unless too many were told so lately.
  func report(_ error: ErrorReport, about frame: borrowing Frame, now: Tick) {
    let earned = (now.milliseconds &- creditSince) / Self.errorPace
    if earned > 0 {
      errorCredit = min(Self.errorBurst, errorCredit + earned)
      creditSince = now.milliseconds
    }
    guard errorCredit > 0, ErrorReport.mayReport(frame), let sender = settings.sender(to: frame.sourceAddress) else { return }
    errorCredit -= 1
    if outgoing.isFull { flush() }
    guard port.makeFrame(in: outgoing, length: ErrorReport.length(about: frame), now: now) else { return }
    error.write(to: outgoing[outgoing.count - 1], about: frame, from: sender)
  }

  // MARK: Packets out

  enum Fate: Equatable {
    /// Link addresses are set: transmit.
    case ready
    /// Kept until the next hop is known: no longer the batch's.
    case held
    case dropped(DropReason)
  }

  /// Prepares a frame for its next hop.
  func address(_ frame: borrowing Frame, now: Tick) -> Fate {
    let nextHop: IPAddress
    let answer: NeighborTable<IPv4Address>.Lookup
    let refresh: Bool
    if frame.family == .ipv4 {
      guard let hop = settings.nextHop(for: frame.fiveTuple.destination) else { return .dropped(.noRoute) }
      (answer, refresh) = neighbors.lookup(hop, now: now)
      nextHop = IPAddress(hop)
    } else {
      guard let hop = settings.ipv6.nextHop(for: frame.destinationAddress) else { return .dropped(.noRoute) }
      let found = neighbors6.lookup(hop, now: now)
      (answer, refresh) = (.init(found.0), found.refresh)
      nextHop = hop
    }
    switch answer {
    case .known(let mac):
      frame.destinationMAC = mac
      frame.sourceMAC = port.address
      if refresh { ask(nextHop, now: now) }
      return .ready
    case .unknown(let due):
      if due { ask(nextHop, now: now) }
      guard !waiting.isFull else { return .dropped(.waitingForNextHop) }
      frame.sourceMAC = port.address
      unsafe waiting.append(copyOf: frame)
      waitingFor.append(nextHop)
      waitingSince.append(now)
      return .held
    case .unreachable(let due):
      if due { ask(nextHop, now: now) }
      return .dropped(.unresolvedNextHop)
    }
  }

  /// Sends held packets whose next hop has answered, and gives up those that waited too long.
  ///
  /// - Returns: how many packets left and how many were given up.
  func serveWaiting(now: Tick) -> (sent: Int, bytes: Int, expired: Int) {
    guard !waiting.isEmpty else { return (0, 0, 0) }
    var ready: UInt64 = 0
    var expired: UInt64 = 0
    var bytes = 0
    for index in 0..<waiting.count {
      switch waitingFor[index].ipv4.map({ neighbors.lookup($0, now: now).0 }) ?? .init(neighbors6.lookup(waitingFor[index], now: now).0) {
      case .known(let mac):
        waiting[index].destinationMAC = mac
        ready |= 1 << UInt64(index)
        bytes += Int(waiting[index].length)
      case .unknown(let due), .unreachable(let due):
        if due { ask(waitingFor[index], now: now) }
        if now.milliseconds &- waitingSince[index].milliseconds > Self.longestWait { expired |= 1 << UInt64(index) }
      }
    }
    guard ready | expired != 0 else { return (0, 0, 0) }
    let refused = port.transmit(waiting, mask: ready)
    port.release(waiting, mask: refused | expired)
    keepWaiting(waiting.live & ~(ready | expired))
    return ((ready & ~refused).nonzeroBitCount, bytes, (expired | refused).nonzeroBitCount)
  }

  private func keepWaiting(_ mask: UInt64) {
    var frames: [Int] = []
    PacketBatch.forEach(in: mask) { frames.append($0) }
    waitingFor = frames.map { waitingFor[$0] }
    waitingSince = frames.map { waitingSince[$0] }
    waiting.keep(mask)
  }

  /// Gives everything back, at the end.
  func close() {
    port.release(waiting, mask: waiting.live)
    waiting.removeAll()
  }
}

/// Addresses and networks of an uplink.
public struct UplinkSettings: Sendable {
  public struct Interface: Sendable {
    public var address: IPv4Address
    public var prefixLength: Int

    public init(address: IPv4Address, prefixLength: Int) {
      self.address = address
      self.prefixLength = prefixLength
    }

    func contains(_ other: IPv4Address) -> Bool {
      prefixLength == 0 || (address.value ^ other.value) >> UInt32(32 - prefixLength) == 0
    }
  }

  public var interfaces: [Interface]
  public var gateway: IPv4Address?
  /// Further addresses it answers for, as ranges.
  public var answersFor: [ClosedRange<IPv4Address>]
  public var ipv6 = IPv6()

  /// The same of IPv6. On-link prefixes are those of the interfaces; routers are not listened to.
  public struct IPv6: Sendable {
    public var interfaces: [(address: IPAddress, prefix: AddressBlock)] = []
    public var gateway: IPAddress?
    public var answersFor: [AddressBlock] = []

    public init() {}

    func answers(_ address: IPAddress) -> Bool {
      interfaces.contains { $0.address == address } || answersFor.contains { $0.contains(address) }
    }

    func nextHop(for destination: IPAddress) -> IPAddress? {
      interfaces.contains { $0.prefix.contains(destination) } ? destination : gateway
    }

    func source(for address: IPAddress) -> IPAddress? {
      (interfaces.first { $0.prefix.contains(address) } ?? interfaces.first)?.address
    }

    /// Single addresses only: nobody announces a whole prefix.
    var announced: [IPAddress] {
      (interfaces.map(\.address) + answersFor.filter { $0.length == 128 }.map(\.base)).prefix(64).map { $0 }
    }
  }

  public init(interfaces: [Interface], gateway: IPv4Address? = nil, answersFor: [ClosedRange<IPv4Address>] = []) {
    self.interfaces = interfaces
    self.gateway = gateway
    self.answersFor = answersFor
  }

  func answers(_ address: IPv4Address) -> Bool {
    interfaces.contains { $0.address == address } || answersFor.contains { $0.contains(address) }
  }

  /// The destination itself on an attached network, else the gateway.
  func nextHop(for destination: IPv4Address) -> IPv4Address? {
    interfaces.contains { $0.contains(destination) } ? destination : gateway
  }

  func source(for address: IPv4Address) -> IPv4Address? {
    (interfaces.first { $0.contains(address) } ?? interfaces.first)?.address
  }

  /// In whose name something is said to an address.
  func sender(to address: IPAddress) -> IPAddress? {
    guard let ipv4 = address.ipv4 else { return ipv6.source(for: address) }
    return source(for: ipv4).map { IPAddress($0) }
  }

  /// What to announce when taking over: at most 64 addresses.
  var announced: [IPv4Address] {
    var result = interfaces.map(\.address)
    for range in answersFor {
      var value = range.lowerBound.value
      while value <= range.upperBound.value, result.count < 64 {
        result.append(IPv4Address(value))
        if value == .max { break }
        value += 1
      }
    }
    return result
  }
}

extension NeighborTable<IPv4Address>.Lookup {
  init(_ other: NeighborTable<IPAddress>.Lookup) {
    switch other {
    case .known(let station): self = .known(station)
    case .unknown(let ask): self = .unknown(ask: ask)
    case .unreachable(let ask): self = .unreachable(ask: ask)
    }
  }
}
