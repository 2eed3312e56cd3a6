// The books of one runtime's NAT. See "The books" in NAT.swift for the rule behind every line here.

import NetworkFunctions
import Wire

extension NAT {
  /// One external endpoint that a flow used and needs no more; its owner is told from its number.
  public struct Return: Hashable, Sendable {
    public let client: IPv4Address
    public let external: IPv4Address
    public let clientPort: UInt16
    public let externalPort: UInt16
    public let vlan: UInt16
    public let realm: UInt8
    /// Then `client` is a word that stands for it.
    public let isIPv6: Bool

    /// As it travels: client and external address; both ports, VLAN and realm.
    var words: SIMD2<UInt64> {
      SIMD2(
        UInt64(client.value) | UInt64(external.value) << 32,
        UInt64(clientPort) | UInt64(externalPort) << 16 | UInt64(vlan) << 32 | UInt64(realm) << 48 | (isIPv6 ? 1 : 0) << 56)
    }

    init(words: SIMD2<UInt64>) {
      client = IPv4Address(UInt32(truncatingIfNeeded: words[0]))
      external = IPv4Address(UInt32(truncatingIfNeeded: words[0] >> 32))
      clientPort = UInt16(truncatingIfNeeded: words[1])
      externalPort = UInt16(truncatingIfNeeded: words[1] >> 16)
      vlan = UInt16(truncatingIfNeeded: words[1] >> 32)
      realm = UInt8(truncatingIfNeeded: words[1] >> 48)
      isIPv6 = words[1] >> 56 & 1 != 0
    }

    init(_ flow: FlowState) {
      (client, clientPort, vlan, realm) = (flow.client, flow.clientPort, flow.vlan, flow.realm)
      (external, externalPort) = (flow.external, flow.externalPort)
      isIPv6 = flow.phase == FlowState.Phase.translatingIPv6
    }
  }

  public struct SharedState {
    @usableFromInline var pool: NATPool
    @usableFromInline var mappings: NATMappings
    var resting: NATResting
    var contacts: NATContacts
    /// Kept where there is a limit.
    let clients: NATClientCounts?
    /// Where IPv6 clients are translated.
    var ipv6Clients: NAT64Clients
    private var identification: UInt16
    let filtering: Filtering
    let hold: UInt64
    let mappingsPerClient: Int
    let passesIPv6: Bool
    public internal(set) var log: NATLog
    /// The time of the last first packet.
    var now = Tick.zero
    @usableFromInline var foreign = 0
    /// The same by the share that the endpoint belongs to.
    let foreignByShare: FixedMemory<UInt32>
    @usableFromInline var exhausted: UInt64 = 0
    var isExhausted = false
    var limited: UInt64 = 0
    @usableFromInline var lost: UInt64 = 0
    var errorsRelayed: UInt64 = 0
    /// A ring of returns owed to other shares. Full: the return is counted and forgotten, and the endpoint
    /// stays with the borrower's name on it until its owner restarts.
    let owed: FixedMemory<FlowState>
    var firstOwed = 0
    var owedCount = 0
    var forgotten: UInt64 = 0

    /// - Parameter ipv6Clients: how many there can be.
    init(_ nat: NAT, share: RuntimeShare, ipv6Clients capacity: Int = 0) {
      ipv6Clients = NAT64Clients(capacity: capacity)
      pool = NATPool(addresses: nat.addresses, ports: nat.ports, share: share)
      foreignByShare = FixedMemory(count: share.count, repeating: 0)
      // A return of an IPv6 client's endpoint is known by the endpoint.
      mappings = NATMappings(
        capacity: nat.mappingCapacity, indexesExternals: nat.filtering != .addressAndPortDependent || capacity > 0)
      identification = UInt16(truncatingIfNeeded: mappings.records.keyedHash(1))
      resting = NATResting(capacity: nat.hold == 0 ? 0 : nat.mappingCapacity)
      contacts = NATContacts(
        capacity: nat.filtering == .addressDependent ? nat.mappingCapacity * 2 : 0, mappings: nat.mappingCapacity)
      clients = nat.mappingsPerClient == .max ? nil : NATClientCounts(capacity: nat.mappingCapacity)
      filtering = nat.filtering
      hold = nat.hold
      mappingsPerClient = nat.mappingsPerClient
      passesIPv6 = nat.passesIPv6
      log = NATLog(isKept: nat.keepsLog)
      owed = FixedMemory(count: 4096, repeating: FlowState())
    }

    // MARK: A flow's life

