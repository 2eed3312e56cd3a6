/// A port as an operator names it.
///
///     af_packet:veth0           a kernel interface (the lab, any NIC without a DPDK driver)
///     vhost:/run/a.sock         vhost-user, connecting to the socket: the back end of a virtio port
///     virtio:/run/a.sock        virtio-user, making the socket: the front end
///     pcap:in.pcap,out.pcap     capture files, through DPDK
///     null                      takes everything, gives frames of 64 bytes of whatever was in its buffers (benchmarks)
///     ring                      gives back what it took
///     pci:0000:03:00.0          a NIC or virtual function bound to vfio-pci
///     dev:net_tap0,iface=x      any devargs, as DPDK takes them
///
/// What follows a ';' harms the frames that arrive, for labs: `af_packet:rt0;loss=0.1%;delay=1ms;jitter=200us` (`Impairment`).
public struct PortSpec: Hashable, Sendable, CustomStringConvertible {
  public let description: String
  let kind: String
  let argument: String
  /// What happens to frames that arrive here; nil: nothing.
  public let impairment: Impairment?

  public init(_ text: String) throws(PortError) {
    let clauses = text.split(separator: ";", omittingEmptySubsequences: false)
    impairment = clauses.count > 1 ? try Impairment(Array(clauses.dropFirst())) : nil
    let parts = clauses[0].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    description = text
    kind = parts[0]
    argument = parts.count == 2 ? parts[1] : ""
    switch kind {
    case "null", "ring":
      guard parts.count == 1 else { throw Self.error(text, "'\(kind)' takes no argument") }
    case "af_packet", "vhost", "virtio", "pcap", "pci", "dev":
      guard !argument.isEmpty else { throw Self.error(text, "'\(kind):' needs an argument") }
      guard kind != "pcap" || Self.files(argument) != nil else { throw Self.error(text, "expected two files") }
      guard kind == "dev" || kind == "pcap" || !argument.contains(",") else { throw Self.error(text, "',' cannot be part of the argument") }
    default:
      throw Self.error(text, "'\(kind)' is no kind of port")
    }
  }

  private static func files(_ argument: String) -> (Substring, Substring)? {
    let files = argument.split(separator: ",", omittingEmptySubsequences: false)
    return files.count == 2 && !files[0].isEmpty && !files[1].isEmpty ? (files[0], files[1]) : nil
  }

  private static func error(_ text: String, _ what: String) -> PortError {
    PortError(
      "port '\(text)': \(what)",
      hint: "write af_packet:INTERFACE, vhost:SOCKET, virtio:SOCKET, pcap:IN,OUT, null, ring, pci:ADDRESS or dev:DEVARGS")
  }

  /// What DPDK is asked to probe. `number` makes the names of virtual devices unique in the process.
  func devargs(number: Int) throws(PortError) -> String {
    switch kind {
    // Rings of 2,048 frames, four times the driver's own: a worker that shares its processor is away for a while.
    case "af_packet": return "net_af_packet\(number),iface=\(argument),framecnt=2048"
    case "vhost": return "net_vhost\(number),iface=\(argument),client=1"
    case "virtio": return "net_virtio_user\(number),path=\(argument),server=1,queue_size=1024"
    case "pcap":
      guard let (input, output) = Self.files(argument) else { throw Self.error(description, "expected two files") }
      return "net_pcap\(number),rx_pcap=\(input),tx_pcap=\(output)"
    case "null": return "net_null\(number)"
    case "ring": return "net_ring\(number)"
    default: return argument
    }
  }

  /// Whether the environment must know the PCI bus for this port. A `dev:` string may be a PCI address, too.
  public var isPCI: Bool { kind == "pci" || (kind == "dev" && argument.first?.isHexDigit == true && argument.contains(":")) }
}
