// The API of a network function's author (paper, table II).

import Wire

/// What a network function says should become of a packet.
public enum Verdict: Hashable, Sendable, BitwiseCopyable {
  case forward
  case drop(DropReason)
}

/// One stateful packet processor of a service chain: a firewall, a NAT, a load balancer.
///
/// The author writes what happens to a packet, given the state of its flow and the state all flows
/// share. Nothing here mentions migration of packets, replicas or failures: flow state is a flat value
/// that the platform copies to wherever the flow goes.
///
/// The life of a flow's state, as the platform calls it:
///
///     makeFlowState ──▶ process* ──▶ flowExpires ─▶ freeFlowState          on the runtime where it ends
///                        │      ▲
///       flowMigratesOut ─┘      └─ flowMigratesIn                           source and target
///                                └ flowRecovers                             the replica, after a failure
///
/// All calls of one runtime come from its one worker thread. None may block or allocate per packet.
public protocol NetworkFunction {
  /// Travels with the flow, byte for byte: plain values only, no references.
  associatedtype FlowState: BitwiseCopyable & Sendable
  /// Stays on the runtime: pools, rules, counters. Flows take from it and must give back.
  associatedtype SharedState

  /// Grows when the meaning of `FlowState`'s bytes changes; a runtime refuses a flow whose layout it does not know.
  static var layoutVersion: UInt16 { get }

  /// This function's own drop reasons, for counters and people.
  static var dropReasons: [DropReasonDescription] { get }

  /// Makes the one shared state of a runtime (`allocate_shared_state`).
  func makeSharedState(for runtime: RuntimeShare) -> SharedState

  /// The state of a flow before its first packet (`allocate_new_fs`).
  func makeFlowState() -> FlowState

  /// Called when the state goes away for good, after `flowExpires` (`deallocate_fs`).
  func freeFlowState(_ flow: inout FlowState)

