// What happens to a flow seldom: it is admitted, its connection changes, its rules change, it moves, it ends.

import NetworkFunctions
import Wire

extension Firewall {
  // MARK: Admission

  /// A flow that the present rule set has not spoken about: a new one, or one that an earlier rule set admitted.
  @usableFromInline @inline(never)
  func admit(_ frame: inout Frame, _ flow: inout FlowState, _ shared: inout SharedState) -> Verdict {
    let isNew = flow.generation == RuleGeneration.none
    if isNew {
      flow.openedInReverse = frame.direction.rawValue
      if let reason = obstacle(to: frame) { return .drop(reason) }
    } else if flow.generation == shared.generation | RuleGeneration.denied {
      return .drop(Firewall.deniedByRule)
    }
    let key = ClassificationKey(frame, openedFrom: flow.opener)
    let decision = shared.ruleSet.decision(for: key)
    if decision.isLogged, let rule = decision.rule {
      shared.log.write(
        FirewallLogEntry(time: frame.arrival, key: key, action: decision.action, rule: UInt32(truncatingIfNeeded: rule)))
    }
    guard decision.action == .allow else {
      shared.denied &+= 1
      if !isNew {
        shared.revoked &+= 1
        flow.generation = shared.generation | RuleGeneration.denied
      }
      return .drop(Firewall.deniedByRule)
    }
    shared.allowed &+= 1
    flow.generation = shared.generation
    guard isNew else { return .forward }
    flow.clientBucket = HalfOpenConnections.bucket(of: key.source)
    if frame.protocolNumber != IPProtocol.tcp { flow.connection.stateCode = PseudoState.unanswered.rawValue }
    return .forward
  }

  /// Why the packet cannot be the first of a flow. What is no beginning is not worth a look at the rules.
  private func obstacle(to frame: borrowing Frame) -> DropReason? {
    switch frame.protocolNumber {
    case IPProtocol.tcp:
      switch TCPSegment.kind(of: frame.tcpFlags) {
      case .syn: nil
      case .malformed: Firewall.invalidTCPFlags
      case .synAck, .ack, .fin, .rst: .notConnectionStart
      }
    case IPProtocol.icmp, IPProtocol.icmpv6: frame.isICMPEchoRequest ? nil : Firewall.icmpNotEcho
    default: nil
    }
  }

  // MARK: Connections

  /// A segment that may change the state of its connection.
  @inline(__always)
  func change(
    _ segment: TCPSegment, _ way: Direction, _ flow: inout FlowState, _ shared: inout SharedState
  ) -> Verdict {
    let before = flow.connection
    let ruling = flow.connection.handleChange(segment, way, shared.steps[before.state, way, segment.kind])
    if before.isHalfOpen != flow.connection.isHalfOpen {
      if before.isHalfOpen {
        shared.halfOpen.remove(flow.clientBucket)
      } else if !shared.halfOpen.admit(flow.clientBucket) {
        flow.connection = before
        return .drop(Firewall.halfOpenLimit)
      }
    }
    return switch ruling {
    case .accept: .forward
    case .notConnectionStart: .drop(.notConnectionStart)
    case .invalidState: .drop(Firewall.invalidTCPState)
    case .invalidFlags: .drop(Firewall.invalidTCPFlags)
    case .resetOutOfWindow: .drop(Firewall.resetOutOfWindow)
    }
  }

  // MARK: Rules

  /// Puts another rule set in the place of the present one. Called between two bursts, by the worker's thread.
  public func replaceRules(_ ruleSet: FirewallRuleSet, shared: inout SharedState) {
    var ruleSet = ruleSet
    exchangeRules(&ruleSet, shared: &shared)
  }

  /// The same, and hands back what it had: freeing a large rule set takes its time, which is not the worker's.
  public func exchangeRules(_ ruleSet: inout FirewallRuleSet, shared: inout SharedState) {
    swap(&shared.ruleSet, &ruleSet)
    shared.replacements &+= 1
    guard established == .reevaluate else { return }
    shared.generation = shared.generation == RuleGeneration.last ? RuleGeneration.first : shared.generation + 1
  }

  // MARK: Fates

  public func flowExpires(_ flow: inout FlowState, shared: inout SharedState, now: Tick) { leave(flow, &shared) }
  public func flowMigratesOut(_ flow: inout FlowState, shared: inout SharedState) { leave(flow, &shared) }
  public func flowMigratesIn(_ flow: inout FlowState, shared: inout SharedState) { arrive(&flow, &shared) }
  public func flowRecovers(_ flow: inout FlowState, shared: inout SharedState) { arrive(&flow, &shared) }

  private func leave(_ flow: FlowState, _ shared: inout SharedState) {
    if flow.connection.isHalfOpen { shared.halfOpen.remove(flow.clientBucket) }
  }

  /// The number of the rule set that admitted the flow meant something where it comes from.
  private func arrive(_ flow: inout FlowState, _ shared: inout SharedState) {
    if flow.connection.isHalfOpen { shared.halfOpen.add(flow.clientBucket) }
    guard flow.generation != RuleGeneration.none else { return }
    flow.generation = established == .keep ? shared.generation : RuleGeneration.unknown
  }
}
