/// Kafka's protocol by hand, written apart from the broker's own: what a client sends that is not librdkafka,
/// or that means harm.
import Foundation

struct Bytes {
  var array: [UInt8] = []

  mutating func put<T: FixedWidthInteger>(_ value: T) { withUnsafeBytes(of: value.bigEndian) { array.append(contentsOf: $0) } }
  mutating func put(_ text: String) {
    put(Int16(text.utf8.count))
    array += Array(text.utf8)
  }
  mutating func varint(_ value: Int) {
    var rest = UInt64(bitPattern: Int64((value << 1) ^ (value >> 63)))
    while rest >= 0x80 {
      array.append(UInt8(rest & 0x7f) | 0x80)
      rest >>= 7
    }
    array.append(UInt8(rest))
  }
}

/// Reads an answer; a test fails loudly (by trapping) if it is shorter than it must be.
struct Answer {
  var array: ArraySlice<UInt8>

  mutating func get<T: FixedWidthInteger>(_: T.Type = T.self) -> T {
    let size = MemoryLayout<T>.size
    let value = array.prefix(size).reduce(T(0)) { ($0 << 8) | T(truncatingIfNeeded: $1) }
    array = array.dropFirst(size)
    return value
  }
  mutating func getString() -> String {
    let length = Int(get(Int16.self))
    defer { array = array.dropFirst(max(0, length)) }
    return length < 0 ? "" : String(decoding: array.prefix(length), as: UTF8.self)
  }
}

/// The slow, obvious CRC-32C.
func referenceCRC32C(_ bytes: some Swift.Sequence<UInt8>) -> UInt32 {
  var crc: UInt32 = 0xffff_ffff
  for byte in bytes {
    crc ^= UInt32(byte)
    for _ in 0..<8 { crc = crc & 1 == 1 ? (crc >> 1) ^ 0x82f6_3b78 : crc >> 1 }
  }
  return ~crc
}

struct TestBatch {
  var values: [String] = ["a"]
  var timestamp: Int64 = 1_700_000_000_000
  /// Between one record and the next.
  var timestampStep = 0
  var attributes: Int16 = 0
  var producerID: Int64 = -1
  var epoch: Int16 = -1
  var sequence: Int32 = -1

  var bytes: [UInt8] {
    var signed = Bytes()
    signed.put(attributes)
    signed.put(Int32(values.count - 1))
    signed.put(timestamp)
    signed.put(timestamp + Int64(timestampStep * (values.count - 1)))
    signed.put(producerID)
    signed.put(epoch)
    signed.put(sequence)
    signed.put(Int32(values.count))
    for (index, value) in values.enumerated() {
      var record = Bytes()
      record.array.append(0)
      record.varint(index * timestampStep)
      record.varint(index)
      record.varint(-1)
      record.varint(value.utf8.count)
      record.array += Array(value.utf8)
      record.varint(0)
      signed.varint(record.array.count)
      signed.array += record.array
    }
    var all = Bytes()
    all.put(Int64(0))
    all.put(Int32(signed.array.count + 9))
    all.put(Int32(-1))
    all.put(Int8(2))
    all.put(referenceCRC32C(signed.array))
    return all.array + signed.array
  }
}

enum RawRequest {
  static func header(_ key: Int16, _ version: Int16, _ correlation: Int32 = 1) -> Bytes {
    var bytes = Bytes()
    bytes.put(key)
    bytes.put(version)
    bytes.put(correlation)
    bytes.put("raw")
    return bytes
  }

  static func produce(_ topic: String, _ partition: Int32 = 0, _ records: [UInt8], acks: Int16 = -1, version: Int16 = 7) -> [UInt8] {
    var bytes = header(0, version)
    bytes.put(Int16(-1))
    bytes.put(acks)
    bytes.put(Int32(5000))
    bytes.put(Int32(1))
    bytes.put(topic)
    bytes.put(Int32(1))
    bytes.put(partition)
    bytes.put(Int32(records.count))
    return bytes.array + records
  }

