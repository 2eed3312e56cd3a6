import CChain
import CMeasuring
import Dataplane
import FixedContainers
import FlowActors
import Glibc
import ModuleGraphs
import NetworkFunctions
import Wire

/// One of the loops that are measured in turn: the worker that ships, the same work in C, or receiving and transmitting alone.
///
/// Each has a port and a clock of its own, and gets the same frames at the same times.
final class Contender {
  let name: String
  let port = ReplayPort()
  private let pass: (ReplayPort, Tick) -> Int
  /// Packets dropped so far.
  let drops: () -> UInt64
  /// Of these, packets whose flow could not be opened for want of room.
  let refusals: () -> UInt64
  private(set) var now = Tick(milliseconds: 1)
  private let finish: () -> Void

  private init(
    _ name: String, drops: @escaping () -> UInt64 = { 0 }, refusals: @escaping () -> UInt64 = { 0 }, finish: @escaping () -> Void = {},
    pass: @escaping (ReplayPort, Tick) -> Int
  ) {
    self.name = name
    self.pass = pass
    self.drops = drops
    self.refusals = refusals
    self.finish = finish
  }

  deinit { finish() }

  /// What receiving and transmitting cost with a batch of the worker's.
  static func bounce() -> Contender {
    let batch = PacketBatch()
    return Contender("rx-tx-only") { port, now in
      port.receive(into: batch, now: now)
      _ = port.transmit(batch, mask: batch.live)
      port.release(batch, mask: 0)
      defer { batch.removeAll() }
      return batch.count
    }
  }

  /// `Worker.pass` of a runtime: its graphs, timers and counters.
  static func worker(_ chain: ChainUnderTest, rules: FlowRules, address: FabricAddress) throws -> Contender {
    let memory = MeasuredMemory()
    let serviceChain = try chain.makeChain(mappings: rules.capacity)
    // The worker is made with its port. It is called without being retained, which is not its own work.
    final class Holder {
      var worker: Worker? { didSet { unretained.pointee = worker.map { .passUnretained($0) } } }
      let unretained = UnsafeMutablePointer<Unmanaged<Worker>?>.allocate(capacity: 1)
    }
    let holder = Holder()
    let unretained = holder.unretained
    unretained.initialize(to: nil)
    let contender = Contender(
      chain.name, drops: { holder.worker!.published.read().dropped }, refusals: { holder.worker!.published.read().flowsRefused },
      finish: {
        holder.worker = nil
        unretained.deallocate()
        memory.free()
      }, pass: { _, now in unretained.pointee!._withUnsafeGuaranteedRef { $0.pass(at: now) } })
    holder.worker = Worker.runtime(
      port: contender.port, address: address, chain: serviceChain, rules: rules, seed: 42, rings: WorkerRings(), now: .zero,
      memory: memory.source)
    return contender
  }

  /// The same work, or `nil` if the C loop does not have the chain.
  static func cLoop(_ chain: ChainUnderTest, rules: FlowRules, address: FabricAddress) -> Contender? {
    guard chain.isInC else { return nil }
    let loop = chain.makeCLoop(rules: rules, mappings: rules.capacity, address: address, now: 0)
    return Contender(
      "c-loop", drops: { cchain_read(loop).dropped }, finish: { cchain_free(loop) },
      pass: { port, now in Int(cchain_pass(loop, port.memory, now.nanoseconds)) })
  }

  // MARK: Playing

  /// Runs until `packets` more have arrived; every pass is `step` nanoseconds after the one before.
  func play(_ packets: Int, step: UInt64) {
    port.memory.pointee.remaining = UInt64(packets)
    var now = now
    while port.memory.pointee.remaining > 0 {
      now.nanoseconds &+= step
      _ = pass(port, now)
    }
    self.now = now
  }

  /// Lets time go by, a millisecond at a pass, without packets.
  func rest(milliseconds: Int) {
    for _ in 0..<milliseconds {
      now.nanoseconds += 1_000_000
      _ = pass(port, now)
    }
  }

  /// One burst; what leaves is copied to `buffer`. Returns its bytes.
  func playBurst(_ packets: Int, step: UInt64, into buffer: UnsafeMutableRawPointer) -> Int {
    let start = buffer.assumingMemoryBound(to: UInt8.self)
    port.memory.pointee.captured = start
    defer { port.memory.pointee.captured = nil }
    play(packets, step: step)
    return port.memory.pointee.captured! - start
  }

  /// What `packets` cost, and what was allocated meanwhile.
  func time(_ packets: Int, step: UInt64) -> (sample: Sample, allocations: UInt64) {
    let before = measuring_read_allocations().calls
    let stopwatch = Stopwatch()
    play(packets, step: step)
    let sample = stopwatch.read(per: packets)
    return (sample, measuring_read_allocations().calls - before)
  }
}

/// What a worker's containers are made of, and how much of it: huge pages if the kernel has some to spare.
final class MeasuredMemory {
  private(set) var byteCount = 0
  private var blocks: [UnsafeMutableRawPointer] = []

  /// Memory as a node gets it from DPDK's huge pages, here from the kernel's transparent ones.
  var source: MemorySource {
    MemorySource { [self] byteCount, alignment in
      self.byteCount += byteCount
      let page = byteCount < 2_097_152 ? alignment : 2_097_152
      let size = (byteCount + page - 1) / page * page
      let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: page)
      if page == 2_097_152 { madvise(memory, size, 14) }
      memory.initializeMemory(as: UInt8.self, repeating: 0, count: size)
      blocks.append(memory)
      return memory
    }
  }

  /// To be called when nobody uses it any more.
  func free() {
    for block in blocks { block.deallocate() }
    blocks = []
  }
}
