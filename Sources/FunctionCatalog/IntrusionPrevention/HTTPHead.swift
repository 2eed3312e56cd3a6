/// The head of one HTTP message, cut into the buffers that rules ask for (RFC 9112).
///
/// Lent memory of fixed size, used anew for each message. A head is put together here from what the flow's memory kept of it and
/// what its last segment brings; `read` cuts it. It reads what servers read, and they are lenient: lines may end without a
/// carriage return, fields may be folded, more than one space may stand where one should.
struct HTTPHead {
  /// A buffer's place: in the head itself, or in `fields` where it was put together.
  struct Span: BitwiseCopyable {
    var start: UInt32 = 0
    var count: UInt32 = 0
    var isThere = false
    var isInHead = false
  }

  struct Line: BitwiseCopyable {
    var start: UInt32 = 0
    var nameEnd: UInt32 = 0
    var value: UInt32 = 0
    var end: UInt32 = 0
    var field = Field.other
  }

  enum Field: UInt8, BitwiseCopyable {
    case other, host, cookie, accept, server, referer, location, userAgent, connection, setCookie, contentType, contentLength
    case acceptLanguage, acceptEncoding, contentEncoding, transferEncoding
  }

  static let most = 65_535
  private static let mostLines = 256

  let text: FixedMemory<UInt8>
  let fields: FixedMemory<UInt8>
  let spans: FixedMemory<Span>
  let lines: FixedMemory<Line>
  /// Bytes of the head so far.
  private(set) var count = 0
  var used = 0
  var lineCount = 0

  /// - Parameter isNeeded: otherwise there is no room for any.
  init(isNeeded: Bool) {
    // What is put together is at most the URI, all fields, their names and twice each of those that are buffers.
    text = FixedMemory(count: isNeeded ? Self.most : 0, repeating: 0)
    fields = FixedMemory(count: isNeeded ? 6 * Self.most : 0, repeating: 0)
    spans = FixedMemory(count: isNeeded ? Rule.Buffer.allCases.count : 0, repeating: Span())
    lines = FixedMemory(count: isNeeded ? Self.mostLines : 0, repeating: Line())
  }

  // MARK: Putting it together

  mutating func removeAll() { count = 0 }

  /// Adds bytes; those that do not fit are left out.
  @unsafe
  mutating func append(_ bytes: UnsafePointer<UInt8>, _ length: Int) {
    let fitting = min(length, text.count - count)
    guard fitting > 0 else { return }
    unsafe (text.base + count).update(from: bytes, count: fitting)
    count += fitting
  }

  /// Copies the first bytes of it.
  @unsafe
  func copy(_ length: Int, to bytes: UnsafeMutablePointer<UInt8>) {
    unsafe bytes.update(from: text.base, count: min(length, count))
  }

  enum Likeness { case isHTTP, mayBe, isNot }

  /// What the beginning looks like: a request begins with a word in capitals and ends its line with the version, a response
  /// begins with the version.
  func likeness(isRequest: Bool) -> Likeness {
    if !isRequest {
      for (index, byte) in "HTTP/".utf8.enumerated() {
        if index >= count { return .mayBe }
        if text[index] != byte { return .isNot }
      }
      return .isHTTP
    }
    var at = 0
    while at < count, at <= 32, text[at] &- 65 < 26 || (at > 0 && (text[at] == 45 || text[at] == 95)) { at += 1 }
    if at == count { return at <= 32 ? .mayBe : .isNot }
    guard at > 1, text[at] == 32 || text[at] == 9 else { return .isNot }
    var end = at
    while end < count, text[end] != 10 { end += 1 }
    if end == count { return count < 32_768 ? .mayBe : .isNot }
    return version(from: at, to: end) != nil ? .isHTTP : .isNot
  }

  /// Where the version stands that ends a request's line.
  func version(from start: Int, to lineEnd: Int) -> Range<Int>? {
    var end = lineEnd
    while end > start, isSpace(text[end - 1]) || text[end - 1] == 13 { end -= 1 }
    var at = end
    while at > start, !isSpace(text[at - 1]) { at -= 1 }
    guard end - at >= 5, at > start else { return nil }
    for (index, byte) in "HTTP/".utf8.enumerated() where text[at + index] & ~0x20 != byte & ~0x20 { return nil }
    return at..<end
  }

  func isSpace(_ byte: UInt8) -> Bool { byte == 32 || byte == 9 }

  // MARK: How the body is framed

  enum Framing: Equatable { case none, length(UInt64), chunks, untilEnd }

  /// The framing of the body (RFC 9112 §6.3), whether it is encoded, and of requests how they are answered.
  ///
  /// - Parameter asked: of a response: what it answers. A response that only says to wait (1xx) answers nothing.
  mutating func readFrame(isRequest: Bool, asked: FlowNotes.RequestKind) -> (framing: Framing, isEncoded: Bool) {
    readLines()
    var length: UInt64?
    var isChunked = false
    var isEncoded = false
    for index in 0..<lineCount {
      let line = lines[index]
      switch line.field {
      case .contentLength: length = length ?? number(line)
      case .transferEncoding where holds(line, "chunked"): isChunked = true
      case .contentEncoding where line.value < line.end && !holds(line, "identity"): isEncoded = true
      default: break
      }
    }
    if !isRequest {
      let status = self.status
      if status / 100 == 1 || status == 204 || status == 304 || asked == .head { return (.none, isEncoded) }
      if isChunked { return (.chunks, isEncoded) }
      return (length.map { $0 > 0 ? .length($0) : .none } ?? .untilEnd, isEncoded)
    }
    if isChunked { return (.chunks, isEncoded) }
    return (length.map { $0 > 0 ? .length($0) : .none } ?? .none, isEncoded)
  }

