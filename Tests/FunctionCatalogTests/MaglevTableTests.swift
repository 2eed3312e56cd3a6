import Testing
import Wire

@testable import FunctionCatalog

/// What the Maglev paper claims of its tables, measured on ours.
@Suite struct MaglevTableTests {
  static func candidates(_ count: Int, without gone: Int? = nil) -> [MaglevTable.Candidate] {
    (0..<count).map { .init(name: 0x0a02_0000_0050 + UInt64($0) << 16, weight: $0 == gone ? 0 : 1) }
  }

  static func shares(_ table: MaglevTable, _ count: Int) -> [Int] {
    table.entries.reduce(into: Array(repeating: 0, count: count)) { $0[Int($1)] += 1 }
  }

  /// §3.4: with more than a hundred entries per backend their shares differ by at most one per cent.
  @Test(arguments: [1, 2, 3, 10, 100, 1000]) func `every backend gets its share`(count: Int) throws {
    let shares = Self.shares(try #require(MaglevTable(Self.candidates(count))), count)
    #expect(shares.reduce(0, +) == MaglevTable.defaultSize)
    #expect(shares.max()! - shares.min()! <= 1, "in turns nobody gets two more than another")
  }

  /// §5.3 and figure 12: when a backend fails, few entries change besides its own. Ours: under one per cent.
  @Test(arguments: [(2, 0.0), (10, 0.01), (100, 0.01), (1000, 0.01)])
  func `when a backend goes, hardly any entry of the others changes`(count: Int, bound: Double) throws {
    let before = try #require(MaglevTable(Self.candidates(count)))
    var worst = 0.0
    for gone in [0, count / 2, count - 1] {
      let after = try #require(MaglevTable(Self.candidates(count, without: gone)))
      let moved = zip(before.entries, after.entries).count { $0 != $1 && Int($0) != gone }
      worst = max(worst, Double(moved) / Double(MaglevTable.defaultSize))
      #expect(!after.entries.contains(UInt16(gone)))
    }
    print(
      "Maglev, \(MaglevTable.defaultSize) entries, \(count) backends: \(worst * 100) % of the entries move besides the failed one's"
    )
    #expect(worst <= bound)
  }

  @Test func `shares follow weights`() throws {
    let weights = [1, 2, 5, 0]
    let table = try #require(MaglevTable(weights.enumerated().map { .init(name: UInt64($0.offset + 7), weight: $0.element) }))
    let shares = Self.shares(table, 4)
    for (share, weight) in zip(shares, weights) {
      #expect(abs(Double(share) / Double(MaglevTable.defaultSize) - Double(weight) / 8) < 0.001)
    }
    #expect(MaglevTable([.init(name: 1, weight: 0)]) == nil && MaglevTable([]) == nil)
  }

  @Test func `flows spread over the backends`() throws {
    let table = try #require(MaglevTable(Self.candidates(8)))
    var counts = Array(repeating: 0, count: 8)
    for flow in 0..<UInt32(8000) {
      let transport = TransportKey(source: UInt16(1024 + flow % 60_000), destination: 80, protocolNumber: 6, vlan: 0)
      counts[
        table.backend(
          for: IPv4FiveTuple(source: IPv4Address(0x0a00_0000 + flow / 4), destination: "10.1.0.100", transport: transport))] += 1
    }
    // Binomial: 1000 ± 30; six times that.
    #expect(counts.allSatisfy { abs($0 - 1000) < 180 }, "\(counts)")
  }
}
