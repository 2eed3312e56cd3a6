// The parts of an HTTP message that contents can be looked for in, and the keywords that name them.

extension Rule {
  /// What a content is looked for in: the packet and the stream, or a part of an HTTP message.
  enum Buffer: UInt8, Hashable, Sendable, CaseIterable, BitwiseCopyable {
    case raw
    case method, uri, rawURI, requestLine, version
    /// All fields but cookies, one line each (`Name: value`); as they were sent, cookies too; their names.
    case header, rawHeader, headerNames
    case userAgent, host, rawHost, cookie, referer, contentType, contentLength, connection
    case accept, acceptLanguage, acceptEncoding
    case statusCode, statusMessage, responseLine, server, location
    case requestBody, responseBody

    var isBody: Bool { self == .requestBody || self == .responseBody }

    var bit: UInt32 { 1 << UInt32(rawValue) }

    /// Whether it is of requests (or else of responses) alone; `nil` if both have it.
    var isOfRequest: Bool? {
      switch self {
      case .raw, .version, .header, .rawHeader, .headerNames, .cookie, .contentType, .contentLength, .connection: nil
      case .method, .uri, .rawURI, .requestLine, .userAgent, .host, .rawHost, .referer, .accept, .acceptLanguage,
        .acceptEncoding, .requestBody:
        true
      case .statusCode, .statusMessage, .responseLine, .server, .location, .responseBody: false
      }
    }
  }

  enum Application: UInt8, Hashable, Sendable, BitwiseCopyable { case any, http }
}

extension RuleParser {
  /// Keywords before the contents that they are for.
  static let stickyBuffers: [String: Rule.Buffer] = [
    "pkt_data": .raw,
    "http.method": .method, "http.uri": .uri, "http.uri.raw": .rawURI, "http.request_line": .requestLine,
    "http_request_line": .requestLine, "http.protocol": .version, "http_protocol": .version, "http.header": .header,
    "http.header.raw": .rawHeader, "http.header_names": .headerNames, "http_header_names": .headerNames,
    "http.user_agent": .userAgent, "http.host": .host, "http.host.raw": .rawHost, "http.cookie": .cookie,
    "http.referer": .referer, "http_referer": .referer, "http.content_type": .contentType, "http_content_type": .contentType,
    "http.content_len": .contentLength, "http_content_len": .contentLength, "http.connection": .connection,
    "http_connection": .connection, "http.accept": .accept, "http_accept": .accept, "http.accept_lang": .acceptLanguage,
    "http_accept_lang": .acceptLanguage, "http.accept_enc": .acceptEncoding, "http_accept_enc": .acceptEncoding,
    "http.stat_code": .statusCode, "http.stat_msg": .statusMessage, "http.response_line": .responseLine,
    "http_response_line": .responseLine, "http.server": .server, "http.location": .location,
    "http.request_body": .requestBody, "http.response_body": .responseBody, "file.data": .responseBody,
    "file_data": .responseBody,
  ]

  /// The older form: keywords behind the content that they are for.
  static let bufferModifiers: [String: Rule.Buffer] = [
    "http_method": .method, "http_uri": .uri, "http_raw_uri": .rawURI, "http_header": .header, "http_raw_header": .rawHeader,
    "http_cookie": .cookie, "http_user_agent": .userAgent, "http_host": .host, "http_raw_host": .rawHost,
    "http_client_body": .requestBody, "http_server_body": .responseBody, "http_stat_code": .statusCode,
    "http_stat_msg": .statusMessage,
  ]

  /// `bsize:10`, `bsize:<20`, `bsize:!3`: how long the buffer before it is. `urilen` is the same of the URI.
  func readSize(_ option: RuleText.Option, _ buffer: Rule.Buffer, _ rule: inout Rule) throws(RuleRefusal) {
    guard buffer != .raw else { throw RuleRefusal("syntax", "\(option.keyword) without a buffer before it") }
    let test = try comparison(option, .payloadLength, 65_535)
    var content = Rule.Content(bytes: [])
    content.buffer = buffer
    content.size = test.low...min(test.high, 65_535)
    content.isNegated = test.comparison == .outside
    rule.contents.append(content)
  }

  /// `urilen:7`, `urilen:>1000,raw`.
  func readURILength(_ option: RuleText.Option, _ rule: inout Rule) throws(RuleRefusal) {
    let parts = option.text.split(separator: ",", omittingEmptySubsequences: false).map { $0.trimmed }
    guard parts.count <= 2, parts.count == 1 || parts[1] == "norm" || parts[1] == "raw" else {
      throw RuleRefusal("syntax", "urilen:\(option.text) is not understood")
    }
    let length = RuleText.Option(keyword: option.keyword, value: Array(parts[0].utf8)[...])
    try readSize(length, parts.last == "raw" ? .rawURI : .uri, &rule)
  }

  /// A rule that speaks of HTTP is one of HTTP, and of one direction if its buffers are.
  func finishBuffers(_ rule: inout Rule) throws(RuleRefusal) {
    let buffers = Set(rule.contents.map(\.buffer)).subtracting([.raw])
    guard !buffers.isEmpty else { return }
    guard rule.transport == .tcp || rule.transport == .any else {
      throw RuleRefusal("syntax", "a buffer of HTTP in a rule for \(rule.transport)")
    }
    (rule.transport, rule.application) = (.tcp, .http)
    let directions = Set(buffers.compactMap(\.isOfRequest))
    guard directions.count < 2 else { throw RuleRefusal("syntax", "a rule speaks of a request and of a response") }
    guard let isOfRequest = directions.first else { return }
    guard rule.flow.toServer ?? isOfRequest == isOfRequest else {
      throw RuleRefusal(
        "buffer of the other direction",
        isOfRequest ? "a buffer of requests in a rule for to_client" : "a buffer of responses in a rule for to_server")
    }
    rule.flow.toServer = isOfRequest
    guard rule.scope != .packet else { throw RuleRefusal("syntax", "buffers of HTTP are of the stream, not of one packet") }
  }
}
