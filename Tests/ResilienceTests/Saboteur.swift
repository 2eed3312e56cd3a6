import Simulation

@testable import ReliableChannels

/// Channels with a defect, made from the outside: what a frame says is changed just before it is read, so that the
/// end behaves as if its own code were wrong there.
enum Saboteur: CaseIterable {
  /// Takes frames of any life for those of the present one.
  case ignoresIncarnations
  /// Takes any frame for the one that is due, as if there were neither order nor duplicates.
  case ignoresSequence
  /// Compares acknowledged numbers without wrapping.
  case comparesPlainly
  /// Does not hear acknowledgements.
  case ignoresAcknowledgements
  /// Is told that the frame which is missing has come.
  case acknowledgesTooMuch
  /// Takes every frame before one that came early for arrived.
  case fillsGaps
  /// Does not look at the checksum.
  case ignoresChecksum
  /// Never gets a frame that is sent again.
  case sendsOnce

  /// Changes the frame, or withholds it.
  func lets(_ frame: inout [UInt8], to end: ChannelWorld.End, key: ChannelKey?) -> Bool {
    guard let offset = frame.withUnsafeBytes({ ChannelFrame.headerOffset($0) }) else { return true }
    var header: ChannelHeader
    switch frame.withUnsafeBytes({ ChannelFrame.read($0, key: key) }) {
    case .header(let read, _): header = read
    case .refused(.checksum) where self == .ignoresChecksum:
      header = frame.withUnsafeBytes { ChannelFrame.fields($0.baseAddress! + offset, kind: .data) }
    case .refused: return true
    }
    let due = end.channel.receiver.expected
    switch self {
    case .ignoresIncarnations where header.kind != .hello && end.channel.peerIncarnation != 0:
      header.sourceIncarnation = end.channel.peerIncarnation
      header.destinationIncarnation = end.incarnation
    case .ignoresSequence where header.kind == .data: header.sequence = due
    case .comparesPlainly where header.kind != .hello:
      let base = end.channel.sender.base
      if header.acknowledged.number < base.number { (header.acknowledged, header.selective) = (base, 0) }
    case .ignoresAcknowledgements where header.kind != .hello:
      (header.acknowledged, header.selective) = (end.channel.settings.firstSequence, 0)
    case .acknowledgesTooMuch where header.selective != 0:
      (header.acknowledged, header.selective) = (header.acknowledged.advanced(by: 1), header.selective >> 1)
    case .fillsGaps where header.selective != 0:
      header.selective = .max >> UInt64(header.selective.leadingZeroBitCount)
      header.acknowledged = header.acknowledged.advanced(by: 1)
    case .sendsOnce where header.kind == .data:
      return end.seen.insert(header.sequence).inserted
    default: break
    }
    frame.withUnsafeMutableBytes { ChannelFrame.write(header, to: $0.baseAddress! + offset, key: key) }
    return true
  }
}
