import CIntrinsics
import ModuleGraphs
import NodeSupport
import Wire

/// One run of generator and sink over one or two ports, on one thread, one burst each in turn.
///
/// The rate is kept by a schedule: after `t` nanoseconds `rate * t` packets are due. Who falls behind catches up by
/// at most 512 packets and skips the rest, so that a pause of this process does not become a burst that
/// the way under test cannot be blamed for. What a port does not take is offered again and keeps its number.
final class TrafficExchange {
  private let plan: TrafficPlan
  private var generator: TrafficGenerator
  private var sink: TrafficSink
  private let source: PacketPort
  private let target: PacketPort
  private let looks: Bool
  private let settings: TrafficNode.Settings
  private let run: UInt16
  private let clock = CycleClock()
  private let outgoing = PacketBatch()
  private let incoming = PacketBatch()
  private let answers = PacketBatch()
  private var pause: IdlePause
  private var offers = OfferPacing()

  private var sent: UInt64 = 0
  private var sentBytes: UInt64 = 0
  private var skipped: UInt64 = 0
  private var answered: UInt64 = 0
  private var untaken: UInt64 = 0
  private var sendingTime: UInt64 = 0
  private var samplesBegin: UInt64 = 0
  private var samplesTaken: UInt64 = 0
  private let watch: TrafficWatch?
  /// Marks that have been attended to.
  private var marks = 0

  private static let longestBacklog: UInt64 = 512
  /// How long a watch waits for what was written before its end, in nanoseconds.
  private static let watchPatience: UInt64 = 500_000_000

  init(_ plan: TrafficPlan, from source: PacketPort, to target: PacketPort, looks: Bool, _ settings: TrafficNode.Settings) {
    self.plan = plan
    self.source = source
    self.target = target
    self.looks = looks
    self.settings = settings
    run = UInt16.random(in: .min ... .max)
    generator = TrafficGenerator(
      plan: plan, run: run, source: source.address, destination: plan.destinationMAC ?? target.address,
      waitsForAnswers: looks && target !== source)
    watch = settings.takeOutage.map { _ in TrafficWatch(flows: plan.flows) }
    sink = TrafficSink(plan: plan, run: run, watch: watch)
    pause = IdlePause(isAdaptive: settings.isAdaptive)
  }

  /// Asks every 10 ms whether frames arrive; `false` when none did in `patience` nanoseconds.
  func greet(for patience: UInt64) -> Bool {
    let begin = clock.tick(nfv_cycles()).nanoseconds
    var next = begin
    while !Shutdown.isRequested {
      let now = clock.tick(nfv_cycles())
      if sink.hasBeenGreeted { return true }
      if now.nanoseconds - begin > patience { return false }
      if now.nanoseconds >= next {
        next = now.nanoseconds + 10_000_000
        generator.greet(outgoing, from: source, now: now)
        let refused = source.transmit(outgoing, mask: outgoing.all)
        if refused != 0 { source.release(outgoing, mask: refused) }
        outgoing.removeAll()
      }
      pause.after(work: receive(now), longest: 100_000)
    }
    return false
  }

  /// Sends until the plan is fulfilled or shutdown is requested.
  func send() {
    let begin = clock.tick(nfv_cycles()).nanoseconds
    var scheduleBegin = begin
    var scheduled: UInt64 = 0
    var written: UInt64 = 0
    samplesBegin = begin
    while !Shutdown.isRequested {
      let now = clock.tick(nfv_cycles())
      let elapsed = now.nanoseconds - begin
      takeSample(now)
      attendToMarks(now)
      guard elapsed < plan.duration, sent < plan.count else { break }
      if outgoing.isEmpty {
        var due = UInt64(32)
        if let ramp = plan.ramp {
          due = ramp.packets(until: elapsed) &- scheduled &- skipped
          if due > Self.longestBacklog {
            skipped += due
            due = 0
          }
        } else if plan.rate > 0 {
          let (high, low) = (now.nanoseconds - scheduleBegin).multipliedFullWidth(by: plan.rate)
          due = UInt64(1_000_000_000).dividingFullWidth((high, low)).quotient &- scheduled
          if due > Self.longestBacklog {
            skipped += due
            scheduleBegin = now.nanoseconds
            scheduled = 0
            due = 0
          }
        }
        let count = Int(min(due, 32, plan.count - written))
        if count > 0 {
          let place = generator.nextPlace
          generator.fill(outgoing, from: source, count: count, now: now)
          watch?.noteSent(outgoing.count, from: place, at: now.nanoseconds)
          scheduled += UInt64(outgoing.count)
          written += UInt64(outgoing.count)
        }
      }
      let work = transmit(now) + receive(now)
      sendingTime = elapsed
      pause.after(work: work, longest: 20_000)
    }
    sendingTime = clock.tick(nfv_cycles()).nanoseconds - begin
    untaken = UInt64(outgoing.count)
    if !outgoing.isEmpty { source.release(outgoing, mask: outgoing.all) }
    outgoing.removeAll()
  }

  /// Receives until everything has come back, or nothing has come for `patience` nanoseconds.
  func drain(for patience: UInt64) {
    guard looks else { return }
    var last = clock.tick(nfv_cycles()).nanoseconds
    while sink.counts.received < sent {
      let now = clock.tick(nfv_cycles())
      takeSample(now)
      attendToMarks(now)
      let before = sink.counts.received
      let work = receive(now)
      if sink.counts.received != before { last = now.nanoseconds }
      if now.nanoseconds - last > patience { return }
      pause.after(work: work, longest: 100_000)
    }
  }

