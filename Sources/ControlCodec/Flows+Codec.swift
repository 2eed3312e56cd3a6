import CSchemas
import ControlMessages
import ControlPlane

// What is said and kept about migrations: operators' requests, and what became of them.

extension MessageWriter {
  func move(_ request: MoveRequest) -> UnsafeMutablePointer<Nfvactor__V1__MoveRequested> {
    make(nfvactor__v1__move_requested__init) {
      $0.source = request.source.number
      $0.target = request.target.number
      $0.flows = request.flows
    }
  }

  func drain(_ request: DrainRequest) -> UnsafeMutablePointer<Nfvactor__V1__DrainRequested> {
    make(nfvactor__v1__drain_requested__init) {
      $0.node = request.node.number
      switch request.afterwards {
      case .keep:
        $0.then_case = NFVACTOR__V1__DRAIN_REQUESTED__THEN_KEEP
        $0.keep = make(nfvactor__v1__drain_requested__keep__init)
      case .stop:
        $0.then_case = NFVACTOR__V1__DRAIN_REQUESTED__THEN_STOP
        $0.stop = make(nfvactor__v1__drain_requested__stop__init)
      case .undo:
        $0.then_case = NFVACTOR__V1__DRAIN_REQUESTED__THEN_UNDO
        $0.undo = make(nfvactor__v1__drain_requested__undo__init)
      }
    }
  }

  func finished(_ end: MigrationFinished) -> UnsafeMutablePointer<Nfvactor__V1__MigrationFinished> {
    make(nfvactor__v1__migration_finished__init) {
      $0.slot = end.slot.number
      $0.node = end.node.number
      $0.wanted = end.wanted
      $0.moved = end.moved
      $0.refused = end.refused
      $0.returned = end.returned
      $0.bytes = end.bytes
      $0.missed_deadlines = end.missedDeadlines
      $0.microseconds = end.microseconds
      $0.cancelled = end.isCancelled ? 1 : 0
      $0.target_ended = end.targetEnded ? 1 : 0
      $0.paused = end.paused
      $0.pause_p50_microseconds = end.pauseP50
      $0.pause_p99_microseconds = end.pauseP99
      $0.longest_pause_microseconds = end.longestPause
    }
  }

  func request(_ request: ClusterState.FlowRequest) -> UnsafeMutablePointer<Nfvactor__V1__FlowRequest> {
    make(nfvactor__v1__flow_request__init) {
      $0.offset = request.offset.value
      $0.correlation = text(request.correlation)
      switch request.wish {
      case .move(let wish):
        $0.kind_case = NFVACTOR__V1__FLOW_REQUEST__KIND_MOVE
        $0.move = move(wish)
      case .drain(let wish):
        $0.kind_case = NFVACTOR__V1__FLOW_REQUEST__KIND_DRAIN
        $0.drain = drain(wish)
      }
      $0.moved = request.moved
      switch request.outcome {
      case .open:
        $0.outcome_case = NFVACTOR__V1__FLOW_REQUEST__OUTCOME_OPEN
        $0.open = make(nfvactor__v1__flow_request__open__init)
      case .completed:
        $0.outcome_case = NFVACTOR__V1__FLOW_REQUEST__OUTCOME_COMPLETED
        $0.completed = make(nfvactor__v1__flow_request__completed__init)
      case .failed(let reason):
        $0.outcome_case = NFVACTOR__V1__FLOW_REQUEST__OUTCOME_FAILED
        $0.failed = make(nfvactor__v1__flow_request__failed__init) { $0.reason = text(reason) }
      }
      $0.asked_at = request.askedAt.milliseconds
      $0.ended_at = request.endedAt.milliseconds
    }
  }

  func move(_ move: ClusterState.Move) -> UnsafeMutablePointer<Nfvactor__V1__MoveState> {
    make(nfvactor__v1__move_state__init) {
      $0.source = life(move.source, move.sourceIncarnation)
      $0.target = life(move.target, move.targetIncarnation)
      $0.goal = move.goal
      $0.asked = move.asked
      $0.slot = move.slot.number
      $0.deadline = move.deadline
      $0.done = move.done
      $0.drains = move.drains ? 1 : 0
      if let request = move.request {
        $0.cause_case = NFVACTOR__V1__MOVE_STATE__CAUSE_REQUEST
        $0.request = request.value
      }
    }
  }
}

