/// Bytes that mean harm: whatever comes, the bus lives, serves others and keeps what it has.
import Foundation
import KafkaLog
import Testing

@testable import EmbeddedBus

@Suite(.serialized) struct HostileClients {
  private let scratch = ScratchDirectory()

  private func requests(_ topic: String) -> [[UInt8]] {
    var metadata = RawRequest.header(3, 4)
    metadata.put(Int32(1))
    metadata.put(topic)
    metadata.put(UInt8(1))
    var offsets = RawRequest.header(2, 1)
    offsets.put(Int32(-1))
    offsets.put(Int32(1))
    offsets.put(topic)
    offsets.put(Int32(1))
    offsets.put(Int32(0))
    offsets.put(Int64(-1))
    var create = RawRequest.header(19, 2)
    create.put(Int32(1))
    create.put("made")
    create.put(Int32(1))
    create.put(Int16(1))
    create.put(Int32(0))
    create.put(Int32(0))
    create.put(Int32(100))
    create.put(UInt8(0))
    var versions = RawRequest.header(18, 3)
    versions.array += [0, 2, 0x61, 2, 0x62, 0]
    var flexible = RawRequest.header(22, 4)
    flexible.array += [0, 0, 0, 0, 0xea, 0x60, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0]
    return [
      metadata.array, offsets.array, create.array, versions.array, flexible.array, RawRequest.initProducerID(),
      RawRequest.produce(topic, 0, TestBatch(values: ["a", "b"]).bytes), RawRequest.fetch(topic, from: 0),
    ]
  }

  private func stillServes(_ bus: BusServer, _ topic: String) throws {
    let connection = try RawConnection((bus.host, bus.port))
    #expect(try connection.produce(topic, TestBatch(values: ["alive"]).bytes).error == 0)
  }

  @Test func `mutated requests never stop the bus`() throws {
    let bus = try startBus(scratch) { $0.topics = [.init(name: "t", partitions: 1)]; $0.limits.partitions = 20; $0.autoCreatePartitions = 1 }
    defer { bus.stop() }
    let seed = UInt64.random(in: .min ... .max)
    var random = Seeded(seed)
    let originals = requests("t")
    for round in 0..<3000 {
      var request = originals.randomElement(using: &random)!
      for _ in 0..<Int.random(in: 1...4, using: &random) where !request.isEmpty {
        let index = Int.random(in: 0..<request.count, using: &random)
        switch Int.random(in: 0..<4, using: &random) {
        case 0: request[index] = UInt8.random(in: 0...255, using: &random)
        case 1: request[index] = [0, 1, 0x7f, 0x80, 0xff].randomElement(using: &random)!
        case 2: request.removeSubrange(index..<min(request.count, index + Int.random(in: 1...8, using: &random)))
        default: request.insert(contentsOf: (0..<4).map { _ in UInt8.random(in: 0...255, using: &random) }, at: index)
        }
      }
      let connection = try RawConnection((bus.host, bus.port))
      try? connection.send(request)
      if round % 500 == 0 { try stillServes(bus, "t") }
    }
    try stillServes(bus, "t")
    // Whatever of it was taken for records is whole.
    let consumer = try KafkaConsumer(KafkaSettings(bootstrap: "127.0.0.1:\(bus.port)"))
    try consumer.assign(topic: "t", partition: 0, start: .beginning)
    #expect(try consumer.read().count >= 7, "seed \(seed)")
  }

  @Test func `noise, half requests and absurd lengths never stop the bus`() throws {
    let bus = try startBus(scratch) { $0.topics = [.init(name: "t", partitions: 1)] }
    defer { bus.stop() }
    var random = Seeded(UInt64.random(in: .min ... .max))
    var held: [RawConnection] = []
    for _ in 0..<200 {
      let connection = try RawConnection((bus.host, bus.port))
      try? connection.sendRaw((0..<Int.random(in: 1...2000, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) })
    }
    for length: Int32 in [.max, .min, -1, 0, 7, 1 << 30, (16 << 20) + 1] {
      let connection = try RawConnection((bus.host, bus.port))
      var bytes = Bytes()
      bytes.put(length)
      try connection.sendRaw(bytes.array)
      #expect(connection.isClosedByPeer(), "length \(length)")
    }
    for request in requests("t") {
      let connection = try RawConnection((bus.host, bus.port))
      var frame = Bytes()
      frame.put(Int32(request.count))
      try connection.sendRaw(Array((frame.array + request).dropLast(request.count / 2)))
      held.append(connection)  // and hangs
    }
    try stillServes(bus, "t")
    withExtendedLifetime(held) {}
  }

