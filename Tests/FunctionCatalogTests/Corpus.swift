import Foundation

/// Texts beside the tests.
enum Corpus {
  static func bytes(_ name: String) throws -> [UInt8] {
    Array(try Data(contentsOf: URL(filePath: #filePath).deletingLastPathComponent().appending(path: name)))
  }
}
