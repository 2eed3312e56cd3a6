// A snapshot and the tail after it are worth the whole log.
import ControlCodec
import ControlMessages
import ControlPlane
import Testing

@Suite struct SnapshotTests {
  @Test(arguments: ClusterLawTests.rulesAndSeeds)
  func `a core comes back from its bytes as it was, at every cut`(rules: UInt32, seed: UInt64) throws {
    let world = ClusterWorld.run(seed: seed, steps: 40, rules: rules)
    var core = ClusterCore(cluster: Samples.cluster)
    for record in world.story.records {
      _ = core.apply(record)
      // `apply` is a function of the core and the record, so equal here is equal after any tail.
      #expect(try RecordCodec.decodeCore(RecordCodec.encode(core)) == core)
    }
  }

  @Test(arguments: ClusterLawTests.rulesAndSeeds) func `replay equals snapshot plus tail`(rules: UInt32, seed: UInt64) throws {
    let world = ClusterWorld.run(seed: seed, steps: 60, rules: rules)
    let records = world.story.records
    var core = ClusterCore(cluster: Samples.cluster)
    var decided = 0
    for (index, record) in records.enumerated() {
      decided += core.apply(record).count
      guard index % 19 == 0 else { continue }
      var restored = try RecordCodec.decodeCore(RecordCodec.encode(core))
      let tail = records[(index + 1)...].flatMap { restored.apply($0) }
      #expect(tail == Array(world.story.commands[decided...]))
      #expect(restored == world.story.core)
    }
  }

  @Test func `a snapshot in parts is found again, whatever lies around it`() throws {
    let core = ClusterWorld.run(seed: 1, steps: 50).story.core
    let bytes = RecordCodec.encode(core)
    func records(_ writer: UInt64, partSize: Int) -> [SnapshotRecord] {
      SnapshotAssembly.records(of: core, bytes: bytes, writer: writer, commandsOffset: Offset(12), partSize: partSize)
    }
    let whole = records(1, partSize: 100)
    #expect(whole.count > 3)
    var assembly = SnapshotAssembly()
    // A writer that died before its manifest, one whose first part the log has deleted, and ours between them, some of it twice.
    let torn = records(2, partSize: 90).dropLast()
    let beheaded = records(3, partSize: 80).dropFirst()
    for (index, record) in whole.enumerated() {
      for other in [torn, beheaded] where index < other.count { assembly.read(other[other.startIndex + index]) }
      assembly.read(try RecordCodec.decodeSnapshotRecord(RecordCodec.encode(record)))
      if index % 2 == 0, index < whole.count - 1 { assembly.read(record) }
    }
    for record in beheaded { assembly.read(record) }
    #expect(assembly.found.map(\.manifest.writer) == [1])
    let found = try #require(assembly.found.last)
    #expect(found.manifest.commandsOffset == Offset(12) && found.manifest.slot == core.state.lastSlot)
    #expect(try RecordCodec.decodeCore(found.bytes) == core)
  }

  @Test func `a snapshot whose bytes changed is none`() {
    let core = ClusterWorld.run(seed: 2, steps: 20).story.core
    var bytes = RecordCodec.encode(core)
    let records = SnapshotAssembly.records(of: core, bytes: bytes, writer: 1, commandsOffset: Offset(0))
    bytes[bytes.count / 2] ^= 1
    var assembly = SnapshotAssembly()
    assembly.read(.part(SnapshotPart(position: core.position!, writer: 1, index: 0, bytes: bytes)))
    assembly.read(records.last!)
    #expect(assembly.found.isEmpty)
  }

  @Test func `bytes of a newer format, or rules not known here, are refused`() throws {
    let bytes = RecordCodec.encode(ClusterWorld.run(seed: 3, steps: 20).story.core)
    #expect(bytes[0] == 0x08 && bytes[1] == 1, "the format comes first")
    var newer = bytes
    newer[1] = 2
    #expect(throws: CodecError.unsupportedVersion(2)) { try RecordCodec.decodeCore(newer) }
    #expect(throws: CodecError.self) { try RecordCodec.decodeCore([]) }
    #expect(throws: CodecError.self) { try RecordCodec.decodeCore(Array(bytes.dropLast())) }
  }
}
