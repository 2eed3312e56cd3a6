import Testing
import Wire

@Suite struct WireAddressTests {
  @Test(arguments: [
    ("::", "::"), ("::1", "::1"), ("2001:db8::1", "2001:db8::1"), ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
    ("1:0:0:2:0:0:0:3", "1:0:0:2::3"), ("1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"), ("fe80::", "fe80::"),
    ("::ffff:10.0.0.1", "10.0.0.1"), ("::10.0.0.1", "::a00:1"), ("64:ff9b::192.0.2.1", "64:ff9b::c000:201"),
    ("10.0.0.1", "10.0.0.1"), ("255.255.255.255", "255.255.255.255"),
  ])
  func `addresses are read in every form and written in the one of RFC 5952`(text: String, written: String) {
    #expect(IPAddress(text)?.description == written)
  }

  @Test(arguments: [
    "", ":", ":::", "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7::8", "12345::", "g::", "::1.2.3",
    "::1.2.3.4:5", "1:",
    ":1", "+1::", "1.2.3", "1.2.3.4.5", "256.0.0.1", "1.2.3.+4", "1..2.3", " 1.2.3.4", "1.2.3.4 ", "01.2.3.0004", "-1.2.3.4",
    "١.2.3.4",
  ])
  func `what is no address is refused`(text: String) {
    #expect(IPAddress(text) == nil)
  }

  @Test func `every address is read back as it is written`() {
    var random = SeededNumbers(seed: 1)
    for _ in 0..<5000 {
      // Many zero groups, so that the shortened forms are met.
      let mask = random.next() & random.next()
      let address = IPAddress(high: random.next() & mask, low: random.next() & (mask << 8) & random.next())
      #expect(IPAddress(address.description) == address)
    }
  }

  @Test func `blocks contain what begins with their prefix`() {
    #expect(AddressBlock("10.0.0.0/8")!.contains(IPAddress("10.255.0.1")!))
    #expect(!AddressBlock("10.0.0.0/8")!.contains(IPAddress("11.0.0.0")!))
    #expect(AddressBlock("0.0.0.0/0")!.contains(IPAddress("192.0.2.1")!))
    #expect(!AddressBlock("0.0.0.0/0")!.contains(IPAddress("2001:db8::1")!))
    #expect(AddressBlock("2001:db8::/32")!.contains(IPAddress("2001:db8:ffff::1")!))
    #expect(AddressBlock("2001:db8:0:0:8000::/65")!.contains(IPAddress("2001:db8::8000:0:0:1")!))
    #expect(!AddressBlock("2001:db8:0:0:8000::/65")!.contains(IPAddress("2001:db8::1")!))
    #expect(AddressBlock("10.0.0.1")!.description == "10.0.0.1/32" && AddressBlock("::1")!.description == "::1/128")
    for text in [
      "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8/8", "/8", "2001:db8::/129", "2001:db8::1/64",
    ] {
      #expect(AddressBlock(text) == nil, "\(text)")
    }
  }

  @Test func `MAC addresses are six pairs of hexadecimal digits`() {
    #expect(MACAddress("02:00:00:ab:CD:ef")?.description == "02:00:00:ab:cd:ef")
    #expect(MACAddress("ff:ff:ff:ff:ff:ff") == .broadcast && MACAddress.broadcast.isGroup)
    for text in [
      "", "02:00:00:00:00", "02:00:00:00:00:0", "02:00:00:00:00:000", "02:00:00:00:00:0g", "02-00-00-00-00-01",
      "+2:00:00:00:00:01",
    ] {
      #expect(MACAddress(text) == nil, "\(text)")
    }
  }
}