    @usableFromInline @inline(never)
    mutating func open(_ frame: inout Frame, _ flow: inout FlowState) -> Verdict {
      if flow.phase == FlowState.Phase.passing { return .forward }
      guard flow.phase == FlowState.Phase.new else { return .drop(NAT.endpointLost) }
      guard frame.family == .ipv4 else {
        guard passesIPv6 else { return .drop(NAT.ipv6) }
        flow.phase = FlowState.Phase.passing
        return .forward
      }
      know(frame.arrival)
      if frame.direction == .reverse { return openFromOutside(frame, &flow) }
      guard let realm = NATRealm.of(frame) else { return .drop(NAT.notTranslatable) }
      let key = NATClientKey(
        frame.fiveTuple.source, port: frame.sourcePort, realm: realm, vlan: frame.fiveTuple.transport.vlan)
      let index: UInt32
      switch mapping(of: key) {
      case .found(let found): index = found
      case .refused(let reason): return .drop(reason)
      }
      if filtering == .addressDependent { contacts.add(index, frame.fiveTuple.destination) }
      use(index, &flow)
      return .forward
    }

    /// The first packet of a flow that somebody outside opens.
    private mutating func openFromOutside(_ frame: borrowing Frame, _ flow: inout FlowState) -> Verdict {
      switch mappingFromOutside(frame) {
      case .found(let index): use(index, &flow)
      case .refused(let reason): return .drop(reason)
      }
      return .forward
    }

    /// The mapping that such a packet is to, if it may come in.
    func mappingFromOutside(_ frame: borrowing Frame) -> Mapping {
      guard let realm = [IPProtocol.tcp, IPProtocol.udp].firstIndex(of: frame.protocolNumber) else {
        return .refused(NAT.notTranslatable)
      }
      guard filtering != .addressAndPortDependent,
        let address = pool.owns(frame.fiveTuple.destination, frame.destinationPort),
        let index = mappings.find(external: address, realm: realm, port: frame.destinationPort),
        mappings.records[Int(index)].isUsed,
        filtering == .endpointIndependent || contacts.contains(index, frame.fiveTuple.source)
      else { return .refused(NAT.filtered) }
      return .found(index)
    }

    @inline(__always)
    mutating func use(_ index: UInt32, _ flow: inout FlowState) {
      mappings.records[Int(index)].here += 1
      let record = mappings.records[Int(index)]
      flow.client = record.key.address
      flow.clientPort = record.key.port
      flow.external = pool.addresses[Int(record.address)]
      flow.externalPort = record.port
      flow.realm = UInt8(record.key.realm)
      flow.vlan = record.key.vlan
      flow.mapping = index
      flow.phase = FlowState.Phase.translating
    }

    // MARK: A flow's end and its travels

    @usableFromInline
    mutating func release(_ flow: inout FlowState, at time: Tick) {
      now = max(now, time)
      if flow.hasEndpoint { giveBack(&flow) }
      know(time)
    }

    @inline(__always)
    private mutating func giveBack(_ flow: inout FlowState) {
      guard flow.mapping != 0 else {
        let ended = flow
        flow.phase = FlowState.Phase.new
        foreignEnds(ended)
        owe(ended)
        return
      }
      flow.phase = FlowState.Phase.new
      mappings.records[Int(flow.mapping)].here -= 1
      restIfUnused(flow.mapping)
    }

    @usableFromInline
    mutating func lend(_ flow: inout FlowState) {
      guard flow.hasEndpoint else { return }
      if flow.mapping == 0 {
        foreignEnds(flow)
      } else {
        mappings.records[Int(flow.mapping)].here -= 1
        mappings.records[Int(flow.mapping)].away += 1
      }
      flow.mapping = 0
    }

    /// A flow with its endpoint arrives: from where it moved, or from a runtime that died.
    ///
    /// - Parameter ipv6Client: whose it is, of an IPv6 flow.
    @usableFromInline
    mutating func welcome(_ flow: inout FlowState, ipv6Client: IPAddress? = nil) {
      flow.mapping = 0
      guard flow.hasEndpoint else { return }
      guard flow.realm < NATRealm.count, let address = pool.owns(flow.external, flow.externalPort) else {
        foreignBegins(flow)
        return
      }
      var key = flow.key
      if let ipv6Client {
        guard let number = ipv6Clients.number(of: ipv6Client) else {
          lost &+= 1
          flow.phase = FlowState.Phase.lost
          return
        }
        key = NATClientKey(ipv6Client: number, port: flow.clientPort, realm: Int(flow.realm), vlan: flow.vlan)
      }
      defer { if key.isIPv6 { ipv6Clients.settle(key.ipv6Client) } }
      if let index = mappings.find(key, address: address, port: flow.externalPort) {
        wake(index)
        mappings.records[Int(index)].here += 1
        if mappings.records[Int(index)].away > 0 { mappings.records[Int(index)].away -= 1 }
        flow.mapping = index
      } else if mappings.firstFree != 0, pool.take(address, Int(flow.realm), Int(flow.externalPort)),
        let index = insert(key, address: address, port: flow.externalPort)
      {
        mappings.records[Int(index)].here = 1
        flow.mapping = index
      } else {
        lost &+= 1
        flow.phase = FlowState.Phase.lost
      }
    }

