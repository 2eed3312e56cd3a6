import ControlMessages
import ControlPlane
import FoundationEssentials
import Glibc

/// Failures that look alike and are not, done to a lab under traffic, each once:
///
/// ```
///   frozen runtime    SIGSTOP                     its agent sees it and kills it             fenced, recovered
///   zombie            SIGSTOP, of its agent too   silent in the log and to its peers;        fenced, recovered; what wakes
///                                                 both wake when its flows are others'       changes nothing, and ends
///   fabric link cut   its port's cable            silent to its peers, heard in the log      fenced, recovered
///   bus link cut      its host's cable to the     silent in the log, heard by its peers      goes on serving, and is left alone
///                     log, for some seconds
/// ```
///
/// What the platform makes of each is read from the log when all is over.
struct LabHarm {
  enum Kind: String, CaseIterable, Sendable {
    case frozenRuntime = "frozen-runtime"
    case zombie
    case fabricCut = "fabric-cut"
    case busCut = "bus-cut"

    /// Whether a life is to end by it.
    var isDeadly: Bool { self != .busCut }
  }

  private struct Stroke {
    let kind: Kind
    let second: Int
    /// Once it has been dealt.
    var victim: ClusterState.Node?
    var began: ContinuousClock.Instant?
    var isOver = false
    /// What stands still, or whose cable is cut.
    var processes: [pid_t] = []
    var interface = ""
    var wasSilent = false
    var packetsBefore: UInt64 = 0
    var packetsMeanwhile: UInt64?
    /// From the harm to the word that the flows are recovered.
    var recoveredAfter: Duration?
  }

  private let network: LabNetwork
  private let clock = ContinuousClock()
  private var strokes: [Stroke]

  /// How long the bus stays cut off; more than it takes to be called silent.
  private static let busCut = Duration.seconds(6)
  /// How long what is mended after the recovery is left alone should there be none.
  private static let patience = Duration.seconds(12)

  init(_ seconds: [Kind: Int], network: LabNetwork) {
    self.network = network
    strokes = seconds.sorted { ($0.value, $0.key.rawValue) < ($1.value, $1.key.rawValue) }.map { Stroke(kind: $0.key, second: $0.value) }
  }

  var isEmpty: Bool { strokes.isEmpty }

  // MARK: Doing

  /// Begins what is due and ends what has lasted long enough; one at a time, and only when all flows have replicas.
  ///
  /// - Parameter agent: the process that supervises the runtimes of the first host.
  mutating func attend(_ elapsed: Int, _ state: ClusterState?, _ picture: LogPicture, agent: ChildProcess?) throws(LabError) {
    guard let index = strokes.firstIndex(where: { !$0.isOver }), let state else { return }
    guard let began = strokes[index].began else {
      guard elapsed >= strokes[index].second, let agent else { return }
      return try begin(index, state, agent)
    }
    guard let victim = strokes[index].victim else { return }
    if state.node(victim.id).map({ $0.incarnation == victim.incarnation && $0.isSilent }) == true { strokes[index].wasSilent = true }
    let lasted = clock.now - began
    let isRecovered = picture.recoveries.contains { $0.lost == victim.life }
    if isRecovered, strokes[index].recoveredAfter == nil { strokes[index].recoveredAfter = lasted }
    switch strokes[index].kind {
    case .busCut: if lasted >= Self.busCut { try end(index) }
    case .zombie:
      // It wakes a second after its flows are others'.
      if let recovered = strokes[index].recoveredAfter, lasted >= recovered + .seconds(1) { try end(index) }
    case .fabricCut, .frozenRuntime: if isRecovered { try end(index) }
    }
    if lasted >= Self.patience, !strokes[index].isOver { try end(index) }
  }

