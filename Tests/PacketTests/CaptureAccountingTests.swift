import ControlMessages
import Foundation
import Nodes
import Testing
import Wire

/// Every capture through every chain: nothing crashes, every packet is accounted for, and what leaves is right.
@Suite(.enabled(if: CaptureLibrary.isPresent, "\(CaptureLibrary.absence)")) struct CaptureAccountingTests {
  @Test(arguments: CaptureLibrary.all)
  func `in is out plus dropped by reason, through every chain`(capture: Capture) throws {
    for spec in [CaptureChains.passThrough, CaptureChains.firewallNATLoadBalancer, CaptureChains.lenientNATLoadBalancer] {
      for checksums in [ChecksumPolicy.verify, .trust] {
        let report = try CaptureProcessing(spec: spec, input: capture.path, output: nil, checksums: checksums).run()
        expectBalance(report, "\(capture.testDescription), \(report.chain)")
        #expect(report.packets.in > 0, "\(capture.testDescription) has packets")
        #expect(report.fault == nil, "\(capture.testDescription): \(report.fault ?? "")")
      }
    }
  }

  @Test(arguments: CaptureLibrary.all)
  func `every packet that leaves NAT and load balancer has right checksums`(capture: Capture) throws {
    for spec in [CaptureChains.firewallNATLoadBalancer, CaptureChains.lenientNATLoadBalancer] {
      let output = temporaryFile()
      defer { try? FileManager.default.removeItem(at: output) }
      let report = try CaptureProcessing(spec: spec, input: capture.path, output: output.path, checksums: .verify).run()
      let judged = try CaptureFrames.read(output.path)
      #expect(judged.count == Int(report.packets.out))
      #expect(judged.wrong == [], "\(capture.testDescription): checksums of these packets are wrong")
    }
  }

  @Test func `good captures get through NAT, bad ones are dropped for their checksum`() throws {
    var pairs = 0
    for bad in CaptureLibrary.all where bad.name.contains("-bad-") {
      let good = Capture(url: bad.url.deletingLastPathComponent().appending(path: bad.name.replacing("-bad-", with: "-good-")))
      let ofBad = try CaptureProcessing(spec: CaptureChains.passThrough, input: bad.path, output: nil, checksums: .verify).run()
      let reason = bad.name == "ip4-bad-chksum.pcap" ? "bad-ipv4-checksum" : "bad-transport-checksum"
      #expect(ofBad.droppedByReason[reason] ?? 0 > 0, "\(bad.name): \(ofBad.droppedByReason)")
      #expect(Set(ofBad.droppedByReason.keys) == [reason], "\(bad.name): \(ofBad.droppedByReason)")
      guard FileManager.default.fileExists(atPath: good.path) else { continue }
      let ofGood = try CaptureProcessing(spec: CaptureChains.passThrough, input: good.path, output: nil, checksums: .verify).run()
      #expect(ofGood.packets.dropped == 0, "\(good.name): \(ofGood.droppedByReason)")
      pairs += 1
    }
    #expect(pairs >= 10)
  }

  // MARK: Damage

  @Test func `a capture cut off anywhere is read as far as it goes`() throws {
    let file = temporaryFile()
    defer { try? FileManager.default.removeItem(at: file) }
    for capture in CaptureLibrary.all {
      let bytes = try Data(contentsOf: capture.url)
      var numbers = SeededNumbers(seed: UInt64(bytes.count))
      // Every place in the file's header and the first packets, then some.
      let cuts =
        Array(stride(from: 0, to: min(130, bytes.count), by: 26)) + (0..<3).map { _ in numbers.below(min(60_000, bytes.count)) }
      for cut in cuts {
        try bytes.prefix(min(cut, 60_000)).write(to: file)
        process(file, "\(capture.testDescription) cut at \(cut)")
      }
    }
  }

  @Test func `a capture with bytes changed anywhere crashes nothing`() throws {
    let file = temporaryFile()
    defer { try? FileManager.default.removeItem(at: file) }
    for capture in CaptureLibrary.all {
      let bytes = try Data(contentsOf: capture.url).prefix(60_000)
      for seed in 0..<3 as Range<UInt64> {
        var numbers = SeededNumbers(seed: seed &* 1_000_003 &+ UInt64(bytes.count))
        var damaged = bytes
        // Behind the file's header: a few bytes, or one in fifty.
        let count = numbers.oneIn(2) ? 5 : bytes.count / 50
        for _ in 0..<count { damaged[24 + numbers.below(bytes.count - 24)] = UInt8(truncatingIfNeeded: numbers.next()) }
        try damaged.write(to: file)
        process(file, "\(capture.testDescription) damaged with seed \(seed)")
      }
    }
  }

  /// A file that cannot be read is an error or a fault in the report; what was read is accounted for.
  private func process(_ file: URL, _ what: String) {
    for spec in [CaptureChains.lenientNATLoadBalancer] {
      guard let processing = try? CaptureProcessing(spec: spec, input: file.path, output: nil, checksums: .trust),
        let report = try? processing.run()
      else { continue }
      expectBalance(report, what)
    }
  }

  private func expectBalance(_ report: CaptureProcessing.Report, _ what: String) {
    let byReason = report.droppedByReason.values.reduce(0, +)
    #expect(report.packets.in == report.packets.out + report.packets.dropped, "\(what)")
    #expect(report.packets.dropped == byReason, "\(what)")
    #expect(!report.droppedByReason.keys.contains { $0.hasPrefix("reason-") }, "\(what): a reason without a name")
  }

  private func temporaryFile() -> URL {
    FileManager.default.temporaryDirectory.appending(path: "nfv-captures-\(UUID().uuidString).pcap")
  }
}
