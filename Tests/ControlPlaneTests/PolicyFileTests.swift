// Policy files: those in the docs are right, and wrong ones are refused with the reason.
import Configuration
import ControlMessages
import Foundation
import Testing

@Suite struct PolicyFileTests {
  @Test func `the policies in the docs are what they say`() throws {
    let path = SchemaTests.root.appending(path: "docs/writing-a-policy.md")
    let blocks = try String(contentsOf: path, encoding: .utf8).components(separatedBy: "```yaml\n").dropFirst()
      .map { $0.components(separatedBy: "```")[0] }
    let policies = try blocks.map { try scalingPolicy(YAMLFile.settings(text: $0, name: "policy"), file: "policy") }
    #expect(policies.map(\.name) == ["drop-threshold", "target-utilisation", "manual"])
    var paper = ScalingPolicy(.dropThreshold(.init()))
    paper.maximumRuntimes = 8
    #expect(policies[0] == paper, "what the docs call the defaults are the defaults")
  }

  @Test(arguments: [
    ("kind: nothing", "'nothing' is no policy"), ("drops: 1", "'kind' is missing"),
    ("{kind: drop-threshold, busy-share: 50%}", "unknown key 'busy-share'"),
    ("{kind: target-utilisation, busy-share: 0.5}", "'0.5' is not a share"),
    ("{kind: target-utilisation, busy-share: 10%, tolerance: 10%}", "the tolerance reaches down to no load at all"),
    ("{kind: drop-threshold, minimum: 5, maximum: 4}", "maximum 4; it must be 5 to 64"),
    ("{kind: manual, minimum: 1}", "unknown key 'minimum'"),
  ])
  func `a wrong policy is refused with the reason`(text: String, reason: String) throws {
    let settings = try YAMLFile.settings(text: text, name: "policy")
    let error = #expect(throws: ConfigurationError.self) { try scalingPolicy(settings, file: "policy") }
    #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
  }
}
