import ControlMessages
import NetworkFunctionTesting
import NetworkFunctions
import Testing
import Wire

@testable import FunctionCatalog

/// What rules do to packets, told as conversations.
@Suite struct IntrusionPreventionTests {
  private let client: Endpoint = "10.0.0.5:4000"
  private let server: Endpoint = "192.0.2.1:80"

  private func runtime(_ rules: String, _ options: IntrusionPrevention.Options = .init()) -> TestRuntime {
    TestRuntime(IntrusionPrevention(rules: rules, options: options))
  }

  private func alerts(_ runtime: TestRuntime, _ sid: Int) -> UInt64 { runtime.observed("ips.alerts.1:\(sid)") ?? 0 }

  private func udp(_ text: String, from: Endpoint = "10.0.0.5:4000") -> TestPacket {
    .udp(from, server, payload: Array(text.utf8))
  }

  // MARK: Contents

  @Test(arguments: [
    (#"content:"abc";"#, "xxabcxx", true), (#"content:"abc";"#, "xxABCxx", false), (#"content:"abc"; nocase;"#, "xxaBCxx", true),
    (#"content:"abc"; offset:2;"#, "xxabc", true), (#"content:"abc"; offset:3;"#, "xxabc", false),
    (#"content:"abc"; depth:4;"#, "xabc", true), (#"content:"abc"; depth:4;"#, "xxabc", false),
    (#"content:"abc"; offset:1; depth:3;"#, "xabc", true), (#"content:"abc"; offset:1; depth:3;"#, "xxabc", false),
    (#"content:"ab"; content:"cd"; distance:1;"#, "abxcd", true), (#"content:"ab"; content:"cd"; distance:1;"#, "abcd", false),
    (#"content:"ab"; content:"cd"; within:3;"#, "abxcd", true), (#"content:"ab"; content:"cd"; within:3;"#, "abxxcd", false),
    (#"content:"ab"; content:"cd"; distance:1; within:2;"#, "abxcd", true),
    (#"content:"ab"; content:"cd"; distance:1; within:2;"#, "abxxcd", false),
    // The first place of `ab` leads nowhere, the second does.
    (#"content:"ab"; content:"cd"; within:2;"#, "abxabcd", true),
    (#"content:"cd"; content:"ab"; distance:-4; within:2;"#, "abcd", true),
    (#"content:"ab"; content:!"cd";"#, "abx", true), (#"content:"ab"; content:!"cd";"#, "abcd", false),
    (#"content:"ab"; content:!"cd"; within:2;"#, "abxxcd", true), (#"content:!"ab";"#, "xx", true),
    (#"content:!"ab";"#, "xabx", false),
    (#"content:"ab"; startswith;"#, "abc", true), (#"content:"ab"; startswith;"#, "xab", false),
    (#"content:"ab"; endswith;"#, "abxab", true), (#"content:"ab"; endswith;"#, "abx", false),
    (#"content:"ab"; isdataat:2,relative;"#, "abxx", true), (#"content:"ab"; isdataat:2,relative;"#, "abx", false),
    (#"content:"ab"; isdataat:!1,relative;"#, "xab", true), (#"content:"ab"; isdataat:!1,relative;"#, "xabx", false),
    (#"content:"ab"; isdataat:5;"#, "abxxxx", true), (#"content:"ab"; isdataat:5;"#, "abxxx", false),
    (#"content:"a"; content:"b"; content:"c";"#, "cba", true), (#"content:"|61 62|c";"#, "abc", true),
    (#"content:"abcdef"; fast_pattern; content:"x"; distance:0;"#, "abcdefx", true), (#"dsize:3;"#, "abc", true),
    (#"dsize:3;"#, "abcd", false),
  ])
  func `a rule matches where its contents are as it says`(options: String, text: String, matches: Bool) {
    let runtime = runtime("alert udp any any -> any any (\(options) sid:7;)")
    #expect(runtime.send(udp(text)).packet != nil)
    #expect(alerts(runtime, 7) == (matches ? 1 : 0), "\(options) on \(text)")
  }

  @Test func `a packet alerts once for a rule, however often its content occurs`() {
    let runtime = runtime(#"alert udp any any -> any any (content:"ab"; sid:7;)"#)
    runtime.send(udp("abababab"))
    #expect(alerts(runtime, 7) == 1)
  }

  @Test func `a search that a hostile packet makes endless is given up and counted`() {
    let runtime = runtime(
      #"alert udp any any -> any any (content:"a"; content:"a"; distance:0; content:"a"; distance:0; content:"b"; distance:0; sid:7;)"#
    )
    runtime.send(udp("b" + String(repeating: "a", count: 1400)))
    #expect(alerts(runtime, 7) == 0)
    #expect(runtime.observed("ips.searches.given-up") == 1)
  }

  // MARK: Headers

  @Test func `addresses, ports, direction and protocol have to suit`() {
    let runtime = runtime(
      """
      alert udp $HOME_NET any -> $EXTERNAL_NET 53 (content:"x"; sid:1;)
      alert udp any any -> any !53 (content:"x"; sid:2;)
      alert udp any any <> 10.0.0.5 any (content:"x"; sid:3;)
      alert tcp any any -> any any (content:"x"; sid:4;)
      alert ip any any -> any any (content:"x"; flow:to_client; sid:5;)
      """)
    let packet = TestPacket.udp("10.0.0.5:4000", "192.0.2.1:53", payload: Array("x".utf8))
    runtime.send(packet)
    #expect((1...5).map { alerts(runtime, $0) } == [1, 0, 1, 0, 0])
    runtime.send(packet.answered(payload: Array("x".utf8)))
    #expect((1...5).map { alerts(runtime, $0) } == [1, 1, 2, 0, 1])
  }

  @Test func `fields of the headers are compared`() {
    let runtime = runtime(
      """
      alert icmp any any -> any any (itype:8; icode:0; icmp_id:77; icmp_seq:1; sid:1;)
      alert icmp any any -> any any (itype:>8; sid:2;)
      alert ip any any -> any any (ttl:64; ip_proto:1; fragbits:D; id:1; sid:3;)
      alert ip any any -> any any (sameip; sid:4;)
      alert icmpv6 any any -> any any (itype:128; sid:5;)
      alert tcp any any -> any any (flags:S; seq:5; ack:0; window:65535; sid:6;)
      """)
    runtime.send(.icmpEchoRequest("10.0.0.1", "10.0.0.2", id: 77))
    runtime.send(.icmpEchoRequest("[2001:db8::1]:0", "[2001:db8::1]:0", id: 77))
    runtime.send(.tcp(client, server, .syn, seq: 5))
    #expect((1...6).map { alerts(runtime, $0) } == [1, 1, 1, 1, 1, 1])
  }

  @Test func `IPv6 flows are inspected as IPv4 ones are`() {
    let runtime = runtime(#"drop udp 2001:db8::/32 any -> any 53 (content:"bad"; sid:1;)"#)
    #expect(
      runtime.send(.udp("[2001:db8::1]:9", "[2001:db9::2]:53", payload: Array("very bad".utf8))) == .dropped("dropped-by-rule"))
  }

  // MARK: Actions

  @Test func `drop ends a connection, and the packet that was meant is not seen again`() {
    let runtime = runtime(#"drop tcp any any -> any 80 (content:"evil"; sid:1;)"#)
    var talk = Dialogue(client, server)
    talk.open(runtime)
    #expect(runtime.send(talk.says("good")).packet != nil)
    #expect(runtime.send(talk.says("evil")) == .dropped("dropped-by-rule"))
    #expect(runtime.send(talk.says("good")) == .dropped("flow-dropped-by-rule"))
    #expect(runtime.send(talk.answers("ok")) == .dropped("flow-dropped-by-rule"))
    #expect(alerts(runtime, 1) == 1)
  }

  @Test func `reject is a drop`() {
    let runtime = runtime(#"reject udp any any -> any any (content:"evil"; sid:1;)"#)
    #expect(runtime.send(udp("evil")) == .dropped("dropped-by-rule"))
  }

  @Test func `a dropped datagram does not condemn the next`() {
    let runtime = runtime(#"drop udp any any -> any any (content:"evil"; sid:1;)"#)
    #expect(runtime.send(udp("good")).packet != nil)
    #expect(runtime.send(udp("evil")) == .dropped("dropped-by-rule"))
    #expect(runtime.send(udp("good")).packet != nil)
  }

  @Test func `pass holds for the rest of a connection, whatever other rules say`() {
    let runtime = runtime(
      """
      pass tcp $HOME_NET any -> $EXTERNAL_NET 80 (sid:1;)
      drop ip any any -> any any (flow:stateless; sid:2;)
      """)
    var talk = Dialogue(client, server)
    talk.open(runtime)
    #expect(runtime.send(talk.says("anything")).packet != nil)
    #expect(runtime.send(talk.answers("anything")).packet != nil)
    #expect(runtime.observed("ips.alerts") == 0)
    #expect(runtime.send(.tcp("10.0.0.5:4000", "192.0.2.1:443", .syn)) == .dropped("dropped-by-rule"))
    #expect(alerts(runtime, 2) == 1)
  }

  @Test func `detecting, drop only alerts`() {
    var options = IntrusionPrevention.Options()
    options.prevents = false
    let runtime = runtime(#"drop udp any any -> any any (content:"evil"; sid:1;)"#, options)
    #expect(runtime.send(udp("evil")).packet != nil)
    #expect(alerts(runtime, 1) == 1)
  }

  // MARK: Flowbits and thresholds

  @Test func `a flowbit set by one packet is seen by the next of the flow, and by no other flow`() {
    let runtime = runtime(
      """
      alert udp any any -> any any (content:"USER"; flowbits:set,user; flowbits:noalert; sid:1;)
      alert udp any any -> any any (content:"PASS"; flowbits:isset,user; flowbits:unset,user; sid:2;)
      alert udp any any -> any any (content:"PASS"; flowbits:isnotset,user; sid:3;)
      alert udp any any -> any any (content:"EITHER"; flowbits:isset,user|other; sid:4;)
      """)
    for text in ["PASS", "USER", "EITHER", "PASS", "PASS"] { runtime.send(udp(text)) }
    runtime.send(udp("PASS", from: "10.0.0.6:1"))
    #expect(
      (1...4).map { alerts(runtime, $0) } == [0, 1, 4, 1], "the PASS that unsets it, the ones without it, and the other flow's")
  }

  @Test func `a flowbit is set before it is asked for within one packet`() {
    let runtime = runtime(
      """
      alert udp any any -> any any (content:"b"; flowbits:isset,seen; sid:1;)
      alert udp any any -> any any (content:"a"; flowbits:set,seen; sid:2;)
      """)
    runtime.send(udp("ba"))
    #expect((1...2).map { alerts(runtime, $0) } == [1, 1])
  }

  @Test(
    arguments: [
      ("threshold: type limit, track by_src, count 2, seconds 10", [1, 2, 2, 2, 2, 3]),
      ("threshold: type threshold, track by_src, count 2, seconds 10", [0, 1, 1, 2, 2, 2]),
      ("threshold: type both, track by_src, count 2, seconds 10", [0, 1, 1, 1, 1, 1]),
      ("detection_filter: track by_src, count 2, seconds 10", [0, 0, 1, 2, 3, 3]),
    ] as [(String, [UInt64])])
  func `a threshold says which matches alert`(threshold: String, expected: [UInt64]) {
    let runtime = runtime("alert udp any any -> any any (content:\"x\"; \(threshold); sid:1;)")
    var seen: [UInt64] = []
    for second in [0, 1, 2, 3, 4, 11] as [UInt64] {
      runtime.now = Tick(milliseconds: second * 1000)
      runtime.send(udp("x", from: Endpoint("10.0.0.5:\(4000 + second)")!))
      seen.append(alerts(runtime, 1))
    }
    #expect(seen == expected)
    runtime.send(udp("x", from: "10.0.0.99:1"))
    #expect(alerts(runtime, 1) == expected[5] + expected[0], "another source has a count of its own")
  }

  @Test func `a full table of thresholds gives up the oldest and counts it`() {
    var options = IntrusionPrevention.Options()
    options.thresholdCapacity = 4
    let runtime = runtime(
      "alert udp any any -> any any (content:\"x\"; threshold: type limit, track by_src, count 1, seconds 60; sid:1;)", options)
    for host in 1...6 { runtime.send(udp("x", from: Endpoint("10.0.0.\(host):9")!)) }
    #expect(runtime.observed("ips.thresholds.displaced") == 2)
    #expect(alerts(runtime, 1) == 6)
  }

  // MARK: Alerts

  @Test func `an alert tells rule, packet, time and outcome`() throws {
    let ips = IntrusionPrevention(rules: #"drop udp any any -> any any (content:"evil"; sid:9; gid:3; rev:4; priority:2;)"#)
    var shared = ips.makeSharedState(for: .whole)
    var flow = ips.makeFlowState()
    var packet = udp("so evil")
    let verdict = packet.withFrame(arrival: Tick(milliseconds: 12)) { frame in
      #expect(frame.parse(checksums: .verify) == nil)
      return ips.process(&frame, flow: &flow, shared: &shared)
    }
    #expect(verdict == .drop(IntrusionPrevention.droppedByRule))
    let alert = try #require(ips.takeAlerts(from: &shared).first)
    #expect((alert.gid, alert.sid, alert.revision, alert.priority) == (3, 9, 4, 2))
    #expect(alert.outcome == .dropped && alert.direction == .forward && alert.arrival == Tick(milliseconds: 12))
    #expect(
      Endpoint(alert.source, port: alert.sourcePort) == client
        && Endpoint(alert.destination, port: alert.destinationPort) == server)
    #expect(ips.takeAlerts(from: &shared).isEmpty)
  }

  @Test func `more alerts than there is room for are counted`() {
    let ips = IntrusionPrevention(
      rules: #"alert udp any any -> any any (dsize:>0; sid:9;)"#,
      options: {
        var o = IntrusionPrevention.Options(); o.alertCapacity = 4; return o
      }())
    var shared = ips.makeSharedState(for: .whole)
    for round in 0..<2 {
      for index in 0..<6 {
        var packet = udp("\(round)\(index)")
        var flow = ips.makeFlowState()
        packet.withFrame(arrival: Tick(milliseconds: UInt64(index))) { frame in
          _ = frame.parse(checksums: .verify)
          _ = ips.process(&frame, flow: &flow, shared: &shared)
        }
      }
      #expect(ips.takeAlerts(from: &shared).map(\.arrival.milliseconds) == [0, 1, 2, 3])
    }
    #expect(ips.observe(shared).first { $0.name == "ips.alerts.lost" }?.value == 4)
  }

  // MARK: Settings

  @Test func `settings make the function`() throws {
    let ips = try IntrusionPrevention(
      reader: SettingsReader(
        text: """
          mode: detect
          out-of-order: drop
          refused: skip
          alerts: 16
          variables: {HOME_NET: 10.9.0.0/16}
          rules:
            - alert udp $HOME_NET any -> any any (sid:1;)
            - alert udp any any -> any any (frobnicate; sid:2;)
          """))
    #expect(ips.report.loaded == 1 && ips.report.refused.map(\.line) == [8])
    #expect(!ips.options.prevents && ips.options.dropsOutOfOrder && ips.options.alertCapacity == 16)
  }

  @Test func `by default a rule that is not understood stops the configuration at its line`() {
    let rules = Settings(
      .scalar("alert udp any any -> any any (sid:1;)\nalert udp any any -> any any (pcre:\"/x/\"; sid:2;)\n"), line: 4)
    let error = #expect(throws: SettingsError.self) {
      try IntrusionPrevention(reader: SettingsReader(Settings(.map([.init("rules", rules)])), path: "chain[0].ips"))
    }
    #expect(
      error?.line == 6 && error?.path == "chain[0].ips.rules" && error?.message.hasPrefix("pcre needs") == true, "\(error!)")
  }

  @Test func `the state of a flow is fifty-six bytes`() {
    #expect(MemoryLayout<IntrusionPrevention.FlowState>.size <= 56)
  }
}
