import ArgumentParser
import ControlMessages
import ControlNodes
import Glibc
import KafkaLog

/// Where the log is: the options of every command that reads or writes it.
struct LogAccess: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Where the log is; several brokers with commas. NFV_BOOTSTRAP is the default if it is set.", valueName: "host:port"))
  var bootstrap = getenv("NFV_BOOTSTRAP").map { String(cString: $0) } ?? "127.0.0.1:9092"

  @Option(
    name: .customLong("kafka-option"),
    help: ArgumentHelp("A property of librdkafka, such as security.protocol=ssl. May be repeated.", valueName: "key=value"))
  var options: [KafkaOption] = []

  /// A broker that answers at all does so in milliseconds.
  static let patience = 4_000

  /// The end of a partition is known by an answer without records, which a broker delays by the wait: half a second
  /// is right for a node that reads for months, and much for a person who asks once.
  private static let ownOptions = ["fetch.wait.max.ms": "20"]

  var settings: KafkaSettings {
    let given = Dictionary(options.map { ($0.key, $0.value) }) { $1 }
    return KafkaSettings(bootstrap: bootstrap, clientID: "nfvctl", extra: Self.ownOptions.merging(given) { $1 })
  }

  /// Says within seconds that there is no log, instead of trying for ever as a node does.
  func check() throws(KafkaError) {
    let admin = try KafkaAdmin(settings, timeoutMilliseconds: Self.patience)
    for topic in [ServiceTopics.events, ServiceTopics.commands] where try admin.partitionCount(of: topic) == nil {
      throw .unknownTopic(topic: topic, partition: -1)
    }
  }

  /// The log as it stands, folded. `noticing` sees what was read on the way.
  func readLog(only cluster: ClusterID? = nil, noticing: (ClusterFollower.Item) -> Void = { _ in }) throws(KafkaError)
    -> ClusterFollower
  {
    try check()
    let follower = try ClusterFollower(settings, only: cluster)
    try catchUp(follower, noticing: noticing)
    return follower
  }

  /// A long log may take its time, as long as it comes.
  func catchUp(_ follower: ClusterFollower, noticing: (ClusterFollower.Item) -> Void = { _ in }) throws(KafkaError) {
    let clock = ContinuousClock()
    var heard = clock.now
    while !follower.isCaughtUp {
      let items = try follower.poll(timeoutMilliseconds: 50)
      for item in items { noticing(item) }
      if !items.isEmpty { heard = clock.now }
      if clock.now - heard > .milliseconds(Self.patience) {
        let problem = follower.status.problem.map { " (\($0))" } ?? ""
        throw .timedOut(operation: "reading the log at \(bootstrap)\(problem)", milliseconds: Self.patience)
      }
    }
  }
}

/// key=value
struct KafkaOption: ExpressibleByArgument {
  let key: String
  let value: String

  init?(argument: String) {
    let parts = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.count == 2, !parts[0].isEmpty else { return nil }
    key = String(parts[0])
    value = String(parts[1])
  }
}

extension ClusterID: ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }
}

extension Timestamp {
  static var now: Timestamp {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Timestamp(milliseconds: UInt64(max(0, time.tv_sec)) * 1_000 + UInt64(time.tv_nsec / 1_000_000))
  }
}
