import Foundation
import NetworkFunctionTesting
import Testing

@testable import FunctionCatalog

// The test of docs/writing-a-network-function.md, compiled and run, and the function that README.md shows. The last tests compare
// the texts.

// readme: the function
import ControlMessages
import NetworkFunctions
import Wire

/// Lets a flow send so many packets per second and drops the rest.
struct PacketLimit: NetworkFunction {
  let perSecond: UInt32

  struct FlowState: BitwiseCopyable, Sendable { var second: UInt64 = 0, count: UInt32 = 0 }

  static let overLimit = DropReason.function(0)
  static var dropReasons: [DropReasonDescription] {
    [.init(overLimit, "over-packet-limit", "The flow sends more packets per second than it may.")]
  }

  func makeFlowState() -> FlowState { FlowState() }

  func process(_ frame: inout Frame, flow: inout FlowState, shared: inout Nothing) -> Verdict {
    let second = frame.arrival.milliseconds / 1000
    if second != flow.second { flow = FlowState(second: second) }
    flow.count &+= 1
    return flow.count <= perSecond ? .forward : .drop(PacketLimit.overLimit)
  }
}
// readme: end

@Suite struct WritingANetworkFunctionTests {
  // docs: its test
  @Test func `a flow may send a burst, and then what drips in`() {
    let runtime = TestRuntime(RateLimiter(perSecond: 10, burst: 3))
    let packet = TestPacket.udp("10.0.0.1:5000", "192.0.2.1:53")
    for _ in 0..<3 { #expect(runtime.send(packet) == .forwarded(packet)) }
    #expect(runtime.send(packet) == .dropped("over-rate"))
    #expect(runtime.send(.udp("10.0.0.2:5000", "192.0.2.1:53")).packet != nil, "another flow has a bucket of its own")

    runtime.now = Tick(milliseconds: 100)
    #expect(runtime.send(packet) == .forwarded(packet))
    #expect(runtime.send(packet) == .dropped("over-rate"))
    runtime.now = Tick(milliseconds: 60_000)
    for _ in 0..<3 { #expect(runtime.send(packet) == .forwarded(packet)) }
    #expect(runtime.send(packet) == .dropped("over-rate"), "a bucket is no fuller than full")
  }

  @Test func `a flow that moves, or whose runtime dies, takes its bucket along`() {
    let runtimes = (0..<3).map { _ in TestRuntime(RateLimiter(perSecond: 1, burst: 2)) }
    let packet = TestPacket.udp("10.0.0.1:5000", "192.0.2.1:53")
    runtimes[0].now = Tick(milliseconds: 5000)
    runtimes[0].send(packet)
    runtimes[0].migrate(flowOf: packet, to: runtimes[1])
    #expect(runtimes[1].send(packet) == .forwarded(packet))
    runtimes[1].crash(recoveringOn: runtimes[2])
    #expect(runtimes[2].send(packet) == .dropped("over-rate"))
  }
  // docs: end

  @Test func `the function of the README does what it says`() {
    let (here, there) = (TestRuntime(PacketLimit(perSecond: 3)), TestRuntime(PacketLimit(perSecond: 3)))
    let packet = TestPacket.udp("10.0.0.1:5000", "192.0.2.1:53")
    for _ in 0..<3 { #expect(here.send(packet) == .forwarded(packet)) }
    #expect(here.send(packet) == .dropped("over-packet-limit"))
    here.migrate(flowOf: packet, to: there)
    #expect(there.send(packet) == .dropped("over-packet-limit"))
    there.now = Tick(milliseconds: 1000)
    #expect(there.send(packet) == .forwarded(packet))
  }

  @Test func `it joins a chain in one line`() throws {
    // docs: in a chain
    var catalog = Catalog()
    catalog.register("rate-limiter") { reader throws(SettingsError) in try RateLimiter(reader: reader) }
    // docs: end
    #expect(throws: Never.self) { try catalog.validate(Example.spec(("rate-limiter", "per-second: 1"))) }
    let spec = Example.spec(("rate-limiter", "per-second: 1"), ("nat", Example.nat))
    let runtime = TestRuntime(try Catalog.standard.makeChain(spec: spec, share: .whole))
    let packet = TestPacket.udp("10.0.0.1:1100", "192.0.2.1:53")
    #expect(runtime.send(packet).packet?.source.port == 1100)
    #expect(runtime.send(packet) == .dropped("over-rate"))
    let error = #expect(throws: SettingsError.self) {
      try Catalog.standard.validate(Example.spec(("rate-limiter", "per-second: none")))
    }
    #expect(error?.description == "line 1: chain[0].rate-limiter.per-second: 'none' is not a whole number")
  }

  /// The bucket against its definition: over any stretch of time no more pass than the burst and what drips in, and no
  /// packet is dropped that a bucket kept in real numbers would let pass.
  @Test(arguments: 0..<10) func `it lets through what a bucket does`(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    let rate = UInt64.random(in: 1...2000, using: &random)
    let burst = UInt64.random(in: 1...50, using: &random)
    let runtime = TestRuntime(RateLimiter(perSecond: rate, burst: burst))
    let packet = TestPacket.udp("10.0.0.1:5000", "192.0.2.1:53")
    var (level, last) = (Double(burst), UInt64(0))
    for _ in 0..<2000 {
      runtime.now.nanoseconds += .random(in: 0...(2_000_000_000 / rate), using: &random)
      level = min(Double(burst), level + Double(runtime.now.nanoseconds - last) * Double(rate) / 1e9)
      last = runtime.now.nanoseconds
      // Where real numbers and whole ones could disagree, neither is asked.
      let isClear = abs(level - 1) > 1e-6
      let passed = runtime.send(packet).packet != nil
      if isClear { #expect(passed == (level >= 1), "seed \(seed)") }
      if passed { level -= 1 }
    }
  }

  @Test func `the documentation shows this code`() throws {
    let here = URL(filePath: #filePath)
    let root = here.deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let blocks = codeBlocks(try text(root.appending(path: "docs/writing-a-network-function.md")))
    let function = try text(root.appending(path: "Sources/FunctionCatalog/RateLimiter.swift"))
    let snippets = snippets(of: try text(here), "docs")
    #expect(snippets.count == 2)
    #expect(blocks == [function.trimmingCharacters(in: .newlines)] + snippets.map(\.code), "the page shows the code as it is")

    let readme = self.snippets(of: try text(here), "readme")
    let shown = codeBlocks(try text(root.appending(path: "README.md")))
    #expect(readme.count == 1 && shown == readme.map(\.code), "README.md does not show the function as it is here")
  }

  private func text(_ file: URL) throws -> String { try String(contentsOf: file, encoding: .utf8) }

  private func codeBlocks(_ page: String) -> [String] {
    page.components(separatedBy: "```swift\n").dropFirst().map { $0.components(separatedBy: "\n```")[0] }
  }

  /// What lies between two marks, without the indentation of its first line.
  private func snippets(of source: String, _ mark: String) -> [(name: String, code: String)] {
    var result: [(name: String, code: String)] = []
    var lines: [Substring] = []
    var name: String?
    for line in source.split(separator: "\n", omittingEmptySubsequences: false) {
      let text = line.drop { $0 == " " }
      if text == "// \(mark): end", let finished = name {
        let indentation = lines.first?.prefix { $0 == " " }.count ?? 0
        result.append((finished, lines.map { String($0.dropFirst($0.isEmpty ? 0 : indentation)) }.joined(separator: "\n")))
        (name, lines) = (nil, [])
      } else if text.hasPrefix("// \(mark): ") {
        name = String(text.dropFirst(mark.count + 5))
      } else if name != nil {
        lines.append(line)
      }
    }
    return result
  }
}
