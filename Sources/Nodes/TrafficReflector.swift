import ModuleGraphs
import Wire

/// Sends every frame back with its MAC addresses swapped and nothing else changed: the far end of a measurement.
///
/// What the port does not take at once is offered again before anything new is fetched, so that a slow receiver slows
/// its sender down and loses nothing here.
struct TrafficReflector {
  private let port: PacketPort
  private let batch = PacketBatch()
  private var offers = OfferPacing()
  private var received: UInt64 = 0
  private var reflected: UInt64 = 0
  private var unfit: UInt64 = 0

  init(_ port: PacketPort) { self.port = port }

  /// One burst; returns the frames that moved.
  mutating func pass(at now: Tick) -> Int {
    if batch.isEmpty {
      port.receive(into: batch, now: now)
      guard !batch.isEmpty else { return 0 }
      received &+= UInt64(batch.count)
      swapAddresses()
    }
    guard offers.mayOffer(at: now) else { return 0 }
    let before = batch.count
    let refused = port.transmit(batch, mask: batch.all)
    batch.keep(refused)
    offers.note(refused: refused, at: now)
    reflected &+= UInt64(before - batch.count)
    return before - batch.count
  }

  private mutating func swapAddresses() {
    let live = batch.live
    PacketBatch.forEach(in: live) { index in
      guard batch[index].length >= 14 else {
        batch.drop(index, .truncated)
        return
      }
      let (destination, source) = (batch[index].destinationMAC, batch[index].sourceMAC)
      batch[index].destinationMAC = source
      batch[index].sourceMAC = destination
    }
    let dropped = batch.all & ~batch.live
    guard dropped != 0 else { return }
    unfit &+= UInt64(dropped.nonzeroBitCount)
    port.release(batch, mask: dropped)
    batch.keep(batch.live)
  }

  /// Ends the work: what waited is given back, and counted.
  mutating func report(seconds: Double) -> ReflectionReport {
    let waiting = UInt64(batch.count)
    if waiting > 0 { port.release(batch, mask: batch.all) }
    batch.removeAll()
    unfit &+= waiting
    return ReflectionReport(
      port: port.name, seconds: seconds, received: received, reflected: reflected, dropped: unfit, missed: port.missed)
  }
}
