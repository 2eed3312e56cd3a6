import Foundation
import Glibc
import Testing

/// Every kind of port that works without hardware, with packets through it: none is lost and the counters add up.
@Suite(.serialized, .enabled(if: TrafficProcess.obstacle == nil, Comment(rawValue: TrafficProcess.obstacle ?? "")))
struct PortTrafficTests {
  let folder: String

  init() throws {
    folder = "\(NSTemporaryDirectory())/nfv-ports-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
  }

  private func removeFolder() { try? FileManager.default.removeItem(atPath: folder) }

  /// Sent = received, once each and in order.
  private func expectPerfect(_ report: TrafficProcess.Report, count: UInt64) {
    #expect(report.packets.sent == count)
    #expect(report.packets.received == count)
    #expect(report.packets.lost == 0)
    #expect(report.packets.duplicated == 0)
    #expect(report.packets.reordered == 0)
    #expect(report.packets.damaged == 0)
    if let latency = report.latency {
      #expect(latency.p50 > 0 && latency.p50 <= latency.p90 && latency.p90 <= latency.p99)
      #expect(latency.p99 <= latency.p999 && latency.p999 <= latency.max)
    } else {
      Issue.record("no latency was measured")
    }
  }

  @Test func `a null port takes everything and never runs dry`() throws {
    defer { removeFolder() }
    let report = try TrafficProcess(["--port", "null", "--sink", "none", "--rate", "0", "--count", "20000"]).finish().report()
    #expect(report.packets.sent == 20_000)
    #expect(report.packets.received == 0 && report.packets.lost == 0, "nobody looked")
    #expect(report.latency == nil)
    let reflection = try TrafficProcess(["--reflect", "--port", "null", "--seconds", "0.2"]).finish().reflection()
    #expect(reflection.received > 10_000)
    #expect(reflection.reflected == reflection.received)
  }

  @Test(arguments: [["--size", "64"], ["--size", "imix"], ["--protocol", "tcp", "--size", "imix", "--flows", "500"]])
  func `a ring gives back what it took`(options: [String]) throws {
    defer { removeFolder() }
    let report = try TrafficProcess(["--port", "ring", "--rate", "5000", "--count", "4000"] + options).finish().report()
    expectPerfect(report, count: 4_000)
    #expect(report.packets.foreign == 0)
    #expect(report.received.bitsPerSecond > report.received.packetsPerSecond * 8 * 60)
  }

  @Test func `new flows are opened at the share that was asked for`() throws {
    defer { removeFolder() }
    let report = try TrafficProcess(
      ["--port", "ring", "--rate", "5000", "--count", "5000", "--flows", "100", "--new-flows", "0.1"]
    ).finish().report()
    expectPerfect(report, count: 5_000)
    #expect((598...602).contains(report.flows), "100 at first and a tenth of 5000: \(report.flows)")
  }

  @Test func `a capture has every packet once with right checksums, and can be reflected into another`() throws {
    defer { removeFolder() }
    for (name, options, flows) in [("udp", [], 50), ("tcp", ["--protocol", "tcp"], 50)] {
      let (empty, out, back) = ("\(folder)/empty.pcap", "\(folder)/\(name).pcap", "\(folder)/\(name)-back.pcap")
      try CaptureBytes.empty.write(to: URL(fileURLWithPath: empty))
      let report = try TrafficProcess(
        [
          "--port", "pcap:\(empty),\(out)", "--sink", "none", "--rate", "0", "--count", "1200", "--flows", "\(flows)", "--size",
          "imix",
          "--destination-mac", "02:00:00:00:00:09",
        ] + options
      ).finish().report()
      #expect(report.packets.sent == 1_200)
      #expect(report.sink == nil)
      let frames = try CaptureBytes(contentsOf: out).frames
      #expect(frames.count == 1_200)
      #expect(frames.allSatisfy { CaptureBytes.isSound($0) })
      #expect(frames.allSatisfy { $0[0..<6] == [2, 0, 0, 0, 0, 9] })
      #expect(Set(frames.map { CaptureBytes.endpoints($0) }).count == flows)
      if name == "tcp" {
        #expect(frames.count { $0[47] == 0x02 } == flows, "one SYN per flow")
        #expect(Set(frames.prefix(flows).map { $0[47] }) == [0x02], "before all data")
      }

      let reflector = try TrafficProcess(["--reflect", "--port", "pcap:\(out),\(back)", "--seconds", "1"])
      let reflection = try reflector.finish().reflection()
      #expect(reflection.received == 1_200)
      #expect(reflection.reflected == 1_200)
      let swapped = frames.map { Array($0[6..<12] + $0[0..<6] + $0[12...]) }
      #expect(try CaptureBytes(contentsOf: back).frames == swapped)
    }
  }

