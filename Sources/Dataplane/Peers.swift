import FixedContainers
import FlowActors
import ModuleGraphs
import ReliableChannels
import Wire

/// Another node of the cluster, as the coordinator's table names it.
public struct Peer: Sendable, Equatable {
  public var node: UInt32
  public var incarnation: UInt64
  public var isSwitch: Bool
  public var isAlive: Bool

  public init(node: UInt32, incarnation: UInt64, isSwitch: Bool, isAlive: Bool) {
    self.node = node
    self.incarnation = incarnation
    self.isSwitch = isSwitch
    self.isAlive = isAlive
  }
}

/// The reliable channels of a worker, one to each other node of its cluster, over the port that its packets take.
///
/// A peer keeps its index, and its channel's memory, for as long as the worker lives; a later life of the node is a new
/// session of the same channel.
@safe
struct Peers: ~Copyable, ReplicationOutbox {
  static var capacity: Int { 63 }

  private let address: FabricAddress
  private let node: UInt32
  private let incarnation: UInt64
  private let settings: ChannelSettings
  private let memory: MemorySource
  private let channels: UnsafeMutablePointer<ReliableChannel>
  private(set) var known: [Peer] = []
  /// The frame being written.
  private let outgoing: UnsafeMutableRawPointer
  /// Who holds the replicas of this runtime's flows, and which packets they have.
  var replication = ReplicationStanding()
  /// Acknowledgements that flows have arrived wait here until those have replicas, where they are to have any.
  var holdsArrivalsBack = false
  private(set) var arrivals: [(peer: UInt8, message: [UInt8])] = []
  /// Frames of nobody that is known.
  private var strayFrames: UInt64 = 0
  private var callsUntilCount = 0
  /// Peers that have fallen silent since this was last looked at, as bits.
  private var silent: UInt64 = 0
  /// When those that are silent are named, again and again: one word could be about a moment in which this side was asleep.
  private var nextReminder = Tick.zero
  /// Frames that had come from each when that was looked at last: who shares its processor with others is silent for a twentieth
  /// of a second now and then, and is not named for it.
  private var heard: [UInt64] = []
  private static var reminderMilliseconds: UInt64 { 250 }

  init(address: FabricAddress, node: UInt32, incarnation: UInt64, settings: ChannelSettings = .init(), memory: MemorySource) {
    self.address = address
    self.node = node
    self.incarnation = incarnation
    self.settings = settings
    self.memory = memory
    unsafe channels = .allocate(capacity: Self.capacity)
    unsafe outgoing = UnsafeMutableRawPointer(memory.allocate(UInt8.self, count: settings.mtu + 64))
  }

  deinit {
    unsafe channels.deinitialize(count: known.count)
    unsafe channels.deallocate()
  }

  // MARK: Who there is

  /// Takes over what the coordinator says. Calls `ended` for every peer whose life is over, or was replaced by another;
  /// not when a later life has already been heard of over the channel, which has said so then.
  mutating func update(_ members: [Peer], now: Tick, ended: (UInt8, Peer) -> Void) {
    for member in members where member.node != node {
      if let index = known.firstIndex(where: { $0.node == member.node }) {
        guard member.incarnation >= known[index].incarnation else { continue }
        let before = known[index]
        known[index] = member
        let isOver = member.incarnation > before.incarnation || !member.isAlive
        guard before.isAlive, isOver else { continue }
        let isNews = unsafe channels[index].peerIncarnation <= before.incarnation
        // What that life still has on the way would be taken for a beginning that has no end.
        unsafe channels[index].fence(before.incarnation)
        if isNews { ended(UInt8(index), before) }
      } else if member.isAlive, known.count < Self.capacity {
        let link = ChannelLink(destination: address.controlAddress(ofNode: member.node), source: address.control)
        unsafe (channels + known.count).initialize(
          to: ReliableChannel(
            from: node, incarnation: incarnation, to: member.node, link: link, settings: settings, now: now, memory: memory))
        known.append(member)
      }
    }
  }

  /// A life is over by the coordinator's word: nothing is taken from it any more, nor sent to it.
  ///
  /// - Returns: the peer's index, if that was news.
  mutating func fence(_ life: FlowOwner) -> UInt8? {
    guard let index = index(ofNode: life.node) else { return nil }
    unsafe channels[Int(index)].fence(life.incarnation)
    guard known[Int(index)].incarnation == life.incarnation, known[Int(index)].isAlive else { return nil }
    known[Int(index)].isAlive = false
    return index
  }

