// Events and commands in a line, for logs and terminals. Not a format: nothing reads it back.

extension Event.Body {
  /// Its name, such as `node-started`.
  public var name: String {
    switch self {
    case .clusterRegistered: "cluster-registered"
    case .clusterApplied: "cluster-applied"
    case .clusterDeleted: "cluster-deleted"
    case .agentStarted: "agent-started"
    case .agentHeartbeat: "agent-heartbeat"
    case .processExited: "process-exited"
    case .nodeStarted: "node-started"
    case .heartbeat: "heartbeat"
    case .workload: "workload"
    case .nodeStopping: "node-stopping"
    case .commandAcknowledged: "command-acknowledged"
    case .peerSilent: "peer-silent"
    case .rulesActivated: "rules-activated"
    case .policyActivated: "policy-activated"
    case .moveRequested: "move-requested"
    case .drainRequested: "drain-requested"
    case .migrationFinished: "migration-finished"
    case .functionLog: "function-log"
    case .backendChanged: "backend-changed"
    case .recoveryFinished: "recovery-finished"
    case .tick: "tick"
    case .beacon: "beacon"
    case .unknown: "unknown"
    }
  }

  /// What it says, without the name.
  public var summary: String {
    switch self {
    case .clusterRegistered(let cluster), .clusterDeleted(let cluster): "\(cluster)"
    case .clusterApplied(let spec):
      "\(spec.name): \(spec.runtimes) runtimes, \(spec.switches) switches, "
        + spec.chain.functions.map(\.kind).joined(separator: " -> ")
    case .agentStarted(let agent):
      "\(agent.host): \(agent.cores) cores, ports for \(agent.runtimePorts) runtimes and \(agent.switchPorts) switches"
    case .agentHeartbeat(let host): "\(host)"
    case .processExited(let exited):
      switch exited.ending {
      case .code(let code): "node \(exited.node) life \(exited.incarnation) on \(exited.host): code \(code)"
      case .signal(let signal): "node \(exited.node) life \(exited.incarnation) on \(exited.host): signal \(signal)"
      }
    case .nodeStarted(let started):
      "\(started.kind) \(started.node) on \(started.host), process \(started.processID), after \(started.startup) ms"
    case .heartbeat(let heartbeat): "node \(heartbeat.node), \(heartbeat.workerLoops) loops"
    case .workload(let load):
      "node \(load.node): \(load.forwardedPackets) packets forwarded, \(load.droppedPackets) dropped, "
        + "\(load.activeFlows) flows, \(load.busyShare / 10_000) % busy"
        + (load.replicasHeld > 0 ? ", \(load.replicasHeld) replicas held" : "")
        + (load.unprotectedFlows > 0 ? ", \(load.unprotectedFlows) flows unprotected" : "")
    case .nodeStopping(let node): "node \(node)"
    case .commandAcknowledged(let acknowledgement): "command \(acknowledgement.slot) \(acknowledgement.outcome.summary) by \(acknowledgement.by.summary)"
    case .peerSilent(let silent): "node \(silent.node) life \(silent.incarnation) does not answer node \(silent.by)"
    case .rulesActivated(let version): "decision rules \(version)"
    case .policyActivated(let policy): "\(policy.name), \(policy.minimumRuntimes) to \(policy.maximumRuntimes) runtimes"
    case .moveRequested(let move): "\(move.flows) flows of node \(move.source) to node \(move.target)"
    case .drainRequested(let drain):
      switch drain.afterwards {
      case .keep: "node \(drain.node), which stays"
      case .stop: "node \(drain.node), which then stops"
      case .undo: "node \(drain.node) serves again"
      }
    case .migrationFinished(let end):
      "slot \(end.slot): \(end.moved) of \(end.wanted) flows moved by node \(end.node) in \(end.microseconds) us, "
        + "\(end.refused) refused, \(end.returned) returned"
        + (end.paused == 0 ? "" : ", \(end.paused) paused, p99 \(end.pauseP99) us")
    case .functionLog(let log):
      "node \(log.node): " + (log.lost > 0 ? "\(log.lost) lost; " : "")
        + (log.entries.count > 3 ? "\(log.entries.count) entries: " : "") + log.entries.prefix(3).map(\.summary).joined(separator: "; ")
        + (log.entries.count > 3 ? "; ..." : "")
    case .backendChanged(let change):
      "\(change.backend) of \(change.service) is \(change.isUp ? "up" : "down") for node \(change.node): \(change.reason)"
    case .recoveryFinished(let end):
      "slot \(end.slot): \(end.recovered) flows of \(end.lost) recovered by node \(end.node) in \(end.microseconds) us, "
        + "\(end.onDemand) on demand, \(end.refused) refused"
    case .tick: ""
    case .beacon(let beacon): beacon.position.map { "folded up to \($0)" } ?? "nothing folded yet"
    case .unknown(let body): "body \(body.tag) of a newer version"
    }
  }
}

extension CommandAcknowledgement.Outcome {
  public var summary: String {
    switch self {
    case .received: "received"
    case .applied: "applied"
    case .rejected(let reason): "rejected (\(reason))"
    case .progress(let done, let all): "done \(done) of \(all)"
    case .completed: "completed"
    }
  }
}

extension CommandAcknowledgement.Acknowledger {
  public var summary: String {
    switch self {
    case .host(let host): "\(host)"
    case .node(let node): "node \(node)"
    }
  }
}

extension Command.Body {
  /// Its name, such as `launch-runtime`.
  public var name: String {
    switch self {
    case .notifyClusterConfig: "notify-cluster-config"
    case .launchRuntime: "launch-runtime"
    case .launchSwitch: "launch-switch"
    case .stopNode: "stop-node"
    case .fence: "fence"
    case .drainRuntime: "drain-runtime"
    case .setMigrationTarget: "set-migration-target"
    case .cancelMigration: "cancel-migration"
    case .changeSettings: "change-settings"
    case .setReplicas: "set-replicas"
    case .recover: "recover"
    case .unknown: "unknown"
    }
  }

  /// What it asks for, without the name.
  public var summary: String {
    switch self {
    case .notifyClusterConfig(let table):
      "table \(table.version): " + table.members.map { "\($0.kind) \($0.node) \($0.state)" }.joined(separator: ", ")
        + (table.uplinks == .unassigned ? "" : "; uplinks: \(table.uplinks)")
    case .launchRuntime(let launch), .launchSwitch(let launch):
      "node \(launch.node) life \(launch.incarnation) on \(launch.host)"
    case .setMigrationTarget(let move):
      "\(move.flows) flows from node \(move.source) life \(move.sourceIncarnation) to node \(move.target) life \(move.targetIncarnation)"
    case .cancelMigration(let slot): "of command \(slot)"
    case .changeSettings(let change): "settings \(change.version) of " + change.functions.map(\.kind).joined(separator: ", ")
    case .setReplicas(let assignment):
      "replicas of \(assignment.owner) on \(assignment.holder.map(\.description) ?? "nobody")"
        + (assignment.second.map { " and \($0)" } ?? "")
    case .recover(let recovery):
      "flows of \(recovery.lost) by \(recovery.by.map(\.description) ?? "nobody")"
        + (recovery.standby.map { ", \($0) stands by" } ?? "")
    case .stopNode(let node, let incarnation), .fence(let node, let incarnation), .drainRuntime(let node, let incarnation): "node \(node) life \(incarnation)"
    case .unknown(let body): "body \(body.tag) of a newer version"
    }
  }
}
