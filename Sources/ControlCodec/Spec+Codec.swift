import CSchemas
import ControlMessages

// Chains, networks and cluster specs: what both an operator's intent and a launch command carry.

extension MessageWriter {
  func chain(_ chain: ServiceChainSpec) -> UnsafeMutablePointer<Nfvactor__V1__ServiceChain> {
    make(nfvactor__v1__service_chain__init) {
      $0.n_functions = chain.functions.count
      $0.functions = list(chain.functions, function)
      $0.flows = make(nfvactor__v1__flow_table__init) {
        let flows = chain.flows
        $0.capacity = flows.capacity
        $0.ipv6_capacity = flows.ipv6Capacity
        $0.midstream =
          switch flows.midstream {
          case .drop: NFVACTOR__V1__FLOW_TABLE__MIDSTREAM__MIDSTREAM_DROP
          case .accept: NFVACTOR__V1__FLOW_TABLE__MIDSTREAM__MIDSTREAM_ACCEPT
          }
        $0.tcp_transitory_timeout = flows.tcpTransitoryTimeout
        $0.tcp_established_timeout = flows.tcpEstablishedTimeout
        $0.udp_timeout = flows.udpTimeout
        $0.icmp_timeout = flows.icmpTimeout
        $0.other_timeout = flows.otherTimeout
      }
    }
  }

  func function(_ function: ServiceChainSpec.Function) -> UnsafeMutablePointer<Nfvactor__V1__NetworkFunction> {
    make(nfvactor__v1__network_function__init) {
      $0.kind = text(function.kind)
      let settings = settings(function.settings)
      $0.n_settings = settings.count
      $0.settings = settings.nodes
    }
  }

  func network(_ network: NetworkSpec) -> UnsafeMutablePointer<Nfvactor__V1__Network> {
    make(nfvactor__v1__network__init) {
      $0.client = side(network.client)
      $0.server = side(network.server)
    }
  }

  private func side(_ side: NetworkSpec.Side) -> UnsafeMutablePointer<Nfvactor__V1__NetworkSide> {
    make(nfvactor__v1__network_side__init) {
      $0.n_addresses = side.addresses.count
      $0.addresses = list(side.addresses) { address in
        make(nfvactor__v1__interface_address__init) {
          $0.address = address.address
          $0.prefix_length = UInt32(address.prefixLength)
        }
      }
      if let gateway = side.gateway {
        $0.gateway_presence_case = NFVACTOR__V1__NETWORK_SIDE__GATEWAY_PRESENCE_GATEWAY
        $0.gateway = gateway
      }
      $0.n_answers_for = side.answersFor.count
      $0.answers_for = list(side.answersFor) { range in
        make(nfvactor__v1__address_range__init) {
          $0.first = range.first
          $0.last = range.last
        }
      }
      $0.n_addresses6 = side.ipv6.addresses.count
      $0.addresses6 = list(side.ipv6.addresses, prefix)
      if let gateway = side.ipv6.gateway { $0.gateway6 = prefix(gateway) }
      $0.n_answers_for6 = side.ipv6.answersFor.count
      $0.answers_for6 = list(side.ipv6.answersFor, prefix)
    }
  }

  private func prefix(_ prefix: IPv6Prefix) -> UnsafeMutablePointer<Nfvactor__V1__Prefix6> {
    make(nfvactor__v1__prefix6__init) {
      $0.high = prefix.high
      $0.low = prefix.low
      $0.length = UInt32(prefix.length)
    }
  }

  func spec(_ spec: ClusterSpec) -> UnsafeMutablePointer<Nfvactor__V1__ClusterSpec> {
    make(nfvactor__v1__cluster_spec__init) {
      $0.name = text(spec.name.name)
      $0.chain = chain(spec.chain)
      $0.runtimes = spec.runtimes
      $0.switches = spec.switches
      $0.pool_shares = spec.poolShares
      $0.heartbeat_interval = spec.heartbeatInterval
      $0.workload_interval = spec.workloadInterval
      $0.polling = polling(spec.polling)
      $0.network = network(spec.network)
      $0.replicas = spec.replicas
    }
  }

  func polling(_ polling: ClusterSpec.Polling) -> Nfvactor__V1__Polling {
    Nfvactor__V1__Polling(rawValue: UInt32(polling.rawValue))
  }
}

