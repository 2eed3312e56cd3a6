// A head cut into buffers: what of it each keyword of a rule looks at (Suricata's "HTTP keywords").

extension HTTPHead {
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
