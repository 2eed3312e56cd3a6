import ModuleGraphs
import Wire

/// Tells the fabric's bridges where a node's addresses are, so that frames for it are not flooded to all others.
///
/// A runtime answers from its other address to the switch's other one: with traffic in one direction, neither of those that
/// take packets is ever a source, no learning bridge knows them, and every node gets every packet. So each address is the source of a frame to
/// all (an ARP request about nobody, which nobody answers) more often than bridges forget, which is after 300 seconds
/// (IEEE 802.1Q, table 8-6).
final class AnnouncementGraph: ModuleGraph {
  private let port: PacketPort
  private let addresses: [MACAddress]
  private let batch = PacketBatch()
  private var next = Tick.zero

  private static var interval: UInt64 { 20_000 }

  init(port: PacketPort, address: FabricAddress) {
    self.port = port
    addresses = [address.address(of: .client), address.address(of: .server), address.control]
  }

  override func run(at now: Tick) -> Int {
    guard now >= next else { return 0 }
    next = now.advanced(byMilliseconds: Self.interval)
    for address in addresses where port.makeFrame(in: batch, length: ARPPacket.frameLength, now: now) {
      let nobody = IPv4Address(0)
      ARPPacket(operation: .request, senderMAC: address, sender: nobody, targetMAC: .zero, target: nobody).write(
        to: batch[batch.count - 1], destination: .broadcast)
    }
    let refused = port.transmit(batch, mask: batch.live)
    port.release(batch, mask: refused)
    batch.removeAll()
    return 0
  }
}
