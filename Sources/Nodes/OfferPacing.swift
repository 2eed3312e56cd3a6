import Wire

/// When a port that was full is offered something again: not at once.
///
/// To see whether there is room is to fetch the line of memory that the other side writes its progress on, and to slow it
/// down. With an attempt at every turn of the loop a vhost port carries a third of what it does with one in 5 us.
struct OfferPacing {
  private var next: UInt64 = 0

  @inline(__always)
  func mayOffer(at now: Tick) -> Bool { now.nanoseconds >= next }

  @inline(__always)
  mutating func note(refused: UInt64, at now: Tick) {
    if refused != 0 { next = now.nanoseconds &+ 5_000 }
  }
}