  /// The life of a peer that its session is with.
  func life(of peer: UInt8) -> FlowOwner {
    unsafe FlowOwner(node: known[Int(peer)].node, incarnation: channels[Int(peer)].peerIncarnation)
  }

  func peer(inSessionWith life: FlowOwner) -> UInt8? {
    guard let peer = index(ofNode: life.node), known[Int(peer)].isAlive,
      unsafe channels[Int(peer)].isEstablished && channels[Int(peer)].peerIncarnation == life.incarnation
    else { return nil }
    return peer
  }

  /// The lives of living peers of whom nothing has come for a quarter of a second, and again four times a second.
  mutating func takeSilent() -> [FlowOwner] {
    guard silent != 0 else { return [] }
    defer { silent = 0 }
    return known.indices.filter { silent & 1 << UInt64($0) != 0 }.map {
      FlowOwner(node: known[$0].node, incarnation: known[$0].incarnation)
    }
  }

  func index(ofNode node: UInt32) -> UInt8? { known.firstIndex { $0.node == node }.map { UInt8($0) } }

  /// Indexes of the living runtimes, as bits.
  var runtimes: UInt64 {
    known.indices.reduce(0) { !known[$1].isSwitch && known[$1].isAlive ? $0 | 1 << UInt64($1) : $0 }
  }

  /// Indexes of the living switches, as bits.
  var switches: UInt64 {
    known.indices.reduce(0) { known[$1].isSwitch && known[$1].isAlive ? $0 | 1 << UInt64($1) : $0 }
  }

  // MARK: Messages

  mutating func send(_ message: RawSpan, to peer: UInt8) -> Bool {
    guard Int(peer) < known.count, known[Int(peer)].isAlive else { return false }
    if holdsArrivalsBack, MigrationMessage.kind(message) == .installed {
      arrivals.append((peer, message.withUnsafeBytes { Array($0) }))
      return true
    }
    return unsafe channels[Int(peer)].send(message)
  }

  mutating func takeArrivals() -> [(peer: UInt8, message: [UInt8])] {
    defer { arrivals.removeAll(keepingCapacity: true) }
    return arrivals
  }

  mutating func announce(_ slot: UInt32, to peer: UInt8) -> Bool {
    for holder in [replication.first.peer, replication.second.peer] where holder != .max && holder != peer && isAlive(holder) {
      let isTold = unsafe ReplicationNotice.writeHandOver(of: slot, toNode: known[Int(peer)].node, to: outgoing) {
        unsafe channels[Int(holder)].send($0)
      }
      guard isTold else { return false }
    }
    return true
  }

  var holdsPackets: Bool { replication.second != .none || replication.taken != replication.settled }
  var commitMark: CommitMark { replication.commitMark { mark(to: $0) } }

  func hasCommitted(_ mark: CommitMark) -> Bool {
    replication.hasCommitted(mark) { !isAlive($1) || hasArrived($0, at: $1) }
  }

  func isAlive(_ peer: UInt8) -> Bool { Int(peer) < known.count && known[Int(peer)].isAlive }
  func mark(to peer: UInt8) -> UInt32 { unsafe channels[Int(peer)].mark.number }

  func hasArrived(_ mark: UInt32, at peer: UInt8) -> Bool {
    unsafe channels[Int(peer)].hasArrived(SequenceNumber(mark))
  }

  @unsafe @inline(__always)
  mutating func reserve(_ count: Int, to peer: UInt8) -> UnsafeMutableRawPointer? {
    guard Int(peer) < known.count, known[Int(peer)].isAlive else { return nil }
    return unsafe channels[Int(peer)].reserve(count)
  }

  func hasRoomToSpare(to peer: UInt8) -> Bool {
    guard Int(peer) < known.count else { return false }
    return unsafe channels[Int(peer)].hasRoomToSpare
  }

  /// Whose a frame was; whether a session began with it; and the life of that peer that is over, if it began a later one.
  struct Arrival {
    var peer: UInt8
    var ended: UInt64?
  }

