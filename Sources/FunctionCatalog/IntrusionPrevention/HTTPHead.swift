/// The head of one HTTP message, cut into the buffers that rules ask for (RFC 9112).
///
/// Lent memory of fixed size, used anew for each message. A head is put together here from what the flow's memory kept of it and
/// what its last segment brings; `read` cuts it. It reads what servers read, and they are lenient: lines may end without a
/// carriage return, fields may be folded, more than one space may stand where one should.
struct HTTPHead {
  /// A buffer's place: in the head itself, or in `fields` where it was put together.
  private struct Span: BitwiseCopyable {
    var start: UInt32 = 0
    var count: UInt32 = 0
    var isThere = false
    var isInHead = false
  }

  private struct Line: BitwiseCopyable {
    var start: UInt32 = 0
    var nameEnd: UInt32 = 0
    var value: UInt32 = 0
    var end: UInt32 = 0
    var field = Field.other
  }

  private enum Field: UInt8, BitwiseCopyable {
    case other, host, cookie, accept, server, referer, location, userAgent, connection, setCookie, contentType, contentLength
    case acceptLanguage, acceptEncoding, contentEncoding, transferEncoding
  }

  static let most = 65_535
  private static let mostLines = 256

  private let text: FixedMemory<UInt8>
  private let fields: FixedMemory<UInt8>
  private let spans: FixedMemory<Span>
  private let lines: FixedMemory<Line>
  /// Bytes of the head so far.
  private(set) var count = 0
  private var used = 0
  private var lineCount = 0

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
  private func version(from start: Int, to lineEnd: Int) -> Range<Int>? {
    var end = lineEnd
    while end > start, isSpace(text[end - 1]) || text[end - 1] == 13 { end -= 1 }
    var at = end
    while at > start, !isSpace(text[at - 1]) { at -= 1 }
    guard end - at >= 5, at > start else { return nil }
    for (index, byte) in "HTTP/".utf8.enumerated() where text[at + index] & ~0x20 != byte & ~0x20 { return nil }
    return at..<end
  }

  private func isSpace(_ byte: UInt8) -> Bool { byte == 32 || byte == 9 }

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

  private func isBlank(_ byte: UInt8) -> Bool { byte == 32 || byte == 9 || byte == 13 || byte == 10 }

