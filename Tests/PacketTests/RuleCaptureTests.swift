import ControlMessages
import Foundation
import FunctionCatalog
import Nodes
import Testing

/// Rules from elsewhere on captures from elsewhere: the alerts have to be those that another engine's test counts.
///
/// Of what `test.yaml` checks, what needs more than rules over packets (events of applications, of flows) is another engine's.
@Suite(.enabled(if: CaptureLibrary.isPresent, "\(CaptureLibrary.absence)")) struct RuleCaptureTests {
  /// Each folder of `suricata`: a capture, rules, and the counts of `test.yaml`.
  private static var cases: [RuleCase] {
    guard let root = CaptureLibrary.root?.appending(path: "suricata"),
      let folders = try? FileManager.default.contentsOfDirectory(at: root, includingPropertiesForKeys: nil)
    else { return [] }
    return folders.sorted { $0.path < $1.path }.compactMap(RuleCase.init)
  }

  @Test(arguments: cases.filter { !$0.checks.isEmpty })
  func `alerts are those that the other engine's test counts`(test: RuleCase) throws {
    let rules = RuleSet(file: test.rules.lastPathComponent, text: Array(try Data(contentsOf: test.rules)))
    guard rules.report.refused.isEmpty else {
      print("\(test.name): not judged, its rules need more: \(rules.report.refusedByReason)")
      return
    }
    let report = try run(rules: try String(contentsOf: test.rules, encoding: .utf8), test.capture)
    for check in test.checks {
      #expect(check.count(rules, report) == check.count, "\(test.name): \(check)")
    }
  }

  @Test func `pass lets two connections through untouched, and drop stops the third entirely`() throws {
    let test = try #require(Self.cases.first { $0.name == "ips-state-1" })
    let report = try run(rules: try String(contentsOf: test.rules, encoding: .utf8), test.capture)
    // 80, 443, 80: twenty packets of HTTP pass, thirty-nine of TLS do not, and nothing is said of HTTP.
    #expect(report.packets.out == 20 && report.droppedByReason == ["dropped-by-rule": 39])
    #expect(report.observations["ips.alerts.1:2"] == report.observations["ips.alerts"])
  }

  @Test func `of published rules, all load that need only what is known, and the others say why`() throws {
    let root = try #require(CaptureLibrary.root).appending(path: "rules")
    let files = try FileManager.default.contentsOfDirectory(at: root, includingPropertiesForKeys: nil).filter {
      $0.pathExtension == "rules"
    }
    #expect(!files.isEmpty)
    // These need a parser of another application than HTTP, a regular expression, or computing with bytes; nothing else may be refused.
    let beyond = [
      "protocol 'dns'", "protocol 'ftp'", "protocol 'smtp'", "protocol 'ssh'", "keyword 'pcre'", "keyword 'byte_",
    ]
    for file in files {
      let text = Array(try Data(contentsOf: file))
      let rules = RuleSet(file: file.lastPathComponent, text: text)
      for refused in rules.report.refused where !beyond.contains(where: { refused.reason.hasPrefix($0) }) {
        Issue.record("\(refused)")
      }
      let enabled = String(decoding: text, as: UTF8.self).split(whereSeparator: \.isNewline).filter { $0.hasPrefix("alert") }
        .count
      #expect(rules.report.loaded + rules.report.refused.count == enabled)
      #expect(rules.report.loaded > 0)
      print(
        "\(file.lastPathComponent): \(rules.report.loaded) loaded, \(rules.report.refused.count) refused: \(rules.report.refusedByReason)"
      )
    }
  }

  @Test func `published rules on every capture: nothing crashes, and every packet is accounted for`() throws {
    let root = try #require(CaptureLibrary.root).appending(path: "rules")
    let files = try FileManager.default.contentsOfDirectory(at: root, includingPropertiesForKeys: nil).filter {
      $0.pathExtension == "rules"
    }
    // Every twentieth of those of HTTP: reading them again for every capture takes long.
    let text = try files.flatMap { String(decoding: try Data(contentsOf: $0), as: UTF8.self).split(separator: "\n") }
      .enumerated().filter { !$1.hasPrefix("#") && ($0 % 20 == 0 || !$1.hasPrefix("alert http")) }.map(\.element)
      .joined(separator: "\n")
    for capture in CaptureLibrary.all {
      let report = try run(rules: text, capture.url)
      #expect(report.packets.in == report.packets.out + report.packets.dropped, "\(capture.testDescription)")
      #expect(report.droppedByReason.values.reduce(0, +) == report.packets.dropped, "\(capture.testDescription)")
    }
  }

  /// Connections met in their middle are inspected; checksums are trusted, as in the other engine's tests (`-k none`).
  private func run(rules: String, _ capture: URL) throws -> CaptureProcessing.Report {
    func setting(_ key: String, _ text: String) -> Settings.Entry { .init(key, Settings(.scalar(text))) }
    var spec = ServiceChainSpec(functions: [
      .init(kind: "ips", settings: Settings(.map([setting("rules", rules), setting("refused", "skip")])))
    ])
    spec.flows.midstream = .accept
    spec.flows.capacity = 4096
    return try CaptureProcessing(spec: spec, input: capture.path, output: nil, checksums: .trust).run()
  }
}

