/// Two nginx in the servers namespace: what the load balancer chooses between.
///
/// Each has its own configuration, process and address, says in a header which one it is, and counts its connections
/// on a socket that only the lab reads. They serve one small page and one file of a megabyte with known contents.
struct WebServers {
  let directory: String
  static let names = ["server-1", "server-2"]
  static let smallPage = "small.html"
  static let largeFile = "large.bin"
  static let largeFileSize = 1 << 20

  private var pages: String { "\(directory)/pages" }

  /// What a server counted, over its life.
  struct Count: Equatable {
    var connections: UInt64 = 0
    var requests: UInt64 = 0
  }

  /// Writes pages and configurations.
  ///
  /// - Returns: the SHA-256 of the large file.
  func prepare() throws(LabError) -> String {
    try TextFile.makeDirectory(pages)
    try TextFile.write(
      "<!doctype html><title>NFVactor</title><p>\(String(repeating: "One actor per flow. ", count: 40))</p>\n",
      to: "\(pages)/\(Self.smallPage)")
    try TextFile.write(Self.largeText(), to: "\(pages)/\(Self.largeFile)")
    for (index, name) in Self.names.enumerated() {
      try TextFile.makeDirectory("\(directory)/\(name)")
      try TextFile.write(configuration(name, address: LabNetwork.serverAddresses[index]), to: "\(directory)/\(name)/nginx.conf")
    }
    return String(try Program.run(["sha256sum", "\(pages)/\(Self.largeFile)"]).prefix { $0 != " " })
  }

  /// Nothing in it repeats, so that a byte in the wrong place is noticed.
  private static func largeText() -> String {
    var text = ""
    text.reserveCapacity(largeFileSize + 64)
    var state: UInt64 = 0x9e37_79b9_7f4a_7c15
    while text.utf8.count < largeFileSize {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      text += String(state, radix: 36) + "\n"
    }
    return String(text.prefix(largeFileSize))
  }

  func start(_ index: Int, in namespace: String, log: String) throws(LabError) -> ChildProcess {
    let name = Self.names[index]
    let own = "\(directory)/\(name)"
    return try ChildProcess.start(
      name, ["nginx", "-p", own, "-c", "\(own)/nginx.conf", "-e", "stderr", "-g", "daemon off;"], in: namespace, log: log)
  }

  /// Asks a running server what it has served; nil if it does not answer.
  func count(_ index: Int) -> Count? {
    guard
      let page = try? Program.run([
        "curl", "-sS", "--max-time", "2", "--unix-socket", socket(Self.names[index]), "http://lab/status",
      ])
    else { return nil }
    // Active connections: 1 / server accepts handled requests /  16 16 31070 / Reading: ...
    let lines = page.split(separator: "\n")
    let numbers = lines.count > 2 ? lines[2].split(separator: " ").compactMap { UInt64($0) } : []
    guard numbers.count == 3 else { return nil }
    // Without this question and its connection.
    return Count(connections: numbers[1] - 1, requests: numbers[2] - 1)
  }

  private func socket(_ name: String) -> String { "\(directory)/\(name)/status.sock" }

  private func configuration(_ name: String, address: String) -> String {
    let own = "\(directory)/\(name)"
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map { "  \($0)_temp_path \(own)/\($0);" }
    return """
      user root;
      worker_processes 1;
      pid \(own)/nginx.pid;
      error_log stderr warn;
      events { worker_connections 4096; }
      http {
      \(temporary.joined(separator: "\n"))
        access_log off;
        sendfile on;
        tcp_nopush on;
        # Connections end after this many requests, so that a busy client keeps opening new ones.
        keepalive_requests 500;
        types { text/html html; }
        default_type application/octet-stream;
        server {
          listen \(address):80;
          root \(pages);
          add_header X-Server \(name) always;
          # The same pages, each over some ten seconds.
          location /paced/ {
            alias \(pages)/;
            limit_rate 96k;
            add_header X-Server \(name) always;
          }
        }
        server {
          listen unix:\(socket(name));
          location = /status { stub_status; }
        }
      }

      """
  }
}
