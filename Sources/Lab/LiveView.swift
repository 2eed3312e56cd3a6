import ControlMessages
import ControlPlane
import Glibc

/// What is to be seen of a running lab, as lines of text: a value in, lines out.
///
/// Nodes, rates and drops come from the log, requests from the clients' own reports.
struct LiveView {
  var elapsed: Int
  var limit: Int?
  var picture: LogPicture
  var state: ClusterState?
  var traffic: TrafficCount
  /// Requests and bytes in the last second.
  var requestRate: UInt64
  var byteRate: UInt64
  /// What the lab does to its own processes, such as killing the coordinator.
  var notice = ""

  /// One line, for logs.
  var line: String {
    let nodes = picture.nodes.sorted { $0.key < $1.key }.map { id, node in
      "\(node.kind) \(id): \(node.last.activeFlows) flows \(Self.rate(node.last.receivedPackets, node.last)) packets/s"
    }
    return "\(elapsed) s  \(traffic.requests) requests (\(requestRate)/s), \(traffic.failed) failed; "
      + nodes.joined(separator: "; ")
      + (notice.isEmpty ? "" : "; \(notice)")
  }

  func lines(width: Int, height: Int) -> [String] {
    var lines = [
      "NFVactor lab, \(elapsed) s\(limit.map { " of \($0)" } ?? ""), Ctrl-C ends it" + (notice.isEmpty ? "" : "    \(notice)"),
      "",
      "clients   \(traffic.requests) requests, \(requestRate)/s, \(LabSummary.size(byteRate))/s, \(traffic.failed) failed;"
        + " \(traffic.fresh.requests) new connections with a checked megabyte each",
      "",
      Self.row(["node", "state", "flows", "new/s", "packets in/s", "out/s", "dropped/s", "busy"]),
    ]
    for (id, node) in picture.nodes.sorted(by: { $0.key < $1.key }) {
      let phase = state?.node(id).map { "\($0.memberState)" } ?? "gone"
      lines.append(
        Self.row([
          "\(node.kind) \(id)", phase, "\(node.last.activeFlows)", Self.rate(node.last.flowsCreated, node.last),
          Self.rate(node.last.receivedPackets, node.last), Self.rate(node.last.forwardedPackets, node.last),
          Self.rate(node.last.droppedPackets, node.last), "\(node.last.busyShare / 10_000) %",
        ]))
    }
    let drops = picture.drops.prefix(6).map { "\($0.reason) \($0.packets)" }.joined(separator: ", ")
    lines += ["", "dropped   \(drops.isEmpty ? "nothing" : drops)", ""]
    lines.append("log       \(picture.events) events, \(picture.commands) commands; the last of them:")
    for line in picture.lines.suffix(max(0, height - lines.count - 1)) {
      lines.append("  \(Self.clockTime(line.time))  \(line.isCommand ? "command " : "event   ") \(line.text)")
    }
    return lines.prefix(max(1, height - 1)).map { String($0.prefix(max(20, width - 1))) }
  }

  private static func rate(_ count: UInt64, _ workload: NodeWorkload) -> String {
    workload.interval == 0 ? "0" : "\(count &* 1_000 / workload.interval)"
  }

  private static func row(_ cells: [String]) -> String {
    let widths = [12, 10, 8, 8, 13, 9, 10, 6]
    return zip(cells, widths).enumerated().map { index, cell in
      let padding = String(repeating: " ", count: max(0, cell.1 - cell.0.count))
      return index < 2 ? cell.0 + padding : padding + cell.0
    }.joined(separator: " ")
  }

  /// Hours, minutes and seconds of the day, in UTC as the log has it.
  private static func clockTime(_ time: Timestamp) -> String {
    let seconds = time.milliseconds / 1_000
    return [seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60].map { $0 < 10 ? "0\($0)" : "\($0)" }.joined(separator: ":")
  }
}

/// Where the view is shown: a terminal, drawn over twice a second, or a log, with a line every five seconds.
final class Screen {
  private let isTerminal = isatty(STDOUT_FILENO) == 1 && getenv("TERM").map { String(cString: $0) } != "dumb"
  private var isOpen = false
  private var lastShown: ContinuousClock.Instant?

  /// Says something that is to stay.
  func say(_ text: String) {
    close()
    print(text)
    fflush(nil)
  }

  func show(_ view: @autoclosure () -> LiveView) {
    let now = ContinuousClock.now
    if let lastShown, now - lastShown < (isTerminal ? .milliseconds(500) : .seconds(5)) { return }
    lastShown = now
    guard isTerminal else { return say(view().line) }
    if !isOpen {
      // A screen of its own, without a cursor; what was there before comes back at the end.
      print("\u{1b}[?1049h\u{1b}[?25l", terminator: "")
      isOpen = true
    }
    var size = winsize()
    if ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) != 0 || size.ws_col == 0 { (size.ws_row, size.ws_col) = (24, 80) }
    let lines = view().lines(width: Int(size.ws_col), height: Int(size.ws_row))
    print("\u{1b}[H" + lines.map { "\($0)\u{1b}[K" }.joined(separator: "\r\n") + "\u{1b}[J", terminator: "")
    fflush(nil)
  }

  func close() {
    guard isOpen else { return }
    isOpen = false
    print("\u{1b}[?25h\u{1b}[?1049l", terminator: "")
    fflush(nil)
  }
}
