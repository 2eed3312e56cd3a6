import Testing

@testable import Lab

/// The clients' reports, added up.
@Suite struct TrafficCountTests {
  @Test func `reports of kept connections are totals, and the last one brings errors and latencies`() {
    var count = TrafficCount()
    count.readKept("Running 1440m test @ http://10.1.0.100/small.html")
    count.readKept("requests=100 failed=0 bytes=90000")
    count.readKept("requests=250 failed=1 bytes=225000")
    #expect(count.requests == 250)
    #expect(count.failed == 1)
    #expect(count.bytes == 225_000)
    count.readKept("final=1 requests=300 errors=3 connect=1 read=1 write=0 status=1 timeout=0 p50us=700 p99us=5000 maxus=9000")
    // The answer with a wrong status was counted by the script already.
    #expect(count.kept.failed == 3)
    #expect(count.kept.requests == 300 && count.kept.isFinal && count.kept.p99 == 5_000)
    #expect(count.complaints.count == 1)
  }

  @Test func `each line of a loop is a request with its server`() {
    var count = TrafficCount()
    count.readFresh("requests=1 status=200 bytes=1048576 seconds=0.01 server=server-1", client: "curl-1")
    count.readFresh("requests=1 status=200 bytes=1048576 seconds=0.01 server=server-2", client: "curl-1")
    count.readFresh(
      "requests=1 failed=1 code=28 sum=e3b0 status=000 bytes=0 seconds=30 server= curl:_timed_out", client: "curl-1")
    #expect(count.fresh.requests == 3)
    #expect(count.fresh.failed == 1)
    #expect(count.fresh.bytes == 2 << 20)
    #expect(count.fresh.byServer == ["server-1": 1, "server-2": 1])
    #expect(
      count.complaints == ["curl-1: requests=1 failed=1 code=28 sum=e3b0 status=000 bytes=0 seconds=30 server= curl:_timed_out"])
  }

  @Test func `nonsense is no request, and complaints are bounded`() {
    var count = TrafficCount()
    for number in 0..<1_000 {
      count.readKept("requests=many \(number)")
      count.readFresh("sh: 1: something went wrong \(number)", client: "curl-2")
    }
    #expect(count.requests == 0)
    #expect(count.complaints.count == 20)
  }
}
