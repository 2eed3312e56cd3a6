/// One rule as it was understood: what a packet has to be, and what happens then.
struct Rule: Hashable, Sendable {
  /// `reject` is read as `drop`: nothing is sent to the peers.
  enum Action: UInt8, Hashable, Sendable { case pass, drop, alert }

  enum Transport: UInt8, Hashable, Sendable { case any, tcp, udp, icmp }

  /// What contents are looked for in, where the transport is TCP.
  enum Scope: UInt8, Hashable, Sendable {
    /// The segment, and the stream as far as it is known.
    case packetAndStream
    case packet
    case stream
  }

  var action = Action.alert
  var transport = Transport.any
  var scope = Scope.packetAndStream
  var source = AddressSet.all
  var sourcePorts = RulePorts.all
  var destination = AddressSet.all
  var destinationPorts = RulePorts.all
  /// `<>`: also with source and destination exchanged.
  var isBidirectional = false

  /// Only in connections that speak it.
  var application = Application.any
  var flow = FlowCondition()
  var tests: [FieldTest] = []
  var contents: [Content] = []
  /// Index of the content that the automaton looks for; `nil` if every content is negated, or there is none.
  var fastPattern: Int?
  var flowbits = Flowbits()
  var threshold: Threshold?

  var sid: UInt32 = 0
  var gid: UInt32 = 1
  var revision: UInt32 = 0
  /// 1 is the most urgent.
  var priority: UInt8 = 3
  var message = ""
  var line = 0
}

extension Rule {
  struct FlowCondition: Hashable, Sendable, BitwiseCopyable {
    /// `nil`: either.
    var toServer: Bool?
    var isEstablished: Bool?
  }

  /// A byte string to be found, or not, at a place relative to the beginning or to the content before it.
  struct Content: Hashable, Sendable {
    /// Lower case if `ignoresCase`; empty for a condition on how much data follows (`isdataat`).
    var bytes: [UInt8]
    var isNegated = false
    var ignoresCase = false
    var isFastPattern = false
    /// `offset`, `depth`: first byte, and bytes from there in which all of the content lies.
    var offset: Int?
    var depth: Int?
    /// `distance`, `within`: the same, counted from the end of the content before.
    var distance: Int?
    var within: Int?
    /// `endswith`: nothing follows.
    var isAtEnd = false
    /// `isdataat` instead of a content: this many bytes from the beginning, or from the content before.
    var dataAt: Int?
    var isRelativeDataAt = false
    /// `bsize` instead of a content: how long its buffer is.
    var size: ClosedRange<UInt32>?
    var buffer = Buffer.raw

    var isRelative: Bool { distance != nil || within != nil || isRelativeDataAt }
    /// Whether it matters where the data begins.
    var isAnchored: Bool { offset != nil || depth != nil || (dataAt != nil && !isRelativeDataAt) }
  }

  /// A comparison of one number of the packet.
  struct FieldTest: Hashable, Sendable, BitwiseCopyable {
    enum Field: UInt8, Hashable, Sendable, BitwiseCopyable {
      case payloadLength, tcpFlags, tcpSequence, tcpAcknowledgement, tcpWindow
      case timeToLive, typeOfService, identification, fragmentBits, ipProtocol, addressFamily, sameAddress
      case icmpType, icmpCode, icmpIdentifier, icmpSequence
    }

    enum Comparison: UInt8, Hashable, Sendable, BitwiseCopyable {
      /// `low <= value <= high`.
      case within, outside
      /// Of the bits in `high`: equal to `low`; at least those of `low`; any of `low`; not all of `low`.
      case bitsEqual, bitsAll, bitsAny, bitsNotAll
    }

    var field: Field
    var comparison = Comparison.within
    var low: UInt32
    var high: UInt32

    @inline(__always)
    func holds(_ value: UInt32) -> Bool {
      switch comparison {
      case .within: low <= value && value <= high
      case .outside: value < low || high < value
      case .bitsEqual: value & high == low
      case .bitsAll: value & high & low == low
      case .bitsAny: value & high & low != 0
      case .bitsNotAll: value & high & low != low
      }
    }
  }

  /// Up to 64 notes on a flow, one bit each, that rules make and other rules ask for.
  struct Flowbits: Hashable, Sendable, BitwiseCopyable {
    var set: UInt64 = 0
    var unset: UInt64 = 0
    var toggled: UInt64 = 0
    /// All of these have to be set.
    var required: UInt64 = 0
    /// None of these may be set.
    var forbidden: UInt64 = 0
    /// One of these has to be set (`isset,a|b`); 0 for no such condition.
    var anyOf: UInt64 = 0
    var isSilent = false

    var changes: Bool { self.set | unset | toggled != 0 }
    var asks: Bool { required | forbidden | anyOf != 0 }

    @inline(__always)
    func hold(_ bits: UInt64) -> Bool {
      bits & required == required && bits & forbidden == 0 && (anyOf == 0 || bits & anyOf != 0)
    }

    @inline(__always)
    func apply(to bits: UInt64) -> UInt64 { ((bits | set) & ~unset) ^ toggled }
  }

  /// How often a rule may speak.
  struct Threshold: Hashable, Sendable, BitwiseCopyable {
    enum Kind: UInt8, Hashable, Sendable, BitwiseCopyable {
      /// The first `count` matches of a period.
      case limit
      /// Every `count`-th match.
      case threshold
      /// Once in a period, at the `count`-th match.
      case both
      /// Every match after `count` in a period (`detection_filter`).
      case detectionFilter
    }

    enum Track: UInt8, Hashable, Sendable, BitwiseCopyable { case source, destination, both, rule }

    var kind: Kind
    var track: Track
    var count: UInt32
    var seconds: UInt32
  }
}