extension MessageReader {
  func move(_ message: Nfvactor__V1__MoveRequested) throws(CodecError) -> MoveRequest {
    MoveRequest(
      source: try node(message.source, "move_requested.source"), target: try node(message.target, "move_requested.target"),
      flows: message.flows)
  }

  func drain(_ message: Nfvactor__V1__DrainRequested) throws(CodecError) -> DrainRequest {
    let afterwards: DrainRequest.Afterwards
    switch message.then_case {
    case NFVACTOR__V1__DRAIN_REQUESTED__THEN_KEEP: afterwards = .keep
    case NFVACTOR__V1__DRAIN_REQUESTED__THEN_STOP: afterwards = .stop
    case NFVACTOR__V1__DRAIN_REQUESTED__THEN_UNDO: afterwards = .undo
    default: throw .missing(field: "drain_requested.then")
    }
    return DrainRequest(node: try node(message.node, "drain_requested.node"), afterwards: afterwards)
  }

  func finished(_ message: Nfvactor__V1__MigrationFinished) throws(CodecError) -> MigrationFinished {
    guard message.slot != 0 else { throw .missing(field: "migration_finished.slot") }
    var end = MigrationFinished(slot: Slot(message.slot), node: try node(message.node, "migration_finished.node"))
    end.wanted = message.wanted
    end.moved = message.moved
    end.refused = message.refused
    end.returned = message.returned
    end.bytes = message.bytes
    end.missedDeadlines = message.missed_deadlines
    end.microseconds = message.microseconds
    end.isCancelled = message.cancelled != 0
    end.targetEnded = message.target_ended != 0
    end.paused = message.paused
    end.pauseP50 = message.pause_p50_microseconds
    end.pauseP99 = message.pause_p99_microseconds
    end.longestPause = message.longest_pause_microseconds
    return end
  }

  func request(_ message: Nfvactor__V1__FlowRequest) throws(CodecError) -> ClusterState.FlowRequest {
    let wish: ClusterState.FlowRequest.Wish
    switch message.kind_case {
    case NFVACTOR__V1__FLOW_REQUEST__KIND_MOVE: wish = .move(try move(required(message.move, "requests.move")))
    case NFVACTOR__V1__FLOW_REQUEST__KIND_DRAIN: wish = .drain(try drain(required(message.drain, "requests.drain")))
    default: throw .missing(field: "requests.kind")
    }
    var request = ClusterState.FlowRequest(
      offset: Offset(message.offset), correlation: try text(message.correlation, "requests.correlation"), wish: wish,
      askedAt: Timestamp(milliseconds: message.asked_at))
    request.moved = message.moved
    request.endedAt = Timestamp(milliseconds: message.ended_at)
    switch message.outcome_case {
    case NFVACTOR__V1__FLOW_REQUEST__OUTCOME_OPEN: request.outcome = .open
    case NFVACTOR__V1__FLOW_REQUEST__OUTCOME_COMPLETED: request.outcome = .completed
    case NFVACTOR__V1__FLOW_REQUEST__OUTCOME_FAILED:
      request.outcome = .failed(try text(required(message.failed, "requests.failed").reason, "requests.failed.reason"))
    default: throw .missing(field: "requests.outcome")
    }
    return request
  }

  func move(_ move: Nfvactor__V1__MoveState) throws(CodecError) -> ClusterState.Move {
    let (source, sourceLife) = try life(required(move.source, "scaling.moves.source"), "scaling.moves.source")
    let (target, targetLife) = try life(required(move.target, "scaling.moves.target"), "scaling.moves.target")
    var value = ClusterState.Move(
      source: source, sourceIncarnation: sourceLife, target: target, targetIncarnation: targetLife, goal: move.goal,
      drains: move.drains != 0,
      request: move.cause_case == NFVACTOR__V1__MOVE_STATE__CAUSE_REQUEST ? Offset(move.request) : nil)
    value.asked = move.asked
    value.slot = Slot(move.slot)
    value.deadline = move.deadline
    value.done = move.done
    return value
  }
}
