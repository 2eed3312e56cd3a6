import Wire

/// The next hops of one uplink and their link addresses, kept by ARP (RFC 826) or neighbor discovery (RFC 4861).
///
/// A value: packets of time and ARP go in, requests to send come out. Bounded: when it is full the entry
/// longest unheard goes. Packets for an address not known yet are held by whoever asks, a few per neighbor.
public struct NeighborTable<Address: Hashable & Comparable & Sendable>: Sendable {
  public enum Lookup: Equatable, Sendable {
    case known(MACAddress)
    /// Not known; `ask` says whether a request is due now.
    case unknown(ask: Bool)
    /// Asked several times without an answer.
    case unreachable(ask: Bool)
  }

  private struct Entry: Sendable {
    var address: MACAddress?
    /// When the address was last confirmed, or when the resolution began.
    var since: Tick
    var lastAsked: Tick?
    var requests = 0
  }

  private var entries: [Address: Entry] = [:]
  public let capacity: Int

  /// How long an answer is good; it is confirmed in the background from half that time on.
  static var lifetime: UInt64 { 60_000 }
  /// Time between requests (RFC 1122 §2.3.2.1: at most one per second and destination).
  static var interval: UInt64 { 1_000 }
  static var requestsBeforeUnreachable: Int { 3 }

  public init(capacity: Int = 4_096) {
    self.capacity = capacity
    entries.reserveCapacity(capacity)
  }

  public var count: Int { entries.count }

  /// The next hop's address, and whether to send an ARP request for it now.
  public mutating func lookup(_ address: Address, now: Tick) -> (Lookup, refresh: Bool) {
    guard var entry = entries[address] else {
      makeRoom()
      entries[address] = Entry(address: nil, since: now, lastAsked: now, requests: 1)
      return (.unknown(ask: true), refresh: false)
    }
    let age = now.milliseconds &- entry.since.milliseconds
    let mayAsk = entry.lastAsked.map { now.milliseconds &- $0.milliseconds >= Self.interval } ?? true
    if let mac = entry.address, age < Self.lifetime {
      guard age >= Self.lifetime / 2, mayAsk else { return (.known(mac), refresh: false) }
      entry.lastAsked = now
      entries[address] = entry
      return (.known(mac), refresh: true)
    }
    if mayAsk {
      entry.address = nil
      entry.lastAsked = now
      entry.requests += 1
      entries[address] = entry
    }
    return (entry.requests > Self.requestsBeforeUnreachable ? .unreachable(ask: mayAsk) : .unknown(ask: mayAsk), refresh: false)
  }

  /// Notes what a neighbor says about itself. Only an entry somebody asked for is kept, or one that is asked of us: a
  /// stranger cannot fill the table.
  public mutating func hear(_ sender: Address, at station: MACAddress, isForUs: Bool, now: Tick) {
    guard entries[sender] != nil || isForUs else { return }
    if entries[sender] == nil { makeRoom() }
    entries[sender] = Entry(address: station, since: now, lastAsked: nil, requests: 0)
  }

  private mutating func makeRoom() {
    guard entries.count >= capacity else { return }
    // Oldest first, the lower address among equals: no dependence on the dictionary's order.
    if let oldest = entries.min(by: { ($0.value.since, $0.key) < ($1.value.since, $1.key) })?.key {
      entries[oldest] = nil
    }
  }
}