  @Test func `packets cross vhost-user between two processes and come back`() throws {
    defer { removeFolder() }
    let socket = "\(folder)/a.sock"
    let generator = try TrafficProcess(
      ["--port", "virtio:\(socket)", "--wait", "20", "--rate", "2000", "--count", "4000", "--flows", "64", "--size", "imix"])
    let reflector = try TrafficProcess(["--reflect", "--port", "vhost:\(socket)"])
    let report = try generator.finish().report()
    reflector.terminate()
    let reflection = try reflector.finish().reflection()
    expectPerfect(report, count: 4_000)
    #expect(reflection.received >= 4_000, "greetings besides")
    #expect(reflection.reflected == reflection.received)
    #expect(reflection.dropped == 0)
  }

  @Test func `a vhost port may be there before its virtio port`() throws {
    defer { removeFolder() }
    let socket = "\(folder)/a.sock"
    let reflector = try TrafficProcess(["--reflect", "--port", "vhost:\(socket)"])
    usleep(1_000_000)
    let report = try TrafficProcess(["--port", "virtio:\(socket)", "--wait", "20", "--rate", "2000", "--count", "1000"]).finish()
      .report()
    reflector.terminate()
    _ = try reflector.finish().reflection()
    expectPerfect(report, count: 1_000)
  }

  @Test func `packets cross a veth pair between two af_packet ports, and SYNs are answered`() throws {
    defer { removeFolder() }
    let veth = try VethPair()
    defer { veth.remove() }
    for (options, answers) in [(["--size", "imix"], UInt64(0)), (["--protocol", "tcp", "--size", "80", "--flows", "20"], 20)] {
      let report = try TrafficProcess(
        [
          "--port", "af_packet:\(veth.first)", "--sink", "af_packet:\(veth.second)", "--wait", "10", "--rate", "2000", "--count",
          "4000",
          "--drain", "1",
        ] + options
      ).finish().report()
      expectPerfect(report, count: 4_000)
      #expect(report.packets.answers >= answers)
    }
  }

  @Test func `SIGTERM ends a run with its summary`() throws {
    defer { removeFolder() }
    let run = try TrafficProcess(["--port", "ring", "--rate", "1000", "--seconds", "600"])
    usleep(2_500_000)
    run.terminate()
    let report = try run.finish(within: 10).report()
    #expect(report.packets.sent > 0)
    #expect(report.packets.lost == 0)
    #expect(report.seconds < 30)
  }

  @Test(arguments: [
    (["--port", "nul"], "is no kind of port"),
    (["--port", "null", "--protocol", "tcp", "--size", "64"], "76 to 1518"),
    (["--port", "null", "--source", "10.0.0.9-10.0.0.1"], "--source"),
    (["--port", "null", "--flows", "0"], "1 to 16777216"),
    (["--port", "null", "--destination-mac", "zz"], "--destination-mac"),
    (["--port", "af_packet:no-such-if0", "--count", "1"], "cannot be opened"),
    (["--port", "pci:0000:ff:1f.7", "--count", "1"], "cannot be opened"),
    (["--port", "virtio:/no/such/folder/a.sock", "--count", "1"], "cannot be opened"),
  ])
  func `what cannot be done is refused with a sentence`(arguments: [String], sentence: String) throws {
    defer { removeFolder() }
    let ending = try TrafficProcess(arguments).finish()
    #expect(ending.status == 64 || ending.status == 69)
    #expect(ending.errors.contains(sentence), "\(ending.errors)")
  }

  @Test func `nobody at the other end is noticed`() throws {
    defer { removeFolder() }
    let ending = try TrafficProcess(["--port", "vhost:\(folder)/a.sock", "--wait", "0.5", "--count", "1"]).finish()
    #expect(ending.status == 69)
    #expect(ending.errors.contains("is the other end there?"), "\(ending.errors)")
  }

  @Test func `a virtio port that waits for its peer can be told to end`() throws {
    defer { removeFolder() }
    let run = try TrafficProcess(["--port", "virtio:\(folder)/a.sock", "--count", "1"])
    usleep(2_000_000)
    run.terminate()
    #expect(try run.finish(within: 10).status == 69)
  }
}

/// Two kernel interfaces with a cable between them, in nobody's way: no addresses, no IPv6 chatter.
final class VethPair {
  let first: String
  let second: String

  init() throws {
    let number = UInt16.random(in: .min ... .max)
    first = "nfvta\(number)"
    second = "nfvtb\(number)"
    let made = try Program.run("/usr/bin/env", ["ip", "link", "add", first, "type", "veth", "peer", "name", second])
    try #require(made.status == 0, "\(made.output)")
    for name in [first, second] {
      try? "1".write(toFile: "/proc/sys/net/ipv6/conf/\(name)/disable_ipv6", atomically: false, encoding: .utf8)
      try Program.run("/usr/bin/env", ["ip", "link", "set", name, "up"])
    }
  }

  func remove() { _ = try? Program.run("/usr/bin/env", ["ip", "link", "delete", first]) }

  deinit { remove() }
}
