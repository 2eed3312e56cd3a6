import CSchemas
import ControlMessages
import ControlPlane

// A core's whole state as bytes: what the parts of a snapshot hold together. Whoever folds on from the decoded core
// comes to the same commands and the same hash as whoever folded from the beginning.

extension RecordCodec {
  /// A reader that does not know the format starts from the log's beginning instead.
  static let coreFormat: UInt32 = 1
  /// A thousand hosts, four thousand producers and a spec of a megabyte fit well.
  static let maximumCoreSize = 16_000_000

  public static func encode(_ core: ClusterCore) -> [UInt8] {
    let writer = MessageWriter()
    return writer.pack(writer.core(core), nfvactor__v1__core_state__get_packed_size, nfvactor__v1__core_state__pack)
  }

  public static func decodeCore(_ bytes: [UInt8]) throws(CodecError) -> ClusterCore {
    guard bytes.count <= maximumCoreSize else { throw .tooLarge(bytes: bytes.count) }
    let arena = MessageArena(limit: MessageReader.memoryLimit(recordSize: bytes.count))
    guard let message = arena.unpack(bytes, with: nfvactor__v1__core_state__unpack) else { throw .malformed }
    defer { withExtendedLifetime(arena) {} }
    return try MessageReader(arena: arena).core(message.pointee)
  }
}

extension MessageWriter {
  func core(_ core: ClusterCore) -> UnsafeMutablePointer<Nfvactor__V1__CoreState> {
    let state = core.state
    return make(nfvactor__v1__core_state__init) {
      $0.format = RecordCodec.coreFormat
      $0.cluster = text(state.cluster.name)
      $0.position = core.position?.value ?? 0
      $0.state_hash = core.hash.value
      $0.log_hash = core.logHash.value
      $0.rules = state.rules
      if let known = state.spec { $0.spec = spec(known) }
      if let known = state.pendingSpec { $0.pending_spec = spec(known) }
      $0.n_pending_changes = state.pendingChanges.count
      $0.pending_changes = texts(state.pendingChanges)
      $0.deleted = state.isDeleted ? 1 : 0
      $0.correlation = text(state.correlation)
      $0.scaling = scaling(state.scaling)
      $0.n_requests = state.requests.count
      $0.requests = list(state.requests, request)
      $0.now = state.clock.now.milliseconds
      $0.elapsed = state.clock.elapsed
      $0.stalled = state.clock.stalled
      $0.last_stall = state.clock.lastStall
      $0.n_hosts = state.hosts.count
      $0.hosts = list(state.hosts, host)
      $0.n_nodes = state.nodes.count
      $0.nodes = list(state.nodes, node)
      $0.n_abandoned = state.abandoned.count
      $0.abandoned = list(state.abandoned, abandoned)
      $0.n_replicas = state.replicas.count
      $0.replicas = list(state.replicas) { replica in
        make(nfvactor__v1__replica_state__init) {
          $0.producer = text(replica.producer.name)
          $0.last_heard = replica.lastHeard
          $0.rules = replica.rules
        }
      }
      $0.n_deaths = state.deaths.count
      $0.deaths = list(state.deaths) { death in
        make(nfvactor__v1__death_declared__init) {
          $0.life = life(death.node, death.incarnation)
          $0.timestamp = death.timestamp.milliseconds
          $0.silence = death.silence
          $0.evidence = text(death.evidence)
        }
      }
      $0.last_declared = state.lastDeclared
      if let since = state.manySilentSince {
        $0.mass_silence_case = NFVACTOR__V1__CORE_STATE__MASS_SILENCE_MANY_SILENT_SINCE
        $0.many_silent_since = since
      }
      $0.n_lost_lives = state.lostLives.count
      $0.lost_lives = list(state.lostLives, lost)
      if let since = state.stillSince {
        $0.stillness_case = NFVACTOR__V1__CORE_STATE__STILLNESS_STILL_SINCE
        $0.still_since = since.number
      }
      $0.n_unanswered_moves = state.unansweredMoves.count
      $0.unanswered_moves = list(state.unansweredMoves) { move in
        make(nfvactor__v1__unanswered_move__init) {
          $0.source = life(move.source)
          $0.slot = move.slot.number
        }
      }
      $0.last_slot = state.lastSlot.number
      $0.table = table(state.table)
      $0.table_sent = state.tableSent
      $0.next_node = state.nextNode
      $0.n_seen = state.seen.entries.count
      $0.seen = list(state.seen.entries) { entry in
        make(nfvactor__v1__seen_producer__init) {
          $0.producer = text(entry.producer.name)
          $0.incarnation = entry.incarnation.number
          $0.facts = entry.facts
          $0.signals = entry.signals
          $0.last_offset = entry.lastOffset.value
        }
      }
      $0.repeated_events = state.ignored.repeated
      $0.unknown_events = state.ignored.unknown
      $0.misdirected_events = state.ignored.misdirected
      $0.settings_version = state.settingsVersion
      $0.settings_told = state.settingsTold
      $0.settings_slot = state.settingsSlot.number
      if let body = state.needsNewerVersion {
        $0.needs_newer_version = make(nfvactor__v1__newer_body__init) {
          $0.tag = body.tag
          $0.record = binary(body.record)
          if !body.neededRelease.isEmpty { $0.needed_release = text(body.neededRelease) }
        }
      }
    }
  }

  private func host(_ host: ClusterState.Host) -> UnsafeMutablePointer<Nfvactor__V1__HostState> {
    make(nfvactor__v1__host_state__init) {
      $0.host = text(host.id.name)
      $0.cores = host.cores
      $0.runtime_ports = host.runtimePorts
      $0.switch_ports = host.switchPorts
      $0.agent_incarnation = host.agentIncarnation.number
      $0.last_heard = host.lastHeard
      $0.silent = host.isSilent ? 1 : 0
      $0.runtime_refused_until = host.runtimeRefusedUntil
      $0.switch_refused_until = host.switchRefusedUntil
      $0.refusal = text(host.refusal)
    }
  }

