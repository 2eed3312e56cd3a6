import CSchemas
import ControlMessages

extension MessageWriter {
  func policy(_ policy: ScalingPolicy) -> UnsafeMutablePointer<Nfvactor__V1__ScalingPolicy> {
    make(nfvactor__v1__scaling_policy__init) {
      switch policy.kind {
      case .manual:
        $0.kind_case = NFVACTOR__V1__SCALING_POLICY__KIND_MANUAL
        $0.manual = make(nfvactor__v1__scaling_policy__manual__init)
      case .dropThreshold(let rule):
        $0.kind_case = NFVACTOR__V1__SCALING_POLICY__KIND_DROP_THRESHOLD
        $0.drop_threshold = make(nfvactor__v1__scaling_policy__drop_threshold__init) {
          $0.drops = rule.drops
          $0.n_reasons = rule.reasons.count
          $0.reasons = texts(rule.reasons)
          $0.idle_busy_share = rule.idleBusyShare
        }
      case .targetUtilisation(let rule):
        $0.kind_case = NFVACTOR__V1__SCALING_POLICY__KIND_TARGET_UTILISATION
        $0.target_utilisation = make(nfvactor__v1__scaling_policy__target_utilisation__init) {
          $0.busy_share = rule.busyShare
          $0.tolerance = rule.tolerance
        }
      }
      $0.minimum_runtimes = policy.minimumRuntimes
      $0.maximum_runtimes = policy.maximumRuntimes
      $0.cooldown = policy.cooldown
      $0.overload_patience = policy.overloadPatience
      $0.idle_patience = policy.idlePatience
      $0.flows_per_move = policy.flowsPerMove
      $0.concurrent_moves = policy.concurrentMoves
      $0.drain_timeout = policy.drainTimeout
    }
  }
}

extension MessageReader {
  func policy(_ message: Nfvactor__V1__ScalingPolicy) throws(CodecError) -> ScalingPolicy {
    let kind: ScalingPolicy.Kind
    switch message.kind_case {
    case NFVACTOR__V1__SCALING_POLICY__KIND_MANUAL:
      kind = .manual
    case NFVACTOR__V1__SCALING_POLICY__KIND_DROP_THRESHOLD:
      let body = try required(message.drop_threshold, "policy.drop_threshold")
      var rule = ScalingPolicy.DropThreshold()
      rule.drops = body.drops
      rule.reasons = try texts(body.reasons, count: body.n_reasons, atMost: 64, "policy.drop_threshold.reasons")
      rule.idleBusyShare = body.idle_busy_share
      kind = .dropThreshold(rule)
    case NFVACTOR__V1__SCALING_POLICY__KIND_TARGET_UTILISATION:
      let body = try required(message.target_utilisation, "policy.target_utilisation")
      var rule = ScalingPolicy.TargetUtilisation()
      rule.busyShare = body.busy_share
      rule.tolerance = body.tolerance
      kind = .targetUtilisation(rule)
    default: throw .missing(field: "policy.kind")
    }
    var policy = ScalingPolicy(kind)
    policy.minimumRuntimes = message.minimum_runtimes
    policy.maximumRuntimes = message.maximum_runtimes
    policy.cooldown = message.cooldown
    policy.overloadPatience = message.overload_patience
    policy.idlePatience = message.idle_patience
    policy.flowsPerMove = message.flows_per_move
    policy.concurrentMoves = message.concurrent_moves
    policy.drainTimeout = message.drain_timeout
    if let problem = policy.problem { throw .invalid(field: "policy", reason: problem) }
    return policy
  }
}
