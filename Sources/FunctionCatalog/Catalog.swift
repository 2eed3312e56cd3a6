import ControlMessages
import NetworkFunctions

/// The network functions that a chain can be made of, by the names that configurations use.
///
/// A third party's function joins with one line:
///
///     var catalog = Catalog.standard
///     catalog.register("packet-limit") { reader throws(SettingsError) in try PacketLimit(reader: reader) }
///
/// Some runs of functions are compiled as one (`fuse`): they are one stage with one call per burst instead of
/// one each. Which ones does not change what a chain does, only how fast.
public struct Catalog: Sendable {
  /// Makes a function's stage for a runtime from its settings.
  public typealias Factory = @Sendable (SettingsReader, RuntimeShare) throws(SettingsError) -> ServiceStage
  /// `nil` where settings ask for more than what was compiled together can do.
  typealias FusedFactory = @Sendable ([SettingsReader], RuntimeShare) throws(SettingsError) -> ServiceStage?

  struct Registration: Sendable {
    let name: String
    let make: Factory
    /// Reads the settings and makes nothing that lasts.
    let check: @Sendable (SettingsReader) throws(SettingsError) -> Entrance
  }

  /// What has to be known of functions before they are made. By a virtual switch: whether the server side may open flows, and to which endpoints.
  public struct Entrance: Sendable {
    public var isOpen = false
    public var endpoints: ServerSideEndpoints?
    /// Bytes of a flow's state, for who sets memory aside.
    public var stateSize = 0
    /// Bytes that a packet may gain in the chain.
    public var growth = 0

    init() {}

    init<Function: NetworkFunction>(_ function: Function) {
      stateSize = MemoryLayout<Function.FlowState>.stride
      isOpen = function.opensFromServerSide
      endpoints = function.serverSideEndpoints
      growth = function.growth
    }
  }

  struct Fusion: Sendable {
    let names: [String]
    let make: FusedFactory
  }

  private(set) var registrations: [Registration] = []
  private(set) var fusions: [Fusion] = []

  /// A catalog without functions.
  public init() {}

  public var names: [String] { registrations.map(\.name) }

  // MARK: Registering

  /// Adds a function, or replaces the one of that name.
  public mutating func register<Function: NetworkFunction & SendableMetatype>(
    _ name: String, _ make: @escaping @Sendable (SettingsReader) throws(SettingsError) -> Function
  ) {
    add(
      Registration(
        name: name,
        make: { reader, share throws(SettingsError) in ServiceStage(name, try make(reader), share: share) },
        check: { reader throws(SettingsError) in Entrance(try make(reader)) }))
  }

  /// Adds a function whose stage depends on the runtime's share, or that is a chain of its own.
  public mutating func register(_ name: String, stage make: @escaping Factory) {
    add(Registration(name: name, make: make, check: { reader throws(SettingsError) in
      let stage = try make(reader, .whole)
      var entrance = Entrance()
      entrance.isOpen = stage.opensFromServerSide
      entrance.stateSize = stage.stateSize
      entrance.growth = stage.growth
      return entrance
    }))
  }

  mutating func add(_ registration: Registration) {
    registrations.removeAll { $0.name == registration.name }
    registrations.append(registration)
    // What was compiled together was compiled with the function that this one replaces.
    fusions.removeAll { $0.names.contains(registration.name) }
  }

  /// Adds a run of registered functions that is compiled as one stage.
  mutating func fuse(_ names: [String], _ make: @escaping FusedFactory) {
    fusions.append(Fusion(names: names, make: make))
  }

  // MARK: Making chains

  /// Every setting of every function is read, and the first that is wrong is thrown.
  public func validate(_ spec: ServiceChainSpec) throws(SettingsError) {
    for (function, reader) in zip(spec.functions, readers(spec)) {
      _ = try registration(function.kind, reader).check(reader)
    }
    guard !spec.functions.isEmpty else {
      throw SettingsError(path: "chain", line: 0, message: "a chain needs at least one function")
    }
  }

  /// The stages of a runtime's chain with all their memory.
  ///
  /// - Parameter fusing: `false` makes every function a stage of its own: slower, and for comparison.
  public func makeChain(
    spec: ServiceChainSpec, share: RuntimeShare, fusing: Bool = true
  ) throws(SettingsError) -> ServiceChain {
    try validate(spec)
    let readers = readers(spec)
    let kinds = spec.functions.map(\.kind)
    var stages: [ServiceStage] = []
    var next = 0
    while next < kinds.count {
      if fusing, let (stage, count) = try fuse(kinds[next...], readers, share) {
        stages.append(stage)
        next += count
      } else {
        stages.append(try registration(kinds[next], readers[next]).make(readers[next], share))
        next += 1
      }
    }
    let reasons = stages.reduce(0) { $0 + $1.dropReasons.count }
    guard reasons <= 96 else {
      throw SettingsError(path: "chain", line: 0, message: "the functions have \(reasons) drop reasons together; at most 96 fit")
    }
    return ServiceChain(stages)
  }

  /// What all functions of a chain together let in from the server side.
  public func entrance(of spec: ServiceChainSpec) throws(SettingsError) -> Entrance {
    var whole = Entrance()
    for (function, reader) in zip(spec.functions, readers(spec)) {
      let part = try registration(function.kind, reader).check(reader)
      whole.isOpen = whole.isOpen || part.isOpen
      whole.endpoints = whole.endpoints ?? part.endpoints
      whole.stateSize += part.stateSize
      whole.growth += part.growth
    }
    return whole
  }

  private func readers(_ spec: ServiceChainSpec) -> [SettingsReader] {
    spec.functions.enumerated().map { SettingsReader($0.element.settings, path: "chain[\($0.offset)].\($0.element.kind)") }
  }

  /// The stage of the longest fusion that begins here and takes these settings, and how many functions it has.
  private func fuse(
    _ kinds: ArraySlice<String>, _ readers: [SettingsReader], _ share: RuntimeShare
  ) throws(SettingsError) -> (stage: ServiceStage, count: Int)? {
    let candidates = fusions.filter { kinds.starts(with: $0.names) }.sorted { $0.names.count > $1.names.count }
    for fusion in candidates {
      let part = Array(readers[kinds.startIndex..<kinds.startIndex + fusion.names.count])
      if let stage = try fusion.make(part, share) { return (stage, fusion.names.count) }
    }
    return nil
  }

  private func registration(_ kind: String, _ reader: SettingsReader) throws(SettingsError) -> Registration {
    if let found = registrations.first(where: { $0.name == kind }) { return found }
    // `allow` knows how to say which name was probably meant.
    let asKey = Settings(.map([.init(kind, reader.settings)]), line: reader.settings.line)
    do throws(SettingsError) {
      try SettingsReader(asKey).allow(names)
    } catch {
      throw reader.error(error.message.replacingPrefix("unknown key", with: "unknown network function"))
    }
    throw reader.error("unknown network function '\(kind)'")
  }
}

extension String {
  func replacingPrefix(_ prefix: String, with replacement: String) -> String {
    hasPrefix(prefix) ? replacement + dropFirst(prefix.count) : self
  }
}
