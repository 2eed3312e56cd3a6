import CSchemas
import ControlMessages

extension RecordCodec {
  public static func encode(_ command: Command) -> [UInt8] {
    if case .unknown(let body) = command.body { return body.record }
    let writer = MessageWriter()
    return writer.pack(writer.command(command), nfvactor__v1__command__get_packed_size, nfvactor__v1__command__pack)
  }

  public static func decodeCommand(_ record: [UInt8]) throws(CodecError) -> Command {
    guard record.count <= maximumRecordSize else { throw .tooLarge(bytes: record.count) }
    let arena = MessageArena(limit: MessageReader.memoryLimit(recordSize: record.count))
    guard let message = arena.unpack(record, with: nfvactor__v1__command__unpack) else { throw .malformed }
    defer { withExtendedLifetime(arena) {} }
    return try MessageReader(arena: arena).command(message.pointee, record)
  }
}

extension MessageWriter {
  func command(_ command: Command) -> UnsafeMutablePointer<Nfvactor__V1__Command> {
    make(nfvactor__v1__command__init) {
      $0.version = RecordCodec.version
      $0.slot = command.slot.number
      $0.decision_offset = command.decision.offset.value
      $0.decision_index = command.decision.index
      switch command.target {
      case .cluster:
        $0.target_case = NFVACTOR__V1__COMMAND__TARGET_TARGET_CLUSTER
        $0.target_cluster = make(nfvactor__v1__whole_cluster__init)
      case .host(let host):
        $0.target_case = NFVACTOR__V1__COMMAND__TARGET_TARGET_HOST
        $0.target_host = text(host.name)
      case .node(let node, let incarnation):
        $0.target_case = NFVACTOR__V1__COMMAND__TARGET_TARGET_NODE
        $0.target_node = life(node, incarnation)
      }
      $0.expiry = command.expiry.milliseconds
      $0.reason = text(command.reason)
      if !command.correlation.isEmpty { $0.correlation = text(command.correlation) }
      $0.state_hash = command.stateHash
      switch command.body {
      case .notifyClusterConfig(let members):
        $0.body_case = NFVACTOR__V1__COMMAND__BODY_NOTIFY_CLUSTER_CONFIG
        $0.notify_cluster_config = table(members)
      case .launchRuntime(let spec):
        $0.body_case = NFVACTOR__V1__COMMAND__BODY_LAUNCH_RUNTIME
        $0.launch_runtime = launch(spec)
      case .launchSwitch(let spec):
        $0.body_case = NFVACTOR__V1__COMMAND__BODY_LAUNCH_SWITCH
        $0.launch_switch = launch(spec)
      case .stopNode(let node, let incarnation):
        $0.body_case = NFVACTOR__V1__COMMAND__BODY_STOP_NODE
        $0.stop_node = life(node, incarnation)
      case .fence(let node, let incarnation):
        $0.body_case = NFVACTOR__V1__COMMAND__BODY_FENCE
        $0.fence = life(node, incarnation)
      case .drainRuntime(let node, let incarnation):
        $0.body_case = NFVACTOR__V1__COMMAND__BODY_DRAIN_RUNTIME
        $0.drain_runtime = life(node, incarnation)
      case .setMigrationTarget(let move):
        $0.body_case = NFVACTOR__V1__COMMAND__BODY_SET_MIGRATION_TARGET
        $0.set_migration_target = make(nfvactor__v1__flow_move__init) {
          $0.source = life(move.source, move.sourceIncarnation)
          $0.target = life(move.target, move.targetIncarnation)
          $0.flows = move.flows
        }
      case .cancelMigration(let slot):
        $0.body_case = NFVACTOR__V1__COMMAND__BODY_CANCEL_MIGRATION
        $0.cancel_migration = make(nfvactor__v1__cancel_migration__init) { $0.slot = slot.number }
      case .changeSettings(let change):
        $0.body_case = NFVACTOR__V1__COMMAND__BODY_CHANGE_SETTINGS
        $0.change_settings = make(nfvactor__v1__settings_change__init) {
          $0.version = change.version
          $0.n_functions = change.functions.count
          $0.functions = list(change.functions, function)
        }
      case .setReplicas(let assignment):
        $0.body_case = NFVACTOR__V1__COMMAND__BODY_SET_REPLICAS
        $0.set_replicas = make(nfvactor__v1__replica_assignment__init) {
          $0.owner = life(assignment.owner)
          if let holder = assignment.holder { $0.holder = life(holder) }
          if let second = assignment.second { $0.second = life(second) }
        }
      case .recover(let recovery):
        $0.body_case = NFVACTOR__V1__COMMAND__BODY_RECOVER
        $0.recover = make(nfvactor__v1__recovery__init) {
          $0.lost = life(recovery.lost)
          if let by = recovery.by { $0.by = life(by) }
          if let standby = recovery.standby { $0.standby = life(standby) }
        }
      case .unknown:
        break  // `encode` has written its record as it was.
      }
    }
  }

