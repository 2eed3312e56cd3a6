/// What was sent into a cluster and what came out of it: every packet once, and in the order of its flow and direction.
///
/// A packet's label is in its payload, each word beside its complement, which leaves the checksum as it is whatever the label:
///
///     | flow | ~flow | number | ~number | time sent, low | ~low | high | ~high |      words of 32 bits
final class PacketBook {
  static let labelLength = 32
  /// The number of the next packet to be sent, and of the next that should come, by flow and direction.
  private var sent: [UInt32]
  private var received: [UInt32]
  /// Longest time that a packet of the flow was under way, in nanoseconds; 0 if there was none.
  private(set) var longest: [UInt32]
  private(set) var sentCount = 0
  private(set) var receivedCount = 0
  private(set) var disordered = 0
  /// The clock of what is noted now.
  var now: UInt64 = 0

  init(flows: Int) {
    sent = Array(repeating: 0, count: flows * 2)
    received = sent
    longest = Array(repeating: 0, count: flows)
  }

  var underWay: Int { sentCount - receivedCount }

  /// Writes the label of the flow's next packet into its payload.
  func label(_ payload: UnsafeMutableRawPointer, flow: Int, isForward: Bool) {
    let place = flow * 2 + (isForward ? 0 : 1)
    for (index, word) in [UInt32(flow), sent[place], UInt32(truncatingIfNeeded: now), UInt32(truncatingIfNeeded: now >> 32)]
      .enumerated()
    {
      payload.storeBytes(of: word, toByteOffset: index * 8, as: UInt32.self)
      payload.storeBytes(of: ~word, toByteOffset: index * 8 + 4, as: UInt32.self)
    }
    sent[place] += 1
    sentCount += 1
  }

  /// Notes a packet that has come out.
  func note(_ payload: UnsafeRawPointer, isForward: Bool) {
    func word(_ index: Int) -> UInt32 { payload.loadUnaligned(fromByteOffset: index * 8, as: UInt32.self) }
    let (flow, number) = (Int(word(0)), word(1))
    let place = flow * 2 + (isForward ? 0 : 1)
    if number != received[place] { disordered += 1 }
    received[place] = number + 1
    receivedCount += 1
    let time = now - (UInt64(word(3)) << 32 | UInt64(word(2)))
    longest[flow] = max(longest[flow], UInt32(clamping: time))
  }

  func forgetTimes() { for flow in longest.indices { longest[flow] = 0 } }
}
