/// One client: cuts its bytes into requests, has them answered in order, and holds it back when it is too fast.
///
/// Requests are answered as they come, at most a few dozen per turn of the event loop. A fetch that waits
/// for records is the only one that takes time; when another request comes behind it, it is answered at
/// once with what there is, so that nothing stands behind a long poll. While the client does not read its
/// answers, its requests are not read either.
import Logging
import NIOCore

final class Connection: ChannelDuplexHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundIn = Never
  typealias OutboundOut = ByteBuffer

  private let server: Server
  private let name: String
  private var context: ChannelHandlerContext?
  private var received = ByteBuffer()
  private var waiting: (poll: LongPolls.ID, header: RequestHeader, timer: Scheduled<Void>)?
  private var readIsHeldBack = false
  private var turnIsScheduled = false
  private var isClosed = false
  private var lastProgress: NIODeadline

  init(server: Server, name: String, now: NIODeadline) {
    self.server = server
    self.name = name
    lastProgress = now
  }

  private var limits: BusConfiguration.Limits { server.broker.configuration.limits }

  func channelActive(context: ChannelHandlerContext) {
    self.context = context
    context.fireChannelActive()
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard !isClosed else { return }
    var bytes = unwrapInboundIn(data)
    if received.readableBytes == 0 { received = bytes } else { received.writeBuffer(&bytes) }
    serve()
  }

  func channelReadComplete(context: ChannelHandlerContext) { context.flush() }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    if context.channel.isWritable { serve() }
    context.flush()
  }

  func channelInactive(context: ChannelHandlerContext) {
    end()
    context.fireChannelInactive()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    close("\(error)")
  }

  /// The channel asks whether to read more.
  func read(context: ChannelHandlerContext) {
    readIsHeldBack = turnIsScheduled || !context.channel.isWritable
    if !readIsHeldBack { context.read() }
  }

  // MARK: Requests

  private func serve() {
    guard let context, !isClosed else { return }
    var served = 0
    while !isClosed, context.channel.isWritable, let frame = nextFrame() {
      if served == limits.requestsPerTurn {
        received.moveReaderIndex(to: received.readerIndex - frame.readableBytes - 4)
        scheduleTurn(context)
        break
      }
      served += 1
      lastProgress = context.eventLoop.now
      finishWaiting()
      answer(frame, context)
    }
    server.answerReadyPolls()
    if received.readableBytes == 0 {
      received = ByteBuffer()
    } else if received.readerIndex > 1 << 16 {
      received.discardReadBytes()
    }
    if readIsHeldBack, !turnIsScheduled, context.channel.isWritable, !isClosed {
      readIsHeldBack = false
      context.read()
    }
  }

  private func scheduleTurn(_ context: ChannelHandlerContext) {
    guard !turnIsScheduled else { return }
    turnIsScheduled = true
    let this = NIOLoopBound(self, eventLoop: context.eventLoop)
    context.eventLoop.execute {
      this.value.turnIsScheduled = false
      this.value.serve()
      if !this.value.isClosed { this.value.context?.flush() }
    }
  }

  /// A whole request, without its length; nil until there is one.
  private func nextFrame() -> ByteBuffer? {
    guard let length = received.getInteger(at: received.readerIndex, as: Int32.self) else { return nil }
    guard length >= 8, Int(length) <= limits.requestBytes else {
      close("sent a request of \(length) bytes; the limit is \(limits.requestBytes)")
      return nil
    }
    guard received.readableBytes >= 4 + Int(length) else { return nil }
    received.moveReaderIndex(forwardBy: 4)
    return received.readSlice(length: Int(length))
  }

  private func answer(_ frame: ByteBuffer, _ context: ChannelHandlerContext) {
    let header: RequestHeader
    let request: Request
    do throws(ProtocolError) {
      (header, request) = try Request.parse(frame)
    } catch {
      return close("sent a request that cannot be read (\(error))")
    }
    switch server.broker.answer(request, now: server.now(), room: server.room, endpoint: server.endpoint(context.channel)) {
    case .respond(let response): send(response, header)
    case .silence: break
    case .close(let reason): close(reason)
    case .wait(let poll, let milliseconds):
      let this = NIOLoopBound(self, eventLoop: context.eventLoop)
      let timer = context.eventLoop.scheduleTask(in: .milliseconds(Int64(milliseconds))) {
        this.value.finishWaiting()
        this.value.context?.flush()
      }
      waiting = (poll, header, timer)
      server.waiting[poll] = self
    }
  }

  /// Answers the fetch that waits, with what there is.
  func finishWaiting() {
    guard let (poll, header, timer) = waiting else { return }
    waiting = nil
    timer.cancel()
    server.waiting[poll] = nil
    if let response = server.broker.finish(poll, room: server.room) { send(response, header) }
  }

  func flush() { context?.flush() }

  private func send(_ response: Response, _ header: RequestHeader) {
    guard let context, !isClosed else { return }
    let frame = response.frame(answering: header, allocator: context.channel.allocator)
    let size = frame.readableBytes
    server.bytesInFlight += size
    let server = NIOLoopBound(self.server, eventLoop: context.eventLoop)
    let written = context.eventLoop.makePromise(of: Void.self)
    written.futureResult.whenComplete { _ in server.value.bytesInFlight -= size }
    context.write(wrapOutboundOut(frame), promise: written)
  }

  // MARK: End

  /// Called now and then by the server.
  func closeIfIdle(now: NIODeadline) {
    let idle = now - lastProgress
    if received.readableBytes > 0, idle > .seconds(Int64(limits.requestSeconds)) {
      close("neither finished its request nor read its answers for \(limits.requestSeconds) s")
    } else if idle > .seconds(Int64(limits.idleSeconds)) {
      close("idle for \(limits.idleSeconds) s")
    }
  }

  func close(_ reason: String) {
    guard !isClosed else { return }
    server.broker.configuration.logger.info("connection of \(name) closed: \(reason)")
    let context = context
    end()
    context?.flush()
    context?.close(promise: nil)
  }

  private func end() {
    guard !isClosed else { return }
    isClosed = true
    if let (poll, _, timer) = waiting {
      timer.cancel()
      server.waiting[poll] = nil
      _ = server.broker.polls.remove(poll)
    }
    waiting = nil
    received = ByteBuffer()
    server.connections[ObjectIdentifier(self)] = nil
    context = nil
  }
}