  func table(_ table: ClusterTable) -> UnsafeMutablePointer<Nfvactor__V1__ClusterTable> {
    make(nfvactor__v1__cluster_table__init) {
      $0.version = table.version
      if case .only(let holder) = table.uplinks {
        $0.uplinks = make(nfvactor__v1__uplink_holder__init) { if let holder { $0.life = life(holder) } }
      }
      $0.n_members = table.members.count
      $0.members = list(table.members) { member in
        make(nfvactor__v1__member__init) {
          $0.node = member.node.number
          $0.kind = kind(member.kind)
          $0.incarnation = member.incarnation.number
          $0.host = text(member.host.name)
          $0.state = Nfvactor__V1__Member__State(rawValue: UInt32(member.state.rawValue))
          if let known = member.ports { $0.ports = ports(known) }
          $0.active_flows = member.load.activeFlows
          $0.busy_share = member.load.busyShare
          $0.drops_per_second = member.load.dropsPerSecond
          if let share = member.poolShare {
            $0.pool_share = make(nfvactor__v1__pool_share__init) {
              $0.index = share.index
              $0.count = share.count
            }
          }
        }
      }
    }
  }

  private func launch(_ spec: LaunchSpec) -> UnsafeMutablePointer<Nfvactor__V1__Launch> {
    make(nfvactor__v1__launch__init) {
      $0.cluster = text(spec.cluster.name)
      $0.life = life(spec.node, spec.incarnation)
      $0.kind = kind(spec.kind)
      $0.host = text(spec.host.name)
      $0.chain = chain(spec.chain)
      $0.pool_share_index = spec.poolShare.index
      $0.pool_share_count = spec.poolShare.count
      if let known = spec.network { $0.network = network(known) }
      $0.heartbeat_interval = spec.heartbeatInterval
      $0.workload_interval = spec.workloadInterval
      $0.polling = polling(spec.polling)
      $0.replicas = spec.replicas
    }
  }
}

extension MessageReader {
  func command(_ message: Nfvactor__V1__Command, _ record: [UInt8]) throws(CodecError) -> Command {
    try check(version: message.version)
    guard message.slot != 0 else { throw .missing(field: "slot") }
    // A kind of target that this version does not know cannot be this process; the slot still counts.
    var isKnown = true
    let target: Command.Target
    switch message.target_case {
    case NFVACTOR__V1__COMMAND__TARGET_TARGET_CLUSTER: target = .cluster
    case NFVACTOR__V1__COMMAND__TARGET_TARGET_HOST: target = .host(try host(message.target_host, "target_host"))
    case NFVACTOR__V1__COMMAND__TARGET_TARGET_NODE:
      let (node, incarnation) = try life(required(message.target_node, "target_node"), "target_node")
      target = .node(node, incarnation)
    default:
      target = .cluster
      isKnown = false
    }
    return Command(
      slot: Slot(message.slot),
      decision: DecisionID(offset: Offset(message.decision_offset), index: message.decision_index),
      target: target, expiry: Timestamp(milliseconds: message.expiry), reason: try text(message.reason, "reason"),
      correlation: try text(message.correlation, "correlation"), stateHash: message.state_hash,
      body: isKnown
        ? try body(message, record) : .unknown(UnknownBody(tag: message.body_case.rawValue, record: record)))
  }

