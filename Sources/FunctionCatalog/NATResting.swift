/// External endpoints that nobody uses and that are not to be given to another client yet (RFC 6888 REQ-8):
/// packets for the old one may still be on their way.
///
/// A list of mapping records in the order in which they fell idle. A return from another runtime comes without the time:
/// its record begins to rest at the next moment that is known, the beginning or end of a flow, so it rests a
/// little longer than asked, never shorter. Everything is O(1), amortised over the records.
struct NATResting {
  private struct Link: BitwiseCopyable {
    var previous: UInt32 = 0
    var next: UInt32 = 0
    var since: UInt64 = NATResting.notResting
  }

  private static let notResting = UInt64.max
  private static let sinceUnknown = UInt64.max - 1

  private let links: FixedMemory<Link>
  private var first: UInt32 = 0
  private var last: UInt32 = 0
  /// From here on it is not known since when.
  private var firstUnknown: UInt32 = 0

  /// - Parameter capacity: of records that may rest at once; where none ever does, 0.
  init(capacity: Int) { links = FixedMemory(count: capacity + 1, repeating: Link()) }

  func contains(_ index: UInt32) -> Bool { links.count > 1 && links[Int(index)].since != NATResting.notResting }

  mutating func add(_ index: UInt32) {
    links[Int(index)] = Link(previous: last, next: 0, since: NATResting.sinceUnknown)
    if last == 0 { first = index } else { links[Int(last)].next = index }
    last = index
    if firstUnknown == 0 { firstUnknown = index }
  }

  mutating func remove(_ index: UInt32) {
    let link = links[Int(index)]
    if link.previous == 0 { first = link.next } else { links[Int(link.previous)].next = link.next }
    if link.next == 0 { last = link.previous } else { links[Int(link.next)].previous = link.previous }
    if firstUnknown == index { firstUnknown = link.next }
    links[Int(index)] = Link()
  }

  mutating func know(_ now: UInt64) {
    while firstUnknown != 0 {
      links[Int(firstUnknown)].since = now
      firstUnknown = links[Int(firstUnknown)].next
    }
  }

  /// The record that has rested longest, if that is long enough.
  func rested(_ now: UInt64, for duration: UInt64) -> UInt32? {
    guard first != 0, links[Int(first)].since &+ duration <= now, links[Int(first)].since != NATResting.sinceUnknown else {
      return nil
    }
    return first
  }
}
