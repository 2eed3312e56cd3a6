/// A topic: its partitions' logs and its settings, in a directory of its own.
///
/// ```
/// DATA/topics/nfv.events/settings    written last: without it the topic does not exist
/// DATA/topics/nfv.events/0/00000000000000000000.log
/// ```

struct TopicSettings: Equatable {
  var partitions: Int
  var retention: BusConfiguration.Retention
  var timestamps: BusConfiguration.Timestamps

  init(partitions: Int, retention: BusConfiguration.Retention, timestamps: BusConfiguration.Timestamps) {
    self.partitions = partitions
    self.retention = retention
    self.timestamps = timestamps
  }

  init?(text: String) {
    var values: [Substring: Substring] = [:]
    for line in text.split(separator: "\n") {
      let sides = line.split(separator: "=", maxSplits: 1)
      if sides.count == 2 { values[sides[0]] = sides[1] }
    }
    guard let partitions = values["partitions"].flatMap({ Int($0) }), partitions > 0,
      let timestamps = values["timestamps"].flatMap({ BusConfiguration.Timestamps(rawValue: String($0)) })
    else { return nil }
    self.partitions = partitions
    self.timestamps = timestamps
    retention = .init(
      milliseconds: values["retention.ms"].flatMap { Int64($0) }, bytes: values["retention.bytes"].flatMap { Int($0) })
  }

  var text: String {
    var lines = ["partitions=\(partitions)", "timestamps=\(timestamps.rawValue)"]
    if let milliseconds = retention.milliseconds { lines.append("retention.ms=\(milliseconds)") }
    if let bytes = retention.bytes { lines.append("retention.bytes=\(bytes)") }
    return lines.joined(separator: "\n") + "\n"
  }
}

struct Topic {
  let name: String
  private(set) var settings: TopicSettings
  private(set) var partitions: [PartitionLog]
  private let directory: String

  /// Kafka's rule, which also keeps a name from leading out of the data directory.
  static func isValid(name: String) -> Bool {
    !name.isEmpty && name.utf8.count <= 249 && name != "." && name != ".."
      && name.utf8.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
          UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
          true
        default: false
        }
      }
  }

  /// Opens a topic's logs, and makes what is missing of them.
  init(
    name: String, settings: TopicSettings, under topics: String, options: PartitionLog.Options
  ) throws(StorageError) {
    precondition(Self.isValid(name: name), "a topic's name is checked before it becomes a path")
    self.name = name
    self.settings = settings
    directory = topics + "/" + name
    var options = options
    options.timestamps = settings.timestamps
    partitions = []
    for index in 0..<settings.partitions {
      partitions.append(try PartitionLog(opening: directory + "/\(index)", options: options))
    }
    try replaceSmallFile(directory + "/settings", with: settings.text)
  }

  /// nil where a topic was not made to its end.
  static func storedSettings(name: String, under topics: String) throws(StorageError) -> TopicSettings? {
    try readSmallFile(topics + "/" + name + "/settings").flatMap(TopicSettings.init(text:))
  }
}
