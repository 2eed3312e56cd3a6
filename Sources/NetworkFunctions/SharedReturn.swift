/// Something that a flow took from the shared state of another runtime and needs no more, on its way back there: an
/// external endpoint of a NAT whose flow ended on a runtime that does not own it.
///
/// The platform takes it with `takeReturn`, and hands it to `takeBack` of the same function on the runtime that owns the
/// share, once.
public struct SharedReturn: BitwiseCopyable, Hashable, Sendable {
  /// Index of the share that owns it.
  public var share: UInt16
  /// Which function of a chain it is for: set on the way out of the chain, used up on the way in.
  public var place: UInt32 = 0
  /// What it is, in the function's own words.
  public var words: SIMD2<UInt64>

  public init(share: UInt16, words: SIMD2<UInt64>) {
    self.share = share
    self.words = words
  }
}
