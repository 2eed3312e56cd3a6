/// The bytes a rule is judged by: a packet's payload, or the end of a stream up to and with this packet.
@safe
struct ContentWindow {
  let bytes: UnsafePointer<UInt8>
  let count: Int
  /// Where the window's first byte stands in what offsets are counted in: 0 for a packet, or the place in the stream.
  let position: Int

  @unsafe
  init(_ bytes: UnsafePointer<UInt8>, count: Int, position: Int) {
    unsafe self.bytes = bytes
    self.count = count
    self.position = position
  }

  /// The first place from `start` on where `length` bytes of `pattern` stand before `limit`; `nil` if there is none.
  @inline(__always)
  func find(_ pattern: UnsafePointer<UInt8>, _ length: Int, folded: Bool, from start: Int, before limit: Int, _ budget: inout Int)
    -> Int?
  {
    var at = start
    let last = limit - length
    let first = unsafe pattern[0]
    while at <= last {
      budget -= 1
      if budget < 0 { return nil }
      let byte = unsafe bytes[at]
      if (folded ? PatternAutomaton.fold(byte) : byte) == first, unsafe holds(pattern, length, folded, at) { return at }
      at += 1
    }
    return nil
  }

  @inline(__always)
  private func holds(_ pattern: UnsafePointer<UInt8>, _ length: Int, _ folded: Bool, _ at: Int) -> Bool {
    for index in 1..<max(1, length) {
      let byte = unsafe bytes[at + index]
      if unsafe (folded ? PatternAutomaton.fold(byte) : byte) != pattern[index] { return false }
    }
    return true
  }
}

/// A content as it is compared.
struct CompiledContent: BitwiseCopyable {
  var bytesStart: UInt32 = 0
  var length: Int32 = 0
  /// Earliest first byte, and bytes from there in which all has to lie; relative to the content before if `isRelative`.
  var from: Int32 = 0
  var room: Int32 = .max
  var isNegated = false
  var ignoresCase = false
  var isRelative = false
  var isAtEnd = false
  /// `isdataat`: `from` bytes have to be there.
  var asksForData = false
  /// `bsize`: the buffer has `from` to `room` bytes.
  var asksForSize = false
  /// Where this content stands decides where the next may: if that fails, another place for this one is tried.
  var isFollowedByRelative = false

  init() {}

  init(_ content: Rule.Content, bytesStart: UInt32, isFollowedByRelative: Bool) {
    self.bytesStart = bytesStart
    self.isFollowedByRelative = isFollowedByRelative
    length = Int32(content.bytes.count)
    isNegated = content.isNegated
    ignoresCase = content.ignoresCase
    isRelative = content.isRelative
    isAtEnd = content.isAtEnd
    asksForData = content.dataAt != nil
    from = Int32(content.dataAt ?? content.offset ?? content.distance ?? 0)
    if let room = content.depth ?? content.within { self.room = Int32(room) }
    guard let size = content.size else { return }
    (asksForSize, from, room) = (true, Int32(size.lowerBound), Int32(size.upperBound))
  }
}

/// Looks for the contents of one rule, in order, each at a place that suits the one before. `list` has to be one of the
/// program's rules' own.
///
/// If a content that the next one's place depends on is found where the next does not follow, its next place is tried.
/// That can take long for a hostile packet, so it is counted in places looked at, and given up at a bound.
@safe
struct ContentMatching {
  private let contents: UnsafePointer<CompiledContent>
  private let contentBytes: UnsafePointer<UInt8>
  private let window: ContentWindow
  /// Places still to be looked at; below zero, the search was given up.
  private(set) var budget = 262_144
  /// What is found has to end behind this place: what ends before it has been found before.
  private let behind: Int

  /// Good while `program` is, whose rules it looks into without a copy.
  init(_ program: borrowing RuleProgram, _ window: ContentWindow, behind: Int = -1) {
    self.behind = behind
    unsafe contents = UnsafePointer(program.contents.base)
    unsafe contentBytes = UnsafePointer(program.contentBytes.base)
    self.window = window
  }

  /// Whether the contents of `list` from `index` on are there, the one before having ended at `end`, and the furthest at `furthest`.
  mutating func matches(_ list: ListPart, _ index: UInt32 = 0, after end: Int = 0, furthest: Int = 0) -> Bool {
    guard index < list.count else { return furthest > behind }
    let content = unsafe contents[Int(list.start + index)]
    if content.asksForSize {
      let holds = Int(content.from) <= window.count && window.count <= Int(content.room)
      return holds != content.isNegated && matches(list, index + 1, after: end, furthest: furthest)
    }
    // Offsets count from the beginning of the packet or stream, which may lie before the window.
    let base = content.isRelative ? end : -window.position
    if content.asksForData {
      let place = base + Int(content.from)
      let isThere = content.isRelative ? place <= window.count : place < window.count
      let reached = isThere ? max(furthest, place) : furthest
      return isThere != content.isNegated && matches(list, index + 1, after: end, furthest: reached)
    }
    let bytes = unsafe contentBytes + Int(content.bytesStart)
    let length = Int(content.length)
    var start = max(0, base + Int(content.from))
    let limit = min(window.count, base + Int(content.from) + Int(content.room))
    if content.isAtEnd {
      if limit < window.count { start = Int(Int32.max) } else { start = max(start, window.count - length) }
    }
    while true {
      let found = unsafe window.find(bytes, length, folded: content.ignoresCase, from: start, before: limit, &budget)
      if budget < 0 { return false }
      guard let found else { return content.isNegated && matches(list, index + 1, after: end, furthest: furthest) }
      if content.isNegated { return false }
      if matches(list, index + 1, after: found + length, furthest: max(furthest, found + length)) { return true }
      guard content.isFollowedByRelative, budget >= 0 else { return false }
      start = found + 1
    }
  }
}
