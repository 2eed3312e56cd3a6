import Foundation
import NetworkFunctionTesting
import Testing

@testable import FunctionCatalog

// The code of docs/writing-a-network-function.md, compiled and run. The last test compares the two texts.

// docs: the function
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
// docs: end

// docs: its settings
extension PacketLimit {
  init(reader: SettingsReader) throws(SettingsError) {
    try reader.allow(["per-second"])
    perSecond = UInt32(try reader.required("per-second").integer(in: 1...10_000_000))
  }
}
// docs: end

@Suite struct WritingANetworkFunctionTests {
  // docs: its test
  @Test func `a flow may send three packets in a second, and in the next again`() {
    let runtime = TestRuntime(PacketLimit(perSecond: 3))
    let packet = TestPacket.udp("10.0.0.1:5000", "192.0.2.1:53")
    for _ in 0..<3 { #expect(runtime.send(packet) == .forwarded(packet)) }
    #expect(runtime.send(packet) == .dropped("over-packet-limit"))
    #expect(runtime.send(.udp("10.0.0.2:5000", "192.0.2.1:53")).packet != nil, "another flow has a limit of its own")

    runtime.now = Tick(milliseconds: 1000)
    #expect(runtime.send(packet) == .forwarded(packet))
  }

  @Test func `a flow that moves takes its count along`() {
    let (here, there) = (TestRuntime(PacketLimit(perSecond: 1)), TestRuntime(PacketLimit(perSecond: 1)))
    let packet = TestPacket.udp("10.0.0.1:5000", "192.0.2.1:53")
    here.send(packet)
    here.migrate(flowOf: packet, to: there)
    #expect(there.send(packet) == .dropped("over-packet-limit"))
  }
  // docs: end

  @Test func `it joins a chain in one line`() throws {
    // docs: in a chain
    var catalog = Catalog.standard
    catalog.register("packet-limit") { reader throws(SettingsError) in try PacketLimit(reader: reader) }
    // docs: end
    let spec = Example.spec(("packet-limit", "per-second: 1"), ("nat", Example.nat))
    let runtime = TestRuntime(try catalog.makeChain(spec: spec, share: .whole))
    let packet = TestPacket.udp("10.0.0.1:1100", "192.0.2.1:53")
    #expect(runtime.send(packet).packet?.source.port == 1100)
    #expect(runtime.send(packet) == .dropped("over-packet-limit"))
    let error = #expect(throws: SettingsError.self) { try catalog.validate(Example.spec(("packet-limit", "per-second: none"))) }
    #expect(error?.description == "line 1: chain[0].packet-limit.per-second: 'none' is not a whole number")
  }

  @Test func `the documentation shows this code`() throws {
    let here = URL(filePath: #filePath)
    let page = here.deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
      .appending(path: "docs/writing-a-network-function.md")
    let blocks = codeBlocks(try String(contentsOf: page, encoding: .utf8))
    let snippets = try snippets(of: String(contentsOf: here, encoding: .utf8))
    #expect(snippets.count == 4)
    for (name, code) in snippets {
      #expect(blocks.contains(code), "docs/writing-a-network-function.md does not show \(name) as it is here")
    }
    let readme = page.deletingLastPathComponent().deletingLastPathComponent().appending(path: "README.md")
    let shown = codeBlocks(try String(contentsOf: readme, encoding: .utf8))
    #expect(shown == [snippets[0].code], "README.md does not show \(snippets[0].name) as it is here")
  }

  private func codeBlocks(_ page: String) -> [String] {
    page.components(separatedBy: "```swift\n").dropFirst().map { $0.components(separatedBy: "\n```")[0] }
  }

  /// What lies between two marks, without the indentation of its first line.
  private func snippets(of source: String) -> [(name: String, code: String)] {
    var result: [(name: String, code: String)] = []
    var lines: [Substring] = []
    var name: String?
    for line in source.split(separator: "\n", omittingEmptySubsequences: false) {
      let text = line.drop { $0 == " " }
      if text == "// docs: end", let finished = name {
        let indentation = lines.first?.prefix { $0 == " " }.count ?? 0
        result.append((finished, lines.map { String($0.dropFirst($0.isEmpty ? 0 : indentation)) }.joined(separator: "\n")))
        (name, lines) = (nil, [])
      } else if text.hasPrefix("// docs: ") {
        name = String(text.dropFirst(9))
      } else if name != nil {
        lines.append(line)
      }
    }
    return result
  }
}
