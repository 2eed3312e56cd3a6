import Wire

/// Steps from a source to a sink that run to completion: packets from a port through the actors to a port;
/// commands from a ring to the liaison actor; timers.
open class ModuleGraph {
  public init() {}

  /// Does a bounded amount of work and returns how much: 0 means there was nothing to do.
  open func run(at now: Tick) -> Int { fatalError("a graph implements run") }
}

/// Runs graphs in turn, again and again (paper §VI: the module graph scheduler).
public struct GraphScheduler {
  private let graphs: [ModuleGraph]
  /// The same again, to be called without being retained: `graphs` keeps them.
  private let unretained: [Unmanaged<ModuleGraph>]

  public init(_ graphs: [ModuleGraph]) {
    self.graphs = graphs
    unretained = graphs.map { unsafe Unmanaged.passUnretained($0) }
  }

  /// One pass over all graphs; returns the work done.
  public func pass(at now: Tick) -> Int {
    var work = 0
    for index in unretained.indices { unsafe work &+= unretained[index]._withUnsafeGuaranteedRef { $0.run(at: now) } }
    return work
  }
}
