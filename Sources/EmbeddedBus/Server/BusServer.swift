/// A durable single-node broker for Kafka's protocol, inside this process.
///
/// It is the bus of one machine: unmodified Kafka clients speak to it, records survive the death of the
/// process. It does not replicate, has no consumer groups, no transactions and no access control; more
/// than one machine is Kafka's job.
///
/// One thread serves everything, so nothing in the broker is locked; a second one flushes files.
import Logging
import NIOCore
import NIOPosix

#if canImport(Glibc)
  import Glibc
#else
  import Musl
#endif

public final class BusServer: Sendable {
  public let host: String
  public let port: Int
  private let group: MultiThreadedEventLoopGroup
  private let flusher: NIOThreadPool
  private let listener: any Channel
  private let server: NIOLoopBound<Server>

  /// Opens the data directory, which reads through the logs' headers, and listens.
  public static func start(_ configuration: BusConfiguration) throws(BusError) -> BusServer {
    let limits = configuration.limits
    guard limits.batchBytes + 4096 <= limits.requestBytes, limits.batchBytes <= BatchHeader.largestBatch, limits.requestsPerTurn > 0
    else { throw .invalidConfiguration("a batch has to fit into a request, and into \(BatchHeader.largestBatch) bytes") }
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let loop = group.next()
    let started = Result { () throws(BusError) in
      try onLoop(loop) { () throws(BusError) in NIOLoopBound(Server(try Broker(configuration)), eventLoop: loop) }
    }
    do throws(BusError) {
      return try BusServer(configuration, group, try started.get())
    } catch {
      if case .success(let server) = started { try? loop.submit { server.value.broker.close() }.wait() }
      try? group.syncShutdownGracefully()
      throw error
    }
  }

  private init(
    _ configuration: BusConfiguration, _ group: MultiThreadedEventLoopGroup, _ server: NIOLoopBound<Server>
  ) throws(BusError) {
    let bootstrap = ServerBootstrap(group: group)
      .serverChannelOption(.backlog, value: 128)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
      .childChannelOption(.writeBufferWaterMark, value: .init(low: 64 << 10, high: 1 << 20))
      .childChannelOption(.recvAllocator, value: AdaptiveRecvByteBufferAllocator(minimum: 1024, initial: 16384, maximum: 1 << 20))
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          let name = channel.remoteAddress.map { "\($0)" } ?? "a client"
          guard let connection = server.value.admit(name, now: channel.eventLoop.now) else { throw ChannelError.ioOnClosedChannel }
          try channel.pipeline.syncOperations.addHandler(connection)
        }
      }
    do {
      listener = try bootstrap.bind(host: configuration.host, port: configuration.port).wait()
    } catch let error as IOError where error.errnoCode == EADDRINUSE {
      throw .addressInUse(host: configuration.host, port: configuration.port)
    } catch {
      throw .cannotListen(host: configuration.host, port: configuration.port, reason: "\(error)")
    }
    self.group = group
    self.server = server
    host = configuration.host
    port = listener.localAddress?.port ?? configuration.port
    flusher = NIOThreadPool(numberOfThreads: 1)
    flusher.start()
    scheduleUpkeep(configuration)
  }

  /// Closes every connection, flushes the logs and gives the data directory free. Once; not on the bus's own threads.
  public func stop() {
    try? listener.close().wait()
    let server = server
    let loop = listener.eventLoop
    try? loop.submit {
      server.value.isStopping = true  // the last flush is ours, below
      for connection in Array(server.value.connections.values) { connection.close("the bus stops") }
    }.wait()
    try? flusher.syncShutdownGracefully()
    try? loop.submit {
      for log in server.value.broker.allLogs {
        do { try log.synchronize() } catch { server.value.broker.configuration.logger.error("\(error)") }
      }
      server.value.broker.close()
    }.wait()
    try? group.syncShutdownGracefully()
  }

  // MARK: Upkeep

  private func scheduleUpkeep(_ configuration: BusConfiguration) {
    let server = server
    let loop = listener.eventLoop
    let retention = TimeAmount.seconds(Int64(configuration.retentionCheckSeconds))
    loop.scheduleRepeatedTask(initialDelay: .seconds(1), delay: retention) { _ in
      server.value.broker.enforceRetention(now: server.value.now())
    }
    loop.scheduleRepeatedTask(initialDelay: .seconds(1), delay: .seconds(1)) { _ in
      server.value.closeIdle(now: loop.now)
    }
    guard case .interval(let milliseconds) = configuration.fsync else { return }
    let flusher = flusher
    let delay = TimeAmount.milliseconds(Int64(max(1, milliseconds)))
    loop.scheduleRepeatedAsyncTask(initialDelay: delay, delay: delay) { _ in
      Self.flush(server, on: flusher, loop)
    }
  }

  /// Flushes what was written since the last time, on the other thread. A log whose flush failed takes no more records.
  private static func flush(
    _ server: NIOLoopBound<Server>, on flusher: NIOThreadPool, _ loop: any EventLoop
  ) -> EventLoopFuture<Void> {
    guard !server.value.isStopping else { return loop.makeSucceededVoidFuture() }
    let work = server.value.broker.allLogs.flatMap { log in log.takeUnsynchronized().map { (log.directory, $0) } }
    guard !work.isEmpty else { return loop.makeSucceededVoidFuture() }
    return flusher.runIfActive(eventLoop: loop) {
      var failed: [String] = []
      for (directory, descriptor) in work {
        if fdatasync(descriptor) != 0 { failed.append(directory) }
        close(descriptor)
      }
      return failed
    }.map { failed in
      for log in server.value.broker.allLogs where failed.contains(log.directory) {
        log.markBroken()
        server.value.broker.configuration.logger.error("\(log.directory) could not be flushed to the disk: it takes no more records")
      }
    }
  }

  private static func onLoop<Value: Sendable>(
    _ loop: any EventLoop, _ body: @escaping @Sendable () throws(BusError) -> Value
  ) throws(BusError) -> Value {
    do {
      return try loop.submit { try body() }.wait()
    } catch let error as BusError {
      throw error
    } catch {
      throw .storage("\(error)")
    }
  }
}