  private func body(_ message: Nfvactor__V1__Command, _ record: [UInt8]) throws(CodecError) -> Command.Body {
    switch message.body_case {
    case NFVACTOR__V1__COMMAND__BODY_NOTIFY_CLUSTER_CONFIG:
      return .notifyClusterConfig(try table(required(message.notify_cluster_config, "notify_cluster_config")))
    case NFVACTOR__V1__COMMAND__BODY_LAUNCH_RUNTIME:
      return .launchRuntime(try launch(required(message.launch_runtime, "launch_runtime"), .runtime))
    case NFVACTOR__V1__COMMAND__BODY_LAUNCH_SWITCH:
      return .launchSwitch(try launch(required(message.launch_switch, "launch_switch"), .virtualSwitch))
    case NFVACTOR__V1__COMMAND__BODY_STOP_NODE:
      let (node, incarnation) = try life(required(message.stop_node, "stop_node"), "stop_node")
      return .stopNode(node, incarnation)
    case NFVACTOR__V1__COMMAND__BODY_FENCE:
      let (node, incarnation) = try life(required(message.fence, "fence"), "fence")
      return .fence(node, incarnation)
    case NFVACTOR__V1__COMMAND__BODY_DRAIN_RUNTIME:
      let (node, incarnation) = try life(required(message.drain_runtime, "drain_runtime"), "drain_runtime")
      return .drainRuntime(node, incarnation)
    case NFVACTOR__V1__COMMAND__BODY_SET_MIGRATION_TARGET:
      let body = try required(message.set_migration_target, "set_migration_target")
      let (source, sourceLife) = try life(required(body.source, "set_migration_target.source"), "set_migration_target.source")
      let (target, targetLife) = try life(required(body.target, "set_migration_target.target"), "set_migration_target.target")
      return .setMigrationTarget(
        FlowMove(source: source, sourceIncarnation: sourceLife, target: target, targetIncarnation: targetLife, flows: body.flows))
    case NFVACTOR__V1__COMMAND__BODY_CANCEL_MIGRATION:
      return .cancelMigration(Slot(try required(message.cancel_migration, "cancel_migration").slot))
    case NFVACTOR__V1__COMMAND__BODY_CHANGE_SETTINGS:
      let change = try required(message.change_settings, "change_settings")
      return .changeSettings(
        SettingsChange(
          version: change.version,
          functions: try values(change.functions, count: change.n_functions, atMost: 64, "change_settings.functions", function)))
    case NFVACTOR__V1__COMMAND__BODY_SET_REPLICAS:
      let body = try required(message.set_replicas, "set_replicas")
      return .setReplicas(
        ReplicaAssignment(
          owner: try nodeLife(required(body.owner, "set_replicas.owner"), "set_replicas.owner"),
          holder: try nodeLife(ifPresent: body.holder, "set_replicas.holder"),
          second: try nodeLife(ifPresent: body.second, "set_replicas.second")))
    case NFVACTOR__V1__COMMAND__BODY_RECOVER:
      let body = try required(message.recover, "recover")
      return .recover(
        Recovery(
          lost: try nodeLife(required(body.lost, "recover.lost"), "recover.lost"),
          by: try nodeLife(ifPresent: body.by, "recover.by"), standby: try nodeLife(ifPresent: body.standby, "recover.standby")))
    default:
      return .unknown(try unknownBody(message.base, record: record))
    }
  }

  func table(_ message: Nfvactor__V1__ClusterTable) throws(CodecError) -> ClusterTable {
    let members = try values(message.members, count: message.n_members, atMost: 1_024, "members") {
      member throws(CodecError) in
      var ports: NodePorts?
      if let known = member.ports { ports = self.ports(known.pointee) }
      return ClusterTable.Member(
        node: try node(member.node, "members.node"), kind: try kind(member.kind, "members.kind"),
        incarnation: Incarnation(member.incarnation), host: try host(member.host, "members.host"),
        state: try choice(member.state.rawValue, "members.state"), ports: ports,
        load: ClusterTable.Load(
          activeFlows: member.active_flows, busyShare: member.busy_share, dropsPerSecond: member.drops_per_second),
        poolShare: member.pool_share.flatMap { PoolShare(index: $0.pointee.index, of: $0.pointee.count) })
    }
    var table = ClusterTable(version: message.version, members: members)
    if let holder = message.uplinks { table.uplinks = .only(try nodeLife(ifPresent: holder.pointee.life, "uplinks.life")) }
    return table
  }

  private func launch(_ message: Nfvactor__V1__Launch, _ expected: NodeKind) throws(CodecError) -> LaunchSpec {
    let (node, incarnation) = try life(required(message.life, "launch.life"), "launch.life")
    let kind = try kind(message.kind, "launch.kind")
    guard kind == expected else { throw .invalid(field: "launch.kind", reason: "is not the kind of the command") }
    guard let share = PoolShare(index: message.pool_share_index, of: message.pool_share_count) else {
      throw .invalid(field: "launch.pool_share", reason: "\(message.pool_share_index) of \(message.pool_share_count)")
    }
    guard (1...60_000).contains(message.heartbeat_interval), (1...60_000).contains(message.workload_interval) else {
      throw .invalid(field: "launch", reason: "an interval is not from 1 to 60000 ms")
    }
    var network: NetworkSpec?
    if let known = message.network { network = try self.network(known.pointee) }
    return LaunchSpec(
      cluster: try cluster(message.cluster, "launch.cluster"), node: node, incarnation: incarnation, kind: kind,
      host: try host(message.host, "launch.host"), chain: try chain(required(message.chain, "launch.chain")), poolShare: share,
      network: network, heartbeatInterval: message.heartbeat_interval, workloadInterval: message.workload_interval,
      polling: try choice(message.polling.rawValue, "launch.polling"), replicas: message.replicas)
  }
}