  static func fetch(
    _ topic: String, _ partition: Int32 = 0, from offset: Int64, maxWait: Int32 = 0, minBytes: Int32 = 1,
    maxBytes: Int32 = 1 << 20, partitionMaxBytes: Int32 = 1 << 20
  ) -> [UInt8] {
    var bytes = header(1, 4)
    bytes.put(Int32(-1))
    bytes.put(maxWait)
    bytes.put(minBytes)
    bytes.put(maxBytes)
    bytes.put(Int8(0))
    bytes.put(Int32(1))
    bytes.put(topic)
    bytes.put(Int32(1))
    bytes.put(partition)
    bytes.put(offset)
    bytes.put(partitionMaxBytes)
    return bytes.array
  }

  static func initProducerID() -> [UInt8] {
    var bytes = header(22, 1)
    bytes.put(Int16(-1))
    bytes.put(Int32(60000))
    return bytes.array
  }
}

/// A plain socket. Reads give up after ten seconds.
final class RawConnection {
  private let descriptor: Int32
  struct Closed: Error {}

  init(_ endpoint: (host: String, port: Int)) throws {
    descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = in_port_t(endpoint.port).bigEndian
    inet_pton(AF_INET, endpoint.host == "localhost" ? "127.0.0.1" : endpoint.host, &address.sin_addr)
    var patience = timeval(tv_sec: 10, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
    }
    if result != 0 { throw Closed() }
  }

  deinit { close(descriptor) }

  func sendRaw(_ bytes: [UInt8]) throws {
    var sent = 0
    while sent < bytes.count {
      let count = bytes.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL)) }
      if count <= 0 { throw Closed() }
      sent += count
    }
  }

  func send(_ request: [UInt8]) throws {
    var frame = Bytes()
    frame.put(Int32(request.count))
    try sendRaw(frame.array + request)
  }

  /// The next answer, from its correlation id on.
  func receive() throws -> Answer {
    var length = Answer(array: try read(4)[...])
    return Answer(array: try read(Int(length.get(Int32.self)))[...])
  }

  func ask(_ request: [UInt8]) throws -> Answer {
    try send(request)
    var answer = try receive()
    _ = answer.get(Int32.self)
    return answer
  }

  /// Whether the other side has closed (or does so within the patience).
  func isClosedByPeer() -> Bool {
    do {
      while true { _ = try read(1) }
    } catch { return errno != EAGAIN }
  }

  private func read(_ count: Int) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var filled = 0
    while filled < count {
      errno = 0
      let got = bytes.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress! + filled, count - filled, 0) }
      if got <= 0 { throw Closed() }
      filled += got
    }
    return bytes
  }
}

extension RawConnection {
  func produce(_ topic: String, _ records: [UInt8], version: Int16 = 7) throws -> (error: Int16, offset: Int64, time: Int64) {
    var answer = try ask(RawRequest.produce(topic, 0, records, version: version))
    _ = answer.get(Int32.self)
    _ = answer.getString()
    _ = answer.get(Int32.self)
    _ = answer.get(Int32.self)
    return (answer.get(), answer.get(), answer.get())
  }

  func fetch(_ request: [UInt8]) throws -> (error: Int16, highWatermark: Int64, records: [UInt8]) {
    var answer = try ask(request)
    _ = answer.get(Int32.self)  // throttle
    _ = answer.get(Int32.self)
    _ = answer.getString()
    _ = answer.get(Int32.self)
    _ = answer.get(Int32.self)
    let error: Int16 = answer.get()
    let highWatermark: Int64 = answer.get()
    _ = answer.get(Int64.self)  // last stable
    let aborted: Int32 = answer.get()
    precondition(aborted <= 0, "nothing was aborted")
    let size: Int32 = answer.get()
    return (error, highWatermark, Array(answer.array.prefix(max(0, Int(size)))))
  }

  func initProducerID() throws -> Int64 {
    var answer = try ask(RawRequest.initProducerID())
    _ = answer.get(Int32.self)
    let error: Int16 = answer.get()
    precondition(error == 0, "a producer id is given")
    return answer.get()
  }
}
