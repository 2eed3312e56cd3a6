import Testing

@testable import FunctionCatalog

/// The automaton against the plainest possible search.
@Suite struct PatternAutomatonTests {
  /// Which patterns occur, found in pieces cut at `cuts`.
  private func found(_ automaton: PatternAutomaton, in text: [UInt8], cuts: [Int] = []) -> Set<Int> {
    var state = PatternAutomaton.root
    var found: Set<Int> = []
    for (start, end) in zip([0] + cuts, cuts + [text.count]) {
      let piece = Array(text[start..<end])
      var scan = PatternScan(from: state, in: automaton)
      piece.withUnsafeBufferPointer { piece in
        guard let base = piece.baseAddress else { return }
        while let first = unsafe scan.next(in: automaton, base, count: piece.count) {
          var number = first
          while number != 0 {
            found.insert(Int(automaton.matches[Int(number)].pattern))
            number = automaton.matches[Int(number)].next
          }
        }
      }
      if !piece.isEmpty { state = scan.state }
    }
    return found
  }

  private func searched(_ patterns: [[UInt8]], in text: [UInt8]) -> Set<Int> {
    let folded = text.map(PatternAutomaton.fold)
    return Set(
      patterns.indices.filter { index in
        let pattern = patterns[index].map(PatternAutomaton.fold)
        guard folded.count >= pattern.count else { return false }
        return (0...folded.count - pattern.count).contains { start in
          folded[start] == pattern[0] && folded[start..<start + pattern.count].elementsEqual(pattern)
        }
      })
  }

  /// Few different bytes, so that patterns overlap, are ends and beginnings of each other, and occur.
  private func random(_ random: inout SeededGenerator, count: Int, alphabet: [UInt8]) -> [UInt8] {
    (0..<count).map { _ in alphabet.randomElement(using: &random)! }
  }

  private func unlike(_ patterns: [[UInt8]]) -> [[UInt8]] {
    var seen: Set<[UInt8]> = []
    return patterns.filter { seen.insert($0.map(PatternAutomaton.fold)).inserted }
  }

  @Test(arguments: 0..<40)
  func `random patterns in random texts are found as a naive search finds them, cut at every place`(seed: Int) {
    var generator = SeededGenerator(seed: UInt64(seed))
    let alphabets: [[UInt8]] = [Array("ab".utf8), Array("abAB/".utf8), Array("aA@`[{".utf8), Array(0...255)]
    let alphabet = alphabets[seed % alphabets.count]
    let patterns = unlike(
      (0..<Int.random(in: 1...12, using: &generator)).map { _ in
        random(&generator, count: .random(in: 1...(seed % 3 == 0 ? 3 : 9), using: &generator), alphabet: alphabet)
      })
    let automaton = PatternAutomaton(patterns)
    for round in 0..<6 {
      var text = random(&generator, count: .random(in: 0...50, using: &generator), alphabet: alphabet)
      if round % 2 == 0, let pattern = patterns.randomElement(using: &generator) {
        text.insert(contentsOf: pattern, at: .random(in: 0...text.count, using: &generator))
      }
      let expected = searched(patterns, in: text)
      #expect(found(automaton, in: text) == expected, "seed \(seed): \(patterns) in \(text)")
      for cut in 0...text.count {
        #expect(found(automaton, in: text, cuts: [cut]) == expected, "seed \(seed): \(patterns) in \(text) cut at \(cut)")
      }
      let everywhere = Array(0...text.count)
      #expect(found(automaton, in: text, cuts: everywhere) == expected, "seed \(seed): \(patterns) in \(text) byte by byte")
    }
  }

  @Test func `many patterns in long texts, in pieces of any size`() {
    var generator = SeededGenerator(seed: 11)
    let letters = Array("etaoin shrdlu/=%".utf8)
    let patterns = unlike(
      (0..<300).map { _ in random(&generator, count: .random(in: 2...24, using: &generator), alphabet: letters) })
    let automaton = PatternAutomaton(patterns)
    for round in 0..<6 {
      var text = random(&generator, count: 3000, alphabet: letters)
      for _ in 0..<5 {
        text.insert(contentsOf: patterns.randomElement(using: &generator)!, at: .random(in: 0...text.count, using: &generator))
      }
      var cuts: [Int] = []
      var at = 0
      while at < text.count {
        cuts.append(at)
        at += .random(in: 1...(round % 2 == 0 ? 20 : 1500), using: &generator)
      }
      let expected = searched(patterns, in: text)
      #expect(expected.count >= 5)
      #expect(found(automaton, in: text, cuts: cuts) == expected, "round \(round)")
    }
  }

  @Test func `letters are alike in both cases, and nothing else is`() {
    let automaton = PatternAutomaton([Array("a[z@".utf8)])
    #expect(found(automaton, in: Array("xxA[Z@xx".utf8)) == [0])
    #expect(found(automaton, in: Array("xxa{z@xx".utf8)) == [])
    #expect(found(automaton, in: Array("xxa[z`xx".utf8)) == [])
  }

  @Test func `a state spells the end of the text it stands for`() {
    let automaton = PatternAutomaton([Array("Hello World".utf8)])
    var state = PatternAutomaton.root
    for byte in "say HELLO W".utf8 { state = automaton.step(state, byte) }
    var room = [UInt8](repeating: 0, count: 32)
    let count = room.withUnsafeMutableBufferPointer { unsafe automaton.spell(state, before: $0.baseAddress! + 32) }
    #expect(String(decoding: room.suffix(count), as: UTF8.self) == "hello w")
  }

  @Test func `an automaton without patterns finds nothing`() {
    #expect(found(PatternAutomaton([]), in: Array("anything at all".utf8)) == [])
  }

  @Test func `a state costs sixteen bytes, and there are few free slots between`() {
    var generator = SeededGenerator(seed: 3)
    let patterns = unlike(
      (0..<2000).map { _ in random(&generator, count: .random(in: 4...20, using: &generator), alphabet: Array(32...126)) })
    let automaton = PatternAutomaton(patterns)
    #expect(MemoryLayout<PatternAutomaton.Node>.size == 16)
    #expect(
      Double(automaton.nodes.count) / Double(automaton.stateCount) < 1.1,
      "\(automaton.nodes.count) slots for \(automaton.stateCount)")
  }

  @Test func `a number that is no state counts as the root`() {
    let automaton = PatternAutomaton([[1, 2, 3]])
    var scan = PatternScan(from: .max, in: automaton)
    let text: [UInt8] = [1, 2, 3, 4]
    let match = text.withUnsafeBufferPointer { unsafe scan.next(in: automaton, $0.baseAddress!, count: 4) }
    #expect(match == 1)
  }
}