  /// Behind the line's end.
  private func endOfLine(_ start: Int) -> Int {
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

  private func isName(_ start: Int, _ length: Int, _ name: StaticString) -> Bool {
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

  // MARK: Buffers

  /// Cuts the head, whose lines have been read, into the buffers of `wanted`.
  mutating func cut(isRequest: Bool, wanted: UInt32) {
    used = 0
    for index in 0..<spans.count { spans[index] = Span() }
    var lineEnd = endOfLine(0)
    let fieldsStart = lineEnd
    while lineEnd > 0, text[lineEnd - 1] == 10 || text[lineEnd - 1] == 13 { lineEnd -= 1 }
    if isRequest {
      let uri = cutRequestLine(to: lineEnd, wanted)
      if wanted & Rule.Buffer.uri.bit != 0 { normalize(uri) }
    } else {
      cutStatusLine(to: lineEnd, wanted)
    }
    func wants(_ buffer: Rule.Buffer) -> Bool { wanted & buffer.bit != 0 }
    if wants(.rawHeader) { lend(.rawHeader, fieldsStart, count) }
    if wants(.header) { joinFields(without: isRequest ? .cookie : .setCookie) }
    if wants(.headerNames) { joinNames() }
    join(isRequest ? .cookie : .setCookie, as: .cookie, wanted)
    join(.contentType, as: .contentType, wanted)
    join(.contentLength, as: .contentLength, wanted)
    join(.connection, as: .connection, wanted)
    guard isRequest else {
      join(.server, as: .server, wanted)
      join(.location, as: .location, wanted)
      return
    }
    join(.userAgent, as: .userAgent, wanted)
    join(.host, as: .rawHost, wanted)
    if wants(.host) { joinHost() }
    join(.referer, as: .referer, wanted)
    join(.accept, as: .accept, wanted)
    join(.acceptLanguage, as: .acceptLanguage, wanted)
    join(.acceptEncoding, as: .acceptEncoding, wanted)
  }

  // MARK: First lines

  private func cutRequestLine(to end: Int, _ wanted: UInt32) -> Range<Int> {
    if wanted & Rule.Buffer.requestLine.bit != 0 { lend(.requestLine, 0, end) }
    var methodEnd = 0
    while methodEnd < end, !isSpace(text[methodEnd]) { methodEnd += 1 }
    if wanted & Rule.Buffer.method.bit != 0 { lend(.method, 0, methodEnd) }
    var start = methodEnd
    while start < end, isSpace(text[start]) { start += 1 }
    let version = version(from: start, to: end) ?? end..<end
    if wanted & Rule.Buffer.version.bit != 0, !version.isEmpty { lend(.version, version.lowerBound, version.upperBound) }
    // A URI with spaces in it is none, but some servers take it.
    var uriEnd = version.lowerBound
    while uriEnd > start, isSpace(text[uriEnd - 1]) { uriEnd -= 1 }
    if wanted & Rule.Buffer.rawURI.bit != 0 { lend(.rawURI, start, uriEnd) }
    return start..<max(start, uriEnd)
  }

  private func cutStatusLine(to end: Int, _ wanted: UInt32) {
    if wanted & Rule.Buffer.responseLine.bit != 0 { lend(.responseLine, 0, end) }
    var at = 0
    while at < end, !isSpace(text[at]) { at += 1 }
    if wanted & Rule.Buffer.version.bit != 0 { lend(.version, 0, at) }
    while at < end, isSpace(text[at]) { at += 1 }
    let code = at
    while at < end, !isSpace(text[at]) { at += 1 }
    if wanted & Rule.Buffer.statusCode.bit != 0 { lend(.statusCode, code, at) }
    while at < end, isSpace(text[at]) { at += 1 }
    if wanted & Rule.Buffer.statusMessage.bit != 0 { lend(.statusMessage, at, end) }
  }

  // MARK: Putting buffers together

  private func lend(_ buffer: Rule.Buffer, _ start: Int, _ end: Int) {
    spans[Int(buffer.rawValue)] = Span(start: UInt32(start), count: UInt32(max(0, end - start)), isThere: true, isInHead: true)
  }

  private func finish(_ buffer: Rule.Buffer, from start: Int) {
    spans[Int(buffer.rawValue)] = Span(start: UInt32(start), count: UInt32(used - start), isThere: true)
  }

  private mutating func put(_ byte: UInt8) {
    guard used < fields.count else { return }
    fields[used] = byte
    used += 1
  }

  private mutating func put(_ start: UInt32, _ end: UInt32) {
    for at in Int(start)..<max(Int(start), Int(end)) { put(text[at]) }
  }

  /// A value; what lies between the lines of a folded one becomes a space.
  private mutating func putValue(_ line: Line) {
    var at = Int(line.value)
    while at < Int(line.end) {
      if text[at] == 13 || text[at] == 10 {
        while at < Int(line.end), isBlank(text[at]) { at += 1 }
        put(32)
      } else {
        put(text[at])
        at += 1
      }
    }
  }

  /// The values of all fields of one name.
  private mutating func join(_ field: Field, as buffer: Rule.Buffer, _ wanted: UInt32) {
    guard wanted & buffer.bit != 0 else { return }
    let start = used
    var isFirst = true
    for index in 0..<lineCount where lines[index].field == field {
      if !isFirst {
        put(44)
        put(32)
      }
      putValue(lines[index])
      isFirst = false
    }
    if !isFirst { finish(buffer, from: start) }
  }

  /// `Name: value`, line by line.
  private mutating func joinFields(without cookies: Field) {
    let start = used
    for index in 0..<lineCount where lines[index].field != cookies {
      put(lines[index].start, lines[index].nameEnd)
      put(58)
      put(32)
      putValue(lines[index])
      put(13)
      put(10)
    }
    if lineCount > 0 { finish(.header, from: start) }
  }

  /// The names, each in a line, with an empty line before and behind.
  private mutating func joinNames() {
    let start = used
    put(13)
    put(10)
    for index in 0..<lineCount {
      put(lines[index].start, lines[index].nameEnd)
      put(13)
      put(10)
    }
    put(13)
    put(10)
    if lineCount > 0 { finish(.headerNames, from: start) }
  }

  /// In lower case and without a port.
  private mutating func joinHost() {
    let start = used
    guard let index = (0..<lineCount).first(where: { lines[$0].field == .host }) else { return }
    var isBracketed = false
    for at in Int(lines[index].value)..<max(Int(lines[index].value), Int(lines[index].end)) {
      if text[at] == 91 { isBracketed = true }
      if text[at] == 93 { isBracketed = false }
      if text[at] == 58, !isBracketed { break }
      put(PatternAutomaton.fold(text[at]))
    }
    finish(.host, from: start)
  }

  // MARK: The URI

  /// As a server reads it: without scheme and host, `%41` as `A`, of the path also `\` as `/`, and no `//`, `/./` or `/../`.
  private mutating func normalize(_ uri: Range<Int>) {
    let start = used
    var at = pathStart(uri)
    var isQuery = false
    while at < uri.upperBound {
      var byte = text[at]
      // What is decoded does not begin a query.
      if byte == 63, !isQuery {
        isQuery = true
        removeDots(from: start)
      } else if byte == 37, let decoded = decode(at, before: uri.upperBound) {
        byte = decoded.byte
        at += decoded.length - 1
      }
      if !isQuery, byte == 92 { byte = 47 }
      put(byte)
      at += 1
    }
    if !isQuery { removeDots(from: start) }
    finish(.uri, from: start)
  }

  /// Behind `http://host`, if that is there.
  private func pathStart(_ uri: Range<Int>) -> Int {
    let start = uri.lowerBound
    var length = 0
    if uri.count >= 7, isName(start, 7, "http://") { length = 7 }
    if uri.count >= 8, isName(start, 8, "https://") { length = 8 }
    guard length > 0 else { return start }
    var at = start + length
    while at < uri.upperBound, text[at] != 47, text[at] != 63 { at += 1 }
    return at
  }

  /// `%41`, and `%u0041` of which the low byte counts.
  private func decode(_ at: Int, before end: Int) -> (byte: UInt8, length: Int)? {
    if at + 2 < end, let high = digit(text[at + 1]), let low = digit(text[at + 2]) { return (high << 4 | low, 3) }
    guard at + 5 < end, text[at + 1] | 0x20 == 117, digit(text[at + 2]) != nil, digit(text[at + 3]) != nil,
      let high = digit(text[at + 4]), let low = digit(text[at + 5])
    else { return nil }
    return (high << 4 | low, 6)
  }

  private func digit(_ byte: UInt8) -> UInt8? {
    if byte &- 48 < 10 { return byte - 48 }
    let letter = byte | 0x20
    return letter &- 97 < 6 ? letter - 87 : nil
  }

  /// In what was put from `start` on (RFC 3986 §5.2.4).
  private mutating func removeDots(from start: Int) {
    var (read, write) = (start, start)
    func ends(_ at: Int) -> Bool { at == used || fields[at] == 47 }
    while read < used {
      guard fields[read] == 47 else {
        fields[write] = fields[read]
        (read, write) = (read + 1, write + 1)
        continue
      }
      let isDot = read + 1 < used && fields[read + 1] == 46
      if read + 1 < used, fields[read + 1] == 47 {
        read += 1
      } else if isDot, ends(read + 2) {
        read += 2
        if read == used { (fields[write], write) = (47, write + 1) }
      } else if isDot, read + 2 < used, fields[read + 2] == 46, ends(read + 3) {
        read += 3
        while write > start {
          write -= 1
          if fields[write] == 47 { break }
        }
        if read == used { (fields[write], write) = (47, write + 1) }
      } else {
        fields[write] = 47
        (read, write) = (read + 1, write + 1)
      }
    }
    used = write
  }

  // MARK: Asked

  /// Lends a buffer of the head that was cut last; `nil` if the message does not have it.
  func window(_ buffer: Rule.Buffer) -> ContentWindow? {
    let span = spans[Int(buffer.rawValue)]
    guard span.isThere else { return nil }
    let base = unsafe span.isInHead ? text.base : fields.base
    return unsafe ContentWindow(base + Int(span.start), count: Int(span.count), position: 0)
  }

  /// Lends the head as it was sent, which began at this place of its stream.
  func window(position: Int) -> ContentWindow { unsafe ContentWindow(text.base, count: count, position: position) }
}
