import ControlMessages

// Which lives are declared dead, from rules 2 on, and on what evidence.
//
//   the agent saw the process end          enough alone (`processExited`)
//   heartbeats come, the worker stands     enough alone: the node says so itself (from rules 7 on only while they come)
//   silence in log time                    only with a second witness: a peer on the data plane, or its host silent too
//
// Many silent at once are held back: more likely it is the log that some of them cannot reach.

extension ClusterState {
  /// A life that was declared dead, for people and for audits.
  public struct Death: Hashable, Sendable {
    public let node: NodeID
    public let incarnation: Incarnation
    /// Of the record that gave the last evidence.
    public let timestamp: Timestamp
    /// Milliseconds from the last sign that it was well to this.
    public let silence: UInt64
    public let evidence: String

    package init(node: NodeID, incarnation: Incarnation, timestamp: Timestamp, silence: UInt64, evidence: String) {
      self.node = node
      self.incarnation = incarnation
      self.timestamp = timestamp
      self.silence = silence
      self.evidence = evidence
    }
  }

  /// A node's word that it does not hear another one.
  public struct PeerWitness: Hashable, Sendable {
    public let by: NodeID
    /// `clock.elapsed` of its last word.
    public package(set) var at: UInt64
    /// From rules 4 on: of the first word of those that came without a long pause.
    public let since: UInt64

    package init(by: NodeID, at: UInt64, since: UInt64 = 0) {
      self.by = by
      self.at = at
      self.since = since
    }
  }

  enum Evidence: Hashable {
    case workerStands(UInt64)
    case silentToPeer(UInt64, NodeID)
    case silentWithHost(UInt64, HostID)
    /// It can be heard in the log and by hardly anybody else.
    case cutOff(UInt64, [NodeID])

    /// Milliseconds since the last sign that it was well.
    var silence: UInt64 {
      switch self {
      case .workerStands(let time), .silentToPeer(let time, _), .silentWithHost(let time, _), .cutOff(let time, _): time
      }
    }

    var sentence: String {
      switch self {
      case .workerStands(let time): "its worker has stood still for \(time) ms"
      case .silentToPeer(let time, let peer): "silent for \(time) ms, and node \(peer) gets no answer either"
      case .silentWithHost(let time, let host): "silent for \(time) ms, and so is \(host)"
      case .cutOff(let time, let witnesses):
        "nodes \(witnesses.map(\.description).joined(separator: ", ")), who hear each other, have not heard it for \(time) ms"
      }
    }
  }

  static let rememberedDeaths = 64

  mutating func heard(nodeAt index: Int) {
    excuseSilence(at: index)
    nodes[index].lastHeard = clock.elapsed
    nodes[index].peerWitness = nil
    if nodes[index].isSilent { wake.at = 0 }
  }

  /// From rules 7 on: nobody knows what a worker did while its node was silent. What comes first when the node is heard
  /// again may be a record of before the silence, repeated, and with the count of loops of then.
  private mutating func excuseSilence(at index: Int) {
    guard rules >= DecisionRules.excusedSilence else { return }
    let gap = clock.elapsed - nodes[index].lastHeard
    let pause = Patience.speechPause(heartbeatInterval: spec?.heartbeatInterval ?? 10)
    if gap > pause { nodes[index].loopsMovedAt = min(clock.elapsed, nodes[index].loopsMovedAt + gap - pause) }
  }

  mutating func heard(_ heartbeat: Heartbeat, at index: Int) {
    heard(nodeAt: index)
    if heartbeat.workerLoops != nodes[index].workerLoops {
      nodes[index].workerLoops = heartbeat.workerLoops
      nodes[index].loopsMovedAt = clock.elapsed
    } else if clock.elapsed - nodes[index].loopsMovedAt >= frozenBound {
      wake.at = 0
    }
  }

  /// A word counts when its speaker serves and means the life that is there.
  mutating func heard(_ silent: PeerSilent, from incarnation: Incarnation) -> Bool {
    guard silent.by != silent.node, nodeIndex(silent.by, incarnation) != nil,
      let index = nodeIndex(silent.node, silent.incarnation)
    else { return false }
    nodes[index].peerWitness = PeerWitness(by: silent.by, at: clock.elapsed)
    if rules >= DecisionRules.replication { unheard(at: index, by: silent.by) }
    wake.at = 0
    return true
  }

  /// A node that does not hear another says so again and again; its words belong together until it pauses.
  private mutating func unheard(at index: Int, by witness: NodeID) {
    nodes[index].unheardBy = nodes[index].unheardBy.filter {
      clock.elapsed - $0.at <= Patience.witness && nodeIndex($0.by) != nil
    }
    if let known = nodes[index].unheardBy.firstIndex(where: { $0.by == witness }) {
      nodes[index].unheardBy[known].at = clock.elapsed
    } else {
      let place = nodes[index].unheardBy.firstIndex { witness < $0.by } ?? nodes[index].unheardBy.count
      nodes[index].unheardBy.insert(PeerWitness(by: witness, at: clock.elapsed, since: clock.elapsed), at: place)
    }
  }

