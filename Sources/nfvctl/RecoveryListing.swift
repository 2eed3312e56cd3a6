import ControlMessages

enum RecoveryListing {
  static func json(_ numbers: RecoveryFinished) -> JSON {
    .object([
      "slot": .number(numbers.slot.number), "node": .number(numbers.node.number), "lostNode": .number(numbers.lost.node.number),
      "lostIncarnation": .number(numbers.lost.incarnation.number), "recovered": .number(numbers.recovered),
      "onDemand": .number(numbers.onDemand), "refused": .number(numbers.refused), "microseconds": .number(numbers.microseconds),
    ])
  }
}
