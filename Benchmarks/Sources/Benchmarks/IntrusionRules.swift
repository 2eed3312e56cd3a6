/// Rules for the intrusion prevention that is measured, and text that it has to read: generated, the same in every run.
///
/// The text is made of the words that the patterns are made of, so that the search comes some way into patterns again and
/// again; no rule's content is in it.
enum IntrusionRules {
  private static let words = [
    "account", "admin", "archive", "backup", "basket", "catalog", "comment", "config", "content", "download", "event", "export",
    "gallery", "include", "index", "invoice", "language", "login", "message", "network", "order", "panel", "payment", "product",
    "profile", "query", "report", "search", "session", "setting", "status", "template", "update", "upload", "user", "version",
  ]

  /// Of four rules two look at requests, one at answers, and one for two contents.
  static let lines: [String] = (0..<100).map { number in
    let (first, second) = (words[number % words.count], words[(number * 7 + 3) % words.count])
    let content = "content:\"/\(first)/\(second)\(number).php\"; nocase;"
    let (way, more) =
      switch number % 4 {
      case 0, 1: ("to_server", "")
      case 2: ("to_client", "")
      default: ("to_server", " content:\"|0d 0a|x-\(first)\"; distance:0;")
      }
    return
      "drop tcp any any -> any any (msg:\"rule \(number)\"; flow:established,\(way); \(content)\(more) sid:\(1_000_000 + number); rev:1;)"
  }

  /// Words and separators.
  static let text: [UInt8] = {
    var random = Random(seed: 7)
    var text: [UInt8] = []
    while text.count < 65_536 {
      text += Array(words[Int(random.next() * Double(words.count))].utf8)
      text.append(Array("/ .=&\n".utf8)[Int(random.next() * 6)])
    }
    return text
  }()
}
