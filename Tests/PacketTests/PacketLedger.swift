import NetworkFunctionTesting

/// Everything that went in at one side of a `ClusterOfWorkers`, by flow: the next number to come out at the other.
struct PacketLedger {
  var sent: [Int: UInt32] = [:]
  var expected: [Int: UInt32] = [:]
  var faults: [String] = []

  mutating func nextNumber(_ flow: Int) -> UInt32 {
    defer { sent[flow, default: 0] += 1 }
    return sent[flow, default: 0]
  }

  mutating func hear(_ packets: [TestPacket]) {
    for (flow, number) in ClusterOfWorkers.labels(packets) {
      if number != expected[flow, default: 0] {
        faults.append("flow \(flow): \(number) came, \(expected[flow, default: 0]) was due")
      }
      expected[flow] = number + 1
    }
  }

  var isComplete: Bool { sent == expected }
}
