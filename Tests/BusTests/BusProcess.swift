// `nfvctl bus` as a process of its own, to be killed, stopped and started again while clients work with it.
import Foundation
import KafkaLog
import Testing

final class BusProcess {
  private var process: Process
  let port: Int
  private let directory: String

  /// Two partitions of each of the control plane's topics.
  init(_ directory: String) throws {
    self.directory = directory
    (process, port) = try NFVCtl.startBus(directory)
  }

  deinit {
    signal(SIGCONT)
    signal(SIGKILL)
    process.waitUntilExit()
  }

  var settings: KafkaSettings { KafkaSettings(bootstrap: "127.0.0.1:\(port)", clientID: "nfv-test") }

  func signal(_ number: Int32) { kill(process.processIdentifier, number) }

  /// Ends it by a signal and starts it again on the same port, which its clients know.
  func restart(by number: Int32) throws {
    signal(number)
    process.waitUntilExit()
    process = try NFVCtl.startBus(directory, port: port).0
  }
}