    private mutating func foreignBegins(_ flow: FlowState) {
      foreign += 1
      if let share = pool.share(of: flow.externalPort) { foreignByShare[share] &+= 1 }
    }

    private mutating func foreignEnds(_ flow: FlowState) {
      foreign -= 1
      if let share = pool.share(of: flow.externalPort) { foreignByShare[share] &-= 1 }
    }

    // MARK: Returns

    mutating func owe(_ flow: FlowState) {
      guard owedCount < owed.count else {
        forgotten &+= 1
        return
      }
      owed[(firstOwed + owedCount) % owed.count] = flow
      owedCount += 1
    }

    /// The next endpoint to be returned to the share that owns it, for the platform to send there.
    public mutating func takeReturn() -> Return? {
      guard owedCount > 0 else { return nil }
      let flow = owed[firstOwed]
      firstOwed = (firstOwed + 1) % owed.count
      owedCount -= 1
      return Return(flow)
    }

    /// Books a return at the owner. One that fits no record with flows away changes nothing; beyond that, who
    /// delivers returns must deliver each once, as a reliable channel does: two flows may share an endpoint.
    @discardableResult
    public mutating func accept(_ returned: Return) -> Bool {
      guard returned.realm < NATRealm.count, let address = pool.owns(returned.external, returned.externalPort) else {
        return false
      }
      guard let index = mapping(of: returned, address), mappings.records[Int(index)].away > 0 else { return false }
      mappings.records[Int(index)].away -= 1
      restIfUnused(index)
      return true
    }

    private func mapping(of returned: Return, _ address: Int) -> UInt32? {
      guard returned.isIPv6 else {
        let key = NATClientKey(returned.client, port: returned.clientPort, realm: Int(returned.realm), vlan: returned.vlan)
        return mappings.find(key, address: address, port: returned.externalPort)
      }
      guard mappings.indexesExternals,
        let index = mappings.find(external: address, realm: Int(returned.realm), port: returned.externalPort),
        case let key = mappings.records[Int(index)].key, key.isIPv6, key.port == returned.clientPort, key.vlan == returned.vlan,
        NAT64Clients.word(of: ipv6Clients[key.ipv6Client]) == returned.client
      else { return nil }
      return index
    }

    // MARK: IPv6 clients

    /// The mapping of an IPv6 client for a packet that it sends to an IPv4 server.
    mutating func mapping(of client: IPAddress, _ frame: borrowing Frame, to server: IPv4Address) -> Mapping {
      guard let realm = NATRealm.ofIPv6(frame) else { return .refused(NAT.notTranslatable) }
      guard let number = ipv6Clients.number(of: client) else {
        exhausted &+= 1
        return .refused(NAT.poolExhausted)
      }
      let key = NATClientKey(
        ipv6Client: number, port: frame.sourcePort, realm: realm, vlan: frame.fiveTuple.transport.vlan)
      let mapping = mapping(of: key)
      ipv6Clients.settle(number)
      if case .found(let index) = mapping, filtering == .addressDependent { contacts.add(index, server) }
      return mapping
    }

    /// Whose a mapping is; `nil` if it is an IPv4 client's.
    func ipv6Client(of index: UInt32) -> IPAddress? {
      let key = mappings.records[Int(index)].key
      return key.isIPv6 ? ipv6Clients[key.ipv6Client] : nil
    }

    /// For packets that may be cut on their way.
    mutating func nextIdentification() -> UInt16 {
      identification &+= 1
      return identification
    }

    // MARK: Numbers

    /// External endpoints in use, of all that this share owns.
    public var used: Int { (0..<pool.used.count).reduce(0) { $0 + Int(pool.used[$1]) } }
    public var total: Int { pool.addresses.count * NATRealm.count * pool.block.count }

    func observations() -> [Observation] {
      var result: [Observation] = []
      for (index, address) in pool.addresses.enumerated() {
        for (realm, name) in NATRealm.names.enumerated() {
          result.append(Observation("nat.pool.\(address).\(name).used", UInt64(pool.used[index * NATRealm.count + realm])))
          result.append(Observation("nat.pool.\(address).\(name).total", UInt64(pool.block.count)))
        }
      }
      return result + [
        Observation("nat.mappings", UInt64(mappings.count)),
        Observation("nat.foreign-flows", UInt64(max(0, foreign))),
        Observation("nat.exhausted", exhausted), Observation("nat.client-limit.refused", limited),
        Observation("nat.icmp-errors.relayed", errorsRelayed), Observation("nat.contacts.forgotten", contacts.forgotten),
        Observation("nat.log.written", log.written), Observation("nat.log.lost", log.lost),
        Observation("nat.endpoints-lost", lost),
        Observation("nat.returns.waiting", UInt64(owedCount)),
        Observation("nat.returns.forgotten", forgotten),
      ]
    }
  }
}
