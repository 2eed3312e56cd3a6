/// A scaling record drawn as SVG: rates above, runtimes below, over the same seconds.
///
/// Values in, text out. The drawing has no colours that depend on a page's own and no fonts to load.
struct ScalingPlot {
  let record: ScalingRecord

  private static let width = 900.0, left = 70.0, right = 20.0
  /// Upper edges and heights of the two panels.
  private static let rates = (top: 40.0, height: 260.0), counts = (top: 350.0, height: 130.0)

  private var lastSecond: Double { max(1, record.samples.last?.seconds ?? 1) }
  private var highestRate: Double { max(1_000, record.samples.map { max($0.offered, $0.achieved) }.max() ?? 0) * 1.08 }
  private var highestCount: Double { Double(max(2, record.samples.map { $0.serving + $0.draining + $0.starting }.max() ?? 0)) + 0.5 }

  func svg() -> String {
    var parts = [
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 900 540\" font-family=\"sans-serif\" font-size=\"12\">",
      "<rect width=\"900\" height=\"540\" fill=\"white\"/>",
      text(Self.left, 22, "Dynamic scaling: offered and achieved rate", size: 14),
      text(Self.left, Self.counts.top - 12, "Runtimes", size: 14),
    ]
    parts += axes()
    parts.append(area(record.samples.map { ($0.seconds, $0.offered) }, fill: "#d9dde3"))
    parts.append(line(record.samples.map { ($0.seconds, $0.offered) }, stroke: "#6b7280", width: 1.5))
    parts.append(line(record.samples.map { ($0.seconds, $0.achieved) }, stroke: "#0b6bcb", width: 2))
    parts.append(steps(record.samples.map { ($0.seconds, Double($0.serving + $0.draining)) }, stroke: "#d97706", dash: "4 3"))
    parts.append(steps(record.samples.map { ($0.seconds, Double($0.serving)) }, stroke: "#0b6bcb", dash: nil))
    for note in record.notes where note.what == "launch" || note.what == "drain" {
      let place = x(note.seconds)
      let color = note.what == "launch" ? "#15803d" : "#b91c1c"
      parts.append(
        "<line x1=\"\(n(place))\" y1=\"\(n(Self.rates.top))\" x2=\"\(n(place))\" y2=\"\(n(Self.counts.top + Self.counts.height))\" stroke=\"\(color)\" stroke-dasharray=\"2 4\"/>"
      )
      parts.append(text(place + 3, Self.rates.top + 12, "\(note.what) \(note.node)", fill: color, size: 10))
    }
    parts += legend()
    parts.append("</svg>")
    return parts.joined(separator: "\n") + "\n"
  }

  // MARK: Places

  private func x(_ seconds: Double) -> Double { Self.left + seconds / lastSecond * (Self.width - Self.left - Self.right) }
  private func rateY(_ rate: Double) -> Double { Self.rates.top + Self.rates.height * (1 - rate / highestRate) }
  private func countY(_ count: Double) -> Double { Self.counts.top + Self.counts.height * (1 - count / highestCount) }

  /// A number with one digit behind the point.
  private func n(_ value: Double) -> String {
    let tenths = Int((value * 10).rounded())
    return "\(tenths / 10).\(abs(tenths % 10))"
  }

  // MARK: Parts

  private func text(
    _ x: Double, _ y: Double, _ words: String, fill: String = "#111827", size: Int = 12, anchor: String = "start"
  ) -> String {
    "<text x=\"\(n(x))\" y=\"\(n(y))\" fill=\"\(fill)\" font-size=\"\(size)\" text-anchor=\"\(anchor)\">\(words)</text>"
  }

  private func axes() -> [String] {
    var parts: [String] = []
    func rule(_ y: Double) {
      parts.append(
        "<line x1=\"\(n(Self.left))\" y1=\"\(n(y))\" x2=\"\(n(Self.width - Self.right))\" y2=\"\(n(y))\" stroke=\"#e5e7eb\"/>")
    }
    let step = Self.step(highestRate / 5)
    for tick in 0...Int(highestRate / step) {
      rule(rateY(Double(tick) * step))
      parts.append(text(Self.left - 6, rateY(Double(tick) * step) + 4, Self.short(Double(tick) * step), anchor: "end"))
    }
    for count in 0...Int(highestCount) {
      rule(countY(Double(count)))
      parts.append(text(Self.left - 6, countY(Double(count)) + 4, "\(count)", anchor: "end"))
    }
    let bottom = Self.counts.top + Self.counts.height
    let seconds = lastSecond > 30 ? 5 : 2
    for second in stride(from: 0, through: Int(lastSecond), by: seconds) {
      parts.append(text(x(Double(second)), bottom + 16, "\(second)", anchor: "middle"))
    }
    parts.append(text(Self.width - Self.right, bottom + 34, "seconds", anchor: "end"))
    parts.append(text(12, 22, "packets/s", size: 11))
    return parts
  }

  private func legend() -> [String] {
    var place = Self.left + 370
    var parts: [String] = []
    for (name, color, dash) in [
      ("offered", "#6b7280", ""), ("achieved, serving", "#0b6bcb", ""), ("and draining", "#d97706", "4 3"),
    ] {
      parts.append(
        "<line x1=\"\(n(place))\" y1=\"18\" x2=\"\(n(place + 22))\" y2=\"18\" stroke=\"\(color)\" stroke-width=\"2\" stroke-dasharray=\"\(dash)\"/>"
      )
      parts.append(text(place + 28, 22, name))
      place += 150
    }
    return parts
  }

  private func points(_ values: [(Double, Double)]) -> String {
    values.map { "\(n(x($0.0))),\(n(rateY($0.1)))" }.joined(separator: " ")
  }

  private func line(_ values: [(Double, Double)], stroke: String, width: Double) -> String {
    "<polyline points=\"\(points(values))\" fill=\"none\" stroke=\"\(stroke)\" stroke-width=\"\(n(width))\"/>"
  }

  private func area(_ values: [(Double, Double)], fill: String) -> String {
    guard let first = values.first, let last = values.last else { return "" }
    return
      "<polygon points=\"\(n(x(first.0))),\(n(rateY(0))) \(points(values)) \(n(x(last.0))),\(n(rateY(0)))\" fill=\"\(fill)\" fill-opacity=\"0.6\"/>"
  }

  private func steps(_ values: [(Double, Double)], stroke: String, dash: String?) -> String {
    var path = ""
    for (seconds, count) in values {
      path += path.isEmpty ? "M\(n(x(seconds))),\(n(countY(count)))" : "H\(n(x(seconds)))V\(n(countY(count)))"
    }
    return
      "<path d=\"\(path)\" fill=\"none\" stroke=\"\(stroke)\" stroke-width=\"2\"\(dash.map { " stroke-dasharray=\"\($0)\"" } ?? "")/>"
  }

  /// 1, 2 or 5 times a power of ten, not below `least`.
  private static func step(_ least: Double) -> Double {
    var power = 1.0
    while power * 10 <= least { power *= 10 }
    return [1, 2, 5, 10].map { $0 * power }.first { $0 >= least } ?? power * 10
  }

  private static func short(_ value: Double) -> String { value >= 1_000 ? "\(Int(value / 1_000)) k" : "\(Int(value))" }
}

extension ScalingRecord {
  public func svg() -> String { ScalingPlot(record: self).svg() }
}
