import ArgumentParser
import Glibc
import Lab
import NodeSupport

/// `nfvactor soak`: a platform that is harmed for a long time.
struct SoakCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "soak",
    abstract: "Run the control plane here for long, do harm to it, and measure what it notices.",
    discussion: """
      Three coordinators, two agents, four runtimes and a switch in network namespaces. Every few seconds a runtime is killed or \
      stopped, its worker stands still, a host is lost, the bus stands still or restarts, or a coordinator is killed or becomes \
      a zombie. Needs root.

      Ends with 0 if every failure was noticed, nobody else was declared dead, and the log verifies.
      """)

  @Option(help: "How long.")
  var minutes = 60.0

  @Option(help: "Another seed draws other harm.")
  var seed: UInt64 = 1

  @Option(help: ArgumentHelp("Where the figures go, as JSON lines.", valueName: "file"))
  var data: String?

  @Option(help: ArgumentHelp("Where nfvactor, nfv-coordinator and nfvctl are.", valueName: "directory"))
  var binaries: String?

  @Flag(help: "Keep the logs of all processes; after a failure they are kept anyway.")
  var keepLogs = false

  func validate() throws {
    guard (0.1...10_000).contains(minutes) else { throw ValidationError("--minutes is a number from 0.1 to 10000") }
  }

  func run() throws {
    Shutdown.listen()
    for number in [SIGINT, SIGTERM, SIGHUP] { signal(number) { _ in Shutdown.request() } }
    var settings = SoakRun.Settings(binaries: binaries ?? LabCommand.ownDirectory())
    settings.minutes = minutes
    settings.seed = seed
    settings.keepsLogs = keepLogs
    let report: SoakReport
    do {
      report = try SoakRun(settings) { Shutdown.isRequested }.run()
      if let data { try TextFile.write(report.jsonLines(), to: data) }
    } catch LabError.notPossible(let obstacle) {
      fail(obstacle, ExitStatus.unavailable)
    } catch {
      fail("\(error)", ExitStatus.failure)
    }
    print(report.text)
    if !report.passed { throw ExitCode(ExitStatus.failure) }
  }
}
