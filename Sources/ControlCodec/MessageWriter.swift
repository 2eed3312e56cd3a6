import CProtobufC
import CSchemas
import ControlMessages

/// Builds C messages from values, in the memory of an arena, and packs them.
struct MessageWriter {
  let arena = MessageArena(limit: .max)

  func make<Message>(
    _ initialize: (UnsafeMutablePointer<Message>?) -> Void, _ fill: (inout Message) -> Void = { _ in }
  ) -> UnsafeMutablePointer<Message> {
    let message = arena.allocate(MemoryLayout<Message>.size)!.assumingMemoryBound(to: Message.self)
    initialize(message)
    fill(&message.pointee)
    return message
  }

  /// A C string. It ends at the first NUL, so a NUL in `text` becomes U+FFFD.
  func text(_ text: String) -> UnsafeMutablePointer<CChar> {
    let clean = text.utf8.contains(0) ? String(text.unicodeScalars.map { $0 == "\0" ? "\u{fffd}" : Character($0) }) : text
    let length = clean.utf8.count
    let bytes = arena.allocate(length + 1)!
    for (index, byte) in clean.utf8.enumerated() { bytes.storeBytes(of: byte, toByteOffset: index, as: UInt8.self) }
    bytes.storeBytes(of: 0, toByteOffset: length, as: UInt8.self)
    return bytes.assumingMemoryBound(to: CChar.self)
  }

  func list<Element, Message>(
    _ elements: [Element], _ make: (Element) -> UnsafeMutablePointer<Message>
  ) -> UnsafeMutablePointer<UnsafeMutablePointer<Message>?> {
    typealias Pointer = UnsafeMutablePointer<Message>?
    let list = arena.allocate(max(1, elements.count) * MemoryLayout<Pointer>.stride)!.assumingMemoryBound(to: Pointer.self)
    for (index, element) in elements.enumerated() { (list + index).initialize(to: make(element)) }
    return list
  }

  func texts(_ texts: [String]) -> UnsafeMutablePointer<UnsafeMutablePointer<CChar>?> { list(texts) { text($0) } }

  /// In the arena, so it must not outlive the writer.
  func binary(_ bytes: [UInt8]) -> ProtobufCBinaryData {
    let copy = arena.allocate(max(1, bytes.count))!
    bytes.withUnsafeBytes { copy.copyMemory(from: $0.baseAddress ?? UnsafeRawPointer(copy), byteCount: bytes.count) }
    return ProtobufCBinaryData(len: bytes.count, data: copy.assumingMemoryBound(to: UInt8.self))
  }

  func life(_ life: NodeLife) -> UnsafeMutablePointer<Nfvactor__V1__NodeLife> { self.life(life.node, life.incarnation) }

  func life(_ node: NodeID, _ incarnation: Incarnation) -> UnsafeMutablePointer<Nfvactor__V1__NodeLife> {
    make(nfvactor__v1__node_life__init) {
      $0.node = node.number
      $0.incarnation = incarnation.number
    }
  }

  func ports(_ ports: NodePorts) -> UnsafeMutablePointer<Nfvactor__V1__NodePorts> {
    make(nfvactor__v1__node_ports__init) {
      $0.input = ports.input.bits
      $0.output = ports.output.bits
      $0.control = ports.control.bits
    }
  }

  func kind(_ kind: NodeKind) -> Nfvactor__V1__NodeKind { Nfvactor__V1__NodeKind(rawValue: UInt32(kind.rawValue)) }

  func pack<Message>(
    _ message: UnsafeMutablePointer<Message>, _ size: (UnsafePointer<Message>?) -> Int,
    _ pack: (UnsafePointer<Message>?, UnsafeMutablePointer<UInt8>?) -> Int
  ) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: size(message)) { buffer, count in
      count = pack(message, buffer.baseAddress)
    }
  }
}
