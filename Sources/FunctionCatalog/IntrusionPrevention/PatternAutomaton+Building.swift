// Making the automaton, once, at start: trie, fallbacks, then the double array.

extension PatternAutomaton {
  /// - Parameter patterns: each of 1 to 255 bytes, no two alike when folded; pattern `n` is reported as `n`.
  init(_ patterns: [[UInt8]]) {
    var trie = PatternTrie()
    for (number, pattern) in patterns.enumerated() { trie.insert(pattern, number: number) }
    trie.connect()
    let layout = trie.layout()
    stateCount = trie.count

    nodes = FixedMemory(count: layout.slotCount, repeating: Node())
    for index in 0..<trie.count {
      let slot = Int(layout.slots[index])
      nodes[slot] = Node(
        base: layout.bases[index],
        parent: index == 0 ? .max : layout.slots[Int(trie.parents[index])],
        fallback: layout.slots[Int(trie.fallbacks[index])],
        matchAndDepth: trie.firstMatch[index] << 8 | UInt32(trie.depths[index]))
    }
    matches = FixedMemory(count: patterns.count + 1, repeating: Match(pattern: 0, next: 0))
    for index in 0..<trie.count where trie.patterns[index] != 0 {
      // Ends of this text that are patterns, too, are found by falling back.
      matches[Int(trie.patterns[index])] = Match(
        pattern: trie.patterns[index] - 1, next: trie.firstMatch[Int(trie.fallbacks[index])])
    }
    filter = FixedMemory(count: (1 << Self.filterBits) / 64, repeating: 0)
    for pattern in patterns { admit(pattern) }
  }

  /// Lets everything through the filter that begins as the pattern does, or goes on as it does after its first byte.
  private func admit(_ pattern: [UInt8]) {
    for start in 0...1 {
      let known = pattern.dropFirst(start).prefix(3)
      guard !known.isEmpty else {
        // A single byte may be followed by anything.
        for word in 0..<filter.count { filter[word] = .max }
        return
      }
      var bytes: UInt32 = 0
      for (place, byte) in known.enumerated() { bytes |= UInt32(byte) << UInt32(8 * place) }
      // What follows a short pattern can be anything.
      let unknown: UInt32 = 0xff_ffff << UInt32(8 * known.count) & 0xff_ffff
      var rest: UInt32 = 0
      repeat {
        let place = Self.place(bytes | rest | 0x20_2020)
        filter[place >> 6] |= 1 << UInt64(place & 63)
        // The next number that has bits only where nothing is known, and where the filter looks at them.
        rest = (rest &- (unknown & ~0x20_2020)) & unknown & ~0x20_2020
      } while rest != 0
    }
  }
}

/// The trie while it grows: nodes in arrays, children in lists. Node 0 is the root.
private struct PatternTrie {
  var parents: [UInt32] = [0]
  var symbols: [UInt8] = [0]
  var depths: [UInt8] = [0]
  var firstChild: [UInt32] = [0]
  var nextSibling: [UInt32] = [0]
  /// Number of the pattern that ends here, from 1; or 0.
  var patterns: [UInt32] = [0]
  var fallbacks: [UInt32] = [0]
  /// The longest pattern that the text of this node ends with; or 0.
  var firstMatch: [UInt32] = [0]
  /// Nodes by depth.
  private var order: [UInt32] = [0]

  var count: Int { parents.count }

  mutating func insert(_ pattern: [UInt8], number: Int) {
    precondition((1...PatternAutomaton.longestPattern).contains(pattern.count), "a pattern has 1 to 255 bytes")
    var node = 0
    for byte in pattern {
      let symbol = PatternAutomaton.fold(byte)
      node = child(of: node, symbol) ?? add(symbol, to: node)
    }
    precondition(patterns[node] == 0, "no two patterns are alike")
    patterns[node] = UInt32(number + 1)
  }

  func child(of node: Int, _ symbol: UInt8) -> Int? {
    var child = firstChild[node]
    while child != 0, symbols[Int(child)] != symbol { child = nextSibling[Int(child)] }
    return child == 0 ? nil : Int(child)
  }

  private mutating func add(_ symbol: UInt8, to node: Int) -> Int {
    let new = count
    parents.append(UInt32(node))
    symbols.append(symbol)
    depths.append(depths[node] + 1)
    firstChild.append(0)
    nextSibling.append(firstChild[node])
    patterns.append(0)
    fallbacks.append(0)
    firstMatch.append(0)
    firstChild[node] = UInt32(new)
    return new
  }

  func children(of node: Int) -> [Int] {
    var children: [Int] = []
    var child = firstChild[node]
    while child != 0 {
      children.append(Int(child))
      child = nextSibling[Int(child)]
    }
    return children
  }

  /// Fallbacks and matches, shallow nodes first: a fallback is always shallower.
  mutating func connect() {
    var read = 0
    while read < order.count {
      let node = Int(order[read])
      read += 1
      order += children(of: node).map(UInt32.init)
      guard node != 0 else { continue }
      var fallback = parents[node] == 0 ? 0 : Int(fallbacks[Int(parents[node])])
      if parents[node] != 0 {
        while fallback != 0, child(of: fallback, symbols[node]) == nil { fallback = Int(fallbacks[fallback]) }
        fallback = child(of: fallback, symbols[node]) ?? 0
      }
      fallbacks[node] = UInt32(fallback)
      firstMatch[node] = patterns[node] != 0 ? patterns[node] : firstMatch[fallback]
    }
  }

  // MARK: The double array

  struct Layout {
    var slots: [UInt32]
    var bases: [UInt32]
    var slotCount: Int
  }

  /// Gives every node a slot and a base. Shallow nodes, which have many children, choose first.
  func layout() -> Layout {
    var layout = Layout(slots: Array(repeating: 0, count: count), bases: Array(repeating: 0, count: count), slotCount: 0)
    var free = FreeSlots()
    free.take(0)
    for node in order.map(Int.init) {
      let children = children(of: node)
      guard !children.isEmpty else { continue }
      let base = free.base(for: children.map { symbols[$0] })
      layout.bases[node] = base
      for child in children {
        let slot = base ^ UInt32(symbols[child])
        layout.slots[child] = slot
        free.take(Int(slot))
      }
    }
    layout.slotCount = free.count
    return layout
  }
}

/// Free slots of the double array, in ascending order, in blocks of 256 so that `base ^ symbol` stays within.
private struct FreeSlots {
  private var isTaken: [Bool] = []
  private var next: [Int] = []
  private var previous: [Int] = []
  private var first = -1
  private var last = -1

  var count: Int { isTaken.count }

  init() { addBlock() }

  mutating func take(_ slot: Int) {
    isTaken[slot] = true
    if previous[slot] < 0 { first = next[slot] } else { next[previous[slot]] = next[slot] }
    if next[slot] < 0 { last = previous[slot] } else { previous[next[slot]] = previous[slot] }
  }

  /// A base for which the slots of all these symbols are free.
  mutating func base(for symbols: [UInt8]) -> UInt32 {
    var slot = first
    // A bounded search: beyond it a new block costs less than the time.
    for _ in 0..<1024 where slot >= 0 {
      let base = slot ^ Int(symbols[0])
      if symbols.allSatisfy({ !isTaken[base ^ Int($0)] }) { return UInt32(base) }
      slot = next[slot]
    }
    defer { addBlock() }
    return UInt32(count)
  }

  private mutating func addBlock() {
    for slot in count..<count + 256 {
      isTaken.append(false)
      previous.append(last)
      next.append(-1)
      if last < 0 { first = slot } else { next[last] = slot }
      last = slot
    }
  }
}
