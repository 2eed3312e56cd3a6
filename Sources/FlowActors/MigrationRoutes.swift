import FixedContainers
import Wire

/// What a switch answered to the change of one flow's routes.
public enum RouteChange: Equatable, Sendable {
  /// The routes are the new owner's, by this change or by an earlier one like it.
  case changed(epoch: UInt32)
  /// The switch knows neither key: nothing will come through it that it does not dispatch anew.
  case unknown
  /// A route belongs to neither the old nor the new owner: somebody has decided otherwise.
  case refused(epoch: UInt32)
}

/// What the switch's part of a migration asks of its routes.
public protocol MigratingRoutes: ~Copyable {
  /// These keys are about to be looked up: asks for the memory that this takes.
  func foresee(_ keys: FlowKeyPair, _ step: Foresight)
  /// Gives the routes of both keys from one owner to another, both or neither, and counts their epochs up.
  mutating func change(_ keys: FlowKeyPair, from: FlowOwner, to: FlowOwner) -> RouteChange
}

extension MigratingRoutes where Self: ~Copyable {
  public func foresee(_ keys: FlowKeyPair, _ step: Foresight) {}
}

/// What a look-up that is near needs from memory: what finds the flow, then the flow.
public enum Foresight: Sendable { case buckets, records }

/// The switch's part of a migration: changes routes and answers behind the packets it has sent before.
///
/// The epoch of a route is the authority on who owns the flow: a request that names an owner who is not, changes nothing.
/// Answers go out with `flush`, on the way the packets to the source take, after them. Every request is answered once.
public struct MigrationSwitch: ~Copyable {
  /// Answers that were not sent yet, oldest first, in a ring.
  private let answers: UnsafeMutableRawPointer
  private let peers: UnsafeMutablePointer<UInt8>
  private let capacity: Int
  private var first = 0
  private var waiting = 0
  public private(set) var changed: UInt64 = 0
  public private(set) var refused: UInt64 = 0
  /// Requests beyond `answers`: a source keeps to the number of its batches, so this stays 0.
  public private(set) var overflowed: UInt64 = 0

  private static let longestAnswer = MigrationMessage.headerLength + 4 * MigrationMessage.mostFlows

  /// - Parameter answers: most that can wait for room in their channels: twice the batches of all sources together.
  public init(answers capacity: Int, memory: MemorySource) {
    self.capacity = capacity
    answers = UnsafeMutableRawPointer(memory.allocate(UInt8.self, count: capacity * Self.longestAnswer))
    peers = memory.allocate(UInt8.self, count: capacity)
  }

  /// Sends the answers that wait. Called in every pass, after the packets of the pass were transmitted.
  public mutating func flush(outbox: inout some MigrationOutbox & ~Copyable) {
    while waiting > 0 {
      let answer = answers + first * Self.longestAnswer
      let count = Int((answer + 2).loadUnaligned(as: UInt16.self).littleEndian)
      let bytes = UnsafeRawBufferPointer(start: answer, count: MigrationMessage.headerLength + 4 * count)
      guard outbox.send(bytes.bytes, to: peers[first]) else { return }
      first = (first + 1) % capacity
      waiting -= 1
    }
  }

  /// Takes a message of kind `changeRoute`; `false` when it is malformed.
  public mutating func receive(_ message: RawSpan, from peer: UInt8, routes: inout some MigratingRoutes & ~Copyable) -> Bool {
    message.withUnsafeBytes { bytes in
      guard let request = MigrationMessage(bytes), request.kind == .changeRoute else { return false }
      var check = MigrationReader(bytes)
      guard let from = check.owner() else { return false }
      for _ in 0..<request.count {
        guard let (keys, _) = check.keys() else { return false }
        routes.foresee(keys, .buckets)
      }
      guard check.isAtEnd else { return false }
      guard waiting < capacity else {
        overflowed += 1
        return true
      }

      var answer = MigrationMessage(.routeChanged, run: request.run, batch: request.batch)
      (answer.count, answer.node) = (request.count, request.node)
      var ahead = MigrationReader(bytes)
      _ = ahead.owner()
      for _ in 0..<request.count { if let (keys, _) = ahead.keys() { routes.foresee(keys, .records) } }
      var reader = MigrationReader(bytes)
      _ = reader.owner()
      var bits: (changed: UInt64, refused: UInt64) = (0, 0)
      var epochs = InlineArray<32, UInt32>(repeating: 0)
      for place in 0..<Int(request.count) {
        guard let (keys, _) = reader.keys() else { return false }
        switch routes.change(keys, from: from, to: FlowOwner(node: request.node, incarnation: request.word)) {
        case .changed(let epoch): (bits.changed, epochs[place]) = (bits.changed | 1 << UInt64(place), epoch)
        case .unknown: break
        case .refused(let epoch): (bits.refused, epochs[place]) = (bits.refused | 1 << UInt64(place), epoch)
        }
      }
      changed += UInt64(bits.changed.nonzeroBitCount)
      refused += UInt64(bits.refused.nonzeroBitCount)
      answer.word = bits.changed | bits.refused << 32
      let place = (first + waiting) % capacity
      var writer = MigrationWriter(answer, into: answers + place * Self.longestAnswer)
      for flow in 0..<Int(request.count) { writer.put(epochs[flow]) }
      peers[place] = peer
      waiting += 1
      return true
    }
  }
}
