import ArgumentParser

/// How data is printed: `text` for people, the other two for programs.
enum OutputFormat: String, ExpressibleByArgument, CaseIterable {
  case text
  /// One document.
  case json
  /// One object in each line.
  case jsonl
}

struct OutputOptions: ParsableArguments {
  @Option(name: [.short, .long], help: "text for people; json (one document) or jsonl (one object in each line) for programs.")
  var output = OutputFormat.text
}

/// A thing that is listed: a row in a table, or an object.
protocol Listed {
  static var columns: [TextTable.Column] { get }
  var cells: [String] { get }
  var json: JSON { get }
}

extension OutputFormat {
  func list<Item: Listed>(_ items: [Item]) -> String {
    switch self {
    case .text: TextTable(Item.columns, items.map(\.cells)).text
    case .json: JSON.array(items.map(\.json)).document
    case .jsonl: items.map { $0.json.line + "\n" }.joined()
    }
  }
}

/// Columns in line, two spaces apart, under a heading; the last one as long as it likes.
struct TextTable {
  enum Column {
    case left(String)
    case right(String)

    var title: String {
      switch self {
      case .left(let title), .right(let title): title
      }
    }
  }

  private let columns: [Column]
  private let rows: [[String]]

  init(_ columns: [Column], _ rows: [[String]]) {
    self.columns = columns
    self.rows = rows.map { $0.map(Self.printable) }
  }

  var text: String {
    let all = [columns.map(\.title)] + rows
    let widths = columns.indices.map { column in all.map { $0[column].count }.max() ?? 0 }
    return all.map { row in
      var line = ""
      for (index, cell) in row.enumerated() {
        let padding = String(repeating: " ", count: widths[index] - cell.count)
        if index > 0 { line += "  " }
        if case .right = columns[index] { line += padding + cell } else { line += cell + padding }
      }
      while line.last == " " { line.removeLast() }
      return line + "\n"
    }.joined()
  }

  /// Texts in the log come from other programs: none of them may move a terminal's cursor.
  static func printable(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: { $0.value < 0x20 || (0x7f..<0xa0).contains($0.value) }) else { return text }
    return String(
      String.UnicodeScalarView(text.unicodeScalars.map { $0.value < 0x20 || (0x7f..<0xa0).contains($0.value) ? "?" : $0 }))
  }
}