/// A folder with a capture, rules, and what is expected of them.
struct RuleCase: Sendable, CustomTestStringConvertible {
  let name: String
  let capture: URL
  let rules: URL
  let checks: [Check]

  var testDescription: String { name }

  /// How many alerts there are: of all rules, or of those that a number or a message picks.
  struct Check: Sendable {
    var count: UInt64
    var sid: String?
    var message: String?

    func count(_ rules: RuleSet, _ report: CaptureProcessing.Report) -> UInt64 {
      if let message {
        let signatures = rules.signatures.filter { $0.message == message }
        return signatures.reduce(0) { $0 + (report.observations["ips.alerts.\($1.gid):\($1.sid)"] ?? 0) }
      }
      if let sid { return report.observations["ips.alerts.1:\(sid)"] ?? 0 }
      return report.observations["ips.alerts"] ?? 0
    }
  }

  init?(folder: URL) {
    guard let files = try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil),
      let capture = files.first(where: { ["pcap", "pcapng"].contains($0.pathExtension) }),
      let rules = files.first(where: { $0.pathExtension == "rules" }),
      let yaml = try? String(contentsOf: folder.appending(path: "test.yaml"), encoding: .utf8)
    else { return nil }
    name = folder.lastPathComponent
    self.capture = capture
    self.rules = rules
    checks = Self.checks(in: yaml)
  }

  /// The filters over alerts, in the few forms they have: `count:`, and under `match:` a number, a message, or just the type of event.
  private static func checks(in yaml: String) -> [Check] {
    var checks: [Check] = []
    for filter in yaml.components(separatedBy: "- filter:").dropFirst() {
      var check: Check?
      var others = false
      var isAlert = false
      var picked: (sid: String?, message: String?)
      for line in filter.split(separator: "\n") {
        let parts = line.split(separator: ":", maxSplits: 1).map { $0.trimmingCharacters(in: .whitespaces) }
        guard parts.count == 2, !parts[0].hasPrefix("#"), !parts[0].hasPrefix("-") else { continue }
        switch parts[0] {
        case "count": check = UInt64(parts[1]).map { Check(count: $0) }
        case "match": break
        case "event_type": isAlert = parts[1] == "alert"
        case "alert.signature_id": (isAlert, picked.sid) = (true, parts[1])
        case "alert.signature": (isAlert, picked.message) = (true, parts[1])
        default: others = true
        }
      }
      guard isAlert, !others, var check else { continue }
      (check.sid, check.message) = picked
      checks.append(check)
    }
    return checks
  }
}