  private func takeSample(_ now: Tick) {
    guard let interval = settings.sampleInterval, now.nanoseconds &- samplesBegin >= interval &* (samplesTaken + 1) else { return }
    samplesTaken = (now.nanoseconds &- samplesBegin) / interval
    settings.takeSample(
      TrafficSample(
        seconds: Double(now.nanoseconds &- samplesBegin) / 1e9, offered: sent + skipped, sent: sent, received: sink.counts.received))
  }

  /// Begins a watch or ends it, as it was told; says what it has seen when nothing more is to be expected.
  private func attendToMarks(_ now: Tick) {
    guard let watch else { return }
    if let end = watch.endedAt {
      guard watch.isComplete || now.nanoseconds - end > Self.watchPatience else { return }
      let clock = CycleClock.monotonicNanoseconds() &- clock.tick(nfv_cycles()).nanoseconds
      settings.takeOutage?(watch.report(clock: clock))
      return watch.stop()
    }
    guard TrafficMark.current != marks else { return }
    marks += 1
    if watch.isRunning { watch.end(at: now.nanoseconds) } else { watch.begin(at: now.nanoseconds) }
  }

  private func transmit(_ now: Tick) -> Int {
    guard !outgoing.isEmpty, offers.mayOffer(at: now) else { return 0 }
    let refused = source.transmit(outgoing, mask: outgoing.all)
    var count = 0
    PacketBatch.forEach(in: outgoing.all & ~refused) { index in
      // The frame belongs to the device now; its length is in the batch.
      sentBytes &+= UInt64(outgoing[index].length) + 4
      count += 1
    }
    outgoing.keep(refused)
    offers.note(refused: refused, at: now)
    sent &+= UInt64(count)
    return count
  }

  private func receive(_ now: Tick) -> Int {
    guard looks else { return 0 }
    let count = receive(from: target, isSink: true, now)
    return target === source ? count : count + receive(from: source, isSink: false, now)
  }

  /// One burst from a port. On the port that only sends, answers are what matters.
  private func receive(from port: PacketPort, isSink: Bool, _ now: Tick) -> Int {
    port.receive(into: incoming, now: now)
    guard !incoming.isEmpty else { return 0 }
    let arrived = clock.tick(nfv_cycles())
    var toAnswer: UInt64 = 0
    if isSink {
      let flowsBegun = generator.flowsBegun
      let syns = sink.look(at: incoming, flowsBegun: flowsBegun, now: arrived)
      if target !== source { toAnswer = syns }
    } else {
      noteAnswers()
    }
    let count = incoming.count
    if toAnswer != 0 { toAnswer = answer(toAnswer, from: port) }
    let rest = incoming.all & ~toAnswer
    if rest != 0 { port.release(incoming, mask: rest) }
    incoming.removeAll()
    return count
  }

  /// SYN-ACKs that have come back to where the SYNs were sent from.
  private func noteAnswers() {
    PacketBatch.forEach(in: incoming.live) { index in
      guard incoming[index].parse(checksums: .verify) == nil, incoming[index].family == .ipv4 else { return }
      guard incoming[index].protocolNumber == IPProtocol.tcp, incoming[index].tcpFlags.isSuperset(of: [.syn, .ack]) else {
        return
      }
      generator.opened(acknowledgement: incoming[index].tcpAcknowledgement)
    }
  }

  /// Turns SYNs into SYN-ACKs and sends them back; returns those that the port took.
  private func answer(_ mask: UInt64, from port: PacketPort) -> UInt64 {
    PacketBatch.forEach(in: mask) { index in
      incoming[index].withBytes { frame in unsafe SYNAnswer.write(UnsafeMutableRawBufferPointer(mutating: frame)) }
    }
    let taken = mask & ~port.transmit(incoming, mask: mask)
    answered &+= UInt64(taken.nonzeroBitCount)
    return taken
  }

  func report() -> TrafficReport {
    let counts = sink.counts
    var packets = TrafficReport.Packets()
    packets.sent = sent
    packets.received = counts.received
    packets.lost = looks ? sent - min(sent, counts.received) : 0
    packets.duplicated = counts.duplicates
    packets.reordered = counts.reordered
    packets.damaged = counts.damaged
    packets.foreign = counts.foreign
    packets.untaken = untaken
    packets.skipped = skipped
    packets.missed = target === source ? source.missed : source.missed + target.missed
    packets.answers = answered
    let receiving = sink.firstArrival.map { sink.lastArrival - $0 } ?? 0
    var latency: TrafficReport.Latency?
    if sink.latency.totalCount > 0 {
      func microseconds(_ percentile: Double) -> Double { Double(sink.latency.valueAtPercentile(percentile)) / 1e3 }
      latency = TrafficReport.Latency(
        p50: microseconds(50), p90: microseconds(90), p99: microseconds(99), p999: microseconds(99.9),
        max: Double(sink.latency.max) / 1e3)
    }
    return TrafficReport(
      port: source.name, sink: looks ? target.name : nil, seconds: Double(sendingTime) / 1e9, flows: generator.flowsBegun,
      packets: packets, sent: .init(packets: sent, bytes: sentBytes, nanoseconds: sendingTime),
      received: .init(packets: counts.received, bytes: counts.bytes, nanoseconds: receiving), latency: latency)
  }
}
