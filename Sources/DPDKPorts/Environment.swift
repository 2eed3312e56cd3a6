import CDPDK
import FixedContainers
import Glibc

/// DPDK's environment in this process: its memory, its devices, the worker's thread.
///
/// Started once, on the thread that will poll. With huge pages memory is private to the process
/// (`--in-memory`), so that any number of processes run side by side and leave nothing behind when they
/// are killed; without them it runs on ordinary pages, more slowly, and says so. A process has one: whoever starts another
/// has that one, as it was started first.
public final class Environment {
  public enum Memory: Sendable, Equatable {
    /// Megabytes of huge pages, taken as they are needed.
    case hugePages
    /// Megabytes of ordinary pages, reserved at start.
    case ordinaryPages(megabytes: Int)
  }

  public let memory: Memory
  // EAL rearranges the vector of arguments but keeps the strings: both live as long as the process.
  private let arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>

  /// - Parameters:
  ///   - processors: the set the worker may run on; one for a dedicated core.
  ///   - usesPCI: whether a port will be a PCI device. Otherwise the bus is left alone altogether.
  public init(name: String, processors: [Int], memory: Memory, usesPCI: Bool = false, verbose: Bool = false) throws(PortError) {
    self.memory = memory
    let set = processors.map(String.init).joined(separator: ",")
    var words = [name, "--lcores", "0@(\(set))", "--no-telemetry", "--log-level", verbose ? "lib.eal:7" : "*:3"]
    // A list of devices that names none at which a NIC can be: nothing is probed at start, so that the NICs of other
    // processes are left alone, and a port's own device is plugged in by its address.
    words += usesPCI ? ["--allow", "0000:00:00.0"] : ["--no-pci"]
    switch memory {
    case .hugePages: words += ["--in-memory", "--single-file-segments"]
    case .ordinaryPages(let megabytes): words += ["--no-huge", "--no-shconf", "-m", String(megabytes)]
    }
    unsafe arguments = .allocate(capacity: words.count + 1)
    for (index, word) in words.enumerated() { unsafe arguments[index] = strdup(word) }
    unsafe arguments[words.count] = nil
    let result = unsafe nfv_eal_start(Int32(words.count), arguments)
    guard result == 0 else {
      throw PortError("DPDK could not start (\(errorText(-result)))", hint: "see the lines above; run as root, and check huge pages with 'grep Huge /proc/meminfo'")
    }
  }

  /// Memory for fixed containers, from wherever DPDK has its own; without huge pages large ones are the process's own.
  public var containerMemory: MemorySource {
    let isOrdinary = memory != .hugePages
    return unsafe MemorySource { byteCount, alignment in
      if isOrdinary, byteCount >= 2 << 20 { return unsafe nfv_reserve_ordinary(UInt64(byteCount)) }
      return unsafe nfv_reserve(UInt64(byteCount), UInt32(alignment))
    }
  }

  public func stop() { nfv_eal_stop() }

  /// Huge pages of the default size that are free now.
  public static func freeHugePageMegabytes() -> Int {
    guard let file = unsafe fopen("/proc/meminfo", "r") else { return 0 }
    defer { unsafe fclose(file) }
    var free = 0
    var kilobytes = 0
    var line = [CChar](repeating: 0, count: 256)
    while unsafe fgets(&line, 256, file) != nil {
      let fields = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        .split(whereSeparator: { $0 == " " || $0 == ":" || $0 == "\n" })
      guard fields.count >= 2, let value = Int(fields[1]) else { continue }
      if fields[0] == "HugePages_Free" { free = value }
      if fields[0] == "Hugepagesize" { kilobytes = value }
    }
    return free * kilobytes / 1_024
  }

  /// Binds the calling thread to one processor.
  public static func bindThread(to processor: Int) throws(PortError) {
    let result = nfv_bind_thread(UInt32(processor))
    guard result == 0 else { throw PortError("cannot bind to processor \(processor) (\(errorText(result)))", hint: "choose one that 'nproc' counts") }
  }

  /// Lets the calling thread's short sleeps be short.
  public static func allowShortSleeps() { nfv_set_timer_slack(1_000) }
}

/// A port or the environment below it could not be had: what happened, and what to do.
public struct PortError: Error, CustomStringConvertible, Equatable {
  public let message: String
  public let hint: String

  public init(_ message: String, hint: String) {
    self.message = message
    self.hint = hint
  }

  public var description: String { "\(message); \(hint)" }
}

func errorText(_ code: Int32) -> String { unsafe String(cString: strerror(code)) }
