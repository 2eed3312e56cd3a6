import CaptureFiles
import ModuleGraphs
import NetworkFunctionTesting
import Wire

/// The packets of a capture file, judged one by one.
enum CaptureFrames {
  /// How many there are, and descriptions of those whose checksums are not what a full computation gives.
  static func read(_ path: String) throws -> (count: Int, wrong: [String]) {
    let reader = try CaptureReader(path: path)
    let batch = PacketBatch()
    var count = 0
    var wrong: [String] = []
    while reader.read(into: batch) != nil {
      for index in 0..<batch.count {
        count += 1
        if !batch[index].checksumsHold() {
          wrong.append("packet \(count): " + batch[index].withBytes { TestPacket(bytes: Array($0)).description })
        }
      }
      batch.removeAll()
    }
    return (count, wrong)
  }
}
