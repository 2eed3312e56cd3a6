import FunctionCatalog
import Glibc
import Testing
import Wire

@testable import Nodes

/// Health checks against sockets of this machine: one that listens, one that refuses, one that never answers. Time is what the
/// test says it is.
@Suite struct BackendCheckTests {
  /// A listening socket of the loopback, of either family.
  final class Listener {
    let socket: Int32
    let port: UInt16
    private var guests: [Int32] = []

    /// `nil` where the machine does not have the family.
    init?(_ family: Int32, backlog: Int32 = 16) {
      let socket = Glibc.socket(family, Int32(SOCK_STREAM.rawValue), 0)
      self.socket = socket
      var storage = sockaddr_storage()
      storage.ss_family = sa_family_t(family)
      let size = socklen_t(family == AF_INET ? MemoryLayout<sockaddr_in>.size : MemoryLayout<sockaddr_in6>.size)
      if family == AF_INET {
        withUnsafeMutableBytes(of: &storage) { $0.storeBytes(of: UInt32(0x7f00_0001).bigEndian, toByteOffset: 4, as: UInt32.self) }
      } else {
        withUnsafeMutableBytes(of: &storage) { $0.storeBytes(of: 1, toByteOffset: 23, as: UInt8.self) }
      }
      var length = size
      let isBound = withUnsafeMutablePointer(to: &storage) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          bind(socket, $0, size) == 0 && listen(socket, backlog) == 0 && getsockname(socket, $0, &length) == 0
        }
      }
      port = withUnsafeBytes(of: storage) { UInt16(bigEndian: $0.loadUnaligned(fromByteOffset: 2, as: UInt16.self)) }
      guard socket >= 0, isBound else { return nil }
    }

    /// Fills the queue of connections that nobody accepts: who comes after that gets no answer.
    func fill() {
      for _ in 0..<4 {
        let guest = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        _ = withUnsafePointer(to: &address) {
          $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(guest, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
        guests.append(guest)
      }
    }

    func close() {
      for socket in guests + [socket] { _ = Glibc.close(socket) }
    }
  }

  static let loopback = IPAddress(IPv4Address(0x7f00_0001))
  static let loopback6 = IPAddress(high: 0, low: 1)

  static func service(_ backends: [LoadBalancerService.Backend], port: UInt16? = nil, virtual: IPAddress = IPAddress("10.1.0.100")!) -> LoadBalancerService {
    var health = HealthCheck()
    (health.interval, health.timeout, health.rise, health.fall, health.port) = (1_000, 500, 2, 2, port)
    return LoadBalancerService(virtual, port: 80, backends: backends, health: health)
  }

  /// Turns until everything begun now has an answer, or has none for good: what the kernel has to say it says at once.
  func settle(_ checks: inout BackendChecks, at now: UInt64) -> [BackendChecks.Verdict] {
    var verdicts: [BackendChecks.Verdict] = []
    for _ in 0..<50 {
      verdicts += checks.turn(now: now)
      usleep(500)
    }
    return verdicts
  }

  @Test func `one that listens is up, one that refuses goes down, and up again when it listens`() throws {
    let listener = try #require(Listener(AF_INET))
    let vanished = try #require(Listener(AF_INET))
    vanished.close()
    let (good, bad) = (
      LoadBalancerService.Backend(Self.loopback, port: listener.port), LoadBalancerService.Backend(Self.loopback, port: vanished.port)
    )
    let service = Self.service([good, bad])
    var checks = BackendChecks([service])
    var plan = LoadBalancerPlan([service])
    // The first turn says when.
    #expect(checks.turn(now: 1).isEmpty)
    var verdicts = settle(&checks, at: 1_100)
    #expect(verdicts.map { "\($0.backend) \($0.isUp)" } == ["\(good) true"], "what works is said once; one failure says nothing")
    #expect(!checks.apply(to: &plan))
    verdicts = settle(&checks, at: 2_200)
    #expect(verdicts.map { "\($0.backend) \($0.isUp) \($0.reason)" } == ["\(bad) false Connection refused"])
    #expect(checks.apply(to: &plan) && plan.states == [[.up, .down]])
    #expect(settle(&checks, at: 3_300).isEmpty && !checks.apply(to: &plan), "nothing new")
    // Others take its place: those who listen there answer for it.
    var moved = service
    moved.health?.port = listener.port
    checks.update([moved])
    #expect(settle(&checks, at: 4_400).isEmpty, "it takes two to rise")
    #expect(settle(&checks, at: 5_500).map { "\($0.backend) \($0.isUp) \($0.reason)" } == ["\(bad) true connected"])
    #expect(checks.apply(to: &plan) && plan.states == [[.up, .up]])
    listener.close()
  }

  @Test func `one that never answers is given up after its timeout, and holds nobody else up`() throws {
    let listener = try #require(Listener(AF_INET))
    let silent = try #require(Listener(AF_INET, backlog: 0))
    silent.fill()
    let (good, mute) = (
      LoadBalancerService.Backend(Self.loopback, port: listener.port), LoadBalancerService.Backend(Self.loopback, port: silent.port)
    )
    var checks = BackendChecks([Self.service([mute, good])])
    _ = checks.turn(now: 1)
    #expect(settle(&checks, at: 1_001).map { "\($0.backend)" } == ["\(good)"])
    #expect(settle(&checks, at: 1_400).isEmpty, "not yet")
    #expect(settle(&checks, at: 1_600).isEmpty, "once is not enough")
    _ = settle(&checks, at: 2_100)
    #expect(settle(&checks, at: 2_700).map { "\($0.backend) \($0.isUp) \($0.reason)" } == ["\(mute) false no answer in 500 ms"])
    silent.close()
    listener.close()
  }

  @Test func `IPv6 backends are connected to over IPv6`() throws {
    guard let listener = Listener(AF_INET6) else { return }
    let vanished = try #require(Listener(AF_INET6))
    vanished.close()
    let (good, bad) = (
      LoadBalancerService.Backend(Self.loopback6, port: listener.port), LoadBalancerService.Backend(Self.loopback6, port: vanished.port)
    )
    let service = Self.service([good, bad], virtual: IPAddress("2001:db8::100")!)
    var checks = BackendChecks([service])
    _ = checks.turn(now: 1)
    #expect(settle(&checks, at: 1_100).map { "\($0.backend) \($0.isUp)" } == ["[::1]:\(listener.port) true"])
    #expect(settle(&checks, at: 2_200).map { "\($0.backend) \($0.reason)" } == ["[::1]:\(vanished.port) Connection refused"])
    var plan = LoadBalancerPlan([service])
    #expect(checks.apply(to: &plan) && plan.states == [[.up, .down]])
    listener.close()
  }

  @Test func `a backend that drains drains, whatever it answers, and one that is gone is not checked`() throws {
    let listener = try #require(Listener(AF_INET))
    let backend = LoadBalancerService.Backend(Self.loopback, port: listener.port, isDraining: true)
    let service = Self.service([backend])
    var checks = BackendChecks([service])
    var plan = LoadBalancerPlan([service])
    _ = checks.turn(now: 1)
    #expect(settle(&checks, at: 1_100).count == 1)
    #expect(!checks.apply(to: &plan) && plan.states == [[.draining]])
    checks.update([])
    #expect(settle(&checks, at: 9_000).isEmpty)
    listener.close()
  }
}
