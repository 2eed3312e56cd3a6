import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// Pages over HTTP/1.1, for Prometheus and for people: GET and HEAD, one thread, everything bounded.
///
/// It is for networks that one trusts: no TLS, no names, no passwords. Listen on an address that only they reach.
///
/// ```
///   socket ──▶ NIOHTTP1 ──▶ PageConnection ──▶ pages(request), on another thread ──▶ answer
///                                          └─▶ a stream: events as they are published (server-sent events)
/// ```
public final class PageServer: Sendable {
  public struct Request: Sendable {
    /// Without the query.
    public let path: String
    public let query: [String: String]
  }

  public struct Answer: Sendable {
    public var status: Int
    public var type: String
    public var body: String
    /// The connection stays, and gets what is published from now on.
    public var isStream = false

    public init(status: Int = 200, type: String, body: String) {
      self.status = status
      self.type = type
      self.body = body
    }

    public static let stream: Answer = {
      var answer = Answer(type: "text/event-stream; charset=utf-8", body: ": welcome\n\n")
      answer.isStream = true
      return answer
    }()
  }

  public struct Address: Sendable, Hashable, CustomStringConvertible {
    public var host: String
    public var port: Int

    public init(host: String, port: Int) {
      self.host = host
      self.port = port
    }

    /// `host:port`, `[::1]:port`.
    public init?(_ text: String) {
      guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else { return nil }
      var host = text[..<colon]
      if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
      guard !host.isEmpty else { return nil }
      self.host = String(host)
      self.port = Int(port)
    }

    public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
  }

  static let maximumConnections = 64
  /// Seconds without a request after which a connection is closed.
  static let idleSeconds: Int64 = 60

  public let address: Address
  private let listener: any Channel
  private let group: MultiThreadedEventLoopGroup
  private let readers: NIOThreadPool?
  private let state: State

  /// What connections share.
  final class State: Sendable {
    let pages: @Sendable (Request) -> Answer
    /// nil: pages are made by the connections' own thread.
    let readers: NIOThreadPool?
    let connections = Atomic<Int>(0)
    let streams = Mutex<[ObjectIdentifier: any Channel]>([:])

    init(readers: NIOThreadPool?, pages: @escaping @Sendable (Request) -> Answer) {
      self.readers = readers
      self.pages = pages
    }
  }

  /// Listens at the first of `ports` ports from the address's on that is free.
  ///
  /// - Parameters:
  ///   - readers: threads for making pages, which may then take their time; 0 for pages that are there at once.
  ///   - pages: what there is at a path; called on threads of the server's own.
  public init(at wanted: Address, ports: Int = 1, readers threads: Int, pages: @escaping @Sendable (Request) -> Answer) throws {
    group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    readers = threads > 0 ? NIOThreadPool(numberOfThreads: threads) : nil
    readers?.start()
    let state = State(readers: readers, pages: pages)
    self.state = state
    let bootstrap = ServerBootstrap(group: group)
      .serverChannelOption(.backlog, value: 16)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelOption(.writeBufferWaterMark, value: .init(low: 64 << 10, high: 1 << 20))
      .childChannelInitializer { channel in
        guard state.connections.add(1, ordering: .relaxed).newValue <= Self.maximumConnections else {
          state.connections.subtract(1, ordering: .relaxed)
          return channel.eventLoop.makeFailedFuture(ChannelError.ioOnClosedChannel)
        }
        channel.closeFuture.whenComplete { _ in
          state.connections.subtract(1, ordering: .relaxed)
          state.streams.withLock { $0[ObjectIdentifier(channel)] = nil }
        }
        return channel.eventLoop.makeCompletedFuture {
          let pipeline = channel.pipeline.syncOperations
          try pipeline.configureHTTPServerPipeline()
          try pipeline.addHandler(IdleStateHandler(readTimeout: .seconds(Self.idleSeconds)))
          try pipeline.addHandler(PageConnection(state))
        }
      }
    var found: (any Channel)?
    var failure: (any Error)?
    for port in wanted.port..<(wanted.port + max(1, ports)) where found == nil {
      do { found = try bootstrap.bind(host: wanted.host, port: port).wait() } catch { failure = error }
    }
    guard let listener = found else {
      try? group.syncShutdownGracefully()
      try? readers?.syncShutdownGracefully()
      throw PageServerError(address: wanted, ports: ports, reason: "\(failure.map { "\($0)" } ?? "")")
    }
    self.listener = listener
    var address = wanted
    address.port = listener.localAddress?.port ?? wanted.port
    self.address = address
  }

  /// Whether anybody listens to the stream.
  public var hasListeners: Bool { state.streams.withLock { !$0.isEmpty } }

