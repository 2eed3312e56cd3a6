/// A record that could not be read: where it stands, where its bytes stay, and why it was passed over.
public struct DeadLetter: Hashable, Sendable {
  public var topic: String
  public var partition: UInt32
  public var offset: Offset
  public var reason: String

  public init(topic: String, partition: UInt32, offset: Offset, reason: String) {
    self.topic = topic
    self.partition = partition
    self.offset = offset
    self.reason = reason
  }
}
