import ControlMessages
import Foundation
import Nodes
import Wire

/// Packets and bytes between pairs of endpoints, whoever began: what two tools that name flows differently
/// can be compared by.
struct FlowListing: Equatable {
  struct Pair: Hashable, CustomStringConvertible {
    let protocolName: String
    /// The lesser endpoint first.
    let low: String
    let high: String

    var description: String { "\(protocolName) \(low) <-> \(high)" }
  }

  struct Traffic: Equatable, CustomStringConvertible {
    var fromLow = (packets: 0, bytes: 0)
    var fromHigh = (packets: 0, bytes: 0)

    static func == (a: Traffic, b: Traffic) -> Bool { a.fromLow == b.fromLow && a.fromHigh == b.fromHigh }
    var packets: Int { fromLow.packets + fromHigh.packets }
    /// As it would count if every packet had `count` bytes more.
    func withLongerHeader(_ count: Int) -> Traffic {
      var longer = self
      longer.fromLow.bytes += fromLow.packets * count
      longer.fromHigh.bytes += fromHigh.packets * count
      return longer
    }

    /// Whether neither direction has more than `whole` has.
    func isPart(of whole: Traffic) -> Bool {
      fromLow.packets <= whole.fromLow.packets && fromLow.bytes <= whole.fromLow.bytes
        && fromHigh.packets <= whole.fromHigh.packets && fromHigh.bytes <= whole.fromHigh.bytes
    }

    var description: String { "\(fromLow.packets)/\(fromLow.bytes) <-> \(fromHigh.packets)/\(fromHigh.bytes)" }
  }

  private(set) var pairs: [Pair: Traffic] = [:]
  var packets: Int { pairs.values.reduce(0) { $0 + $1.packets } }

  private mutating func add(
    _ protocolName: String, _ a: String, _ b: String, forward: (packets: Int, bytes: Int), reverse: (packets: Int, bytes: Int)
  ) {
    let isInOrder = a <= b
    let pair = Pair(protocolName: protocolName, low: min(a, b), high: max(a, b))
    let (low, high) = isInOrder ? (forward, reverse) : (reverse, forward)
    pairs[pair, default: Traffic()].fromLow.packets += low.packets
    pairs[pair]!.fromLow.bytes += low.bytes
    pairs[pair]!.fromHigh.packets += high.packets
    pairs[pair]!.fromHigh.bytes += high.bytes
  }

  /// What `nfvactor process` reports.
  init(_ report: CaptureProcessing.Report) {
    for flow in report.flows {
      let name = Self.names[flow.protocolNumber] ?? "\(flow.protocolNumber)"
      // nDPI knows no ports but those of TCP and UDP.
      let hasPorts = flow.protocolNumber == IPProtocol.tcp || flow.protocolNumber == IPProtocol.udp
      add(
        name, "\(flow.source) \(hasPorts ? flow.sourcePort : 0)", "\(flow.destination) \(hasPorts ? flow.destinationPort : 0)",
        forward: (Int(flow.forwardPackets), Int(flow.forwardBytes)), reverse: (Int(flow.reversePackets), Int(flow.reverseBytes)))
    }
  }

  /// The numbered lines at the end of an nDPI result; `nil` for a line that is not understood.
  ///
  ///     1	TCP a:p <-> b:q [...][159 pkts/15615 bytes <-> 99 pkts/19931 bytes][...
  init?(listing: String) {
    let line =
      /^\t\d+\t(\S+) (\S+):(\d+) (?:<->|->) (\S+):(\d+) .*?\[(\d+) pkts\/(\d+) bytes (?:<->|->) (\d+) pkts\/(\d+) bytes\]/
    for text in listing.split(whereSeparator: \.isNewline)
    where text.hasPrefix("\t") && text.contains(" bytes <-> ") || text.hasPrefix("\t") && text.contains(" bytes -> ") {
      guard let match = String(text).firstMatch(of: line), let from = Self.address(match.2), let to = Self.address(match.4) else {
        return nil
      }
      add(
        String(match.1), "\(from) \(match.3)", "\(to) \(match.5)", forward: (Int(match.6)!, Int(match.7)!),
        reverse: (Int(match.8)!, Int(match.9)!))
    }
  }

  private static let names: [UInt8: String] = [1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPV6"]

  private static func address(_ text: Substring) -> IPAddress? {
    IPAddress(String(text).trimmingCharacters(in: CharacterSet(charactersIn: "[]")))
  }
}
