import ArgumentParser
import Dispatch
import Glibc
import NodeSupport
import Simulation
import Synchronization

/// `nfvactor simulate`: worlds without a network, without a clock and without mercy.
struct SimulateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "simulate",
    abstract: "Play simulated worlds: channels, migrations and workers under loss, reordering, pauses and deaths.",
    discussion: """
      Each seed is a world of its own, with its own faults; everything in it is checked. A world that goes against the rules \
      is named with the command that plays it again. Needs no ports, no log and no rights.

      Ends with 0 if all worlds kept the rules.
      """)

  @Option(
    help: ArgumentHelp(
      "One kind of worlds: \(Scenario.allCases.map(\.rawValue).joined(separator: ", ")); all of them if left out.",
      valueName: "name"))
  var scenario: String?

  @Option(help: "One world.")
  var seed: UInt64?

  @Option(help: "How many worlds of each kind; what a test run plays if left out.")
  var seeds: Int?

  @Option(help: "The first seed.")
  var from: UInt64 = 0

  @Option(help: "That many times the worlds of a test run.")
  var times = 1

  @Option(help: ArgumentHelp("Play worlds with this defect, to see that it is noticed.", valueName: "name"))
  var defect: String?

  private var scenarios: [Scenario] { scenario.map { Scenario(rawValue: $0).map { [$0] } ?? [] } ?? Scenario.allCases }

  func validate() throws {
    guard !scenarios.isEmpty else {
      throw ValidationError(
        "there is no scenario '\(scenario ?? "")'; there are: \(Scenario.allCases.map(\.rawValue).joined(separator: ", "))")
    }
    guard (seeds ?? 1) > 0, times > 0 else { throw ValidationError("--seeds and --times are at least 1") }
    if let defect, !scenarios.allSatisfy({ $0.defects.contains(defect) }) {
      let names = scenarios.flatMap(\.defects)
      throw ValidationError("name a scenario and one of its defects\(names.isEmpty ? "" : ": \(names.joined(separator: ", "))")")
    }
  }

  func run() throws {
    LastWords.listen()
    var failed = 0
    var played = 0
    for scenario in scenarios {
      let first = seed ?? from
      let count = seed == nil ? seeds ?? scenario.usualSeeds * times : 1
      let clock = ContinuousClock()
      let start = clock.now
      let (tally, failures) = play(scenario, first, count)
      let milliseconds = (clock.now - start) / .milliseconds(1)
      played += count
      failed += failures.count
      let events = tally.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
      print("\(scenario.rawValue): \(count) worlds in \(Int(milliseconds)) ms: \(events)")
      for failure in failures.sorted(by: { $0.seed < $1.seed }).prefix(5) {
        print("  \(failure.text)\n  again: \(command(scenario, failure.seed))")
      }
      if failures.isEmpty, count >= 100, let missing = scenario.lacks(tally) {
        print("  in \(count) worlds nothing was \(missing): they prove nothing")
        failed += 1
      }
    }
    print("\(played) worlds, \(failed) failed")
    if failed > 0 { throw ExitCode(ExitStatus.failure) }
  }

  private struct Failure {
    var seed: UInt64
    var text: String
  }

  private func command(_ scenario: Scenario, _ seed: UInt64) -> String {
    "nfvactor simulate --scenario \(scenario.rawValue) --seed \(seed)" + (defect.map { " --defect \($0)" } ?? "")
  }

  /// Seeds are taken one by one by as many threads as there are processors.
  private func play(_ scenario: Scenario, _ first: UInt64, _ count: Int) -> (Scenario.Tally, [Failure]) {
    let results = Mutex<(tally: Scenario.Tally, failures: [Failure])>(([:], []))
    let next = Atomic<Int>(0)
    let threads = min(count, max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))))
    DispatchQueue.concurrentPerform(iterations: threads) { _ in
      while case let index = next.add(1, ordering: .relaxed).oldValue, index < count {
        let seed = first + UInt64(index)
        LastWords.note("\nIt stopped in: \(command(scenario, seed))\n")
        do {
          let tally = try scenario.play(seed: seed, defect: defect)
          results.withLock { $0.tally.merge(tally, uniquingKeysWith: +) }
        } catch {
          results.withLock { $0.failures.append(Failure(seed: seed, text: "\(error)")) }
        }
      }
    }
    return results.withLock { ($0.tally, $0.failures) }
  }
}

/// What each thread says should it be stopped by a broken precondition: which world it was in.
private enum LastWords {
  nonisolated(unsafe) private static var key: pthread_key_t = 0
  private static let longest = 256

  static func listen() {
    pthread_key_create(&key, nil)
    for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT] {
      signal(number) { number in
        if let words = pthread_getspecific(LastWords.key) {
          let text = words.assumingMemoryBound(to: CChar.self)
          _ = write(2, text, strlen(text))
        }
        signal(number, SIG_DFL)
        raise(number)
      }
    }
  }

  static func note(_ text: String) {
    let words = pthread_getspecific(key) ?? malloc(longest)!
    pthread_setspecific(key, words)
    _ = text.withCString { strncpy(words.assumingMemoryBound(to: CChar.self), $0, longest - 1) }
    words.assumingMemoryBound(to: CChar.self)[longest - 1] = 0
  }
}
