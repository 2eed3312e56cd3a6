import Foundation
import Glibc

/// An interface of another network namespace whose cable ends in this process: what is written is received there, what is sent
/// there is read here. Nothing else of this machine sees the frames, and the interface goes when the descriptor does.
final class TapDevice {
  let descriptor: Int32

  /// Makes the interface here and moves it into the namespace.
  init(_ name: String, namespace: String) throws {
    descriptor = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)
    guard descriptor >= 0 else { throw JudgeError("cannot open /dev/net/tun (errno \(errno))") }
    // struct ifreq: sixteen bytes of name, then the flags; IFF_TAP | IFF_NO_PI.
    var request = [UInt8](repeating: 0, count: 40)
    for (index, byte) in name.utf8.prefix(15).enumerated() { request[index] = byte }
    (request[16], request[17]) = (0x02, 0x10)
    let setInterface: UInt = 0x4004_54ca  // TUNSETIFF
    guard ioctl(descriptor, setInterface, &request) >= 0 else {
      let code = errno
      close(descriptor)
      throw JudgeError("cannot make the interface \(name) (errno \(code))")
    }
    try Shell.run("ip", "link", "set", name, "netns", namespace)
  }

  deinit { close(descriptor) }

  func send(_ frame: [UInt8]) throws {
    guard frame.withUnsafeBytes({ write(descriptor, $0.baseAddress, $0.count) }) == frame.count else {
      throw JudgeError("a frame could not be written (errno \(errno))")
    }
  }

  /// The next frame, or `nil` if none comes in time.
  func receive(milliseconds: Int32) -> [UInt8]? {
    var poll = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    guard Glibc.poll(&poll, 1, milliseconds) == 1 else { return nil }
    var buffer = [UInt8](repeating: 0, count: 16_384)
    let count = read(descriptor, &buffer, buffer.count)
    return count > 0 ? Array(buffer.prefix(count)) : nil
  }
}

struct JudgeError: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// Programs of the system, waited for.
enum Shell {
  @discardableResult
  static func run(_ words: String..., input: String = "") throws -> String {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = words
    let (stdin, stdout) = (Pipe(), Pipe())
    process.standardInput = stdin
    process.standardOutput = stdout
    process.standardError = stdout
    try process.run()
    stdin.fileHandleForWriting.write(Data(input.utf8))
    try stdin.fileHandleForWriting.close()
    let text = String(decoding: stdout.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    guard process.terminationStatus == 0 else { throw JudgeError("'\(words.joined(separator: " "))' failed: \(text)") }
    return text
  }
}
