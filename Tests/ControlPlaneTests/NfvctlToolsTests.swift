// The tools that look back, as an operator runs them: on a broker's log and on the same log in a file, with the same answers.
import ControlCodec
import ControlMessages
import Foundation
import KafkaLog
import NodeSupport
import Testing

@testable import nfvctl

@Suite(.serialized) struct NfvctlToolsTests {
  private let folder = ToolFolder()

  @Test func `a log is exported, and every tool says of the file what it says of the broker`() throws {
    let story = try LoggedStory(folder)
    defer { story.stop() }
    let file = folder.path("case.nfvlog")
    let exported = try folder.nfvctl("export", "--to", file, at: story.bootstrap)
    #expect(exported.status == 0 && exported.err.contains("digest "), "\(exported)")
    #expect(try folder.nfvctl("export", "--to", file, at: story.bootstrap).status == ExitStatus.usage, "nothing is overwritten")

    for question in [
      ["verify", "-o", "json"], ["state", "--at", "5"], ["state", "--at", "3", "-o", "json"], ["why", "1"],
      ["why", "5", "-o", "jsonl"],
      ["audit", "nodes"], ["audit", "recoveries", "-o", "json"], ["audit", "scaling"], ["replay"],
      ["dead-letters", "list", "-o", "jsonl"],
      ["dead-letters", "show", "nfv.events/1/\(story.poisonOffset)"],
    ] {
      let live = try folder.nfvctl(question, at: story.bootstrap)
      let filed = try folder.nfvctl(question + ["--file", file])
      #expect(live.status == 0 && !live.out.isEmpty || question == ["replay"], "\(question): \(live)")
      #expect(live.out == filed.out && live.status == filed.status, "\(question)\n\(live)\n\(filed)")
    }
  }