  private mutating func begin(_ index: Int, _ state: ClusterState, _ agent: ChildProcess) throws(LabError) {
    let runtimes = state.nodes.filter { $0.kind == .runtime }
    guard runtimes.count > 1, runtimes.allSatisfy({ $0.protection?.isComplete == true && $0.processID != 0 }) else { return }
    let isApart = strokes[index].kind == .busCut
    let choices = runtimes.filter { ($0.host?.name == network.apartHost) == isApart }
    guard !choices.isEmpty, case let victim = choices[index % choices.count], case let process = pid_t(victim.processID) else { return }
    strokes[index].victim = victim
    strokes[index].began = clock.now
    switch strokes[index].kind {
    case .frozenRuntime:
      kill(process, SIGSTOP)
    case .zombie:
      strokes[index].processes = [process, agent.processID]
      for process in strokes[index].processes.reversed() { kill(process, SIGSTOP) }
    case .fabricCut:
      guard let interface = Self.interface(of: process) else { throw .late("process \(process) has no port on its command line") }
      strokes[index].interface = interface
      try network.setLink(interface, isUp: false)
    case .busCut:
      strokes[index].packetsBefore = try network.packetsSent(by: network.runtimeInterfaces[network.runtimes - 1])
      try network.setBusLink(isUp: false)
    }
  }

  private mutating func end(_ index: Int) throws(LabError) {
    strokes[index].isOver = true
    switch strokes[index].kind {
    case .frozenRuntime: break
    case .zombie: for process in strokes[index].processes { kill(process, SIGCONT) }
    case .fabricCut: try network.setLink(strokes[index].interface, isUp: true)
    case .busCut:
      let packets = try network.packetsSent(by: network.runtimeInterfaces[network.runtimes - 1])
      strokes[index].packetsMeanwhile = packets - min(packets, strokes[index].packetsBefore)
      try network.setBusLink(isUp: true)
    }
  }

  /// Nothing stands still any more that is to end.
  func release() { for stroke in strokes where !stroke.isOver { for process in stroke.processes { kill(process, SIGCONT) } } }

  /// The interface that a runtime's command line names.
  private static func interface(of process: pid_t) -> String? {
    let words = (TextFile.read("/proc/\(process)/cmdline", from: 0, limit: 65_536) ?? "").split(separator: "\0")
    guard let place = words.firstIndex(of: "--port"), place + 1 < words.count else { return nil }
    return words[place + 1].split(separator: ":").last.map(String.init)
  }

  // MARK: What became of it

  func summary(_ state: ClusterState?) -> [LabSummary.Harm] {
    strokes.compactMap { stroke in
      guard let victim = stroke.victim else { return nil }
      let death = state?.deaths.first { $0.node == victim.id && $0.incarnation == victim.incarnation }
      return LabSummary.Harm(
        kind: stroke.kind.rawValue, node: victim.id.number, second: stroke.second,
        hasEnded: state?.node(victim.id)?.incarnation != victim.incarnation, evidence: death?.evidence ?? "",
        recoveredAfterMilliseconds: stroke.recoveredAfter.map { UInt64($0 / .milliseconds(1)) }, wasSilent: stroke.wasSilent,
        packetsMeanwhile: stroke.packetsMeanwhile)
    }
  }

  /// What is not as it should be.
  func problems(_ state: ClusterState?, _ picture: LogPicture) -> [String] {
    strokes.compactMap { stroke in
      let name = stroke.kind.rawValue
      guard let victim = stroke.victim else { return "\(name): no runtime was ever ready for it" }
      let now = state?.node(victim.id)
      guard stroke.kind.isDeadly else {
        if now?.incarnation != victim.incarnation { return "\(name): \(victim.life) only lost its link to the log, and was given up" }
        if !stroke.wasSilent { return "\(name): \(victim.life) was never shown as silent" }
        if stroke.packetsMeanwhile ?? 0 == 0 { return "\(name): \(victim.life) did not go on serving" }
        if now?.isSilent == true { return "\(name): \(victim.life) is still silent" }
        return nil
      }
      if !picture.recoveries.contains(where: { $0.lost == victim.life }) { return "\(name): the flows of \(victim.life) were not recovered" }
      if now?.incarnation == victim.incarnation || now?.memberState != .serving { return "\(name): \(victim.id) has not come back" }
      if kill(pid_t(victim.processID), 0) == 0 { return "\(name): the process of \(victim.life) is still there" }
      return nil
    }
  }
}