  /// Sends an event to every stream. A listener that does not read is passed over, and closed when he has missed a megabyte.
  public func publish(_ event: String, _ data: String) {
    // A line of its own for each line of the data (HTML Living Standard, 9.2.6).
    let lines = data.split(separator: "\n", omittingEmptySubsequences: false).map { "data: \($0)\n" }.joined()
    let text = "event: \(event)\n\(lines)\n"
    for channel in state.streams.withLock({ Array($0.values) }) {
      guard channel.isWritable else {
        channel.close(promise: nil)
        continue
      }
      channel.writeAndFlush(HTTPServerResponsePart.body(.byteBuffer(ByteBuffer(string: text))), promise: nil)
    }
  }

  /// Closes everything. Not on the server's own threads.
  public func stop() {
    try? listener.close().wait()
    try? group.syncShutdownGracefully()
    try? readers?.syncShutdownGracefully()
  }
}

public struct PageServerError: Error, CustomStringConvertible {
  let address: PageServer.Address
  let ports: Int
  let reason: String

  public var description: String {
    "cannot listen at \(address)\(ports > 1 ? " or one of the \(ports - 1) ports behind it" : ""): \(reason)"
  }
}

extension String {
  public static let plain = "text/plain; charset=utf-8"
  public static let json = "application/json; charset=utf-8"
  public static let html = "text/html; charset=utf-8"
}

/// One client: its requests one after another.
private final class PageConnection: ChannelInboundHandler {
  typealias InboundIn = HTTPServerRequestPart
  typealias OutboundOut = HTTPServerResponsePart

  private let state: PageServer.State
  private var head: HTTPRequestHead?
  private var bodyBytes = 0

  init(_ state: PageServer.State) { self.state = state }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data) {
    case .head(let head): self.head = head
    case .body(let bytes):
      // Nobody here wants a body.
      bodyBytes += bytes.readableBytes
      if bodyBytes > 65_536 { context.close(promise: nil) }
    case .end:
      guard let head else { return }
      self.head = nil
      bodyBytes = 0
      respond(head, on: context.channel)
    }
  }

  private func respond(_ head: HTTPRequestHead, on channel: any Channel) {
    let isHead = head.method == .HEAD
    let keepsAlive = head.isKeepAlive
    guard head.method == .GET || isHead else {
      return Self.write(.init(status: 405, type: .plain, body: "GET only\n"), isHead, false, to: channel)
    }
    let (path, query) = Self.split(head.uri)
    let request = PageServer.Request(path: path, query: query)
    let state = state
    let page: EventLoopFuture<PageServer.Answer>
    if let readers = state.readers {
      page = readers.runIfActive(eventLoop: channel.eventLoop) { state.pages(request) }
    } else {
      page = channel.eventLoop.makeSucceededFuture(state.pages(request))
    }
    page.whenComplete { result in
      switch result {
      case .success(let answer):
        Self.write(answer, isHead, keepsAlive, to: channel)
        if answer.isStream, !isHead { state.streams.withLock { $0[ObjectIdentifier(channel)] = channel } }
      case .failure: channel.close(promise: nil)
      }
    }
  }

  private static func write(_ answer: PageServer.Answer, _ isHead: Bool, _ keepsAlive: Bool, to channel: any Channel) {
    var headers = HTTPHeaders([
      ("content-type", answer.type), ("cache-control", "no-store"), ("x-content-type-options", "nosniff"),
    ])
    let body = ByteBuffer(string: answer.body)
    if !answer.isStream { headers.add(name: "content-length", value: "\(body.readableBytes)") }
    headers.add(name: "connection", value: keepsAlive && !answer.isStream ? "keep-alive" : "close")
    let head = HTTPResponseHead(version: .http1_1, status: .init(statusCode: answer.status), headers: headers)
    channel.write(HTTPServerResponsePart.head(head), promise: nil)
    if !isHead { channel.write(HTTPServerResponsePart.body(.byteBuffer(body)), promise: nil) }
    guard !answer.isStream || isHead else {
      channel.flush()
      return
    }
    let end = channel.writeAndFlush(HTTPServerResponsePart.end(nil))
    if !keepsAlive || answer.isStream { end.whenComplete { _ in channel.close(promise: nil) } }
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    // Who listens to a stream asks nothing more.
    let channel = ObjectIdentifier(context.channel)
    if event is IdleStateHandler.IdleStateEvent, state.streams.withLock({ $0[channel] == nil }) { context.close(promise: nil) }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  /// Path and query of a request's target (RFC 3986, 3.4); what is not percent-encoded rightly stays as it is.
  static func split(_ uri: String) -> (path: String, query: [String: String]) {
    let parts = uri.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
    var query: [String: String] = [:]
    for pair in parts.count == 2 ? parts[1].split(separator: "&").prefix(32) : [] {
      let words = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      query[decoded(words[0])] = words.count == 2 ? decoded(words[1]) : ""
    }
    return (String(parts[0]), query)
  }

  private static func decoded(_ text: Substring) -> String {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
      if byte == UInt8(ascii: "%"), rest.count >= 2,
        let code = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
      {
        bytes.append(code)
        rest = rest.dropFirst(2)
      } else {
        bytes.append(byte == UInt8(ascii: "+") ? UInt8(ascii: " ") : byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