  /// Takes a frame of a channel. Then `nextMessage` has what it completed.
  ///
  /// - Returns: `nil` when it was refused.
  mutating func receive(_ frame: UnsafeRawBufferPointer, now: Tick) -> Arrival? {
    guard let source = unsafe ChannelFrame.sourceNode(frame), let peer = index(ofNode: source) else {
      strayFrames &+= 1
      return nil
    }
    let before = unsafe channels[Int(peer)].peerIncarnation
    switch unsafe channels[Int(peer)].receive(frame, now: now) {
    case .refused: return nil
    case .taken: return Arrival(peer: peer)
    case .sessionBegan: return Arrival(peer: peer, ended: before == 0 ? nil : before)
    }
  }

  /// The next message of a peer, valid until its next frame is received; `nil` when there is none.
  @unsafe
  mutating func nextMessage(from peer: UInt8) -> UnsafeRawBufferPointer? { unsafe channels[Int(peer)].nextMessage() }

  /// The next messages of a peer, as many as can be valid at once, until this is called again.
  @unsafe @inline(__always)
  mutating func nextMessages(from peer: UInt8, into messages: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>) -> Int {
    unsafe channels[Int(peer)].nextMessages(into: messages)
  }

  // MARK: Counting

  /// Sums up what the channels have done; now and then, since it reads a few lines of memory for each of them.
  mutating func count(into counters: inout Counters) {
    callsUntilCount -= 1
    guard callsUntilCount <= 0 else { return }
    callsUntilCount = 128
    counters.channelFramesSent = 0
    counters.channelFramesReceived = 0
    counters.channelFramesRefused = strayFrames
    counters.channelMessagesRefused = 0
    counters.channelRetransmits = 0
    for index in known.indices {
      let tally = unsafe channels[index].counters
      counters.channelFramesSent &+= tally.framesSent
      counters.channelFramesReceived &+= tally.framesReceived
      counters.channelMessagesRefused &+= tally.messagesRefused
      counters.channelRetransmits &+= tally.fastRetransmits &+ tally.timeoutRetransmits
      for reason in FrameRefusal.allCases { counters.channelFramesRefused &+= tally[reason] }
    }
  }

  // MARK: Frames out

  /// Sends what the channels have to send, behind everything the port was given before.
  ///
  /// - Returns: frames sent.
  mutating func flush(through port: PacketPort, batch: PacketBatch, now: Tick) -> Int {
    var frames = 0
    // What the port did not take goes first; until it has, nothing more is made.
    guard send(batch, through: port) else { return 0 }
    let reminds = now >= nextReminder
    if reminds { noteSilence(now: now) }
    for index in known.indices where known[index].isAlive {
      _ = unsafe channels[index].poll(now: now)
      while true {
        if batch.isFull, !send(batch, through: port) { return frames }
        let length = unsafe channels[index].fill(outgoing, now: now)
        if length == 0 { break }
        // Without a buffer the frame is lost, as it could be on the way: it will be sent again.
        guard makeFrame(length, in: batch, port, now: now) else { continue }
        frames += 1
      }
    }
    _ = send(batch, through: port)
    return frames
  }

  /// Names the living peers of whom nothing has come since the last look.
  private mutating func noteSilence(now: Tick) {
    nextReminder = now.advanced(byMilliseconds: Self.reminderMilliseconds)
    for index in known.indices {
      if index == heard.count { heard.append(.max) }
      let frames = unsafe channels[index].counters.framesReceived
      if known[index].isAlive, frames == heard[index], unsafe channels[index].isPeerSilent { silent |= 1 << UInt64(index) }
      heard[index] = frames
    }
  }

  /// A frame of the port with what was filled, padded to the least that Ethernet carries.
  private func makeFrame(_ length: Int, in batch: PacketBatch, _ port: PacketPort, now: Tick) -> Bool {
    let padded = max(60, length)
    if length < padded { unsafe (outgoing + length).initializeMemory(as: UInt8.self, repeating: 0, count: padded - length) }
    let made = withUnsafePointer(to: UInt16(padded)) {
      unsafe port.makeFrames(in: batch, lengths: UnsafeBufferPointer(start: $0, count: 1), now: now)
    }
    if made == 1 { unsafe batch[batch.count - 1].write(outgoing, count: padded) }
    return made == 1
  }

  /// Whether the port took all of it; what it did not take stays in the batch.
  private func send(_ batch: PacketBatch, through port: PacketPort) -> Bool {
    guard !batch.isEmpty else { return true }
    batch.keep(port.transmit(batch, mask: batch.all))
    return batch.isEmpty
  }
}
