import Wire

/// What a link does to frames. Probabilities are per thousand, delays nanoseconds.
public struct LinkFaults: Equatable, Sendable {
  public var loss = 0
  public var duplication = 0
  /// A frame that is reordered is held back by up to `lateness`, while later ones pass it.
  public var reordering = 0
  public var lateness: UInt64 = 300_000
  /// One bit is turned.
  public var corruption = 0
  public var delay: ClosedRange<UInt64> = 5_000...15_000

  public init() {}

  /// Keeps order and loses nothing.
  public static let none = LinkFaults()

  /// The fabric of the worst day: a fifth lost, a tenth out of order, some doubled, some damaged.
  public static var severe: LinkFaults {
    var faults = LinkFaults()
    (faults.loss, faults.reordering, faults.duplication, faults.corruption) = (200, 100, 50, 20)
    return faults
  }

  /// Faults of a seed's own.
  public static func drawn(_ chance: inout Chance) -> LinkFaults {
    var faults = LinkFaults()
    if chance.happens(700) { faults.loss = chance.below(250) }
    if chance.happens(600) { (faults.reordering, faults.lateness) = (chance.below(200), chance.within(50_000...2_000_000)) }
    if chance.happens(500) { faults.duplication = chance.below(150) }
    if chance.happens(400) { faults.corruption = chance.below(50) }
    if chance.happens(300) { faults.delay = 1_000...chance.within(20_000...400_000) }
    return faults
  }
}

/// Frames under way between numbered places. Without faults a link is a queue: what is sent first arrives first.
public struct VirtualNetwork {
  public struct Arrival {
    public let time: UInt64
    fileprivate let order: UInt64
    public let source: Int
    public let destination: Int
    public var frame: [UInt8]
  }

  public var faults = LinkFaults.none
  /// Links, by both ends, that pass nothing.
  public var cut: Set<[Int]> = []
  /// Frames under way as a binary heap, the earliest first.
  private var heap: [Arrival] = []
  private var order: UInt64 = 0
  /// When the latest frame of a link that was not held back arrives.
  private var latest: [[Int]: UInt64] = [:]

  public init() {}

  public var isEmpty: Bool { heap.isEmpty }
  public var nextTime: UInt64? { heap.first?.time }

  /// - Parameter own: faults for this frame instead of the network's, cuts included.
  public mutating func send(
    _ frame: [UInt8], from source: Int, to destination: Int, now: Tick, chance: inout Chance, faults own: LinkFaults? = nil
  ) {
    let faults = own ?? faults
    let link = [source, destination]
    if (own == nil && cut.contains(link)) || chance.happens(faults.loss) { return }
    var frame = frame
    if chance.happens(faults.corruption), !frame.isEmpty {
      frame[chance.below(frame.count)] ^= 1 << UInt8(chance.below(8))
    }
    for _ in 0..<(chance.happens(faults.duplication) ? 2 : 1) {
      var time = now.nanoseconds + chance.within(faults.delay)
      if chance.happens(faults.reordering) {
        time += chance.within(0...faults.lateness)
      } else {
        time = max(time, latest[link] ?? 0)
        latest[link] = time
      }
      order += 1
      push(Arrival(time: time, order: order, source: source, destination: destination, frame: frame))
    }
  }

  /// The earliest frame that has arrived by `now`.
  public mutating func take(by now: Tick) -> Arrival? {
    guard let first = heap.first, first.time <= now.nanoseconds else { return nil }
    let last = heap.removeLast()
    if !heap.isEmpty {
      heap[0] = last
      siftDown()
    }
    return first
  }

  private func isEarlier(_ a: Int, _ b: Int) -> Bool { (heap[a].time, heap[a].order) < (heap[b].time, heap[b].order) }

  private mutating func push(_ arrival: Arrival) {
    heap.append(arrival)
    var child = heap.count - 1
    while child > 0, isEarlier(child, (child - 1) / 2) {
      heap.swapAt(child, (child - 1) / 2)
      child = (child - 1) / 2
    }
  }

  private mutating func siftDown() {
    var parent = 0
    while true {
      var least = parent
      for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && isEarlier(child, least) { least = child }
      if least == parent { return }
      heap.swapAt(parent, least)
      parent = least
    }
  }
}
