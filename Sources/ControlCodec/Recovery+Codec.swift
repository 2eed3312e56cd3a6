import CSchemas
import ControlMessages
import ControlPlane

// What snapshots keep of replicas and recoveries, both ways.

extension MessageWriter {
  func protection(_ protection: ClusterState.Protection) -> UnsafeMutablePointer<Nfvactor__V1__Protection> {
    make(nfvactor__v1__protection__init) {
      if let holder = protection.holder { $0.holder = life(holder) }
      if let second = protection.second { $0.second = life(second) }
      if let kept = protection.kept { $0.kept = life(kept) }
      $0.slot = protection.slot.number
      $0.asked_at = protection.askedAt
      if let previous = protection.previous { $0.previous = life(previous) }
      switch protection.progress {
      case .asked:
        $0.progress_case = NFVACTOR__V1__PROTECTION__PROGRESS_ASKED
        $0.asked = make(nfvactor__v1__protection__asked__init)
      case .begun:
        $0.progress_case = NFVACTOR__V1__PROTECTION__PROGRESS_BEGUN
        $0.begun = make(nfvactor__v1__protection__begun__init)
      case .complete:
        $0.progress_case = NFVACTOR__V1__PROTECTION__PROGRESS_COMPLETE
        $0.complete = make(nfvactor__v1__protection__complete__init)
      case .refused(let reason, let until):
        $0.progress_case = NFVACTOR__V1__PROTECTION__PROGRESS_REFUSED
        $0.refused = make(nfvactor__v1__protection__refused__init) {
          $0.reason = text(reason)
          $0.until = until
        }
      }
    }
  }

  func lost(_ lost: ClusterState.LostLife) -> UnsafeMutablePointer<Nfvactor__V1__LostLife> {
    make(nfvactor__v1__lost_life__init) {
      $0.life = life(lost.life)
      if let share = lost.poolShare {
        $0.share_case = NFVACTOR__V1__LOST_LIFE__SHARE_POOL_SHARE
        $0.pool_share = share
      }
      $0.n_heirs = lost.heirs.count
      $0.heirs = list(lost.heirs) { life($0) }
      if let standby = lost.standby { $0.standby = life(standby) }
      switch lost.progress {
      case .untold:
        $0.progress_case = NFVACTOR__V1__LOST_LIFE__PROGRESS_UNTOLD
        $0.untold = make(nfvactor__v1__lost_life__untold__init)
      case .asked(let slot):
        $0.progress_case = NFVACTOR__V1__LOST_LIFE__PROGRESS_ASKED
        $0.asked = make(nfvactor__v1__lost_life__asked__init) { $0.slot = slot.number }
      case .settled(let slot):
        $0.progress_case = NFVACTOR__V1__LOST_LIFE__PROGRESS_SETTLED
        $0.settled = make(nfvactor__v1__lost_life__settled__init) { $0.slot = slot.number }
      }
      $0.recovered = lost.recovered
      $0.refused = lost.refused
      $0.problem = text(lost.problem)
      $0.ended_at = lost.endedAt.milliseconds
      $0.settled_at = lost.settledAt.milliseconds
      $0.n_clear = lost.clear.count
      $0.clear = list(lost.clear) { life($0) }
    }
  }
}

extension MessageReader {
  func protection(_ message: Nfvactor__V1__Protection) throws(CodecError) -> ClusterState.Protection {
    let progress: ClusterState.Protection.Progress
    switch message.progress_case {
    case NFVACTOR__V1__PROTECTION__PROGRESS_ASKED: progress = .asked
    case NFVACTOR__V1__PROTECTION__PROGRESS_BEGUN: progress = .begun
    case NFVACTOR__V1__PROTECTION__PROGRESS_COMPLETE: progress = .complete
    case NFVACTOR__V1__PROTECTION__PROGRESS_REFUSED:
      let refused = try required(message.refused, "protection.refused")
      progress = .refused(try text(refused.reason, "protection.refused.reason"), until: refused.until)
    default: throw .missing(field: "protection.progress")
    }
    return ClusterState.Protection(
      holder: try nodeLife(ifPresent: message.holder, "protection.holder"),
      second: try nodeLife(ifPresent: message.second, "protection.second"),
      kept: try nodeLife(ifPresent: message.kept, "protection.kept"), slot: Slot(message.slot), askedAt: message.asked_at,
      previous: try nodeLife(ifPresent: message.previous, "protection.previous"), progress: progress)
  }

  func lost(_ message: Nfvactor__V1__LostLife) throws(CodecError) -> ClusterState.LostLife {
    let progress: ClusterState.LostLife.Progress
    switch message.progress_case {
    case NFVACTOR__V1__LOST_LIFE__PROGRESS_UNTOLD: progress = .untold
    case NFVACTOR__V1__LOST_LIFE__PROGRESS_ASKED: progress = .asked(Slot(try required(message.asked, "lost_lives.asked").slot))
    case NFVACTOR__V1__LOST_LIFE__PROGRESS_SETTLED:
      progress = .settled(Slot(try required(message.settled, "lost_lives.settled").slot))
    default: throw .missing(field: "lost_lives.progress")
    }
    func lives(
      _ pointers: UnsafeMutablePointer<UnsafeMutablePointer<Nfvactor__V1__NodeLife>?>?, _ count: Int
    ) throws(CodecError) -> [NodeLife] {
      try values(pointers, count: count, atMost: 1_024, "lost_lives") { life throws(CodecError) in
        try nodeLife(life, "lost_lives")
      }
    }
    var lost = ClusterState.LostLife(
      life: try nodeLife(required(message.life, "lost_lives.life"), "lost_lives.life"),
      poolShare: message.share_case == NFVACTOR__V1__LOST_LIFE__SHARE_POOL_SHARE ? message.pool_share : nil,
      heirs: try lives(message.heirs, message.n_heirs), progress: progress, endedAt: Timestamp(milliseconds: message.ended_at))
    lost.standby = try nodeLife(ifPresent: message.standby, "lost_lives.standby")
    lost.recovered = message.recovered
    lost.refused = message.refused
    lost.problem = try text(message.problem, "lost_lives.problem")
    lost.settledAt = Timestamp(milliseconds: message.settled_at)
    lost.clear = try lives(message.clear, message.n_clear)
    return lost
  }
}