  /// The kind of answer that this request asks for.
  var requestKind: FlowNotes.RequestKind {
    if begins("HEAD ") { return .head }
    return begins("CONNECT ") ? .connect : .ordinary
  }

  private func begins(_ word: StaticString) -> Bool {
    guard count >= word.utf8CodeUnitCount else { return false }
    for index in 0..<word.utf8CodeUnitCount where unsafe text[index] != word.utf8Start[index] { return false }
    return true
  }

  /// Of a response; 0 if it is none.
  var status: Int {
    var at = 0
    while at < count, !isSpace(text[at]), text[at] != 10 { at += 1 }
    while at < count, isSpace(text[at]) { at += 1 }
    var status = 0
    while at < count, status < 1000, text[at] &- 48 < 10 {
      status = status * 10 + Int(text[at] - 48)
      at += 1
    }
    return status
  }

  private func number(_ line: Line) -> UInt64? {
    var number: UInt64 = 0
    guard line.value < line.end else { return nil }
    for at in Int(line.value)..<Int(line.end) {
      guard text[at] &- 48 < 10, number < 1 << 56 else { return nil }
      number = number * 10 + UInt64(text[at] - 48)
    }
    return number
  }

  /// Whether a field's value has a word in it, in letters of either case.
  private func holds(_ line: Line, _ word: StaticString) -> Bool {
    let length = word.utf8CodeUnitCount
    var at = Int(line.value)
    while at + length <= Int(line.end) {
      if isName(at, length, word) { return true }
      at += 1
    }
    return false
  }

  // MARK: Lines

  /// Cuts the head into its fields. A field goes on where the next line begins with a space.
  private mutating func readLines() {
    lineCount = 0
    var at = endOfLine(0)
    while at < count, lineCount < Self.mostLines {
      var line = Line(start: UInt32(at))
      var end = endOfLine(at)
      if isEmptyLine(at, end) { break }
      while end < count, isSpace(text[end]), !isEmptyLine(end, endOfLine(end)) { end = endOfLine(end) }
      var colon = at
      while colon < end, text[colon] != 58, text[colon] != 10 { colon += 1 }
      if colon < end, text[colon] == 58 {
        var nameEnd = colon
        while nameEnd > at, isSpace(text[nameEnd - 1]) { nameEnd -= 1 }
        var value = colon + 1
        while value < end, isBlank(text[value]) { value += 1 }
        var valueEnd = end
        while valueEnd > value, isBlank(text[valueEnd - 1]) { valueEnd -= 1 }
        line.nameEnd = UInt32(nameEnd)
        (line.value, line.end) = (UInt32(value), UInt32(valueEnd))
        line.field = field(at, nameEnd - at)
        lines[lineCount] = line
        lineCount += 1
      }
      at = end
    }
  }

  func isBlank(_ byte: UInt8) -> Bool { byte == 32 || byte == 9 || byte == 13 || byte == 10 }

  /// Behind the line's end.
  func endOfLine(_ start: Int) -> Int {
    var at = start
    while at < count {
      at += 1
      if text[at - 1] == 10 { break }
    }
    return at
  }

  private func isEmptyLine(_ start: Int, _ end: Int) -> Bool {
    end - start == 1 && text[start] == 10 || end - start == 2 && text[start] == 13 && text[start + 1] == 10
  }

  func isName(_ start: Int, _ length: Int, _ name: StaticString) -> Bool {
    guard length == name.utf8CodeUnitCount else { return false }
    for index in 0..<length where unsafe PatternAutomaton.fold(text[start + index]) != name.utf8Start[index] { return false }
    return true
  }

  private func field(_ start: Int, _ length: Int) -> Field {
    func `is`(_ name: StaticString) -> Bool { isName(start, length, name) }
    switch length {
    case 4: return `is`("host") ? .host : .other
    case 6: return `is`("cookie") ? .cookie : `is`("accept") ? .accept : `is`("server") ? .server : .other
    case 7: return `is`("referer") ? .referer : .other
    case 8: return `is`("location") ? .location : .other
    case 10: return `is`("user-agent") ? .userAgent : `is`("connection") ? .connection : `is`("set-cookie") ? .setCookie : .other
    case 12: return `is`("content-type") ? .contentType : .other
    case 14: return `is`("content-length") ? .contentLength : .other
    case 15: return `is`("accept-language") ? .acceptLanguage : `is`("accept-encoding") ? .acceptEncoding : .other
    case 16: return `is`("content-encoding") ? .contentEncoding : .other
    case 17: return `is`("transfer-encoding") ? .transferEncoding : .other
    default: return .other
    }
  }
}
