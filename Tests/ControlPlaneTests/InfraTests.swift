// What infra/ sets up is what the programs expect.
import ControlMessages
import Foundation
import Testing

@testable import nfvctl

@Suite struct InfraTests {
  private func text(_ path: String) throws -> String {
    try String(contentsOf: SchemaTests.root.appending(path: "infra/\(path)"), encoding: .utf8)
  }

  @Test func `the topics of a real Kafka are those that nfvctl makes`() throws {
    let lines = try text("kafka/topics.conf").split(separator: "\n").filter { !$0.hasPrefix("#") }
    let listed = lines.map { $0.split(separator: " ").map(String.init) }
    let command = try #require(try CreateTopics.parseAsRoot(["--replication", "3"]) as? CreateTopics)
    #expect(listed.map { $0[0] } == ServiceTopics.all)
    #expect(command.topics.map { [$0.name, $0.settings["retention.ms"] ?? ""] } == listed)
    let script = try text("kafka/make-topics.sh")
    for (name, value) in command.topics[0].settings where name != "retention.ms" && name != "min.insync.replicas" {
      #expect(script.contains("\(name)=\(value)"), "\(name)=\(value)")
    }
    #expect(script.contains("replication=${NFV_REPLICATION:-3}") && command.topics[0].settings["min.insync.replicas"] == "2")
  }

  @Test func `no runtime may give commands`() throws {
    let script = try text("kafka/make-acls.sh")
    let rules = script.split(separator: "\n").filter { $0.hasPrefix("allow ") }.map { $0.split(separator: " ").map(String.init) }
    let writers = Set(rules.filter { $0[2] == "Write" && $0.contains(ServiceTopics.commands) }.map { $0[1] })
    #expect(writers == ["coordinator"])
    #expect(
      rules.filter { $0[1] == "node" }.map { Array($0.dropFirst(2)) } == [
        ["Write", ServiceTopics.events], ["Read", ServiceTopics.commands],
      ])
  }

  @Test func `the bus's unit starts it with options that it has`() throws {
    let unit = try text("systemd/nfv-bus.service")
    let start = try #require(unit.split(separator: "\n").first { $0.hasPrefix("ExecStart=") })
    let words = start.split(separator: " ").dropFirst(2).map(String.init)
    let filled = words.filter { $0 != "$NFV_BUS_OPTIONS" }.map { $0 == "${NFV_BUS_LISTEN}" ? "127.0.0.1:9092" : $0 }
    let bus = try #require(try BusCommand.parseAsRoot(filled) as? BusCommand)
    #expect(bus.retention == nil, "a state is folded from the beginning of its log")
  }
}
