/// The programs that make the traffic: one `wrk` with connections that stay, and loops of `curl` that open a new
/// connection for each megabyte and check every byte of it.
///
/// Each reports by appending lines of `key=value` to its log; `TrafficCount` adds them up.
struct TrafficClients {
  let directory: String
  let network: LabNetwork
  /// Of the large file.
  let checksum: String

  static let keptConnections = 16
  static let loops = 2

  func start(log: (String) -> String) throws(LabError) -> [ChildProcess] {
    try TextFile.write(Self.wrkScript, to: "\(directory)/report.lua")
    try TextFile.write(loopScript, to: "\(directory)/loop.sh")
    let address = network.virtualHost
    var clients = [
      try ChildProcess.start(
        "wrk",
        [
          "wrk", "-t1", "-c\(Self.keptConnections)", "-d86400s", "--timeout", "10s", "--latency", "-s", "\(directory)/report.lua",
          "http://\(address)/\(WebServers.smallPage)",
        ], in: network.client, log: log("wrk"))
    ]
    for number in 1...Self.loops {
      clients.append(
        try ChildProcess.start(
          "curl-\(number)", ["sh", "\(directory)/loop.sh", "curl-\(number)"], in: network.client, log: log("curl-\(number)")))
    }
    return clients
  }

  /// One `curl` with so many connections at once, again and again.
  func startTransfers(_ count: Int, log: (String) -> String) throws(LabError) -> [ChildProcess] {
    try TextFile.makeDirectory("\(directory)/transfers")
    try TextFile.write(transferScript(count), to: "\(directory)/transfers.sh")
    return [
      try ChildProcess.start("transfers", ["sh", "\(directory)/transfers.sh"], in: network.client, log: log("transfers"))
    ]
  }

  /// Asks a client to finish: wrk reports and ends on SIGINT, a loop finishes its request on SIGTERM.
  static func finish(_ client: ChildProcess) { client.signal(client.name == "wrk" ? 2 : 15) }

  /// A request of wrk that is answered by anything but the page counts as failed. The report of a second is written
  /// with the first answer after it.
  private static let wrkScript = """
    local answers, wrong, bytes, second = 0, 0, 0, 0

    local function report()
      io.write(string.format("requests=%d failed=%d bytes=%d\\n", answers, wrong, bytes))
      io.flush()
    end

    function response(status, headers, body)
      answers = answers + 1
      bytes = bytes + #body
      if status ~= 200 or not headers["X-Server"] or not string.find(body, "One actor per flow", 1, true) then
        wrong = wrong + 1
      end
      local now = os.time()
      if now ~= second then
        second = now
        report()
      end
    end

    -- Runs in another Lua state than response: it knows only wrk's own numbers.
    function done(summary, latency, requests)
      local e = summary.errors
      io.write(string.format(
        "final=1 requests=%d errors=%d connect=%d read=%d write=%d status=%d timeout=%d p50us=%d p99us=%d maxus=%d\\n",
        summary.requests, e.connect + e.read + e.write + e.status + e.timeout, e.connect, e.read, e.write, e.status, e.timeout,
        latency:percentile(50), latency:percentile(99), latency.max))
    end

    """

  private func transferScript(_ count: Int) -> String {
    """
    # Downloads \(count) files at once, each over a connection of its own and as slowly as the server sends it, until SIGTERM; the
    # downloads that have begun are finished and checked.
    stop=
    trap 'stop=1' TERM
    cd \(directory)/transfers
    while test -z "$stop"; do
      curl -sS -Z --parallel-immediate --parallel-max \(count) --max-time 90 -o '#1' \\
        -w 'code=%{exitcode} status=%{http_code} bytes=%{size_download} seconds=%{time_total} server=%header{x-server} file=%{filename_effective}\\n' \\
        'http://\(network.virtualHost)/paced/\(WebServers.largeFile)?[1-\(count)]' >../answers 2>../transfers.error
      sha256sum [0-9]* >../sums 2>/dev/null
      awk -v wanted=\(checksum) '
        FNR == NR { sum[$2] = $1; next }
        { file = $0; sub(/.*file=/, "", file)
          if (sum[file] == wanted && /^code=0 /) print "requests=1 " $0
          else print "requests=1 failed=1 sum=" sum[file] " " $0 }' ../sums ../answers
      answered=$(wc -l <../answers)
      test "$answered" -ge \(count) || echo "requests=1 failed=1 missing=$((\(count) - answered)) $(head -n 1 ../transfers.error | tr ' ' '_')"
      rm -f [0-9]*
    done

    """
  }

  private var loopScript: String {
    """
    # Fetches the large file until SIGTERM, each time over a connection of its own.
    url=http://\(network.virtualHost)/\(WebServers.largeFile)
    body=\(directory)/$1.body
    stop=
    trap 'stop=1' TERM
    while test -z "$stop"; do
      answer=$(curl -sS --max-time 30 -o "$body" -w 'status=%{http_code} bytes=%{size_download} seconds=%{time_total} server=%header{x-server}' "$url" 2>"$body.error")
      code=$?
      sum=$(sha256sum <"$body" 2>/dev/null)
      if test $code = 0 && test "${sum%% *}" = \(checksum); then
        echo "requests=1 $answer"
      else
        echo "requests=1 failed=1 code=$code sum=${sum%% *} $answer $(tr ' ' '_' <"$body.error")"
        sleep 0.1
      fi
      rm -f "$body"
    done

    """
  }
}
