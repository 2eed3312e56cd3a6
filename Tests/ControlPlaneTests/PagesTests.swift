// What Prometheus and people get over HTTP.
import Foundation
import Testing

@testable import Telemetry

@Suite struct PagesTests {
  @Test func `metrics are in Prometheus' text, escaped and with their units`() {
    var text = MetricsText(common: [("node", "2")])
    text.add("nfv_packets_total", .counter, "Packets.\nBy \\fate.", [([("fate", "a \"b\"\\\n")], 3), ([], 4)])
    text.add("nfv_nothing", .gauge, "No samples.", [])
    text.add("nfv_startup_seconds", .gauge, "Startup.", 1_234, per: 1_000)
    text.add("nfv_short_seconds", .gauge, "Short.", 7, per: 1_000)
    #expect(
      text.text == """
        # HELP nfv_packets_total Packets.\\nBy \\\\fate.
        # TYPE nfv_packets_total counter
        nfv_packets_total{node="2",fate="a \\"b\\"\\\\\\n"} 3
        nfv_packets_total{node="2"} 4
        # HELP nfv_startup_seconds Startup.
        # TYPE nfv_startup_seconds gauge
        nfv_startup_seconds{node="2"} 1.234
        # HELP nfv_short_seconds Short.
        # TYPE nfv_short_seconds gauge
        nfv_short_seconds{node="2"} 0.007

        """)
  }

  @Test func `health follows what was posted, and its age`() throws {
    let board = StatusBoard(patience: .milliseconds(200))
    #expect(board.answer("/healthz")?.status == 503 && board.answer("/other") == nil)
    board.post(.init(metrics: "m 1\n", obstacle: "the log is away"))
    #expect(board.answer("/metrics")?.body == "m 1\n")
    #expect(board.answer("/healthz")?.status == 200)
    #expect(board.answer("/readyz")?.status == 503 && board.answer("/readyz")?.body == "the log is away\n")
    board.post(.init(metrics: ""))
    #expect(board.answer("/readyz")?.status == 200)
    Thread.sleep(forTimeInterval: 0.3)
    #expect(board.answer("/healthz")?.status == 503 && board.answer("/readyz")?.status == 503)
  }

  @Test func `an address is a host and a port`() {
    #expect(PageServer.Address("127.0.0.1:80")?.description == "127.0.0.1:80")
    #expect(PageServer.Address("[::1]:9464")?.description == "[::1]:9464")
    for text in ["", "host", ":80", "host:", "host:65536", "host:-1"] { #expect(PageServer.Address(text) == nil, "\(text)") }
  }

  private func server(readers: Int = 2) throws -> PageServer {
    try PageServer(at: PageServer.Address("127.0.0.1:0")!, readers: readers) { request in
      switch request.path {
      case "/live": .stream
      case "/echo": .init(type: .plain, body: request.query.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value);" }.joined())
      default: .init(status: 404, type: .plain, body: "no\n")
      }
    }
  }

  @Test(arguments: [0, 2]) func `pages are served, several on a connection, and rubbish ends only its own`(readers: Int) throws {
    let server = try server(readers: readers)
    defer { server.stop() }
    let client = try RawClient(server.address.port)
    try client.send("GET /echo?a=1&b=x%20y+z&c HTTP/1.1\r\nhost: x\r\n\r\n")
    #expect(try client.read(until: "a=1;b=x y z;c=;").contains("200 OK"))
    try client.send("GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n")
    #expect(try client.read(until: "no\n").contains("404"))
    try client.send("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc")
    #expect(try client.read(until: "GET only\n").contains("405"))
    for rubbish in ["\u{0}\u{1}\u{2}\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", String(repeating: "x", count: 200_000) + "\r\n\r\n"] {
      let other = try RawClient(server.address.port)
      try? other.send(rubbish)
      #expect(try other.readToEnd().utf8.count < 1_000)
    }
    let again = try RawClient(server.address.port)
    try again.send("HEAD /echo?a=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    let head = try again.readToEnd()
    #expect(head.contains("content-length: 4") && !head.contains("a=1;"))
  }

  @Test func `what is published reaches every listener, in order`() throws {
    let server = try server()
    defer { server.stop() }
    let clients = try (0..<3).map { _ in try RawClient(server.address.port) }
    for client in clients {
      try client.send("GET /live HTTP/1.1\r\nhost: x\r\n\r\n")
      #expect(try client.read(until: ": welcome\n\n").contains("text/event-stream"))
    }
    let deadline = Date().addingTimeInterval(5)
    while !server.hasListeners, Date() < deadline { Thread.sleep(forTimeInterval: 0.01) }
    Thread.sleep(forTimeInterval: 0.05)
    server.publish("clusters", "one\ntwo")
    server.publish("clusters", "three")
    for client in clients {
      let text = try client.read(until: "data: three\n\n")
      #expect(text.contains("event: clusters\ndata: one\ndata: two\n\n"))
    }
  }

  @Test func `more clients than there may be are turned away, and a port that is taken is told`() throws {
    let server = try server()
    defer { server.stop() }
    var clients: [RawClient] = []
    for _ in 0..<(PageServer.maximumConnections + 8) { clients.append(try RawClient(server.address.port)) }
    Thread.sleep(forTimeInterval: 0.2)
    var answered = 0
    for client in clients {
      try? client.send("GET /echo?a=1 HTTP/1.1\r\nhost: x\r\n\r\n")
      if (try? client.read(until: "a=1;", seconds: 1)) != nil { answered += 1 }
    }
    #expect(answered == PageServer.maximumConnections)
    #expect(throws: PageServerError.self) { try PageServer(at: server.address, readers: 0) { _ in .stream } }
    let next = try PageServer(at: server.address, ports: 8, readers: 0) { _ in .init(type: .plain, body: "") }
    #expect(next.address.port > server.address.port)
    next.stop()
  }
}

/// A socket, and what came out of it.
private final class RawClient {
  private let file: Int32
  struct Failed: Error { let what: String }

  init(_ port: Int) throws {
    file = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = in_port_t(UInt16(port).bigEndian)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(file, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
    }
    guard result == 0 else { throw Failed(what: "connect: \(errno)") }
  }

  deinit { close(file) }

  func send(_ text: String) throws {
    var bytes = Array(text.utf8)[...]
    while !bytes.isEmpty {
      let count = bytes.withUnsafeBytes { Foundation.send(file, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
      guard count > 0 else { throw Failed(what: "send: \(errno)") }
      bytes = bytes.dropFirst(count)
    }
  }

  func read(until end: String, seconds: Int = 5) throws -> String {
    var text = ""
    while !text.contains(end) {
      guard let more = receive(seconds: seconds) else { throw Failed(what: "waited for \(end), got \(text)") }
      guard !more.isEmpty else { throw Failed(what: "ended before \(end): \(text)") }
      text += more
    }
    return text
  }

  func readToEnd() throws -> String {
    var text = ""
    while let more = receive(seconds: 5) {
      if more.isEmpty { return text }
      text += more
    }
    throw Failed(what: "did not end: \(text)")
  }

  /// nil: nothing came in time; empty: the end.
  private func receive(seconds: Int) -> String? {
    var wait = timeval(tv_sec: seconds, tv_usec: 0)
    setsockopt(file, SOL_SOCKET, SO_RCVTIMEO, &wait, socklen_t(MemoryLayout<timeval>.size))
    var bytes = [UInt8](repeating: 0, count: 16_384)
    let count = recv(file, &bytes, bytes.count, 0)
    if count < 0 { return errno == EAGAIN ? nil : "" }
    return String(decoding: bytes[..<count], as: UTF8.self)
  }
}
