// How a mapping comes to be, rests and goes: pool, table, limit and log are kept in step here and nowhere else.

import NetworkFunctions
import Wire

extension NAT.SharedState {
  enum Mapping { case found(UInt32), refused(DropReason) }

  @inline(__always)
  mutating func mapping(of key: NATClientKey) -> Mapping {
    if let index = mappings.find(key) {
      wake(index)
      return .found(index)
    }
    return makeMapping(key)
  }

  @inline(__always)
  private mutating func makeMapping(_ key: NATClientKey) -> Mapping {
    if let clients, clients[limited(key)] >= mappingsPerClient {
      limited &+= 1
      return .refused(NAT.clientLimit)
    }
    let neighbor = key.realm == NATRealm.udp ? mappings.find(key.neighbor).map { mappings.records[Int($0)] } : nil
    guard mappings.firstFree != 0,
      let (address, port) = pool.take(
        for: home(key), port: key.port, key.realm, preferred: neighbor.map { (Int($0.address), $0.port ^ 1) }),
      let index = insert(key, address: address, port: port)
    else {
      exhausted &+= 1
      if !isExhausted { note(.exhausted, NATMappings.Record(key: key), external: IPv4Address(0)) }
      isExhausted = true
      return .refused(NAT.poolExhausted)
    }
    isExhausted = false
    return .found(index)
  }

  /// For an endpoint that was just taken from the pool.
  @inline(__always)
  mutating func insert(_ key: NATClientKey, address: Int, port: UInt16) -> UInt32? {
    guard let index = mappings.insert(key, address: address, port: port) else { return nil }
    clients?.add(limited(key))
    if key.isIPv6 { ipv6Clients.add(key.ipv6Client) }
    note(.created, mappings.records[Int(index)], external: pool.addresses[address])
    return index
  }

  /// Asks for what making a mapping for this packet's client would read.
  @usableFromInline
  mutating func foresee(_ key: IPv4FiveTuple, _ realm: Int) {
    let port = key.transport.sourcePort
    mappings.prefetch(NATClientKey(key.source, port: port, realm: realm, vlan: key.transport.vlan))
    pool.prefetch(pool.home(of: key.source), realm, Int(port))
  }

  /// Asks for what giving this flow's mapping back would read.
  @usableFromInline
  mutating func foreseeEnd(_ flow: inout NAT.FlowState) {
    guard flow.mapping != 0 else { return }
    mappings.records.prefetch(Int(flow.mapping))
    mappings.prefetch(flow.key)
    // The address that its client has first, which nearly always is its own.
    pool.prefetch(pool.home(of: flow.client), Int(flow.realm), Int(flow.externalPort))
  }

  mutating func wake(_ index: UInt32) {
    if resting.contains(index) { resting.remove(index) }
  }

  @inline(__always)
  mutating func restIfUnused(_ index: UInt32) {
    guard !mappings.records[Int(index)].isUsed else { return }
    if hold == 0 { free(index) } else { resting.add(index) }
  }

  private mutating func free(_ index: UInt32) {
    let record = mappings.records[Int(index)]
    note(.removed, record, external: pool.addresses[Int(record.address)])
    pool.give(Int(record.address), record.key.realm, Int(record.port))
    clients?.remove(limited(record.key))
    if filtering == .addressDependent { contacts.removeAll(of: index) }
    mappings.remove(index)
    if record.key.isIPv6 { ipv6Clients.remove(record.key.ipv6Client) }
  }

  /// Time goes on: what has rested is free, at most a few at a time.
  @inline(__always)
  mutating func know(_ time: Tick) {
    now = max(now, time)
    guard hold > 0 else { return }
    resting.know(now.milliseconds)
    for _ in 0..<8 {
      guard let index = resting.rested(now.milliseconds, for: hold) else { return }
      resting.remove(index)
      free(index)
    }
  }

  // Who a key's client is: to its limit, to the pool, to people.

  private func limited(_ key: NATClientKey) -> UInt64 {
    key.isIPv6 ? NAT64Clients.limited(ipv6Clients[key.ipv6Client], vlan: key.vlan) : key.client
  }

  @inline(__always)
  private func home(_ key: NATClientKey) -> IPv4Address {
    key.isIPv6 ? NAT64Clients.word(of: ipv6Clients[key.ipv6Client]) : key.address
  }

  private func address(_ key: NATClientKey) -> IPAddress {
    key.isIPv6 ? ipv6Clients[key.ipv6Client] : IPAddress(key.address)
  }

  @inline(__always)
  private mutating func note(_ event: NATLogEntry.Event, _ record: NATMappings.Record, external: IPv4Address) {
    guard log.isKept else { return }
    log.write(
      NATLogEntry(
        event: event, time: now, client: address(record.key), clientPort: record.key.port, external: external,
        externalPort: record.port, protocolNumber: NATRealm.protocolNumbers[record.key.realm], vlan: record.key.vlan))
  }
}