  /// Handles one packet (`process_pkt`).
  ///
  /// A flow whose very first packet is dropped, by this function or by another of the chain, does not come to
  /// be: the platform calls `flowExpires` and `freeFlowState` at once, so what was taken is given back.
  func process(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict

  /// Asks for memory that `process` will need for the first packet of a flow, besides the flow's own (`nfv_prefetch`).
  ///
  /// All first packets of a burst are shown before one of them is processed. They are as they came, whatever functions stand
  /// before this one. Changes nothing, though it is given state to change (what is
  /// lent for reading may be copied), and must not wait for what it asks for.
  func foresee(_ frame: borrowing Frame, shared: inout SharedState)

  /// The same for `flowExpires`.
  func foreseeEnd(_ flow: inout FlowState, shared: inout SharedState)

  /// Handles an ICMP error about a packet of the flow (RFC 792, RFC 4443), which it quotes (`ICMPError`).
  ///
  /// It meets the chain as an answer to that packet would, and says nothing of the flow's liveliness: neither is a
  /// timer refreshed by it nor a connection ended (RFC 5508 REQ-6, RFC 5927). A function that rewrites packets rewrites
  /// the quotation too; any other lets errors pass.
  func processError(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict

  /// The flow ended here, in the worker's time `now`: give back what it took from the shared state (`flow_expires`).
  func flowExpires(_ flow: inout FlowState, shared: inout SharedState, now: Tick)

  /// The flow left for another runtime, with its state (`flow_migrate_out`).
  func flowMigratesOut(_ flow: inout FlowState, shared: inout SharedState)

  /// The flow arrived from another runtime; called before its first packet here (`flow_migrate_in`).
  func flowMigratesIn(_ flow: inout FlowState, shared: inout SharedState)

  /// The flow's runtime died and this one, its replica, owns it now (`flow_recover`).
  func flowRecovers(_ flow: inout FlowState, shared: inout SharedState)

  /// Says how many flows here hold a part of another runtime's share of a pool, by that share's index: with such a flow the
  /// part came along, and the share is not given to a new runtime before all of them have ended. Called about once a
  /// millisecond: keep books instead of searching. Changes nothing, like `foresee`.
  func countBorrowed(_ shared: inout SharedState, _ count: (_ share: Int, _ flows: Int) -> Void)

  /// The next of what flows took from another runtime's shared state and need no more; `nil` when there is none. Asked some
  /// thousand times a second.
  func takeReturn(_ shared: inout SharedState) -> SharedReturn?

  /// Takes back what a flow had taken here and needed no more on another runtime. Each comes once.
  ///
  /// - Returns: `false` when it is nothing that is missing here: it comes again if a flow may still be leaving.
  func takeBack(_ returned: SharedReturn, shared: inout SharedState) -> Bool

  /// Numbers of the shared state worth showing: pool usage, connections per server. Called seldom.
  func observe(_ shared: borrowing SharedState) -> [Observation]

  /// Whether a packet of no known flow from the server side is handed in, in the reverse direction, and may open a flow.
  /// One function of a chain that wants it is enough; the others are asked by `process`, as ever.
  var opensFromServerSide: Bool { get }

  /// The endpoints of the server side that belong to this function's flows, if it hands out any: to which runtime a
  /// virtual switch gives a packet from outside that is of no flow known to it.
  var serverSideEndpoints: ServerSideEndpoints? { get }

  /// Bytes that a packet may gain in this function, which then does not cut it: at most `Frame.headroom` in a whole chain. A chain
  /// whose functions say 0, as they do if nobody says more, neither lengthens packets nor shortens them.
  var growth: Int { get }

  /// Shows this function and its shared state to a visitor; a chain shows each of its own. Authors do not write it.
  func accept(_ visitor: inout some FunctionVisitor, shared: inout SharedState)
}

/// Somebody who goes through the functions of a chain between two bursts (`ServiceChain.betweenBursts`).
public protocol FunctionVisitor {
  mutating func visit<Function: NetworkFunction>(_ function: Function, shared: inout Function.SharedState)
}

/// The part of the cluster's shared pools that one runtime owns: of every pool (NAT ports, for example) cut
/// into `count` disjoint parts, the part `index`.
public struct RuntimeShare: Hashable, Sendable {
  public let index: Int
  public let count: Int

  public init(index: Int, count: Int) {
    precondition(count > 0 && (0..<count).contains(index), "a share is one of `count` parts")
    self.index = index
    self.count = count
  }

  /// All of it: one runtime alone.
  public static let whole = RuntimeShare(index: 0, count: 1)
}

/// Addresses and ports that the runtimes of a cluster share: each owns one block of the ports of every address.
///
///     ports 1024 ... 65535 of each address, three runtimes:
///     | share 0          | share 1          | share 2          | rest, unused
public struct ServerSideEndpoints: Hashable, Sendable {
  public let addresses: [IPv4Address]
  public let ports: ClosedRange<UInt16>

  public init(addresses: [IPv4Address], ports: ClosedRange<UInt16>) {
    self.addresses = addresses
    self.ports = ports
  }

  public func block(of share: RuntimeShare) -> Range<Int> {
    let size = ports.count / share.count
    let first = Int(ports.lowerBound) + size * share.index
    return first..<first + size
  }

  /// Which of `count` shares has a port; `nil` when none has.
  public func share(of port: UInt16, count: Int) -> Int? {
    let size = ports.count / count
    guard size > 0, ports.contains(port) else { return nil }
    let index = (Int(port) - Int(ports.lowerBound)) / size
    return index < count ? index : nil
  }
}

/// A named number: `servers.10.2.0.11:80.flows = 12`.
public struct Observation: Hashable, Sendable {
  public let name: String
  public let value: UInt64

  public init(_ name: String, _ value: UInt64) {
    self.name = name
    self.value = value
  }
}

/// A function without flow state, or without shared state, says so with this.
public struct Nothing: BitwiseCopyable, Sendable {
  @inlinable public init() {}
}

// Most functions hold nothing that would need giving back; for them the platform does everything.
extension NetworkFunction {
  public static var layoutVersion: UInt16 { 1 }
  public static var dropReasons: [DropReasonDescription] { [] }
  @inlinable public func freeFlowState(_ flow: inout FlowState) {}
  @inlinable @inline(__always)
  public func foresee(_ frame: borrowing Frame, shared: inout SharedState) {}
  @inlinable @inline(__always)
  public func foreseeEnd(_ flow: inout FlowState, shared: inout SharedState) {}
  @inlinable public func processError(_ frame: inout Frame, flow: inout FlowState, shared: inout SharedState) -> Verdict {
    .forward
  }
  @inlinable public func flowExpires(_ flow: inout FlowState, shared: inout SharedState, now: Tick) {}
  @inlinable public func flowMigratesOut(_ flow: inout FlowState, shared: inout SharedState) {}
  @inlinable public func flowMigratesIn(_ flow: inout FlowState, shared: inout SharedState) {}
  @inlinable public func flowRecovers(_ flow: inout FlowState, shared: inout SharedState) {}
  public func countBorrowed(_ shared: inout SharedState, _ count: (_ share: Int, _ flows: Int) -> Void) {}
  public func takeReturn(_ shared: inout SharedState) -> SharedReturn? { nil }
  public func takeBack(_ returned: SharedReturn, shared: inout SharedState) -> Bool { false }
  public func observe(_ shared: borrowing SharedState) -> [Observation] { [] }
  public var opensFromServerSide: Bool { false }
  public var serverSideEndpoints: ServerSideEndpoints? { nil }
  public var growth: Int { 0 }
  public func accept(_ visitor: inout some FunctionVisitor, shared: inout SharedState) { visitor.visit(self, shared: &shared) }
}

extension NetworkFunction where SharedState == Nothing {
  public func makeSharedState(for runtime: RuntimeShare) -> Nothing { Nothing() }
}
