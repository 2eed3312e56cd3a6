import Foundation
import Testing

@testable import Lab

/// What a scaling run leaves behind, of samples made up here.
@Suite struct ScalingRecordTests {
  private var record: ScalingRecord {
    var record = ScalingRecord()
    for half in 0..<120 {
      let seconds = Double(half) / 2
      let offered = seconds < 15 ? 6_000 + seconds * 2_800 : 48_000 - (seconds - 15) * 900
      record.samples.append(
        .init(
          seconds: seconds, offered: offered, achieved: min(offered, 40_000), serving: seconds < 10 ? 2 : 4, draining: 0, starting: 0,
          moved: UInt64(half), busyShares: [0.5]))
    }
    record.note(10, "launch", 4, "policy drop-threshold@9: node 2 lost <412> packets & more")
    record.total = .init(seconds: 60, offered: 1_000, sent: 990, received: 900)
    return record
  }

  @Test func `its lines are JSON, first the head, then everything by time`() throws {
    let lines = record.jsonLines().split(separator: "\n")
    let objects = try lines.map { try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any]) }
    #expect(objects[0]["figure"] as? String == "scaling" && objects[0]["receivedPackets"] as? Int == 900)
    let times = objects.dropFirst().compactMap { $0["seconds"] as? Double }
    #expect(times.count == 121 && times == times.sorted())
    #expect(record.deliveredShare == 0.9 && record.mostRuntimes == 4 && record.shortSeconds > 0)
  }

  @Test func `its drawing is well-formed and holds every sample`() throws {
    let svg = record.svg()
    let parser = XMLCheck(svg)
    #expect(parser.isWellFormed)
    let polyline = try #require(svg.split(separator: "\n").first { $0.hasPrefix("<polyline") })
    let points = polyline.split(separator: "\"")[1].split(separator: " ")
    #expect(points.count == 120)
    for point in points {
      let parts = point.split(separator: ",").compactMap { Double($0) }
      #expect(parts.count == 2 && (70...880).contains(parts[0]) && (40...300).contains(parts[1]), "\(point)")
    }
    #expect(svg.contains("launch 4"))
  }

  @Test func `a run without samples is drawn, too`() { #expect(XMLCheck(ScalingRecord().svg()).isWellFormed) }
}

/// Tags that open and close in their order: enough for what is written here.
private struct XMLCheck {
  let isWellFormed: Bool

  init(_ text: String) {
    var open: [Substring] = []
    var isFine = true
    for piece in text.split(separator: "<").dropFirst(text.hasPrefix("<") ? 0 : 1) {
      guard let end = piece.firstIndex(of: ">") else {
        isFine = false
        break
      }
      let tag = piece[..<end]
      if tag.hasPrefix("/") {
        isFine = isFine && open.popLast() == tag.dropFirst()
      } else if !tag.hasSuffix("/") {
        open.append(tag.prefix { $0 != " " })
      }
      isFine = isFine && tag.count(where: { $0 == "\"" }) % 2 == 0
    }
    isWellFormed = isFine && open.isEmpty
  }
}
