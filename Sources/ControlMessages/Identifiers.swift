/// The names of things that appear in the log: clusters, nodes, hosts, producers, and the numbers that
/// order them.
///
/// Each is a type of its own, so that a slot cannot be taken for an offset. Names that come from outside
/// are checked once, by the initializer that may fail.

/// Name of a cluster: the runtimes and switches of one service chain, and one partition of the log.
public struct ClusterID: Hashable, Comparable, Sendable, CustomStringConvertible {
  public let name: String

  /// A name is 1 to 63 of `a-z`, `0-9` and `-`.
  public init?(_ name: String) {
    guard Self.isName(name.utf8) else { return nil }
    self.name = name
  }

  static func isName(_ text: String.UTF8View) -> Bool {
    (1...63).contains(text.count)
      && text.allSatisfy { byte in
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
          || byte == UInt8(ascii: "-")
      }
  }

  public static func < (a: Self, b: Self) -> Bool { a.name < b.name }
  public var description: String { name }
}

/// Name of a host as its agent gives it: 1 to 255 of letters, digits, `-`, `_` and `.`.
public struct HostID: Hashable, Comparable, Sendable, CustomStringConvertible {
  public let name: String

  public init?(_ name: String) {
    let isAllowed = { (byte: UInt8) -> Bool in
      (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
        || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || "-_.".utf8.contains(byte)
    }
    guard (1...255).contains(name.utf8.count), name.utf8.allSatisfy(isAllowed) else { return nil }
    self.name = name
  }

  public static func < (a: Self, b: Self) -> Bool { a.name < b.name }
  public var description: String { name }
}

/// A runtime or virtual switch of a cluster. Numbers are not used again for another node; 0 is none.
public struct NodeID: Hashable, Comparable, Sendable, CustomStringConvertible {
  public let number: UInt32

  public init?(_ number: UInt32) {
    guard number != 0 else { return nil }
    self.number = number
  }

  public static func < (a: Self, b: Self) -> Bool { a.number < b.number }
  public var description: String { "\(number)" }
}

/// Number of a process's life: a later life has a greater number.
///
/// Nodes get theirs with their launch command; agents, tools and replicas take their start time.
public struct Incarnation: Hashable, Comparable, Sendable, CustomStringConvertible {
  public let number: UInt64

  public init(_ number: UInt64) { self.number = number }

  public static func < (a: Self, b: Self) -> Bool { a.number < b.number }
  public var description: String { "\(number)" }
}

/// Where a record stands in its partition.
public struct Offset: Hashable, Comparable, Sendable, CustomStringConvertible {
  public let value: UInt64

  public init(_ value: UInt64) { self.value = value }

  public static func < (a: Self, b: Self) -> Bool { a.value < b.value }
  public var description: String { "\(value)" }
}

/// A command's dense number in its cluster, from 1. 0 is "no command yet".
public struct Slot: Hashable, Comparable, Sendable, CustomStringConvertible {
  public let number: UInt64

  public init(_ number: UInt64) { self.number = number }

  /// The slot before the first.
  public static let none = Slot(0)
  public var next: Slot { Slot(number &+ 1) }

  public static func < (a: Self, b: Self) -> Bool { a.number < b.number }
  public var description: String { "\(number)" }
}

/// A record's time: milliseconds since 1970, as the log wrote it.
public struct Timestamp: Hashable, Comparable, Sendable, CustomStringConvertible {
  public let milliseconds: UInt64

  public init(milliseconds: UInt64) { self.milliseconds = milliseconds }

  public static let zero = Timestamp(milliseconds: 0)

  /// Saturates: no record can make the core trap by standing at the end of time.
  public func advanced(byMilliseconds delta: UInt64) -> Timestamp {
    let (sum, overflow) = milliseconds.addingReportingOverflow(delta)
    return Timestamp(milliseconds: overflow ? .max : sum)
  }

  /// Milliseconds from `earlier` to this; 0 when it is not earlier.
  public func since(_ earlier: Timestamp) -> UInt64 {
    milliseconds > earlier.milliseconds ? milliseconds - earlier.milliseconds : 0
  }

  public static func < (a: Self, b: Self) -> Bool { a.milliseconds < b.milliseconds }
  public var description: String { "\(milliseconds)" }
}

/// What a node is.
public enum NodeKind: UInt8, Hashable, Sendable, CaseIterable, CustomStringConvertible {
  case runtime = 1
  case virtualSwitch = 2

  public var description: String { self == .runtime ? "runtime" : "switch" }
}

/// Who wrote an event, such as `runtime/web/3`, `agent/lab` or `ctl/5f2a`.
public struct ProducerID: Hashable, Comparable, Sendable, CustomStringConvertible {
  public let name: String

  /// 1 to 400 bytes, none of them NUL.
  public init?(_ name: String) {
    guard (1...400).contains(name.utf8.count) else { return nil }
    for byte in name.utf8 where byte == 0 { return nil }
    self.name = name
  }

  private init(unchecked name: String) { self.name = name }

  public static func node(_ kind: NodeKind, _ cluster: ClusterID, _ node: NodeID) -> ProducerID {
    ProducerID(unchecked: "\(kind)/\(cluster)/\(node)")
  }
  public static func agent(_ host: HostID) -> ProducerID { ProducerID(unchecked: "agent/\(host)") }
  public static func coordinator(_ host: HostID) -> ProducerID { ProducerID(unchecked: "coordinator/\(host)") }
  /// A run of the operator's tool. `run` is drawn by the tool, so that two runs are two producers.
  public static func tool(_ run: UInt64) -> ProducerID { ProducerID(unchecked: "ctl/\(String(run, radix: 16))") }

  public static func < (a: Self, b: Self) -> Bool { a.name < b.name }
  public var description: String { name }
}

/// An Ethernet address as a number: the first octet on the wire is the highest of the lower 48 bits.
public struct HardwareAddress: Hashable, Comparable, Sendable, CustomStringConvertible {
  public let bits: UInt64

  /// Bits above the lower 48 are dropped.
  public init(bits: UInt64) { self.bits = bits & 0xffff_ffff_ffff }

  public static func < (a: Self, b: Self) -> Bool { a.bits < b.bits }

  public var description: String {
    (0..<6).map { index in
      let octet = String((bits >> UInt64(40 - 8 * index)) & 0xff, radix: 16)
      return octet.utf8.count == 1 ? "0" + octet : octet
    }.joined(separator: ":")
  }
}

/// The three ports of a node by role. They may be one device, and then one address.
public struct NodePorts: Hashable, Sendable {
  public var input: HardwareAddress
  public var output: HardwareAddress
  public var control: HardwareAddress

  public init(input: HardwareAddress, output: HardwareAddress, control: HardwareAddress) {
    self.input = input
    self.output = output
    self.control = control
  }
}
