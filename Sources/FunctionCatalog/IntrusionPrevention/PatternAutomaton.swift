/// Finds every occurrence of any of many patterns in one pass over a text that arrives in pieces (Aho and Corasick, 1975).
///
/// ## Theory of operation
///
/// The patterns form a trie over bytes whose ASCII letters are folded to lower case. A state is a node: the longest
/// end of the text so far that is a beginning of some pattern. It is a number of four bytes, all that has to be kept
/// between two pieces. A state with no way on for a byte falls back to the longest shorter one that might have.
///
/// The trie is a double array (Aoe, 1989): the child of node `s` by byte `c` is slot `nodes[s].base ^ c`, if that slot
/// says that its parent is `s`. So a step is one load of sixteen bytes, a node costs sixteen bytes, and the free slots in
/// between are few (see `statistics`).
///
/// Most bytes of traffic begin nothing. Where the text is at no more than the second byte of a pattern, the automaton does not
/// step at all: a filter of 16 KB, which stays in the first cache, is asked at every second place whether the three
/// bytes there are the first to third or the second to fourth of any pattern. No question waits for another's answer.
@safe
struct PatternAutomaton {
  struct Node: BitwiseCopyable {
    var base: UInt32 = 0
    /// `.max` for a free slot and for the root.
    var parent: UInt32 = .max
    /// The longest proper end of this node's text that is a node, too.
    var fallback: UInt32 = 0
    /// Depth in the low byte; above it the number of the first match to report here, or 0.
    var matchAndDepth: UInt32 = 0

    var depth: Int { Int(matchAndDepth & 255) }
  }

  /// A pattern that ends where another, longer one ends or passes: reported after it.
  struct Match: BitwiseCopyable {
    var pattern: UInt32
    /// Number of the next match to report, or 0.
    var next: UInt32
  }

  static let root: UInt32 = 0
  /// A pattern's depth has to fit into a byte.
  static let longestPattern = 255

  let nodes: FixedMemory<Node>
  /// Numbered from 1.
  let matches: FixedMemory<Match>
  let filter: FixedMemory<UInt64>
  let stateCount: Int

  /// Nodes in use, and all memory per node: what is said of compactness in docs/intrusion-prevention.md.
  var statistics: (states: Int, bytes: Int) {
    (stateCount, nodes.byteCount + matches.byteCount + filter.byteCount)
  }

  // MARK: Bytes

  /// ASCII letters in lower case, all other bytes as they are.
  @inline(__always)
  static func fold(_ byte: UInt8) -> UInt8 { byte &- 65 < 26 ? byte | 0x20 : byte }

  // MARK: Steps

  @inline(__always)
  func step(_ state: UInt32, _ byte: UInt8) -> UInt32 {
    let nodes = unsafe nodes.base
    let symbol = UInt32(Self.fold(byte))
    var state = state
    while true {
      let child = unsafe nodes[Int(state)].base ^ symbol
      if unsafe nodes[Int(child)].parent == state { return child }
      if state == Self.root { return Self.root }
      state = unsafe nodes[Int(state)].fallback
    }
  }

  /// How many bytes at the end of the text the state stands for.
  func depth(of state: UInt32) -> Int { state < nodes.count ? nodes[Int(state)].depth : 0 }

  /// Writes the folded bytes that the state stands for so that they end before `end`; returns how many there are.
  func spell(_ state: UInt32, before end: UnsafeMutablePointer<UInt8>) -> Int {
    let depth = depth(of: state)
    var state = state
    var at = unsafe end
    for _ in 0..<depth {
      let parent = nodes[Int(state)].parent
      unsafe at -= 1
      unsafe at.pointee = UInt8(truncatingIfNeeded: nodes[Int(parent)].base ^ state)
      state = parent
    }
    return depth
  }

  // MARK: The filter

  static let filterBits = 17

  /// Where in the filter three bytes stand. Bit 5 of each is set, which folds letters, and makes some other bytes alike.
  @inline(__always)
  static func place(_ threeBytes: UInt32) -> Int {
    Int(((threeBytes & 0xff_ffff) &* 0x9e37_79b1) >> UInt32(32 - filterBits))
  }

  @inline(__always)
  func passes(_ threeBytes: UInt32) -> UInt64 {
    let place = Self.place(threeBytes)
    return unsafe filter.base[place >> 6] >> UInt64(place & 63)
  }

  /// Goes on from `start` to where a pattern may have begun, at the place returned or one before it; or to the last bytes.
  @inline(__always)
  func skip(_ text: UnsafePointer<UInt8>, from start: Int, count: Int) -> Int {
    let raw = unsafe UnsafeRawPointer(text)
    var at = start
    // Three questions per eight bytes loaded: at 0, 2 and 4.
    while at &+ 8 <= count {
      let word = unsafe UInt64(littleEndian: raw.loadUnaligned(fromByteOffset: at, as: UInt64.self)) | 0x2020_2020_2020_2020
      let first = passes(UInt32(truncatingIfNeeded: word))
      let second = passes(UInt32(truncatingIfNeeded: word >> 16))
      let third = passes(UInt32(truncatingIfNeeded: word >> 32))
      if (first | second | third) & 1 != 0 {
        return first & 1 != 0 ? at : second & 1 != 0 ? at &+ 2 : at &+ 4
      }
      at &+= 6
    }
    while at &+ 4 <= count {
      let word = unsafe UInt32(littleEndian: raw.loadUnaligned(fromByteOffset: at, as: UInt32.self)) | 0x2020_2020
      if passes(word) & 1 != 0 { return at }
      at &+= 2
    }
    return at
  }
}

/// One pass over one piece of text: hands out the matches in it, and in the end the state to go on from.
///
///     var scan = PatternScan(from: flow.state)
///     while let match = scan.next(in: automaton, text, count) { … }
///     flow.state = scan.state
///
/// A match can be handed out more than once; none is left out.
struct PatternScan {
  private(set) var state: UInt32
  private var at = 0
  /// No skipping before this place: what made the automaton stop skipping has to be stepped over.
  private var floor = 0
  private var isSkipping: Bool

  /// - Parameter state: where the text before ended; a number that is no state counts as the root.
  @inline(__always)
  init(from state: UInt32, in automaton: PatternAutomaton) {
    self.state = state < automaton.nodes.count ? state : PatternAutomaton.root
    isSkipping = self.state == PatternAutomaton.root
  }

  /// The number of the next match in `text`, or `nil` when it is all read.
  @inline(__always)
  mutating func next(in automaton: PatternAutomaton, _ text: UnsafePointer<UInt8>, count: Int) -> UInt32? {
    let nodes = unsafe automaton.nodes.base
    var (at, state) = (at, state)
    while true {
      if isSkipping {
        let place = unsafe automaton.skip(text, from: at, count: count)
        at = max(at, place &- 1)
        floor = place &+ 3
        state = PatternAutomaton.root
        isSkipping = false
      }
      while at < count {
        state = unsafe automaton.step(state, text[at])
        at &+= 1
        let found = unsafe nodes[Int(state)].matchAndDepth
        if found > 255 {
          (self.at, self.state) = (at, state)
          return found >> 8
        }
        // A state of depth two or less is found again by the filter, if it leads anywhere.
        if found <= 2, at >= floor, Int(found) <= at, at &+ 4 <= count {
          at &-= Int(found)
          isSkipping = true
          break
        }
      }
      if isSkipping { continue }
      (self.at, self.state) = (at, state)
      return nil
    }
  }
}
