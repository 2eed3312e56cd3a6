import FunctionCatalog
import Glibc
import Wire

/// Connects to the backends of a load balancer again and again, and says which of them work.
///
/// Connections go over the host's own network, not over the data plane: the host of a runtime needs a way to the backends.
/// Nothing here waits: connections are begun, looked at a few milliseconds later, and closed. Belongs to one thread.
struct BackendChecks {
  struct Verdict {
    let service: String
    let backend: LoadBalancerService.Backend
    let isUp: Bool
    let reason: String
  }

  private struct Target {
    let service: String
    var backend: LoadBalancerService.Backend
    var rules: HealthCheck
    var health = BackendHealth()
    /// Whether anything was said of it yet.
    var isKnown = false
    /// Milliseconds; of the host's clock since it started.
    var due: UInt64
    var attempt: (socket: Int32, since: UInt64)?
  }

  private var targets: [Target] = []
  /// Connections that are being made; more wait for their turn.
  private static var mostAttempts: Int { 256 }

  init(_ services: [LoadBalancerService]) { update(services) }

  /// Goes over to other services; what is known of a backend that stays is kept.
  mutating func update(_ services: [LoadBalancerService]) {
    let old = targets
    targets = []
    for service in services {
      guard let rules = service.health else { continue }
      for backend in service.backends {
        var target = Target(service: service.name, backend: backend, rules: rules, due: 0)
        if let known = old.firstIndex(where: { $0.service == target.service && $0.backend.description == backend.description }) {
          target = old[known]
          target.backend = backend
          target.rules = rules
        }
        targets.append(target)
      }
    }
    for target in old {
      guard let attempt = target.attempt, !targets.contains(where: { $0.attempt?.socket == attempt.socket }) else { continue }
      close(attempt.socket)
    }
  }

  /// Begins what is due and ends what is decided.
  mutating func turn(now: UInt64) -> [Verdict] {
    var verdicts: [Verdict] = []
    var attempts = targets.count { $0.attempt != nil }
    for index in targets.indices {
      if let attempt = targets[index].attempt {
        guard let outcome = Self.outcome(of: attempt, targets[index].rules, now: now) else { continue }
        close(attempt.socket)
        targets[index].attempt = nil
        attempts -= 1
        note(outcome, index, &verdicts)
      } else if targets[index].due == 0 {
        // Spread over the interval, so that a thousand backends are not all asked at once.
        targets[index].due = now + targets[index].rules.interval * UInt64(index) / UInt64(targets.count) + 1
      } else if now >= targets[index].due, attempts < Self.mostAttempts {
        targets[index].due = now + targets[index].rules.interval
        switch Self.begin(targets[index].backend, targets[index].rules) {
        case .begun(let socket):
          targets[index].attempt = (socket, now)
          attempts += 1
        case .ended(let outcome): note(outcome, index, &verdicts)
        }
      }
    }
    return verdicts
  }

  /// Gives the plan what is known; `true` when that changes it. A backend that is to drain drains, whatever it answers.
  func apply(to plan: inout LoadBalancerPlan) -> Bool {
    let before = plan.states
    for target in targets {
      guard let index = plan.services.firstIndex(where: { $0.name == target.service }) else { continue }
      plan.setState(of: target.backend, in: index, target.backend.isDraining ? .draining : target.health.isUp ? .up : .down)
    }
    return plan.states != before
  }

  private mutating func note(_ outcome: Outcome, _ index: Int, _ verdicts: inout [Verdict]) {
    let hasChanged = targets[index].health.note(outcome.problem == nil, targets[index].rules)
    let isFirst = !targets[index].isKnown && outcome.problem == nil
    guard hasChanged || isFirst else { return }
    targets[index].isKnown = true
    verdicts.append(
      Verdict(
        service: targets[index].service, backend: targets[index].backend, isUp: targets[index].health.isUp,
        reason: outcome.problem ?? "connected"))
  }

  // MARK: Sockets

  private struct Outcome { var problem: String? }
  private enum Beginning { case begun(Int32), ended(Outcome) }

  private static func begin(_ backend: LoadBalancerService.Backend, _ rules: HealthCheck) -> Beginning {
    let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let socket = Glibc.socket(backend.address.ipv4 == nil ? AF_INET6 : AF_INET, kind, 0)
    guard socket >= 0 else { return .ended(Outcome(problem: "no socket: \(String(cString: strerror(errno)))")) }
    let result = connect(socket, backend.address, port: rules.port ?? backend.port)
    if result == 0 || errno == EINPROGRESS { return .begun(socket) }
    let problem = String(cString: strerror(errno))
    close(socket)
    return .ended(Outcome(problem: problem))
  }

  private static func connect(_ socket: Int32, _ address: IPAddress, port: UInt16) -> Int32 {
    func begin<Address>(_ address: Address) -> Int32 {
      withUnsafeBytes(of: address) {
        Glibc.connect(socket, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
      }
    }
    if let address = address.ipv4 {
      return begin(
        sockaddr_in(
          sin_family: sa_family_t(AF_INET), sin_port: port.bigEndian, sin_addr: in_addr(s_addr: address.value.bigEndian),
          sin_zero: (0, 0, 0, 0, 0, 0, 0, 0)))
    }
    var end = sockaddr_in6()
    end.sin6_family = sa_family_t(AF_INET6)
    end.sin6_port = port.bigEndian
    withUnsafeMutableBytes(of: &end.sin6_addr) {
      $0.storeBytes(of: address.high.bigEndian, as: UInt64.self)
      $0.storeBytes(of: address.low.bigEndian, toByteOffset: 8, as: UInt64.self)
    }
    return begin(end)
  }

  /// `nil` while it is not decided.
  private static func outcome(of attempt: (socket: Int32, since: UInt64), _ rules: HealthCheck, now: UInt64) -> Outcome? {
    var state = pollfd(fd: attempt.socket, events: Int16(POLLOUT), revents: 0)
    guard poll(&state, 1, 0) > 0 else {
      return now - attempt.since >= rules.timeout ? Outcome(problem: "no answer in \(rules.timeout) ms") : nil
    }
    var problem: Int32 = 0
    var size = socklen_t(MemoryLayout<Int32>.size)
    getsockopt(attempt.socket, SOL_SOCKET, SO_ERROR, &problem, &size)
    return Outcome(problem: problem == 0 ? nil : String(cString: strerror(problem)))
  }
}
