import ArgumentParser
import DPDKPorts
import Glibc
import Lab
import NodeSupport

/// `nfvactor lab`: the whole system on this machine, with real clients and servers.
struct LabCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "lab",
    abstract: "Run the whole system here: real clients and servers through two runtimes and a switch.",
    discussion: """
      Makes three network namespaces (client, fabric, servers), starts a bus, a coordinator, an agent and two nginx, \
      applies a cluster, and sends traffic of wrk and curl through it until SIGINT, SIGTERM or --seconds. Shows what \
      the log says. Removes everything it made, also after a failure. Needs root.

      Ends with 0 if there was traffic and no request failed.
      """)

  @Option(help: "Runtimes that share the flows.")
  var runtimes = 2

  @Option(help: "End after so many seconds of traffic; without it, Ctrl-C does.")
  var seconds: Int?

  @Option(help: ArgumentHelp("A cluster file to apply instead of the lab's own.", valueName: "file"))
  var cluster: String?

  @Option(
    help: ArgumentHelp(
      "Where nfvactor, nfv-coordinator and nfvctl are; this program's own directory if not given.", valueName: "directory"))
  var binaries: String?

  @Option(help: ArgumentHelp("Where the summary is written.", valueName: "file"))
  var summary = "lab-summary.json"

  @Flag(help: "Keep the logs of all processes; after a failure they are kept anyway.")
  var keepLogs = false

  @Option(
    help: ArgumentHelp(
      "Kill the coordinator after so many seconds of traffic, and start it again two seconds later.", valueName: "second"))
  var killCoordinatorAt: Int?

  @Option(help: ArgumentHelp("The same with the bus: packets do not need it.", valueName: "second"))
  var killBusAt: Int?

  @Option(
    help: ArgumentHelp("Move all flows of one runtime to the next every so often, with nfvctl.", valueName: "seconds"))
  var migrateEvery: Int?

  @Option(help: "Replicas of each flow on other runtimes: 0, 1 or 2.")
  var replicas = 0

  @Option(
    help: ArgumentHelp(
      "Kill a runtime with SIGKILL every so often, one after another, whenever all flows have replicas.", valueName: "seconds"))
  var killRuntimeEvery: Int?

  @Option(
    help: ArgumentHelp(
      "Kill a runtime and the first holder of its flows with SIGKILL at once every so often, whenever all flows have two replicas.",
      valueName: "seconds"))
  var killPairEvery: Int?

  @Option(help: "Switches: one has the uplinks, the others stand by.")
  var switches = 1

  @Option(
    help: ArgumentHelp(
      "Kill the switch that has the uplinks with SIGKILL every so often, whenever everything serves.", valueName: "seconds"))
  var killSwitchEvery: Int?

  @Option(
    help: ArgumentHelp(
      "Freeze a runtime (SIGSTOP) after so many seconds of traffic: its agent has to see it.", valueName: "second"))
  var freezeRuntimeAt: Int?

  @Option(
    help: ArgumentHelp(
      "Freeze a runtime and its agent, and let both go on when the runtime's flows are another's: a zombie.", valueName: "second"))
  var zombieAt: Int?

  @Option(help: ArgumentHelp("Pull out a runtime's cable to the fabric, until its flows are another's.", valueName: "second"))
  var cutFabricAt: Int?

  @Option(
    help: ArgumentHelp(
      "Give one runtime a host of its own, and cut that host off the bus for six seconds: nobody may be declared dead.",
      valueName: "second"))
  var cutBusAt: Int?

  @Option(
    help: ArgumentHelp(
      "Instead of the usual clients so many long downloads at once, with a packet counter behind the chain that must see neither gap nor reordering.",
      valueName: "count"))
  var transfers: Int?

  @Flag(help: "Clients have IPv6 only; a NAT64 takes them to the servers, which have IPv4 only.")
  var ipv6Clients = false

  @Option(
    help: ArgumentHelp(
      "Harm frames on their way to a runtime or the switch with tc netem: \"delay 1ms 200us loss 0.1%\".", valueName: "words"))
  var netem: String?

  @Option(
    help: ArgumentHelp(
      "The same by the nodes' own ports, on any kernel: \"loss=0.1%;delay=1ms;jitter=200us\".", valueName: "clauses"))
  var impair: String?

  func validate() throws {
    guard (1...16).contains(runtimes) else { throw ValidationError("--runtimes is a number from 1 to 16") }
    guard (1...86_400).contains(seconds ?? 1) else { throw ValidationError("--seconds is a number from 1 to 86400") }
    guard killBusAt ?? 0 >= 0 else { throw ValidationError("--kill-bus-at is a number of seconds") }
    guard killCoordinatorAt ?? 0 >= 0 else { throw ValidationError("--kill-coordinator-at is a number of seconds") }
    guard (1...86_400).contains(migrateEvery ?? 1) else { throw ValidationError("--migrate-every is a number from 1 to 86400") }
    guard (0...2).contains(replicas) else { throw ValidationError("--replicas is 0, 1 or 2") }
    guard replicas < runtimes else { throw ValidationError("--replicas \(replicas) needs \(replicas + 1) runtimes") }
    guard (1...86_400).contains(killRuntimeEvery ?? 1) else { throw ValidationError("--kill-runtime-every is a number from 1 to 86400") }
    guard killRuntimeEvery == nil || replicas > 0 else { throw ValidationError("--kill-runtime-every needs --replicas 1 or 2") }
    guard (1...86_400).contains(killPairEvery ?? 1) else { throw ValidationError("--kill-pair-every is a number from 1 to 86400") }
    guard killPairEvery == nil || (replicas == 2 && runtimes >= 4) else {
      throw ValidationError("--kill-pair-every needs --replicas 2 and four runtimes")
    }
    guard killPairEvery == nil || killRuntimeEvery == nil else {
      throw ValidationError("--kill-pair-every and --kill-runtime-every exclude each other")
    }
    guard (1...4).contains(switches) else { throw ValidationError("--switches is a number from 1 to 4") }
    guard (1...86_400).contains(killSwitchEvery ?? 1) else { throw ValidationError("--kill-switch-every is a number from 1 to 86400") }
    if let impair { do { _ = try PortSpec("null;\(impair)") } catch { throw ValidationError("--impair: \(error)") } }
    for (name, second) in [
      ("--freeze-runtime-at", freezeRuntimeAt), ("--zombie-at", zombieAt), ("--cut-fabric-at", cutFabricAt), ("--cut-bus-at", cutBusAt),
    ] {
      guard let second else { continue }
      guard (0...86_400).contains(second) else { throw ValidationError("\(name) is a number of seconds") }
      guard replicas > 0, runtimes > 2 else { throw ValidationError("\(name) needs --replicas 1 or 2 and three runtimes") }
    }
    guard (1...300).contains(transfers ?? 1) else { throw ValidationError("--transfers is a number from 1 to 300") }
    guard migrateEvery == nil || runtimes > 1 else { throw ValidationError("--migrate-every needs two runtimes") }
  }

  func run() throws {
    Shutdown.listen()
    // Ending takes some seconds; an impatient second Ctrl-C must not leave half a lab behind.
    for number in [SIGINT, SIGTERM, SIGHUP] { signal(number) { _ in Shutdown.request() } }
    for name in LabNetwork.leftovers() {
      print("A lab that was killed left the namespace \(name); 'ip netns delete \(name)' removes it.")
    }

    var settings = Lab.Settings(binaries: binaries ?? Self.ownDirectory())
    settings.runtimes = runtimes
    settings.seconds = seconds
    settings.clusterFile = cluster
    settings.keepsLogs = keepLogs
    settings.killCoordinatorAt = killCoordinatorAt
    settings.killBusAt = killBusAt
    settings.migrateEvery = migrateEvery
    settings.replicas = replicas
    settings.killRuntimeEvery = killRuntimeEvery
    settings.killPairEvery = killPairEvery
    settings.switches = switches
    settings.killSwitchEvery = killSwitchEvery
    settings.freezeRuntimeAt = freezeRuntimeAt
    settings.zombieAt = zombieAt
    settings.cutFabricAt = cutFabricAt
    settings.cutBusAt = cutBusAt
    settings.transfers = transfers
    settings.ipv6Clients = ipv6Clients
    settings.impairment = impair
    settings.netem = netem.map { $0.split(separator: " ").map(String.init) } ?? []
    if let obstacle = Lab.obstacle(settings) { fail(obstacle, ExitStatus.unavailable) }
    let result = Lab(settings) { Shutdown.isRequested }.run()
    print(result.text)
    do {
      try TextFile.write(result.json(), to: summary)
    } catch {
      print("  problem: \(error)")
      throw ExitCode(ExitStatus.failure)
    }
    if !result.passed { throw ExitCode(ExitStatus.failure) }
  }

  static func ownDirectory() -> String {
    var buffer = [CChar](repeating: 0, count: 4_096)
    let count = max(0, readlink("/proc/self/exe", &buffer, buffer.count))
    let path = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
  }
}
