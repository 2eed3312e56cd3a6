/// `nfvctl bus`: the embedded broker as a process of its own.
///
/// It is the bus of a single machine, with the topics of the control plane made at start. Anything that
/// speaks Kafka's protocol can be pointed at it; a real Kafka can take its place without another change.
import ArgumentParser
import ControlMessages
import EmbeddedBus
import Logging

#if canImport(Glibc)
  import Glibc
#else
  import Musl
#endif

struct BusCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bus",
    abstract: "Run the embedded, durable, single-node message bus (Kafka's protocol).",
    discussion: """
      Makes the topics nfv.events, nfv.commands, nfv.snapshots, nfv.audit and nfv.dead-letters and serves them \
      until SIGTERM or SIGINT. Retention applies to events, snapshots and dead letters; commands and the audit \
      are kept for ever. There is no access control: listen on addresses that you trust.
      """)

  @Option(help: ArgumentHelp("Address to listen on; port 0 takes a free one.", valueName: "host:port"))
  var listen = Endpoint(host: "127.0.0.1", port: 9092)

  @Option(help: ArgumentHelp("Where the records are kept.", valueName: "directory"))
  var dataDir = "./nfv-bus-data"

  @Option(help: "Partitions of each topic: as many clusters as there can be. More may be added at a later start.")
  var partitions = Int(ServiceTopics.partitionCount)

  @Option(help: ArgumentHelp("When records are forced to the disk: never, always, or every so often, such as 1s.", valueName: "policy"))
  var fsync = FsyncPolicy(value: .interval(milliseconds: 1000))

  @Option(help: ArgumentHelp("Remove records older than this, such as 12h or 7d.", valueName: "duration"))
  var retention: Span?

  @Option(help: ArgumentHelp("Remove the oldest records of a partition that is larger than this.", valueName: "bytes"))
  var retentionBytes: Int?

  @Option(help: ArgumentHelp("Bytes per file: what retention removes at once.", valueName: "bytes"))
  var segmentBytes = 128 << 20

  @Option(help: ArgumentHelp("Give a topic this many partitions when a client names one that does not exist.", valueName: "count"))
  var autoCreate: Int?

  @Flag(help: "Make no topics: for `nfvctl import`, which makes those of the log.")
  var bare = false

  func validate() throws {
    guard (1...4096).contains(partitions) else { throw ValidationError("--partitions is a number from 1 to 4096") }
    guard segmentBytes >= 1 << 16 else { throw ValidationError("--segment-bytes is at least 65536") }
    guard retentionBytes ?? 0 >= 0 else { throw ValidationError("--retention-bytes is a positive number") }
    guard autoCreate ?? 1 >= 1 else { throw ValidationError("--auto-create is a positive number") }
  }

  func run() throws {
    signal(SIGPIPE, SIG_IGN)
    signal(SIGXFSZ, SIG_IGN)  // a file over its limit is then an error like a full disk
    allowManyOpenFiles()
    // Blocked before any thread starts, so that they are all delivered to the wait below.
    var ending = sigset_t()
    sigemptyset(&ending)
    sigaddset(&ending, SIGTERM)
    sigaddset(&ending, SIGINT)
    pthread_sigmask(SIG_BLOCK, &ending, nil)

    let bus: BusServer
    do {
      bus = try BusServer.start(configuration)
    } catch {
      complain("nfvctl bus: \(error)\n\(advice(error))")
      throw ExitCode(1)
    }
    complain("nfvctl bus: listening on \(bus.host):\(bus.port), data in \(dataDir)\n")
    var received: Int32 = 0
    while sigwait(&ending, &received) != 0 {}
    complain("nfvctl bus: stopping\n")
    bus.stop()
  }

  private var configuration: BusConfiguration {
    let limited = BusConfiguration.Retention(milliseconds: retention?.milliseconds, bytes: retentionBytes)
    var configuration = BusConfiguration(dataDirectory: dataDir)
    configuration.host = listen.host
    configuration.port = listen.port
    configuration.fsync = fsync.value
    configuration.retention = limited
    configuration.segmentBytes = segmentBytes
    configuration.autoCreatePartitions = autoCreate
    configuration.topics = [
      .init(name: "nfv.events", partitions: partitions, retention: limited),
      .init(name: "nfv.commands", partitions: partitions, retention: .forever),
      .init(name: "nfv.snapshots", partitions: partitions, retention: limited),
      .init(name: "nfv.audit", partitions: partitions, retention: .forever),
      .init(name: "nfv.dead-letters", partitions: partitions, retention: limited),
    ]
    if bare { configuration.topics = [] }
    configuration.limits.partitions = max(configuration.limits.partitions, 5 * partitions)
    configuration.logger = Logger(label: "nfv.bus") { StreamLogHandler.standardError(label: $0) }
    return configuration
  }

  private func advice(_ error: BusError) -> String {
    switch error {
    case .directoryInUse: "Choose another with --data-dir.\n"
    case .addressInUse: "Choose another with --listen \(listen.host):PORT (port 0 takes a free one).\n"
    case .cannotListen: "Choose an address of this machine with --listen.\n"
    case .storage: "Check that --data-dir is writable and the disk is not full.\n"
    case .invalidConfiguration: ""
    }
  }

  private func complain(_ text: String) {
    var text = text
    text.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
  }

  /// Each partition keeps a file open; the usual soft limit of 1024 is for programs that use select(2).
  private func allowManyOpenFiles() {
    var limit = rlimit()
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
    limit.rlim_cur = min(limit.rlim_max, 65536)
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  }
}

/// host:port
struct Endpoint: ExpressibleByArgument, CustomStringConvertible {
  var host: String
  var port: Int

  init(host: String, port: Int) {
    self.host = host
    self.port = port
  }

  init?(argument: String) {
    guard let colon = argument.lastIndex(of: ":"), let port = UInt16(argument[argument.index(after: colon)...]) else { return nil }
    var host = String(argument[..<colon])
    if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
    guard !host.isEmpty else { return nil }
    self.init(host: host, port: Int(port))
  }

  var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// 250ms, 30s, 5m, 12h, 7d
struct Span: ExpressibleByArgument, CustomStringConvertible {
  var milliseconds: Int64

  init?(argument: String) {
    let units: [(String, Int64)] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)]
    for (unit, factor) in units where argument.hasSuffix(unit) {
      guard let count = Int64(argument.dropLast(unit.count)), count > 0 else { continue }
      let (product, overflow) = count.multipliedReportingOverflow(by: factor)
      guard !overflow, product < 1 << 50 else { return nil }
      milliseconds = product
      return
    }
    return nil
  }

  var description: String { "\(milliseconds)ms" }
}

/// never, always, or a span
struct FsyncPolicy: ExpressibleByArgument, CustomStringConvertible {
  var value: BusConfiguration.Fsync

  init(value: BusConfiguration.Fsync) { self.value = value }

  init?(argument: String) {
    switch argument {
    case "never": value = .never
    case "always": value = .always
    default:
      guard let span = Span(argument: argument), span.milliseconds < 1 << 31 else { return nil }
      value = .interval(milliseconds: Int(span.milliseconds))
    }
  }

  var description: String {
    switch value {
    case .never: "never"
    case .always: "always"
    case .interval(let milliseconds): "\(milliseconds)ms"
    }
  }
}
