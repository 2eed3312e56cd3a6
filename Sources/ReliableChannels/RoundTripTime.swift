import Wire

/// How long to wait for an acknowledgement before sending again (RFC 6298).
///
/// Times are nanoseconds. The clock's granularity is the worker's pass and goes into the least timeout.
struct RoundTripTime {
  private var smoothed: UInt64 = 0
  private var variation: UInt64 = 0
  private var base: UInt64
  private var doublings: UInt64 = 0
  private let least: UInt64
  private let most: UInt64

  init(_ settings: ChannelSettings) {
    base = settings.initialTimeout
    least = settings.leastTimeout
    most = settings.greatestTimeout
  }

  /// RFC 6298 §2.4, §5.5: at least the least, doubled for every timeout in a row, at most the greatest.
  var timeout: UInt64 { min(max(base, least) << min(doublings, 16), most) }

  var smoothedNanoseconds: UInt64 { smoothed }

  /// Takes the time between a frame and its acknowledgement; never of a frame that was sent twice (Karn, RFC 6298 §3).
  mutating func sample(_ time: UInt64) {
    if smoothed == 0 {
      (smoothed, variation) = (max(time, 1), time / 2)
    } else {
      let distance = time > smoothed ? time - smoothed : smoothed - time
      variation = variation - variation / 4 + distance / 4
      smoothed = max(smoothed - smoothed / 8 + time / 8, 1)
    }
    base = smoothed + 4 * variation
  }

  mutating func backOff() { doublings += 1 }
  mutating func progress() { doublings = 0 }
}
