// A log that never rests: heartbeats of a large cluster come faster than anybody looks for its end.
import ControlCodec
import ControlMessages
import ControlNodes
import Foundation
import KafkaLog
import Synchronization
import Testing

@Suite struct BusyLogTests {
  @Test func `who reads a busy log has caught up when he has read what was there when he came`() throws {
    let bus = try TestBus()
    defer { bus.stop() }
    let coordinator = TestCoordinator(bus, name: "one")
    try bus.waitForTopics()
    try bus.writer(.tool(1), partition: 0).say(.clusterRegistered(Samples.cluster))
    try bus.writer(.tool(1), partition: 1).say(.clusterApplied(Samples.spec))
    coordinator.stop()

    let noise = try Noise(bus, recordsPerMillisecond: 40)
    defer { noise.stop() }
    try bus.wait { noise.written > 40_000 }
    let follower = try ClusterFollower(bus.settings)
    let before = noise.written
    // It takes no more at a time than a slow reader would: the end is always ahead.
    var read = 0
    let deadline = ContinuousClock.now + .seconds(20)
    while !follower.isCaughtUp, ContinuousClock.now < deadline {
      for case .event in try follower.poll(timeoutMilliseconds: 10) { read += 1 }
      Thread.sleep(forTimeInterval: 0.02)
    }
    #expect(follower.isCaughtUp)
    #expect(read > 40_000 && noise.written > before, "\(read) read, \(noise.written - before) written meanwhile")
    // And so he may write.
    let agent = try bus.writer(.agent(Samples.host), partition: 1)
    try agent.say(.agentStarted(AgentStarted(host: Samples.host, cores: 4, runtimePorts: 4, switchPorts: 1)))
  }
}

/// Writes heartbeats as fast as it is told, on a thread of its own.
private final class Noise: Sendable {
  private let count = Atomic<Int>(0)
  private let isStopped = Atomic<Bool>(false)
  private let hasEnded = Atomic<Bool>(false)

  init(_ bus: TestBus, recordsPerMillisecond rate: Int) throws {
    let producer = try KafkaProducer(bus.settings, profile: .facts)
    Thread.detachNewThread { [self] in
      var author = EventAuthor(producer: .node(.runtime, Samples.cluster, NodeID(2)!), incarnation: Incarnation(1))
      while !isStopped.load(ordering: .relaxed) {
        for turn in 0..<rate {
          let body = Event.Body.heartbeat(Heartbeat(node: NodeID(2)!, workerLoops: UInt64(turn), busyLoops: 0))
          if (try? producer.send(topic: ServiceTopics.events, partition: 1, value: RecordCodec.encode(author.write(body)))) != nil
          {
            count.wrappingAdd(1, ordering: .relaxed)
          }
        }
        _ = producer.poll(timeoutMilliseconds: 0)
        Thread.sleep(forTimeInterval: 0.001)
      }
      hasEnded.store(true, ordering: .relaxed)
    }
  }

  var written: Int { count.load(ordering: .relaxed) }

  func stop() {
    isStopped.store(true, ordering: .relaxed)
    for _ in 0..<500 where !hasEnded.load(ordering: .relaxed) { Thread.sleep(forTimeInterval: 0.01) }
  }
}