  private func request(_ stop: ClusterState.StopRequest) -> UnsafeMutablePointer<Nfvactor__V1__StopRequest> {
    make(nfvactor__v1__stop_request__init) {
      $0.slot = stop.slot.number
      $0.retry_at = stop.retryAt
      $0.attempts = stop.attempts
    }
  }

  private func node(_ node: ClusterState.Node) -> UnsafeMutablePointer<Nfvactor__V1__NodeState> {
    make(nfvactor__v1__node_state__init) {
      $0.node = node.id.number
      $0.kind = kind(node.kind)
      switch node.phase {
      case .waiting(let until):
        $0.phase_case = NFVACTOR__V1__NODE_STATE__PHASE_WAITING
        $0.waiting = make(nfvactor__v1__node_state__waiting__init) { $0.until = until }
      case .launching(let slot, let deadline):
        $0.phase_case = NFVACTOR__V1__NODE_STATE__PHASE_LAUNCHING
        $0.launching = make(nfvactor__v1__node_state__launching__init) {
          $0.slot = slot.number
          $0.deadline = deadline
        }
      case .serving(let since):
        $0.phase_case = NFVACTOR__V1__NODE_STATE__PHASE_SERVING
        $0.serving = make(nfvactor__v1__node_state__serving__init) { $0.since = since }
      case .stopping(let stop):
        $0.phase_case = NFVACTOR__V1__NODE_STATE__PHASE_STOPPING
        $0.stopping = make(nfvactor__v1__node_state__stopping__init) { if let stop { $0.request = request(stop) } }
      }
      $0.incarnation = node.incarnation.number
      $0.host = text(node.host?.name ?? "")
      if let share = node.poolShare {
        $0.share_case = NFVACTOR__V1__NODE_STATE__SHARE_POOL_SHARE
        $0.pool_share = share
      }
      if let known = node.ports { $0.ports = ports(known) }
      $0.process_id = node.processID
      $0.startup = node.startup
      $0.last_heard = node.lastHeard
      $0.silent = node.isSilent ? 1 : 0
      $0.leaving = node.isLeaving ? 1 : 0
      $0.worker_loops = node.workerLoops
      $0.loops_moved_at = node.loopsMovedAt
      if let load = node.workload { $0.workload = workload(load) }
      $0.acknowledged = node.acknowledged.number
      $0.failures = node.failures
      $0.last_problem = text(node.lastProblem)
      $0.can_migrate = node.canMigrate ? 1 : 0
      if let drain = node.drain {
        $0.draining = make(nfvactor__v1__node_state__draining__init) {
          $0.since = drain.since
          $0.deadline = drain.deadline
          $0.kept = drain.isKept ? 1 : 0
        }
      }
      $0.settings_version = node.settingsVersion
      $0.settings_problem = text(node.settingsProblem)
      $0.n_backends = node.backends.count
      $0.backends = list(node.backends) { backend in
        make(nfvactor__v1__backend_state__init) {
          $0.service = text(backend.service)
          $0.backend = text(backend.backend)
          $0.up = backend.isUp ? 1 : 0
          $0.reason = text(backend.reason)
          $0.since = backend.since.milliseconds
        }
      }
      if let known = node.peerWitness { $0.peer_witness = witness(known) }
      $0.can_replicate = node.canReplicate ? 1 : 0
      if let known = node.protection { $0.protection = protection(known) }
      $0.n_unheard_by = node.unheardBy.count
      $0.unheard_by = list(node.unheardBy, witness)
    }
  }

  private func witness(_ witness: ClusterState.PeerWitness) -> UnsafeMutablePointer<Nfvactor__V1__PeerWitness> {
    make(nfvactor__v1__peer_witness__init) {
      $0.by = witness.by.number
      $0.at = witness.at
      $0.since = witness.since
    }
  }

  private func abandoned(_ abandoned: ClusterState.AbandonedLife) -> UnsafeMutablePointer<Nfvactor__V1__AbandonedLife> {
    make(nfvactor__v1__abandoned_life__init) {
      $0.life = life(abandoned.node, abandoned.incarnation)
      $0.kind = kind(abandoned.kind)
      $0.host = text(abandoned.host.name)
      if let share = abandoned.poolShare {
        $0.share_case = NFVACTOR__V1__ABANDONED_LIFE__SHARE_POOL_SHARE
        $0.pool_share = share
      }
      if let stop = abandoned.stop { $0.stop = request(stop) }
      $0.declared_dead = abandoned.isDeclaredDead ? 1 : 0
    }
  }

  private func scaling(_ scaling: ClusterState.Scaling) -> UnsafeMutablePointer<Nfvactor__V1__ScalingState> {
    make(nfvactor__v1__scaling_state__init) {
      if let known = scaling.policy { $0.policy = policy(known) }
      $0.version = scaling.version.value
      if let target = scaling.target {
        $0.wanted_case = NFVACTOR__V1__SCALING_STATE__WANTED_TARGET
        $0.target = target
      }
      $0.last_action = scaling.lastAction
      if let since = scaling.idleSince {
        $0.idle_case = NFVACTOR__V1__SCALING_STATE__IDLE_IDLE_SINCE
        $0.idle_since = since
      }
      if let since = scaling.overloadedSince {
        $0.overload_case = NFVACTOR__V1__SCALING_STATE__OVERLOAD_OVERLOADED_SINCE
        $0.overloaded_since = since
      }
      $0.n_moves = scaling.moves.count
      $0.moves = list(scaling.moves, move)
    }
  }
}
