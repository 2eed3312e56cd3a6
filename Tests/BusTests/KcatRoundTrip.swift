/// A client that we did not write: kcat, with its own idea of the protocol's versions and of compression.
import Foundation
import Testing

@testable import EmbeddedBus

@Suite(.serialized, .enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/kcat"), "kcat is not installed"))
struct KcatRoundTrip {
  private let scratch = ScratchDirectory()

  private func kcat(_ arguments: [String], input: String = "") throws -> (status: Int32, output: String) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/kcat")
    process.arguments = arguments
    let (give, take) = (Pipe(), Pipe())
    process.standardInput = give
    process.standardOutput = take
    process.standardError = take
    try process.run()
    try give.fileHandleForWriting.write(contentsOf: Data(input.utf8))
    try give.fileHandleForWriting.close()
    let output = String(decoding: take.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    return (process.terminationStatus, output)
  }

  @Test(arguments: ["none", "gzip", "snappy", "lz4", "zstd"]) func `kcat reads what kcat wrote`(codec: String) throws {
    let bus = try startBus(scratch) { $0.topics = [.init(name: "t", partitions: 2)] }
    defer { bus.stop() }
    let lines = (0..<1000).map { "line \($0)" }
    let broker = "127.0.0.1:\(bus.port)"
    let written = try kcat(["-b", broker, "-P", "-t", "t", "-p", "1", "-z", codec, "-X", "enable.idempotence=true"], input: lines.joined(separator: "\n"))
    #expect(written.status == 0, "\(written.output)")
    let read = try kcat(["-b", broker, "-C", "-t", "t", "-p", "1", "-o", "beginning", "-e", "-q", "-f", "%o %s\n"])
    #expect(read.status == 0)
    #expect(read.output.split(separator: "\n").map(String.init) == lines.enumerated().map { "\($0) \($1)" })
  }

  @Test func `kcat makes a topic by naming it, where the bus allows that`() throws {
    let bus = try startBus(scratch) { $0.autoCreatePartitions = 3 }
    defer { bus.stop() }
    let broker = "127.0.0.1:\(bus.port)"
    #expect(try kcat(["-b", broker, "-P", "-t", "new", "-p", "2"], input: "x").status == 0)
    let listing = try kcat(["-b", broker, "-L", "-t", "new"])
    #expect(listing.output.contains("topic \"new\" with 3 partitions"))
  }

  @Test func `a consumer group is told that there is no coordinator, and nothing breaks`() throws {
    let bus = try startBus(scratch) { $0.topics = [.init(name: "t", partitions: 1)] }
    defer { bus.stop() }
    let group = Process()
    group.executableURL = URL(fileURLWithPath: "/usr/bin/timeout")
    group.arguments = ["-s", "KILL", "2", "kcat", "-b", "127.0.0.1:\(bus.port)", "-G", "group", "t"]
    group.standardError = FileHandle.nullDevice
    group.standardOutput = FileHandle.nullDevice
    try group.run()
    group.waitUntilExit()
    #expect(group.terminationReason == .uncaughtSignal || group.terminationStatus == 137)  // it was still waiting
    #expect(try kcat(["-b", "127.0.0.1:\(bus.port)", "-L"]).status == 0)
  }
}
