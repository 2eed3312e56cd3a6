import ModuleGraphs
import NetworkFunctions
import Synchronization
import Wire

/// What a worker counts: plain integers that only it touches, and nothing else: they are published word by word.
public struct Counters: BitwiseCopyable, Sendable {
  public var received: UInt64 = 0
  public var receivedBytes: UInt64 = 0
  public var forwarded: UInt64 = 0
  public var forwardedBytes: UInt64 = 0
  public var dropped: UInt64 = 0
  /// Packets that were for the node itself, ARP and frames of channels; packets held for a flow that is on its way here
  /// (received again when it has come), and packets sent after a flow that has left.
  public var consumed: UInt64 = 0
  public var flowsCreated: UInt64 = 0
  public var flowsExpired: UInt64 = 0
  public var flowsEvicted: UInt64 = 0
  public var flowsRefused: UInt64 = 0
  public var flowsMigratedIn: UInt64 = 0
  public var flowsMigratedOut: UInt64 = 0
  /// Packets that left by way of the holder of their flows' replicas, and packets released for another runtime.
  public var packetsReplicated: UInt64 = 0
  public var packetsReleased: UInt64 = 0
  /// Flows taken over from runtimes that died.
  public var flowsRecovered: UInt64 = 0
  /// Flows there are now.
  public var activeFlows: UInt64 = 0
  /// Of these, flows that no other runtime has a replica of, where there should be one.
  public var unprotectedFlows: UInt64 = 0
  /// Replicas of other runtimes' flows.
  public var replicasHeld: UInt64 = 0
  /// Frames of reliable channels: sent, taken, refused for whatever reason, and sent again.
  public var channelFramesSent: UInt64 = 0
  public var channelFramesReceived: UInt64 = 0
  public var channelFramesRefused: UInt64 = 0
  public var channelRetransmits: UInt64 = 0
  /// Messages that a channel had no room for; whoever sent them was told.
  public var channelMessagesRefused: UInt64 = 0
  /// Messages of peers that no machine here understood.
  public var messagesMalformed: UInt64 = 0
  /// Frames that the port lost because the worker was late.
  public var missed: UInt64 = 0
  public var passes: UInt64 = 0
  public var busyPasses: UInt64 = 0
  public var busyCycles: UInt64 = 0
  public var totalCycles: UInt64 = 0

  public init() {}

  mutating func account(busy: UInt64, total: UInt64, passes: UInt64) {
    busyCycles &+= busy
    totalCycles &+= total
    if busy > 0 { busyPasses &+= 1 }
    self.passes = passes
  }

  /// Counts the frames of a batch as received, those of `lost` as dropped, those of `used` as consumed, and the others
  /// as sent on.
  @inline(__always)
  mutating func settle(_ batch: PacketBatch, dropped lost: UInt64, consumed used: UInt64) {
    let burst = Burst(batch)
    let count = batch.count
    var bytes: UInt64 = 0
    for index in 0..<count { bytes &+= UInt64(burst[index].length) }
    received &+= UInt64(count)
    receivedBytes &+= bytes
    PacketBatch.forEach(in: lost | used) { bytes &-= UInt64(burst[$0].length) }
    let (lostCount, usedCount) = (UInt64(lost.nonzeroBitCount), UInt64(used.nonzeroBitCount))
    dropped &+= lostCount
    consumed &+= usedCount
    forwarded &+= UInt64(count) &- lostCount &- usedCount
    forwardedBytes &+= bytes
  }

  mutating func receive(_ batch: PacketBatch) {
    let (packets, bytes) = Self.sum(batch, batch.all)
    received &+= packets
    receivedBytes &+= bytes
  }

  /// Counts the frames of `mask` as sent on.
  public mutating func forward(_ batch: PacketBatch, _ mask: UInt64) {
    let (packets, bytes) = Self.sum(batch, mask)
    forwarded &+= packets
    forwardedBytes &+= bytes
  }

  private static func sum(_ batch: PacketBatch, _ mask: UInt64) -> (packets: UInt64, bytes: UInt64) {
    let burst = Burst(batch)
    var bytes: UInt64 = 0
    PacketBatch.forEach(in: mask) { bytes &+= UInt64(burst[$0].length) }
    return (UInt64(mask.nonzeroBitCount), bytes)
  }
}

/// The counters as the control thread reads them: copies, published by the worker about once a millisecond.
///
/// Each number is exact for the moment it was published; two numbers may be of different moments.
@safe
public final class PublishedCounters: @unchecked Sendable {
  // Words of `Counters`, in its order; then drops by reason; then flows that hold a part of another runtime's share, by share;
  // then the pass after which those were counted. One row, since the worker writes it: atomic words, and no more is shared.
  private let words: UnsafeMutablePointer<Atomic<UInt64>>

