import ArgumentParser
import CaptureFiles
import Configuration
import ControlMessages
import DPDKPorts
import Foundation
import NodeSupport
import Nodes
import Wire

struct ProcessCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "process",
    abstract: "Sends a capture through a chain, offline.",
    discussion: """
      The chain file has the keys 'chain' and 'flows' of a cluster file. Packets that pass are written to --out with \
      their timestamps. Every packet is accounted for: in = out + dropped by reason + fragments put together.

      Fragments are dropped, unless --reassemble starts DPDK to put them together as the ports of nodes do.

      Example: nfvactor process --chain examples/chains/pass-through.yaml --in a.pcap --out b.pcap --stats json

      Exit code 0 when the whole capture was read, 1 when it is cut off or damaged in the middle (what came before is \
      processed and reported), 64 for a wrong chain file, 66 for a capture that cannot be opened.
      """)

  enum Stats: String, CaseIterable, ExpressibleByArgument { case text, json, none }

  @Option(name: .long, help: ArgumentHelp("The chain.", valueName: "file.yaml"))
  var chain: String

  @Option(name: .customLong("in"), help: ArgumentHelp("pcap or pcapng to read; '-' for stdin.", valueName: "A.pcap"))
  var input: String

  @Option(name: .customLong("out"), help: ArgumentHelp("pcap to write.", valueName: "B.pcap"))
  var output: String?

  @Option(name: .long, help: "What to print on stdout: text, json or none.")
  var stats = Stats.text

  @Flag(name: .long, help: "Let packets with wrong checksums pass: for captures taken before the NIC filled them in.")
  var trustChecksums = false

  @Flag(name: .long, help: "Put fragments together, as nodes do. Starts DPDK, on ordinary pages.")
  var reassemble = false

  func run() throws {
    let processing: CaptureProcessing
    do {
      processing = try CaptureProcessing(
        spec: loadChainSpec(chain), input: input, output: output, checksums: trustChecksums ? .trust : .verify,
        reassembly: reassemble ? CaptureReassembly() : nil)
    } catch let error as CaptureError {
      fail("\(error)", 66)
    } catch let error as PortError {
      fail("\(error)", ExitStatus.failure)
    } catch let error as SettingsError {
      fail("\(chain):\(error.line): \(error.path): \(error.message)", ExitStatus.usage)
    }
    let report = try processing.run { packets in writeToStandardError("\(packets) packets\n") }
    switch stats {
    case .json:
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
      print(String(decoding: try encoder.encode(report), as: UTF8.self))
    case .text: printText(report)
    case .none: break
    }
    if let fault = report.fault { fail("\(input): reading ended early: \(fault)", ExitStatus.failure) }
  }

  private func printText(_ report: CaptureProcessing.Report) {
    let packets = report.packets
    print("chain    \(report.chain)")
    print("in       \(packets.in) packets, \(packets.inBytes) bytes")
    print("out      \(packets.out) packets, \(packets.outBytes) bytes")
    print("dropped  \(packets.dropped) packets")
    for (reason, count) in report.droppedByReason.sorted(by: { ($1.value, $0.key) < ($0.value, $1.key) }) {
      print("         \(count)  \(reason)")
    }
    print("flows    \(report.flows.count)")
    for flow in report.flows {
      print(
        "         \(flow.protocolNumber) \(flow.source):\(flow.sourcePort) <-> \(flow.destination):\(flow.destinationPort)  "
          + "\(flow.forwardPackets) pkts/\(flow.forwardBytes) bytes <-> \(flow.reversePackets) pkts/\(flow.reverseBytes) bytes  \(flow.ending)")
    }
    for (name, value) in report.observations.sorted(by: { $0.key < $1.key }) { print("\(name) = \(value)") }
  }
}

func writeToStandardError(_ text: String) {
  FileHandle.standardError.write(Data(text.utf8))
}
