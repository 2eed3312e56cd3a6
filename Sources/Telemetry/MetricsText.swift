/// Metrics in the text format that Prometheus reads (version 0.0.4), built line by line.
///
///     # HELP nfv_packets_total Packets by what became of them.
///     # TYPE nfv_packets_total counter
///     nfv_packets_total{node="2",fate="forwarded"} 4711
///
/// https://prometheus.io/docs/instrumenting/exposition_formats/
public struct MetricsText: Sendable {
  public enum Kind: String, Sendable { case counter, gauge }

  public private(set) var text = ""
  /// On every sample.
  private let common: [(String, String)]

  public init(common: [(String, String)] = []) { self.common = common }

  /// One metric with all its samples, which have to come together. Without samples nothing is written.
  public mutating func add(_ name: String, _ kind: Kind, _ help: String, _ samples: [(labels: [(String, String)], value: UInt64)]) {
    add(name, kind, help, samples.map { ($0.labels, String($0.value)) })
  }

  /// One sample without labels of its own.
  public mutating func add(_ name: String, _ kind: Kind, _ help: String, _ value: UInt64) {
    add(name, kind, help, [([], value)])
  }

  /// A value in other units than it is counted in, such as milliseconds that are to be seconds.
  public mutating func add(_ name: String, _ kind: Kind, _ help: String, _ value: UInt64, per unit: UInt64) {
    add(name, kind, help, [([], Self.fraction(value, per: unit))])
  }

  private mutating func add(_ name: String, _ kind: Kind, _ help: String, _ samples: [(labels: [(String, String)], value: String)]) {
    guard !samples.isEmpty else { return }
    text += "# HELP \(name) \(Self.escaped(help, quotes: false))\n# TYPE \(name) \(kind.rawValue)\n"
    for sample in samples {
      let labels = (common + sample.labels).map { "\($0.0)=\"\(Self.escaped($0.1, quotes: true))\"" }.joined(separator: ",")
      text += labels.isEmpty ? "\(name) \(sample.value)\n" : "\(name){\(labels)} \(sample.value)\n"
    }
  }

  /// With as many digits behind the point as the unit has zeros.
  static func fraction(_ value: UInt64, per unit: UInt64) -> String {
    let digits = String(unit).utf8.count - 1
    let rest = String(value % unit)
    return "\(value / unit).\(String(repeating: "0", count: max(0, digits - rest.utf8.count)))\(rest)"
  }

  private static func escaped(_ text: String, quotes: Bool) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\"" where quotes: result += "\\\""
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }
}
