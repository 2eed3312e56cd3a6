/// The release that this program is of, and what records say about the releases that can follow them.
public enum Release {
  public static let current = "0.1.0"

  /// The first release whose programs can follow this body. A critical event carries it, so that a program that has to stop
  /// at the event can say which one is needed.
  ///
  /// Bodies and decision rules that come with a later release are named here; what is not, came with the first.
  public static func needed(for body: Event.Body) -> String {
    switch body {
    // Decision rules beyond those of the first release come with the release that activates them.
    case .rulesActivated(let version) where version > 5: current
    default: "0.1.0"
    }
  }
}
