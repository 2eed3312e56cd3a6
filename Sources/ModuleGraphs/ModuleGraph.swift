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
  /// Passes over all graphs: a worker that stops counting is frozen, whatever its other threads say.
  public private(set) var passes: UInt64 = 0

  public init(_ graphs: [ModuleGraph]) { self.graphs = graphs }

  /// One pass over all graphs; returns the work done.
  public mutating func pass(at now: Tick) -> Int {
    var work = 0
    for graph in graphs { work &+= graph.run(at: now) }
    passes &+= 1
    return work
  }
}