extension MessageReader {
  func chain(_ message: Nfvactor__V1__ServiceChain) throws(CodecError) -> ServiceChainSpec {
    let functions = try values(message.functions, count: message.n_functions, atMost: 64, "chain.functions", function)
    let message = try required(message.flows, "chain.flows")
    var flows = FlowTableSpec()
    flows.capacity = message.capacity
    flows.ipv6Capacity = message.ipv6_capacity
    switch message.midstream {
    case NFVACTOR__V1__FLOW_TABLE__MIDSTREAM__MIDSTREAM_DROP: flows.midstream = .drop
    case NFVACTOR__V1__FLOW_TABLE__MIDSTREAM__MIDSTREAM_ACCEPT: flows.midstream = .accept
    default: throw .invalid(field: "flows.midstream", reason: "has the unknown value \(message.midstream.rawValue)")
    }
    flows.tcpTransitoryTimeout = message.tcp_transitory_timeout
    flows.tcpEstablishedTimeout = message.tcp_established_timeout
    flows.udpTimeout = message.udp_timeout
    flows.icmpTimeout = message.icmp_timeout
    flows.otherTimeout = message.other_timeout
    return ServiceChainSpec(functions: functions, flows: flows)
  }

  func function(_ message: Nfvactor__V1__NetworkFunction) throws(CodecError) -> ServiceChainSpec.Function {
    let kind = try text(message.kind, "chain.functions.kind")
    guard !kind.isEmpty else { throw .missing(field: "chain.functions.kind") }
    return ServiceChainSpec.Function(
      kind: kind, settings: try settings(message.settings, count: message.n_settings, "chain.\(kind)"))
  }

  func network(_ message: Nfvactor__V1__Network) throws(CodecError) -> NetworkSpec {
    NetworkSpec(
      client: try side(required(message.client, "network.client"), "network.client"),
      server: try side(required(message.server, "network.server"), "network.server"))
  }

  private func side(_ message: Nfvactor__V1__NetworkSide, _ field: String) throws(CodecError) -> NetworkSpec.Side {
    let maximum = NetworkSpec.Side.maximumEntries
    let addresses = try values(message.addresses, count: message.n_addresses, atMost: maximum, field) {
      entry throws(CodecError) in
      guard let length = UInt8(exactly: entry.prefix_length),
        let address = InterfaceAddress(address: entry.address, prefixLength: length)
      else { throw .invalid(field: field, reason: "has a prefix of \(entry.prefix_length) bits") }
      return address
    }
    let ranges = try values(message.answers_for, count: message.n_answers_for, atMost: maximum, field) {
      entry throws(CodecError) in
      guard let range = AddressRange(first: entry.first, last: entry.last) else {
        throw .invalid(field: field, reason: "has a range that ends before it begins")
      }
      return range
    }
    let hasGateway = message.gateway_presence_case == NFVACTOR__V1__NETWORK_SIDE__GATEWAY_PRESENCE_GATEWAY
    var side = NetworkSpec.Side(addresses: addresses, gateway: hasGateway ? message.gateway : nil, answersFor: ranges)
    func prefix(_ message: Nfvactor__V1__Prefix6) throws(CodecError) -> IPv6Prefix {
      guard let length = UInt8(exactly: message.length), let prefix = IPv6Prefix(high: message.high, low: message.low, length: length)
      else { throw .invalid(field: field, reason: "has a prefix of \(message.length) bits") }
      return prefix
    }
    side.ipv6.addresses = try values(message.addresses6, count: message.n_addresses6, atMost: maximum, field, prefix)
    if let gateway = message.gateway6 { side.ipv6.gateway = try prefix(gateway.pointee) }
    side.ipv6.answersFor = try values(message.answers_for6, count: message.n_answers_for6, atMost: maximum, field, prefix)
    return side
  }

  func spec(_ message: Nfvactor__V1__ClusterSpec) throws(CodecError) -> ClusterSpec {
    var spec = ClusterSpec(
      name: try cluster(message.name, "spec.name"), chain: try chain(required(message.chain, "spec.chain")),
      runtimes: message.runtimes, switches: message.switches, network: try network(required(message.network, "spec.network")))
    spec.poolShares = message.pool_shares
    spec.heartbeatInterval = message.heartbeat_interval
    spec.workloadInterval = message.workload_interval
    spec.polling = try choice(message.polling.rawValue, "spec.polling")
    spec.replicas = message.replicas
    if let problem = spec.problem { throw .invalid(field: "spec", reason: problem) }
    return spec
  }
}
