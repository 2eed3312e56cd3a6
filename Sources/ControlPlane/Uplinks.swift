import ControlMessages

// Which switch has the uplinks, from rules 6 on.
//
// A cluster has one set of addresses towards either side, and one switch that answers for them. The others stand by: when the
// holder's life ends, the next table names another one, which announces the addresses as its own and asks the runtimes for the
// routes of the flows that there are. It keeps them for as long as it serves, also when the former one is back: moving them
// twice would cost packets twice.

extension ClusterState {
  /// Whom the next table names.
  var uplinkHolder: ClusterTable.UplinkHolder {
    guard rules >= DecisionRules.switchTakeover else { return .unassigned }
    var current: Node?
    if case .only(let life?) = table.uplinks, let index = nodeIndex(life.node), nodes[index].incarnation == life.incarnation {
      if nodes[index].memberState == .serving { return .only(life) }
      current = nodes[index]
    }
    // One that others hear is worth more than one with a lower number.
    let candidates = nodes.filter { $0.kind == .virtualSwitch && $0.memberState == .serving }
    if let next = candidates.first(where: { !$0.isSilent }) ?? candidates.first { return .only(next.life) }
    // It is going to stop, but nobody could do better until it has.
    if let current, current.memberState == .stopping { return .only(current.life) }
    return .only(nil)
  }

  /// What a table changes about the uplinks, as a clause for people; empty when it changes nothing.
  func uplinkChange(in next: ClusterTable) -> String {
    guard case .only(let holder) = next.uplinks, next.uplinks != table.uplinks else { return "" }
    guard case .only(let former?) = table.uplinks else { return holder.map { "; \($0) has the uplinks" } ?? "" }
    let isOver = node(former.node).map { $0.life != former || !$0.isAlive } ?? true
    let why = isOver ? "\(former) has ended" : "\(former) is going to stop"
    return holder.map { "; \($0) takes over the uplinks: \(why)" } ?? "; nobody has the uplinks: \(why)"
  }
}
