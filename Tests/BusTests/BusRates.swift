/// How fast the bus is, measured and not asserted:
/// `NFV_BENCH=1 swift test -c release -Xswiftc -enable-testing --filter BusRates`.
import EmbeddedBus
import Foundation
import KafkaLog
import Testing

@Suite(.serialized, .enabled(if: ProcessInfo.processInfo.environment["NFV_BENCH"] != nil, "set NFV_BENCH to measure"))
struct BusRates {
  private let settings = BusUnderTest.settings

  @Test(arguments: [KafkaProducer.Profile.facts]) func `records of 100 bytes, written and replayed`(profile: KafkaProducer.Profile) throws {
    let topic = try BusUnderTest.topic()
    let producer = try KafkaProducer(settings, profile: profile)
    let value = [UInt8](repeating: 7, count: 100)
    let count = 500_000
    let start = ContinuousClock.now
    var sent = 0
    while sent < count {
      do throws(KafkaError) {
        try producer.send(topic: topic, partition: 0, value: value)
        sent += 1
        if sent % 1000 == 0 { _ = producer.poll(timeoutMilliseconds: 0) }
      } catch .queueFull {
        _ = producer.poll(timeoutMilliseconds: 10)
      }
    }
    try producer.flush(timeoutMilliseconds: 60_000)
    report("produce", count, since: start)

    let consumer = try KafkaConsumer(settings)
    try consumer.assign(topic: topic, partition: 0, start: .beginning)
    let replay = ContinuousClock.now
    var seen = 0
    while seen < count { seen += try consumer.poll(timeoutMilliseconds: 100, max: 10_000).count }
    report("replay", count, since: replay)
  }

  @Test(arguments: [1000, 10_000]) func `from send to poll`(perSecond: Int) throws {
    for (name, profile) in [("facts", KafkaProducer.Profile.facts), ("commands", .commands)] {
      let topic = try BusUnderTest.topic()
      let producer = try KafkaProducer(settings, profile: profile)
      let consumer = try KafkaConsumer(settings)
      try consumer.assign(topic: topic, partition: 0, start: .beginning)
      _ = try producer.sendAndWait(topic: topic, partition: 0, value: bytes("warm"))
      _ = try consumer.read(1)
      let count = perSecond * 3
      let settings = settings
      let sender = Thread {
        _ = settings
        let start = ContinuousClock.now
        for number in 0..<count {
          let due = start + .microseconds(number * 1_000_000 / perSecond)
          while ContinuousClock.now < due { usleep(50) }
          let now = DispatchTime.now().uptimeNanoseconds
          _ = try? producer.send(topic: topic, partition: 0, value: withUnsafeBytes(of: now) { Array($0) })
          if number % 100 == 0 { _ = producer.poll(timeoutMilliseconds: 0) }
        }
      }
      sender.start()
      var delays: [Double] = []
      while delays.count < count {
        for case .record(let record) in try consumer.poll(timeoutMilliseconds: 1000) where record.value.count == 8 {
          let sentAt = record.value.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
          delays.append(Double(DispatchTime.now().uptimeNanoseconds - sentAt) / 1e6)
        }
      }
      delays.sort()
      print("\(name) at \(perSecond)/s: p50 \(delays[count / 2]) ms, p99 \(delays[count * 99 / 100]) ms, max \(delays[count - 1]) ms")
    }
  }

  private func report(_ what: String, _ count: Int, since start: ContinuousClock.Instant) {
    let seconds = Double((ContinuousClock.now - start) / .nanoseconds(1)) / 1e9
    print("\(what): \(Int(Double(count) / seconds)) records/s")
  }
}
