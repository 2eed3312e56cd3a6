import ArgumentParser
import Glibc
import Lab
import NodeSupport

/// `nfvactor scaling`: the paper's figure 7d on this machine.
struct ScalingCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "scaling",
    abstract: "Run dynamic scaling here under a load that rises and falls, and draw it.",
    discussion: """
      Starts a bus, a coordinator, an agent, two runtimes and a switch in network namespaces, activates the drop-threshold \
      policy, and sends traffic that rises for 15 seconds and falls for 45 through them. Each runtime's worker has a fixed share \
      of a core, so that several fit on a small machine. Needs root and a kernel with SCHED_DEADLINE.

      Ends with 0 when the run took place, whatever it found.
      """)

  @Flag(help: "A third of the time.")
  var quick = false

  @Option(help: "Packets per second at the top.")
  var peak: UInt64 = 48_000

  @Option(help: "Flows.")
  var flows = 4_000

  @Option(help: ArgumentHelp("A worker's share of a core, in thousandths.", valueName: "share"))
  var workerShare: UInt64 = 50

  @Option(help: ArgumentHelp("Where the data goes, as JSON lines.", valueName: "file"))
  var data = "scaling.jsonl"

  @Option(help: ArgumentHelp("Where the drawing goes.", valueName: "file"))
  var plot = "scaling.svg"

  @Option(help: ArgumentHelp("Where nfvactor, nfv-coordinator and nfvctl are.", valueName: "directory"))
  var binaries: String?

  @Flag(help: "Keep the logs of all processes; after a failure they are kept anyway.")
  var keepLogs = false

  func validate() throws {
    guard (100...1_000_000).contains(peak) else { throw ValidationError("--peak is a number from 100 to 1000000") }
    guard (1...100_000).contains(flows) else { throw ValidationError("--flows is a number from 1 to 100000") }
    guard (10...500).contains(workerShare) else { throw ValidationError("--worker-share is a number from 10 to 500") }
  }

  func run() throws {
    Shutdown.listen()
    for number in [SIGINT, SIGTERM, SIGHUP] { signal(number) { _ in Shutdown.request() } }
    var settings = ScalingRun.Settings(binaries: binaries ?? LabCommand.ownDirectory())
    settings.isQuick = quick
    settings.peak = peak
    settings.flows = flows
    settings.workerShare = workerShare
    settings.keepsLogs = keepLogs
    do {
      let record = try ScalingRun(settings) { Shutdown.isRequested }.run()
      try TextFile.write(record.jsonLines(), to: data)
      try TextFile.write(record.svg(), to: plot)
      print(record.text)
    } catch LabError.notPossible(let obstacle) {
      fail(obstacle, ExitStatus.unavailable)
    } catch {
      fail("\(error)", ExitStatus.failure)
    }
  }
}
