import Testing
import Wire

@testable import FlowActors

/// How far a conversation has come, for idle timeouts.
@Suite struct FlowActorTests {
  @Test func `the phases written down are those that follow`() {
    let table = PhaseTable()
    for phase in [FlowActor.Phase.opening, .established, .closing, .connectionless] {
      for bits in UInt8(0)..<64 {
        for fromOpener in [true, false] {
          let flags = TCPFlags(rawValue: bits)
          #expect(table[phase, flags, fromOpener] == phase.after(flags, fromOpener: fromOpener), "\(phase) \(bits) \(fromOpener)")
        }
      }
    }
  }
}
