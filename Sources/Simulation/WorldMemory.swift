import FixedContainers
import Glibc

/// Memory for the nodes of one simulated world, given back when the world ends: a run plays thousands of them.
final class WorldMemory {
  private var blocks: [UnsafeMutableRawPointer] = []

  /// What is reserved from it must not be used after this object is gone.
  var source: MemorySource {
    MemorySource { [unowned self] byteCount, alignment in
      guard let block = calloc(1, byteCount + alignment) else { return nil }
      blocks.append(block)
      return block.alignedUp(toMultipleOf: alignment)
    }
  }

  deinit { for block in blocks { free(block) } }
}
