import Testing
import Wire

@testable import FunctionCatalog

@Suite struct TCPTransitionTests {
  @Test func `a state and its byte are the same, and any other byte is no connection`() {
    for code in 0...UInt8.max {
      let state = TCPState(code: code)
      #expect(state == TCPState(rawValue: code) ?? .none)
      if let named = TCPState(rawValue: code) { #expect(named.code == code) }
    }
  }

  /// The whole table, as one would draw it: state, then what each kind of segment does, forward | reverse.
  @Test func `the transitions are the ones drawn`() {
    let kinds: [TCPSegment.Kind] = [.syn, .synAck, .ack, .fin, .rst]
    let text = TCPState.allCases.map { state in
      let cells = kinds.map { kind in "\(kind) \(name(state.step(.forward, kind)))|\(name(state.step(.reverse, kind)))" }
      return "\(state): " + cells.joined(separator: "  ")
    }.joined(separator: "\n")
    #expect(
      text == """
        none: syn open|noStart  synAck noStart|noStart  ack noStart|noStart  fin noStart|noStart  rst noStart|noStart
        synSent: syn open|simultaneousOpen?  synAck refuse|synReceived?  ack refuse|pass  fin refuse|refuse  rst reset|reset
        synReceived: syn pass|pass  synAck pass|synReceived  ack established?|synReceived  fin finForward?|finReverse  rst reset|reset
        simultaneousOpen: syn pass|pass  synAck established?|established?  ack established?|established?  fin finForward|finReverse  rst reset|reset
        established: syn pass|pass  synAck pass|pass  ack established|established  fin finForward|finReverse  rst reset|reset
        finForward: syn pass|pass  synAck pass|pass  ack finForward|finForward  fin finForward|closing  rst reset|reset
        finReverse: syn pass|pass  synAck pass|pass  ack finReverse|finReverse  fin closing|finReverse  rst reset|reset
        closing: syn pass|pass  synAck pass|pass  ack closing|closing  fin closing|closing  rst reset|reset
        timeWait: syn open|refuse  synAck pass|pass  ack pass|pass  fin pass|pass  rst reset|reset
        resetByForward: syn open|refuse  synAck refuse|pass  ack refuse|pass  fin refuse|pass  rst pass|pass
        resetByReverse: syn open|refuse  synAck pass|refuse  ack pass|refuse  fin pass|refuse  rst pass|pass
        """)
  }

  private func name(_ step: TCPStep) -> String {
    switch step {
    case .open: "open"
    case .answer(let state): "\(state)?"
    case .move(let state): "\(state)"
    case .pass: "pass"
    case .reset: "reset"
    case .refuse: "refuse"
    case .refuseAsNoStart: "noStart"
    }
  }

  @Test func `the table that is read is the one that is written`() {
    let table = TCPStepTable()
    for state in TCPState.allCases {
      for direction in [Direction.forward, .reverse] {
        for kind in TCPSegment.Kind.allCases { #expect(table[state, direction, kind] == state.step(direction, kind)) }
      }
    }
  }

  @Test func `only six combinations of SYN, FIN, RST and ACK mean anything`() {
    var meanings: [TCPSegment.Kind: [UInt8]] = [:]
    for bits in UInt8(0)..<64 { meanings[TCPSegment.kind(of: TCPFlags(rawValue: bits)), default: []].append(bits & 0b01_0111) }
    #expect(
      meanings.mapValues { Set($0).sorted() } == [
        .syn: [2], .synAck: [18], .ack: [16], .fin: [17], .rst: [4, 20], .malformed: [0, 1, 3, 5, 6, 7, 19, 21, 22, 23],
      ])
  }

  @Test func `malformed segments are refused in every state and change nothing`() {
    for state in TCPState.allCases {
      for direction in [Direction.forward, .reverse] {
        var connection = TCPConnection()
        connection.state = state
        let before = connection
        #expect(connection.handle(TCPSegment([.syn, .fin], sequence: 1), direction) == .invalidFlags)
        #expect(connection == before)
      }
    }
  }

  @Test func `a state of its size travels with the flow`() {
    #expect(MemoryLayout<TCPConnection>.size <= 24)
    #expect(MemoryLayout<Firewall.FlowState>.stride == 28)
    #expect(MemoryLayout<NAT.FlowState>.stride == 20)
    #expect(MemoryLayout<LoadBalancer.FlowState>.stride == 16)
    #expect(MemoryLayout<PacketCounter.FlowState>.stride == 80)
  }
}
