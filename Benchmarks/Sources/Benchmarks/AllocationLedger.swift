import Foundation

/// Allocations while the worker was being measured, which there are to be none of.
enum AllocationLedger {
  nonisolated(unsafe) private static var allocations: UInt64 = 0
  nonisolated(unsafe) private static var packets = 0
  nonisolated(unsafe) private static var places: [String: UInt64] = [:]

  static func add(_ count: UInt64, packets: Int, _ place: String) {
    allocations += count
    self.packets += packets
    if count > 0 { places[place, default: 0] += count }
  }

  /// Prints the total and throws when it is not zero.
  static func close() throws {
    print("allocations in \(packets) packets: \(allocations)")
    guard allocations > 0 else { return }
    let list = places.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }.joined(separator: ", ")
    throw BenchmarkError("the worker allocated while packets were passing (\(list))")
  }
}
