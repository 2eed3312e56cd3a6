import Wire

/// Which addresses outside every mapping has spoken to: whom address-dependent filtering lets in (RFC 4787 §5).
///
/// Kept only where that is the filtering. A contact lives as long as its mapping. When there is no room for
/// another, it is counted and not kept: filtering is then stricter than asked, never laxer.
struct NATContacts {
  private struct Contact: BitwiseCopyable {
    var word: UInt64 = 0
    var next: UInt32 = 0
    var nextOfMapping: UInt32 = 0
  }

  /// Numbered from 1; 0 ends a chain.
  private let contacts: FixedMemory<Contact>
  private let buckets: FixedMemory<UInt32>
  private let firstOfMapping: FixedMemory<UInt32>
  private var firstFree: UInt32
  private(set) var forgotten: UInt64 = 0
  private(set) var count = 0

  /// - Parameter capacity: 0 keeps nothing.
  init(capacity: Int, mappings: Int) {
    contacts = FixedMemory(count: capacity + 1, repeating: Contact())
    var size = 1
    while size < capacity { size *= 2 }
    buckets = FixedMemory(count: size, repeating: 0)
    firstOfMapping = FixedMemory(count: capacity == 0 ? 1 : mappings + 1, repeating: 0)
    for index in 0..<capacity where index > 0 { contacts[index].next = UInt32(index + 1) }
    firstFree = capacity == 0 ? 0 : 1
  }

  func contains(_ mapping: UInt32, _ remote: IPv4Address) -> Bool { find(word(mapping, remote)) }

  mutating func add(_ mapping: UInt32, _ remote: IPv4Address) {
    let word = word(mapping, remote)
    guard !find(word) else { return }
    guard firstFree != 0 else {
      forgotten &+= 1
      return
    }
    let index = firstFree
    firstFree = contacts[Int(index)].next
    let bucket = bucket(word)
    contacts[Int(index)] = Contact(word: word, next: buckets[bucket], nextOfMapping: firstOfMapping[Int(mapping)])
    buckets[bucket] = index
    firstOfMapping[Int(mapping)] = index
    count += 1
  }

  /// The mapping is no more.
  mutating func removeAll(of mapping: UInt32) {
    guard Int(mapping) < firstOfMapping.count else { return }
    var index = firstOfMapping[Int(mapping)]
    firstOfMapping[Int(mapping)] = 0
    while index != 0 {
      let contact = contacts[Int(index)]
      unlink(index, bucket(contact.word))
      contacts[Int(index)].next = firstFree
      firstFree = index
      index = contact.nextOfMapping
      count -= 1
    }
  }

  private func find(_ word: UInt64) -> Bool {
    var index = buckets[bucket(word)]
    while index != 0 {
      if contacts[Int(index)].word == word { return true }
      index = contacts[Int(index)].next
    }
    return false
  }

  private func unlink(_ index: UInt32, _ bucket: Int) {
    let next = contacts[Int(index)].next
    guard buckets[bucket] != index else {
      buckets[bucket] = next
      return
    }
    var before = buckets[bucket]
    while contacts[Int(before)].next != index { before = contacts[Int(before)].next }
    contacts[Int(before)].next = next
  }

  private func word(_ mapping: UInt32, _ remote: IPv4Address) -> UInt64 { UInt64(mapping) << 32 | UInt64(remote.value) }

  private func bucket(_ word: UInt64) -> Int {
    Int(truncatingIfNeeded: buckets.keyedHash(word)) & (buckets.count - 1)
  }
}

/// How many mappings every client has, whatever their ports (RFC 6888 REQ-4).
///
/// Open addressing over twice as many places as there can be clients; a place that falls empty is filled from
/// behind it, so that no search passes over graves.
struct NATClientCounts {
  private struct Place: BitwiseCopyable {
    var client: UInt64 = 0
    var count: UInt32 = 0
  }

  private let places: FixedMemory<Place>

  init(capacity: Int) {
    var size = 64
    while size < capacity * 2 { size *= 2 }
    places = FixedMemory(count: size, repeating: Place())
  }

  subscript(client: UInt64) -> Int { Int(places[position(of: client)].count) }

  func add(_ client: UInt64) {
    let position = position(of: client)
    places[position] = Place(client: client, count: places[position].count + 1)
  }

  func remove(_ client: UInt64) {
    var hole = position(of: client)
    precondition(places[hole].count > 0, "a client's mapping is counted before it is taken away")
    places[hole].count -= 1
    guard places[hole].count == 0 else { return }
    var next = (hole + 1) & mask
    while places[next].count > 0 {
      // It may move to the hole if its own place is not between the hole and where it stands.
      if (next - home(places[next].client)) & mask >= (next - hole) & mask {
        places[hole] = places[next]
        places[next].count = 0
        hole = next
      }
      next = (next + 1) & mask
    }
  }

  private var mask: Int { places.count - 1 }

  /// Where the client is, or would be.
  private func position(of client: UInt64) -> Int {
    var position = home(client)
    while places[position].count > 0, places[position].client != client { position = (position + 1) & mask }
    return position
  }

  private func home(_ client: UInt64) -> Int {
    Int(truncatingIfNeeded: places.keyedHash(client)) & mask
  }
}
