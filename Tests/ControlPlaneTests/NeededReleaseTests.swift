// A replica that has to stop at an event says which release can go on.
import ControlCodec
import ControlMessages
import ControlPlane
import Testing

@Suite struct NeededReleaseTests {
  /// An event as a later release would write it: a body that this one has not, and the release that knows it.
  private func newer(_ release: String?) throws -> [UInt8] {
    var event = Samples.events.first { $0.name == "tick" }!.event
    event.isCritical = true
    event.neededRelease = release ?? ""
    var bytes = RecordCodec.encode(event)
    let body = try #require(bytes.indices.last { bytes[$0] == 0 && bytes[$0 - 1] == 0x01 && bytes[$0 - 2] == 0x82 })
    bytes.replaceSubrange((body - 2)...body, with: [0xe2, 0x03, 0x02, 0xaa, 0xbb])  // field 60, two bytes
    return bytes
  }

  @Test func `an unknown critical body says which release is needed`() throws {
    let event = try RecordCodec.decodeEvent(newer("3.1.4"))
    guard case .unknown(let body) = event.body else { throw NotUnknown() }
    #expect(body.tag == 60 && body.neededRelease == "3.1.4" && event.isCritical)
    #expect(body.advice == "release 3.1.4 or later is needed; this is \(Release.current)")
    var story = ClusterStory()
    story.append(event)
    #expect(story.core.state.needsNewerVersion?.neededRelease == "3.1.4")
    // It outlives a snapshot.
    let restored = try RecordCodec.decodeCore(RecordCodec.encode(story.core))
    #expect(restored == story.core && restored.state.needsNewerVersion?.neededRelease == "3.1.4")
  }

  @Test func `one whose writer did not say is still a reason to stop`() throws {
    let event = try RecordCodec.decodeEvent(newer(nil))
    guard case .unknown(let body) = event.body else { throw NotUnknown() }
    #expect(body.neededRelease == "" && body.advice.contains("newer release than \(Release.current)"))
  }

  @Test func `rules that this program has not say it, too`() throws {
    var story = ClusterStory()
    let author = ProducerID.coordinator(Samples.host)
    var event = Event(producer: author, incarnation: Incarnation(1), sequence: 1, isCritical: true, body: .rulesActivated(99))
    event.neededRelease = "9.0.0"
    story.append(try RecordCodec.decodeEvent(RecordCodec.encode(event)))
    let body = try #require(story.core.state.needsNewerVersion)
    #expect(body.name == "decision rules 99" && body.advice.contains("release 9.0.0"))
  }

  @Test func `critical events of ours carry it, others do not`() {
    var author = EventAuthor(producer: .tool(1), incarnation: Incarnation(1))
    #expect(author.write(.rulesActivated(DecisionRules.newest), isCritical: true).neededRelease == Release.current)
    #expect(author.write(.tick).neededRelease == "")
  }

  struct NotUnknown: Error {}
}
