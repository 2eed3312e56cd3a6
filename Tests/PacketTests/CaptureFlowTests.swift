import Foundation
import Nodes
import Testing

/// Flows, packets and bytes of real captures as another tool counted them (nDPI).
///
/// The table of what differs, and why, is in docs/captures.md; here it is by capture, so that a new
/// difference fails.
@Suite(.enabled(if: CaptureLibrary.isPresent, "\(CaptureLibrary.absence)")) struct CaptureFlowTests {
  @Test(arguments: CaptureLibrary.withListings)
  func `flows agree with nDPI's listing, but for what is explained`(capture: Capture) throws {
    let text = try String(contentsOfFile: capture.listing, encoding: .utf8)
    guard let expected = FlowListing(listing: text) else {
      Issue.record("\(capture.name): the listing is not understood")
      return
    }
    #expect(!expected.pairs.isEmpty)
    let report = try CaptureProcessing(
      spec: CaptureChains.passThrough, input: capture.path, output: nil, checksums: .trust
    ).run()
    let ours = FlowListing(report)
    let explanation = Self.explained[capture.name]
    var missing = 0
    for pair in Set(ours.pairs.keys).union(expected.pairs.keys) {
      let (ours, theirs) = (ours.pairs[pair] ?? .init(), expected.pairs[pair] ?? .init())
      if ours == theirs { continue }
      switch explanation {
      case .cookedHeader? where ours.withLongerHeader(2) == theirs: break
      case .dropped? where ours.isPart(of: theirs): missing += theirs.packets - ours.packets
      default: Issue.record("\(capture.name): \(pair): \(ours) instead of \(theirs)")
      }
    }
    if case .dropped(let reason)? = explanation {
      #expect(missing > 0 && missing <= report.droppedByReason[reason] ?? 0, "\(capture.name): every missing packet was dropped")
    }
  }

  /// The kinds of docs/captures.md, by capture.
  private enum Explanation {
    /// Packets that nDPI counts are drops here, for this reason.
    case dropped(String)
    /// A Linux cooked header is sixteen bytes long, the Ethernet header put in its place fourteen.
    case cookedHeader
  }

  private static let explained: [String: Explanation] = [
    "dns.pcap": .dropped("unknown-ethertype"), "dns_fragmented.pcap": .dropped("fragment"),
    "ip_fragmented_garbage.pcap": .dropped("fragment"), "rtsp.pcap": .cookedHeader,
  ]
}
