import CSchemas
import ControlMessages

// A settings tree on the wire is the list of its nodes in the order they are written, each with the number of trees
// that follow below it. So no message contains itself, and the depth is counted here instead of on the C stack.

/// Bounds of one settings tree.
enum SettingsLimits {
  static let nodes = 65_536
  static let depth = 32
}

extension MessageWriter {
  func settings(_ settings: Settings) -> (count: Int, nodes: UnsafeMutablePointer<UnsafeMutablePointer<Nfvactor__V1__SettingsNode>?>) {
    var flat: [(key: String, settings: Settings)] = []
    flatten(settings, key: "", into: &flat)
    let nodes = list(flat) { key, settings in
      make(nfvactor__v1__settings_node__init) {
        if !key.isEmpty { $0.key = text(key) }
        $0.line = UInt32(clamping: settings.line)
        switch settings.value {
        case .scalar(let scalar):
          $0.kind = NFVACTOR__V1__SETTINGS_NODE__KIND__KIND_SCALAR
          $0.text = text(scalar)
        case .list(let items):
          $0.kind = NFVACTOR__V1__SETTINGS_NODE__KIND__KIND_LIST
          $0.children = UInt32(clamping: items.count)
        case .map(let entries):
          $0.kind = NFVACTOR__V1__SETTINGS_NODE__KIND__KIND_MAP
          $0.children = UInt32(clamping: entries.count)
        }
      }
    }
    return (flat.count, nodes)
  }

  private func flatten(_ settings: Settings, key: String, into flat: inout [(key: String, settings: Settings)]) {
    flat.append((key, settings))
    switch settings.value {
    case .scalar: break
    case .list(let items):
      for item in items { flatten(item, key: "", into: &flat) }
    case .map(let entries):
      for entry in entries { flatten(entry.value, key: entry.key, into: &flat) }
    }
  }
}

extension MessageReader {
  private struct FlatNode {
    var kind: Nfvactor__V1__SettingsNode__Kind
    var key: String
    var text: String
    var children: UInt32
    var line: UInt32
  }

  func settings(
    _ pointers: UnsafeMutablePointer<UnsafeMutablePointer<Nfvactor__V1__SettingsNode>?>?, count: Int, _ field: String
  ) throws(CodecError) -> Settings {
    let flat = try values(pointers, count: count, atMost: SettingsLimits.nodes, field) { node throws(CodecError) in
      FlatNode(
        kind: node.kind, key: try text(node.key, field), text: try text(node.text, field), children: node.children,
        line: node.line)
    }
    var next = 0
    let settings = try tree(flat, &next, depth: 0, field)
    guard next == flat.count else { throw .invalid(field: field, reason: "has nodes that belong to nothing") }
    return settings
  }

  /// The tree whose first node is `flat[next]`. Its depth is bounded, so this recursion is.
  private func tree(_ flat: [FlatNode], _ next: inout Int, depth: Int, _ field: String) throws(CodecError) -> Settings {
    guard depth <= SettingsLimits.depth else {
      throw .invalid(field: field, reason: "is nested deeper than \(SettingsLimits.depth)")
    }
    guard next < flat.count else { throw .invalid(field: field, reason: "ends in the middle") }
    let node = flat[next]
    next += 1
    // Every child has a node of its own; a count beyond those left is a lie, and must not become a reservation.
    guard node.children <= flat.count - next else { throw .invalid(field: field, reason: "ends in the middle") }
    switch node.kind {
    case NFVACTOR__V1__SETTINGS_NODE__KIND__KIND_SCALAR:
      guard node.children == 0 else { throw .invalid(field: field, reason: "has something below a scalar") }
      return Settings(.scalar(node.text), line: Int(node.line))
    case NFVACTOR__V1__SETTINGS_NODE__KIND__KIND_LIST:
      var items: [Settings] = []
      for _ in 0..<node.children { items.append(try tree(flat, &next, depth: depth + 1, field)) }
      return Settings(.list(items), line: Int(node.line))
    case NFVACTOR__V1__SETTINGS_NODE__KIND__KIND_MAP:
      var entries: [Settings.Entry] = []
      var keys: Set<String> = []
      for _ in 0..<node.children {
        let key = next < flat.count ? flat[next].key : ""
        guard keys.insert(key).inserted else { throw .invalid(field: field, reason: "has the key '\(key)' twice") }
        entries.append(Settings.Entry(key, try tree(flat, &next, depth: depth + 1, field)))
      }
      return Settings(.map(entries), line: Int(node.line))
    default:
      throw .invalid(field: field, reason: "has a node of the unknown kind \(node.kind.rawValue)")
    }
  }
}