  private static var counterWords: Int { MemoryLayout<Counters>.size / 8 }
  private static var firstDrop: Int { counterWords }
  private static var firstShare: Int { firstDrop + DropCounters.count }
  private static var borrowedPass: Int { firstShare + BorrowedFlows.mostShares }
  private static var count: Int { borrowedPass + 1 }

  public init() {
    unsafe words = .allocate(capacity: Self.count)
    for word in 0..<Self.count { unsafe (words + word).initialize(to: Atomic(0)) }
  }

  deinit {
    unsafe words.deinitialize(count: Self.count)
    unsafe words.deallocate()
  }

  /// Called by the worker.
  func publish(_ counters: Counters, drops: borrowing DropCounters) {
    withUnsafeBytes(of: counters) { bytes in
      for word in 0..<Self.counterWords {
        unsafe words[word].store(bytes.loadUnaligned(fromByteOffset: word &* 8, as: UInt64.self), ordering: .relaxed)
      }
    }
    drops.forEach { code, count in unsafe words[Self.firstDrop &+ code].store(count, ordering: .relaxed) }
  }

  /// Called by the worker.
  func publish(_ flows: BorrowedFlows, passes: UInt64) {
    for share in 0..<flows.end { unsafe words[Self.firstShare &+ share].store(flows[share], ordering: .relaxed) }
    unsafe words[Self.borrowedPass].store(passes, ordering: .releasing)
  }

  /// Flows that hold a part of another runtime's share, as they were after the given pass or later; called by the control
  /// thread.
  public func borrowedFlows() -> (pass: UInt64, shares: [(share: Int, flows: UInt64)]) {
    let pass = unsafe words[Self.borrowedPass].load(ordering: .acquiring)
    let shares = (0..<BorrowedFlows.mostShares).compactMap { share in
      let flows = unsafe words[Self.firstShare + share].load(ordering: .relaxed)
      return flows == 0 ? nil : (share: share, flows: flows)
    }
    return (pass, shares)
  }

  /// Called by the control thread.
  public func read() -> Counters {
    var counters = Counters()
    withUnsafeMutableBytes(of: &counters) { bytes in
      for word in 0..<Self.counterWords {
        unsafe bytes.storeBytes(of: words[word].load(ordering: .relaxed), toByteOffset: word * 8, as: UInt64.self)
      }
    }
    return counters
  }

  /// Packets dropped so far by reason code.
  public func drops() -> [(code: UInt8, count: UInt64)] {
    (0..<DropCounters.count).compactMap { code in
      let count = unsafe words[Self.firstDrop + code].load(ordering: .relaxed)
      return count == 0 ? nil : (UInt8(code), count)
    }
  }
}

/// The worker's own count of flows that hold a part of another runtime's share, by share.
@safe
final class BorrowedFlows {
  static var mostShares: Int { 256 }

  private let counts: UnsafeMutablePointer<UInt64>
  /// Beyond the highest share ever counted.
  private(set) var end = 0

  init() {
    unsafe counts = .allocate(capacity: Self.mostShares)
    unsafe counts.initialize(repeating: 0, count: Self.mostShares)
  }

  deinit { unsafe counts.deallocate() }

  func count(in chain: ServiceChain) {
    for share in 0..<end { unsafe counts[share] = 0 }
    chain.countBorrowed { share, flows in
      guard (0..<Self.mostShares).contains(share) else { return }
      unsafe counts[share] &+= UInt64(max(0, flows))
      end = max(end, share + 1)
    }
  }

  subscript(share: Int) -> UInt64 {
    precondition((0..<Self.mostShares).contains(share), "a share is one of at most 256")
    return unsafe counts[share]
  }
}

/// One counter per drop reason.
@safe
public struct DropCounters: ~Copyable {
  static var count: Int { 256 }

  /// Counts by code, and behind them a bit for every code that was ever counted: few are, and who publishes passes the others over.
  private let counts: UnsafeMutablePointer<UInt64>

  public init() {
    unsafe counts = .allocate(capacity: Self.count + Self.count / 64)
    unsafe counts.initialize(repeating: 0, count: Self.count + Self.count / 64)
  }

  deinit { unsafe counts.deallocate() }

  @inline(__always)
  public mutating func add(_ reason: DropReason) {
    let code = Int(reason.code)
    unsafe counts[code] &+= 1
    unsafe counts[Self.count &+ code >> 6] |= 1 << UInt64(code & 63)
  }

  public subscript(code: UInt8) -> UInt64 { unsafe counts[Int(code)] }

  /// Calls `body` with every code that was counted.
  @inline(__always)
  func forEach(_ body: (_ code: Int, _ count: UInt64) -> Void) {
    for word in 0..<Self.count / 64 {
      var rest = unsafe counts[Self.count &+ word]
      while rest != 0 {
        let code = word << 6 | rest.trailingZeroBitCount
        unsafe body(code, counts[code])
        rest &= rest &- 1
      }
    }
  }
}