  /// Declares dead what the evidence suffices for.
  mutating func declareDeaths() {
    var (serving, silent) = (0, 0)
    for index in nodes.indices where nodes[index].isServing {
      serving += 1
      if nodes[index].isSilent { silent += 1 }
    }
    if silent >= 2, silent * 2 > serving {
      manySilentSince = manySilentSince ?? clock.elapsed
    } else {
      manySilentSince = nil
    }
    for index in nodes.indices {
      // Most are well: that is seen without a copy.
      let standing = nodes[index].lastHeard - min(nodes[index].lastHeard, nodes[index].loopsMovedAt)
      guard nodes[index].isSilent || !nodes[index].unheardBy.isEmpty || standing >= frozenBound,
        let evidence = evidence(against: nodes[index]), maySpeak(evidence)
      else { continue }
      declareDead(at: index, evidence)
    }
  }

  private func evidence(against node: Node) -> Evidence? {
    guard node.isServing, let host = node.host else { return nil }
    if node.isSilent {
      let silence = clock.elapsed - node.lastHeard
      if let witness = confirmation(against: node) { return .silentToPeer(silence, witness) }
      guard self.host(host)?.isSilent == true, !isHeardElsewhere(node) else { return nil }
      return .silentWithHost(silence, host)
    }
    if let cutOff = cutOff(node) { return cutOff }
    let standing = node.lastHeard - min(node.lastHeard, node.loopsMovedAt)
    return standing >= frozenBound ? .workerStands(standing) : nil
  }

  /// Who says that he does not hear a silent node either. From rules 4 on he has said so again and again: one word may be
  /// about a moment in which either of the two had no processor.
  private func confirmation(against node: Node) -> NodeID? {
    if rules >= DecisionRules.replication { return node.unheardBy.first(where: hasLasted)?.by }
    guard let witness = node.peerWitness, clock.elapsed - witness.at <= Patience.witness else { return nil }
    return witness.by
  }

  /// Whether a witness has spoken for a while and does so still, and is himself well.
  private func hasLasted(_ witness: PeerWitness) -> Bool {
    guard clock.elapsed - witness.at <= Patience.cutOff, clock.elapsed - witness.since >= Patience.cutOff else { return false }
    return node(witness.by).map { $0.isServing && !$0.isSilent } == true
  }

  /// From rules 4 on: whether somebody would have said so, had the data plane lost the node as the log has. A host whose
  /// link to the log is cut is silent there with all of its nodes, and they go on serving.
  private func isHeardElsewhere(_ node: Node) -> Bool {
    guard rules >= DecisionRules.replication else { return false }
    return nodes.contains { $0.id != node.id && $0.host != node.host && $0.isServing && !$0.isSilent && $0.canReplicate }
  }

  /// From rules 4 on: whether most of the cluster lacks a node on the data plane that still speaks in the log. Its witnesses
  /// hear each other, so that the fault is not theirs.
  private func cutOff(_ node: Node) -> Evidence? {
    guard rules >= DecisionRules.replication, node.unheardBy.count >= 2 else { return nil }
    let witnesses = node.unheardBy.filter(hasLasted)
    let names = witnesses.map(\.by)
    func lacksAnother(_ witness: NodeID) -> Bool {
      self.node(witness)?.unheardBy.contains { names.contains($0.by) && clock.elapsed - $0.at <= Patience.cutOff } == true
    }
    let serving = nodes.count { $0.isServing }
    guard witnesses.count >= 2, witnesses.count * 2 > serving, !names.contains(where: lacksAnother),
      let first = witnesses.map(\.since).min()
    else { return nil }
    return .cutOff(clock.elapsed - first, names)
  }

  private func maySpeak(_ evidence: Evidence) -> Bool {
    if case .workerStands = evidence { return true }
    guard clock.elapsed - clock.lastStall >= Patience.afterStall else { return false }
    guard let since = manySilentSince else { return true }
    return clock.elapsed - since >= Patience.massHold && clock.elapsed - lastDeclared >= Patience.massPace
  }

  /// The life may still run somewhere: it keeps what it holds until it is known to be over, and is to be fenced.
  private mutating func declareDead(at index: Int, _ evidence: Evidence) {
    guard let host = nodes[index].host else { return }
    let node = nodes[index]
    if deaths.count == Self.rememberedDeaths { deaths.removeFirst() }
    deaths.append(
      Death(
        node: node.id, incarnation: node.incarnation, timestamp: clock.now, silence: evidence.silence, evidence: evidence.sentence
      ))
    lastDeclared = clock.elapsed
    abandoned.append(
      AbandonedLife(
        node: node.id, kind: node.kind, incarnation: node.incarnation, host: host, poolShare: node.poolShare, isDeclaredDead: true
      ))
    lifeEnded(at: index, "was declared dead: \(evidence.sentence)")
  }

  var frozenBound: UInt64 { Patience.workerStandstill(heartbeatInterval: spec?.heartbeatInterval ?? 10) }
}

extension ClusterState.Node {
  var isServing: Bool { if case .serving = phase { true } else { false } }
}
