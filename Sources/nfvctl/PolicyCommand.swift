import ArgumentParser
import Configuration
import ControlMessages
import ControlNodes
import ControlPlane

struct PolicyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "policy", abstract: "Say when a cluster gets more runtimes and when fewer.", subcommands: [ActivatePolicy.self])
}

struct ActivatePolicy: OperatorCommand {
  static let configuration = CommandConfiguration(
    commandName: "activate",
    abstract: "Put a scaling policy in force.",
    discussion: """
      Checks the file, then writes the policy into the cluster's log. It decides from there on; the offset it prints is the \
      policy's version, which every command that follows from it names. `kind: manual` gives the counts back to the operator.

      Example:
        nfvctl policy activate -f policy.yaml --cluster web
      """)

  @Option(
    name: [.customShort("f"), .customLong("file")],
    help: ArgumentHelp("The policy's YAML file; - reads it from stdin.", valueName: "file"),
    completion: .file(extensions: ["yaml", "yml"]))
  var file: String

  @Option(help: "The cluster's name.")
  var cluster: ClusterID

  @Flag(help: "Only check the file: the log is not needed.")
  var check = false

  @OptionGroup var output: OutputOptions
  @OptionGroup var log: LogAccess

  func perform() throws {
    let policy = try loadScalingPolicy(file)
    if check {
      if output.output == .text { Terminal.put("\(file): policy \(policy.name) is well formed\n") }
      return
    }
    let follower = try log.readLog(only: cluster)
    guard let known = follower.cluster(cluster) else { throw Complaint.noCluster(cluster) }
    let isUnchanged = known.state.scaling.policy == policy && !known.lacksBeginning
    var version = known.state.scaling.version
    var correlation: String?
    if !isUnchanged {
      var writer = try OperatorLog(log.settings, verb: "policy")
      version = try writer.write(.policyActivated(policy), partition: known.partition)
      correlation = writer.correlation
    }
    let result = isUnchanged ? "unchanged" : "activated"
    let json = JSON.object([
      "cluster": .text(cluster), "policy": .string(policy.name), "result": .string(result), "version": .number(version.value),
      "correlation": correlation.map { JSON.string($0) },
    ])
    switch output.output {
    case .text: Terminal.put("policy \(policy.name)@\(version) of cluster \(cluster) \(result)\n")
    case .json: Terminal.put(json.document)
    case .jsonl: Terminal.put(json.line + "\n")
    }
  }
}
