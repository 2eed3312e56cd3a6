import CDPDK
import ModuleGraphs
import Wire

/// What a port needs for packets that are not one frame in one buffer: datagrams in fragments, and jumbo frames that the
/// device puts into a chain of buffers.
///
/// Each becomes one buffer of a small pool of large ones, so that whatever comes after sees plain bytes. Fragments wait in
/// DPDK's table (`rte_ip_frag`): 512 datagrams at most, for one second, of 8 fragments at most. What leaves and is larger
/// than the link takes is cut again.
///
/// Memory is bounded: 4,096 packet buffers for fragments that wait, and the large pool. While strangers fill the table with
/// fragments that stay alone, others' datagrams in fragments are refused, and nothing else suffers. Until the first large packet
/// comes, a port pays one comparison per burst for all of this.
public final class LargePackets {
  let pool: MbufPool
  private let small: MbufPool
  private let fragments: UnsafeMutableRawPointer
  private let pieces: UnsafeMutablePointer<UnsafeMutableRawPointer?>
  private var identification = UInt32.random(in: .min ... .max)
  /// Whether any packet was larger than an ordinary buffer.
  private(set) var haveCome = false
  /// Of the ports that share this.
  var largestMTU = 0

  static var most: Int { 64 }

  /// - Parameters:
  ///   - pool: of the fragments that large packets are cut into.
  public init(name: String, pool small: MbufPool, count: Int = 128) throws(PortError) {
    self.small = small
    pool = try MbufPool(name: name, count: count, room: MbufPool.largeRoom, cache: 0)
    guard let fragments = unsafe nfv_fragments_create(512, 1_000, pool.handle) else {
      throw PortError("there is no memory for fragments", hint: "provide more huge pages, or more ordinary memory")
    }
    unsafe self.fragments = fragments
    unsafe pieces = .allocate(capacity: Self.most)
  }

  deinit {
    unsafe nfv_fragments_free(fragments)
    unsafe pieces.deallocate()
  }

  enum Outcome { case whole(nfv_packet), waiting, refused }

  /// Takes over one fragment.
  func add(_ mbuf: UnsafeMutableRawPointer) -> Outcome {
    var packet = nfv_packet()
    switch unsafe nfv_fragments_add(fragments, mbuf, &packet) {
    case 1:
      haveCome = true
      return .whole(packet)
    case 0: return .waiting
    default: return .refused
    }
  }

  /// One buffer instead of a chain; `nil` when there is none, and then the chain is gone.
  func flatten(_ mbuf: UnsafeMutableRawPointer) -> nfv_packet? {
    var packet = nfv_packet()
    guard unsafe nfv_flatten(pool.handle, mbuf, &packet) == 0 else { return nil }
    haveCome = true
    return packet
  }

  /// Cuts a packet and hands the pieces to `send`, which returns how many it took; whether all were.
  func cut(_ mbuf: UnsafeMutableRawPointer, mtu: Int, send: (UnsafeMutablePointer<UnsafeMutableRawPointer?>, Int) -> Int) -> Bool {
    identification &+= 1
    let count = unsafe Int(nfv_cut(mbuf, UInt16(mtu), identification, small.handle, pieces, UInt16(Self.most)))
    guard count > 0 else { return false }
    let sent = unsafe send(pieces, count)
    if sent < count { unsafe nfv_release(pieces + sent, UInt16(count - sent)) }
    return sent == count
  }
}
