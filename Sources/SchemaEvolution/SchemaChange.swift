/// A change between two releases' schemas that the rules of evolution (schemas/README.md) speak of.
public struct SchemaChange: Hashable, Sendable, CustomStringConvertible {
  public enum Kind: String, Hashable, Sendable, CaseIterable {
    case messageRemoved = "message-removed"
    case fieldRemoved = "field-removed"
    case fieldRenumbered = "field-renumbered"
    case numberReused = "number-reused"
    case typeChanged = "type-changed"
    case cardinalityChanged = "cardinality-changed"
    case oneofChanged = "oneof-changed"
    case enumRemoved = "enum-removed"
    case enumValueRemoved = "enum-value-removed"
    case enumValueRenumbered = "enum-value-renumbered"
    case enumGrew = "enum-grew"
    /// Allowed: a number kept free for a name is given to that name.
    case reservedTaken = "reserved-taken"
  }

  public let kind: Kind
  /// The message or enum, and what of it.
  public let place: String
  public let sentence: String

  public var isBreaking: Bool { kind != .reservedTaken }
  public var description: String { "\(place): \(sentence)" }
}

extension SchemaDescriptors {
  /// What of `old` this does not keep: with any breaking change, records of the one are misread or refused by the other.
  public func changes(since old: SchemaDescriptors) -> [SchemaChange] {
    var changes: [SchemaChange] = []
    for before in old.messages {
      let name = String(before.name.drop { $0 == "." })
      if let now = message(before.name) {
        changes += Self.changes(name, from: before, to: now)
      } else {
        changes.append(SchemaChange(kind: .messageRemoved, place: name, sentence: "the message is gone, and logs hold it"))
      }
    }
    for before in old.enumerations {
      let name = String(before.name.drop { $0 == "." })
      if let now = enumeration(before.name) {
        changes += Self.changes(name, from: before, to: now)
      } else {
        changes.append(SchemaChange(kind: .enumRemoved, place: name, sentence: "the enum is gone, and logs hold it"))
      }
    }
    return changes
  }

  private static func changes(_ name: String, from old: Message, to new: Message) -> [SchemaChange] {
    var changes: [SchemaChange] = []
    func add(_ kind: SchemaChange.Kind, _ field: Field, _ sentence: String) {
      changes.append(SchemaChange(kind: kind, place: "\(name).\(field.name) = \(field.number)", sentence: sentence))
    }
    for before in old.fields {
      guard let now = new.fields.first(where: { $0.number == before.number }) else {
        if let moved = new.fields.first(where: { $0.name == before.name }) {
          add(.fieldRenumbered, before, "it has number \(moved.number) now")
        } else if !new.reserved.contains(before.number) || !new.reserved.names.contains(before.name) {
          add(.fieldRemoved, before, "it is gone; its number and its name have to be reserved")
        }
        continue
      }
      if now.name != before.name { add(.numberReused, before, "its number belongs to \(now.name) now; a number is given once") }
      if now.type != before.type || now.typeName != before.typeName {
        add(.typeChanged, before, "it was \(before.typeWords) and is \(now.typeWords)")
      }
      if now.label != before.label { add(.cardinalityChanged, before, "it was \(before.labelWords) and is \(now.labelWords)") }
      if (now.oneof == nil) != (before.oneof == nil) {
        add(.oneofChanged, before, now.oneof == nil ? "it is no longer in a oneof" : "it is in a oneof now")
      } else if let mates = moved(before, now, old, new) {
        add(.oneofChanged, before, "it is no longer in one oneof with \(mates), or is so now")
      }
    }
    for now in new.fields where old.reserved.contains(now.number) {
      if old.reserved.names.contains(now.name) {
        add(.reservedTaken, now, "the number was kept free for it")
      } else {
        add(.numberReused, now, "the number was reserved; one that was given once is not given again")
      }
    }
    return changes
  }

  /// A field of old with which this one shares a oneof in one release and not in the other. A oneof's own name is not on
  /// the wire. A field that came into a oneof or left it is complained of by itself.
  private static func moved(_ before: Field, _ now: Field, _ old: Message, _ new: Message) -> String? {
    for other in old.fields where other.number < before.number {
      guard let otherNow = new.fields.first(where: { $0.number == other.number }), (otherNow.oneof == nil) == (other.oneof == nil)
      else { continue }
      let were = before.oneof != nil && before.oneof == other.oneof
      let are = now.oneof != nil && now.oneof == otherNow.oneof
      if were != are { return other.name }
    }
    return nil
  }

  private static func changes(_ name: String, from old: Enumeration, to new: Enumeration) -> [SchemaChange] {
    var changes: [SchemaChange] = []
    func add(_ kind: SchemaChange.Kind, _ value: Enumeration.Value, _ sentence: String) {
      changes.append(SchemaChange(kind: kind, place: "\(name).\(value.name) = \(value.number)", sentence: sentence))
    }
    for before in old.values {
      if let now = new.values.first(where: { $0.name == before.name }) {
        if now.number != before.number { add(.enumValueRenumbered, before, "it is \(now.number) now") }
      } else if let now = new.values.first(where: { $0.number == before.number }) {
        add(.numberReused, before, "its number belongs to \(now.name) now")
      } else {
        add(.enumValueRemoved, before, "it is gone, and logs hold it")
      }
    }
    for now in new.values where !old.values.contains(where: { $0.name == now.name || $0.number == now.number }) {
      add(.enumGrew, now, "old readers refuse a value that they do not know; new values come with a new field or body")
    }
    return changes
  }
}
