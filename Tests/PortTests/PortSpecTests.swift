import Testing

@testable import DPDKPorts

/// What an operator may call a port, and what DPDK is then asked for.
@Suite struct PortSpecTests {
  @Test(arguments: [
    ("null", "net_null7"),
    ("ring", "net_ring7"),
    ("af_packet:veth0", "net_af_packet7,iface=veth0,framecnt=2048"),
    ("vhost:/run/a.sock", "net_vhost7,iface=/run/a.sock,client=1"),
    ("virtio:/run/a.sock", "net_virtio_user7,path=/run/a.sock,server=1,queue_size=1024"),
    ("pcap:in.pcap,out.pcap", "net_pcap7,rx_pcap=in.pcap,tx_pcap=out.pcap"),
    ("pci:0000:03:00.0", "0000:03:00.0"),
    ("dev:net_tap0,iface=x", "net_tap0,iface=x"),
  ])
  func `a port becomes the device that DPDK is asked to probe`(text: String, devargs: String) throws {
    let spec = try PortSpec(text)
    #expect(try spec.devargs(number: 7) == devargs)
    #expect(spec.description == text)
  }

  @Test(arguments: [
    "", "nul", "null:", "null:x", "ring:1", "af_packet", "af_packet:", "vhost", "virtio:", "pcap:", "pcap:a.pcap", "pcap:a,",
    "pcap:,b",
    "pcap:a,b,c", "pci", "pci:", "dev:", "af_packet:veth0,qpairs=2", "vhost:/run/a.sock,client=0", "pci:0000:03:00.0,x=1",
    "AF_PACKET:x",
    " null", "null:x:y", "NULL",
  ])
  func `what is no port is refused with a hint`(text: String) throws {
    let error = try #require(throws: PortError.self) { try PortSpec(text) }
    #expect(error.message.hasPrefix("port '\(text)'"))
    #expect(error.hint.contains("af_packet:INTERFACE"))
  }

  @Test func `only ports that are on the PCI bus ask for it`() throws {
    #expect(try PortSpec("pci:0000:03:00.0").isPCI)
    #expect(try PortSpec("dev:0000:03:00.0,arg=1").isPCI)
    for text in ["null", "ring", "af_packet:eth0", "vhost:/a:b", "dev:net_tap0,iface=x", "pcap:a,b"] {
      #expect(try !PortSpec(text).isPCI, "\(text)")
    }
  }
}
