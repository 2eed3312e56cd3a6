import ArgumentParser
import Glibc
import Lab
import NodeSupport

/// `nfvactor recovery`: runtimes that die under traffic on this machine, and how long their flows miss them.
struct RecoveryCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "recovery",
    abstract: "Kill runtimes here under traffic, one after another, and measure how long their flows miss them.",
    discussion: """
      Starts a bus, a coordinator, an agent, a switch and three runtimes with replicas in network namespaces, sends packets that \
      can be told apart through them, and kills the runtime that has the flows with SIGKILL, again and again, each time when \
      every flow has a replica. Needs root.

      Ends with 0 when the run took place, whatever it found.
      """)

  @Option(help: "Flows.")
  var flows = 100_000

  @Option(help: "Runtimes to kill, one after another.")
  var kills = 20

  @Option(help: "Packets per second.")
  var rate: UInt64 = 20_000

  @Option(help: ArgumentHelp("Where the data goes, as JSON lines.", valueName: "file"))
  var data: String?

  @Option(help: ArgumentHelp("Where nfvactor, nfv-coordinator and nfvctl are.", valueName: "directory"))
  var binaries: String?

  @Flag(help: "Keep the logs of all processes; after a failure they are kept anyway.")
  var keepLogs = false

  func validate() throws {
    guard (1...1_000_000).contains(flows) else { throw ValidationError("--flows is a number from 1 to 1000000") }
    guard (1...10_000).contains(kills) else { throw ValidationError("--kills is a number from 1 to 10000") }
    guard (100...1_000_000).contains(rate) else { throw ValidationError("--rate is a number from 100 to 1000000") }
  }

  func run() throws {
    Shutdown.listen()
    for number in [SIGINT, SIGTERM, SIGHUP] { signal(number) { _ in Shutdown.request() } }
    var settings = RecoveryRun.Settings(binaries: binaries ?? LabCommand.ownDirectory())
    (settings.flows, settings.kills, settings.rate, settings.keepsLogs) = (flows, kills, rate, keepLogs)
    do {
      let record = try RecoveryRun(settings) { Shutdown.isRequested }.run()
      if let data { try TextFile.write(record.jsonLines(), to: data) }
      print(record.text)
    } catch LabError.notPossible(let obstacle) {
      fail(obstacle, ExitStatus.unavailable)
    } catch {
      fail("\(error)", ExitStatus.failure)
    }
  }
}
