import FixedContainers
import Foundation
import Testing

/// The ring between a worker and its control thread, alone and with a thread at each end.
@Suite struct RingBufferTests {
  final class Token: Sendable {
    let number: Int
    init(_ number: Int) { self.number = number }
  }

  @Test func `it gives back what was put, in order, and refuses when full`() {
    let ring = RingBuffer<Int>(capacity: 4)
    #expect(ring.take() == nil)
    for round in 0..<100 {
      for value in 0..<4 { #expect(ring.put(round * 4 + value)) }
      #expect(!ring.put(-1))
      for value in 0..<4 { #expect(ring.take() == round * 4 + value) }
      #expect(ring.take() == nil)
    }
  }

  @Test func `what is left in it goes with it`() {
    weak var left: Token?
    do {
      let ring = RingBuffer<Token>(capacity: 4)
      let token = Token(1)
      left = token
      _ = ring.put(token)
      _ = ring.put(Token(2))
    }
    #expect(left == nil)
  }

  @Test func `a refused element is let go`() {
    let ring = RingBuffer<Token>(capacity: 2)
    _ = ring.put(Token(1))
    _ = ring.put(Token(2))
    weak var refused: Token?
    do {
      let token = Token(3)
      refused = token
      #expect(!ring.put(token))
    }
    #expect(refused == nil)
  }

  @Test(.timeLimit(.minutes(1))) func `two threads lose, double and reorder nothing`() async {
    let count = 200_000
    let ring = RingBuffer<Token>(capacity: 16)
    async let sender: Void = onThread {
      for number in 0..<count { while !ring.put(Token(number)) { Thread.sleep(forTimeInterval: 0) } }
    }
    async let firstWrong: Int? = onThread {
      for number in 0..<count {
        var token = ring.take()
        while token == nil {
          Thread.sleep(forTimeInterval: 0)
          token = ring.take()
        }
        if token?.number != number { return number }
      }
      return nil
    }
    await sender
    #expect(await firstWrong == nil)
    #expect(ring.take() == nil)
  }

  private func onThread<Result: Sendable>(_ body: @escaping @Sendable () -> Result) async -> Result {
    await withCheckedContinuation { continuation in
      Thread { continuation.resume(returning: body()) }.start()
    }
  }
}