  @Test func `an array longer than its request is refused before memory is taken for it`() throws {
    let bus = try startBus(scratch)
    defer { bus.stop() }
    for key: Int16 in [0, 1, 2, 3, 19] {
      let connection = try RawConnection((bus.host, bus.port))
      var request = RawRequest.header(key, 4)
      request.array += [UInt8](repeating: 0x7f, count: 40)
      try connection.send(request.array)
      #expect(connection.isClosedByPeer(), "request \(key)")
    }
  }

  @Test func `one connection more than allowed is closed, and the others are served`() throws {
    let bus = try startBus(scratch) { $0.limits.connections = 3; $0.topics = [.init(name: "t", partitions: 1)] }
    defer { bus.stop() }
    let connections = try (0..<3).map { _ in try RawConnection((bus.host, bus.port)) }
    for connection in connections { _ = try connection.initProducerID() }
    #expect(try RawConnection((bus.host, bus.port)).isClosedByPeer())
    for connection in connections { #expect(try connection.produce("t", TestBatch().bytes).error == 0) }
  }

  @Test func `a client that sends a part and hangs is closed in time`() throws {
    let bus = try startBus(scratch) { $0.limits.requestSeconds = 1 }
    defer { bus.stop() }
    let connection = try RawConnection((bus.host, bus.port))
    try connection.sendRaw([0, 0, 1])
    #expect(connection.isClosedByPeer())
  }

  @Test func `a client that asks and never reads is held back, and others are served`() throws {
    let bus = try startBus(scratch) { $0.topics = [.init(name: "t", partitions: 1)] }
    defer { bus.stop() }
    let writer = try RawConnection((bus.host, bus.port))
    let large = TestBatch(values: [String(repeating: "x", count: 500_000)]).bytes
    for _ in 0..<8 { #expect(try writer.produce("t", large).error == 0) }
    let greedy = try RawConnection((bus.host, bus.port))
    var frame = Bytes()
    let fetch = RawRequest.fetch("t", from: 0, maxBytes: 4 << 20, partitionMaxBytes: 4 << 20)
    frame.put(Int32(fetch.count))
    let pipelined = [[UInt8]](repeating: frame.array + fetch, count: 500).flatMap { $0 }  // two gigabytes of answers
    try greedy.sendRaw(pipelined)
    try stillServes(bus, "t")
    #expect(residentMegabytes() < 600)
  }

  @Test func `many requests in one packet are all answered, in order`() throws {
    let bus = try startBus(scratch) { $0.limits.requestsPerTurn = 3 }
    defer { bus.stop() }
    let connection = try RawConnection((bus.host, bus.port))
    var all: [UInt8] = []
    for number in Int32(0)..<500 {
      var request = RawRequest.header(18, 0, number)
      request.array.insert(contentsOf: [], at: 0)
      var frame = Bytes()
      frame.put(Int32(request.array.count))
      all += frame.array + request.array
    }
    try connection.sendRaw(all)
    for number in Int32(0)..<500 {
      var answer = try connection.receive()
      #expect(answer.get(Int32.self) == number)
    }
  }

  @Test func `a request behind a long poll does not wait for it`() throws {
    let bus = try startBus(scratch) { $0.topics = [.init(name: "t", partitions: 1)] }
    defer { bus.stop() }
    let connection = try RawConnection((bus.host, bus.port))
    try connection.send(RawRequest.fetch("t", from: 0, maxWait: 60_000))
    try connection.send(RawRequest.header(18, 0, 2).array)
    var first = try connection.receive()
    #expect(first.get(Int32.self) == 1)
    var second = try connection.receive()
    #expect(second.get(Int32.self) == 2)
  }

  @Test(arguments: ["", ".", "..", "../x", "a/b", "/etc", "a b", "ä", "a\u{0}b", String(repeating: "x", count: 250)])
  func `a topic's name never leads out of the directory`(name: String) throws {
    let bus = try startBus(scratch) { $0.autoCreatePartitions = 1 }
    defer { bus.stop() }
    let connection = try RawConnection((bus.host, bus.port))
    var request = RawRequest.header(3, 4)
    request.put(Int32(1))
    request.put(name)
    request.put(UInt8(1))
    var answer = try connection.ask(request.array)
    _ = answer.get(Int32.self)  // throttle
    _ = answer.get(Int32.self)  // one broker
    _ = answer.get(Int32.self)
    _ = answer.getString()
    _ = answer.get(Int32.self)
    _ = answer.getString()  // rack
    _ = answer.getString()  // cluster
    _ = answer.get(Int32.self)  // controller
    #expect(answer.get(Int32.self) == 1)
    #expect(answer.get(Int16.self) == 17)  // INVALID_TOPIC_EXCEPTION
    #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path + "/topics") == [])
  }
}

/// SplitMix64
private struct Seeded: RandomNumberGenerator {
  private var state: UInt64
  init(_ seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

private func residentMegabytes() -> Int {
  guard let text = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8) else { return 0 }
  let pages = text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
  return pages * 4 / 1024
}