  @Test func `the tools tell what happened`() throws {
    let story = try LoggedStory(folder)
    defer { story.stop() }
    let at = story.bootstrap
    let verified = try folder.objects("verify", "-o", "jsonl", at: at)
    #expect(verified.first?["faults"] as? Int == 0 && verified.first?["decidedAlike"] as? Int ?? 0 >= 5, "\(verified)")
    #expect((verified.first?["counts"] as? [String: Int])?["unreadable"] == 1)

    let early = try folder.objects("state", "--at", "0", "-o", "jsonl", at: at)[0]
    #expect(early["status"] as? String == "progressing" && early["lastSlot"] as? Int == 0)
    let none = try folder.nfvctl("state", "--at", "1000000", at: at)
    #expect(none.status == 1 && none.err.contains("ends before offset"), "\(none)")

    let recoveries = try folder.objects("audit", "recoveries", "-o", "jsonl", at: at)
    #expect(recoveries.count == 1)
    let failed = try #require(recoveries.first?["failed"] as? [String: Any])
    #expect(failed["ending"] as? String == "signal 9" && failed["id"] as? Int == 3)
    let lives = try folder.objects("audit", "nodes", "-o", "jsonl", "--since", "1h", at: at)
    #expect(lives.count == 4)
    let scaling = try folder.objects("audit", "scaling", "-o", "jsonl", at: at)
    #expect(scaling.map { $0["runtimesAfter"] as? Int } == [2])

    let slot = try #require((recoveries[0]["successor"] as? [String: Any])?["launchSlot"] as? Int)
    let why = try folder.nfvctl("why", "\(slot)", at: at)
    #expect(
      why.status == 0 && why.out.contains("because") && why.out.contains("process-exited") && why.out.contains("signal 9"),
      "\(why)")
    #expect(why.out.contains("wanted at the time") && why.out.contains("cluster-applied"), "\(why)")
    #expect(try folder.nfvctl("why", "999", at: at).status == 1)
  }

  @Test func `a replay with another spec differs, and says so with exit code 3`() throws {
    let story = try LoggedStory(folder)
    defer { story.stop() }
    #expect(try folder.nfvctl("replay", at: story.bootstrap).status == 0)
    let text = try String(contentsOfFile: NfvctlTests.cluster, encoding: .utf8)
    try #require(text.contains("runtimes: 2"))
    let file = folder.path("larger.yaml")
    try text.replacing("runtimes: 2", with: "runtimes: 1").write(toFile: file, atomically: true, encoding: .utf8)
    let run = try folder.nfvctl("replay", "--from", "0", "--spec", file, at: story.bootstrap)
    #expect(run.status == 3 && run.out.contains("  - launch-runtime node 3"), "\(run)")
  }

  @Test func `a replay with a policy differs where the policy would have acted`() throws {
    let story = try LoggedStory(folder, waitsForRules: true)
    defer { story.stop() }
    let file = folder.path("policy.yaml")
    try "kind: drop-threshold\nminimum: 1\nmaximum: 1\n".write(toFile: file, atomically: true, encoding: .utf8)
    let run = try folder.nfvctl("replay", "--policy", file, at: story.bootstrap)
    #expect(run.status == 3 && run.out.contains("  + stop-node node 3"), "\(run)")
    // The count that there was anyway.
    try "kind: drop-threshold\nminimum: 2\nmaximum: 2\n".write(toFile: file, atomically: true, encoding: .utf8)
    #expect(try folder.nfvctl("replay", "--policy", file, at: story.bootstrap).status == 0)
    try "kind: drop-threshold\nminimum: none\n".write(toFile: file, atomically: true, encoding: .utf8)
    let wrong = try folder.nfvctl("replay", "--policy", file, at: story.bootstrap)
    #expect(wrong.status == ExitStatus.usage && wrong.err.contains(file), "\(wrong)")
  }

  @Test func `a dead letter is listed until it is skipped`() throws {
    let story = try LoggedStory(folder)
    defer { story.stop() }
    let at = story.bootstrap
    let place = "nfv.events/1/\(story.poisonOffset)"
    #expect(try folder.objects("dead-letters", "list", "-o", "jsonl", at: at).map { $0["place"] as? String } == [place])
    let shown = try folder.nfvctl("dead-letters", "show", place, at: at)
    #expect(shown.out.contains("6e 6f 74 20 61 20 72 65") && shown.out.contains("this version cannot read it either"), "\(shown)")
    let skipped = try folder.nfvctl("dead-letters", "skip", place, "--reason", "a test wrote it", at: at)
    #expect(skipped.out == "\(place) skipped\n", "\(skipped)")
    #expect(try folder.nfvctl("dead-letters", "skip", place, "--reason", "again", at: at).out == "\(place) unchanged\n")
    #expect(try folder.nfvctl("dead-letters", "list", "-o", "json", at: at).out == "[]\n")
    let all = try folder.objects("dead-letters", "list", "--all", "-o", "jsonl", at: at)
    #expect(all.first?["skipped"] as? String == "a test wrote it")
    #expect(try folder.nfvctl("dead-letters", "show", "nfv.events/1/999", at: at).status == 1)
  }

  @Test func `a file that was changed or cut is refused with its place`() throws {
    let story = try LoggedStory(folder)
    let file = folder.path("case.nfvlog")
    #expect(try folder.nfvctl("export", "--to", file, at: story.bootstrap).status == 0)
    story.stop()
    let good = try Data(contentsOf: URL(filePath: file))
    let bad = folder.path("bad.nfvlog")
    for (name, change) in [
      ("a bit", { (data: inout Data) in data[data.count / 2] ^= 4 }), ("the end", { $0 = $0.prefix($0.count - 40) }),
      ("the middle", { $0.removeSubrange(2_000..<2_100) }), ("all", { $0 = Data() }),
    ] as [(String, (inout Data) -> Void)] {
      var data = good
      change(&data)
      try data.write(to: URL(filePath: bad))
      for tool in [["verify"], ["import"]] {
        let run = try folder.nfvctl(tool + ["--file", bad] + (tool == ["import"] ? ["--bootstrap", "127.0.0.1:1"] : []))
        #expect(run.status == 65 && run.err.contains(bad), "\(name), \(tool): \(run)")
      }
    }
    #expect(try folder.nfvctl("verify", "--file", folder.path("none")).status == ExitStatus.usage)
    #expect(try folder.nfvctl("verify", "--file", file).status == 0)
  }

  @Test func `an imported log is the same log`() throws {
    let story = try LoggedStory(folder)
    let file = folder.path("case.nfvlog")
    #expect(try folder.nfvctl("export", "--to", file, at: story.bootstrap).status == 0)
    story.stop()
    let other = try TestBus()
    defer { other.stop() }
    let imported = try folder.nfvctl("import", "--file", file, at: other.settings.bootstrap)
    #expect(imported.status == 0, "\(imported)")
    let again = folder.path("again.nfvlog")
    #expect(try folder.nfvctl("export", "--to", again, at: other.settings.bootstrap).status == 0)
    let verified = try folder.nfvctl("verify", at: other.settings.bootstrap)
    #expect(verified.status == 0, "\(verified)")
    // All but the time at which the two were made.
    let (first, second) = (try Data(contentsOf: URL(filePath: file)), try Data(contentsOf: URL(filePath: again)))
    #expect(first.dropFirst(24) == second.dropFirst(24))
    let twice = try folder.nfvctl("import", "--file", file, at: other.settings.bootstrap)
    #expect(twice.status == 1 && twice.err.contains("has records already"), "\(twice)")
  }

  @Test func `an import into topics that stamp their own times is refused`() throws {
    let story = try LoggedStory(folder)
    let file = folder.path("case.nfvlog")
    #expect(try folder.nfvctl("export", "--to", file, at: story.bootstrap).status == 0)
    story.stop()
    let other = try TestBus()
    defer { other.stop() }
    #expect(try folder.nfvctl("topics", "create", at: other.settings.bootstrap).status == 0)
    let refused = try folder.nfvctl("import", "--file", file, at: other.settings.bootstrap)
    #expect(refused.status == 1 && refused.err.contains("stamps its own times"), "\(refused)")
  }

  @Test func `schemas are checked against those of an older version`() throws {
    let present = SchemaTests.root.appending(path: "schemas/nfvactor.binpb").path
    let same = try folder.nfvctl("schema", "check", "--against", present)
    #expect(same.status == 0 && same.out.isEmpty && same.err.contains("compatible"), "\(same)")
    // An older version in which `Tick` was called `Tock`: it is gone, and so is the type of the event's field.
    var data = try Data(contentsOf: URL(filePath: present))
    while let place = data.firstRange(of: Data("Tick".utf8)) { data.replaceSubrange(place, with: Data("Tock".utf8)) }
    let old = folder.path("old.binpb")
    try data.write(to: URL(filePath: old))
    let changed = try folder.nfvctl("schema", "check", "--against", old)
    #expect(changed.status == 3 && changed.out.contains("message-removed") && changed.out.contains("type-changed"), "\(changed)")
    try Data("nonsense".utf8).write(to: URL(filePath: old))
    #expect(try folder.nfvctl("schema", "check", "--against", old).status == 65)
  }

  @Test(arguments: [
    ["export"], ["import"], ["state"], ["verify"], ["replay"], ["why"], ["audit"], ["dead-letters", "list"],
    ["dead-letters", "show"],
    ["dead-letters", "skip"], ["schema", "check"],
  ]) func `each tool has a help with an example`(command: [String]) throws {
    let run = try folder.nfvctl(command + ["--help"])
    #expect(run.status == 0 && run.out.contains("Example"), "\(run)")
  }

  @Test(arguments: ["bash", "zsh", "fish"]) func `a shell can complete the commands`(shell: String) throws {
    let run = try folder.nfvctl("--generate-completion-script", shell)
    #expect(run.status == 0 && run.out.contains("dead-letters"))
  }

  @Test func `moments are offsets, times and times ago`() throws {
    #expect(LogPoint(argument: "17") == .offset(Offset(17)))
    #expect(LogPoint(argument: "1970-01-01T00:00:01.5Z") == .time(Timestamp(milliseconds: 1_500)))
    #expect(LogPoint(argument: "2026-11-22") == .time(Timestamp(milliseconds: 1_795_305_600_000)))
    #expect(Timestamp(iso8601: Timestamp(milliseconds: 1_795_305_661_123).iso8601) == Timestamp(milliseconds: 1_795_305_661_123))
    guard case .time(let ago) = try #require(LogPoint(argument: "10m")) else { throw NotATime() }
    #expect((600_000...660_000).contains(Timestamp.now.since(ago)))
    for wrong in ["", "x", "-1", "2026-13-01", "2026-02-30", "25:00", "2026-11-22T25:00"] {
      #expect(LogPoint(argument: wrong) == nil, "\(wrong)")
    }
  }

  struct NotATime: Error {}
}
