/// The protocol's error codes that this broker uses; the numbers are Kafka's.
/// https://kafka.apache.org/protocol#protocol_error_codes
enum ErrorCode: Int16, Error {
  case none = 0
  case offsetOutOfRange = 1
  case corruptMessage = 2
  case unknownTopicOrPartition = 3
  case messageTooLarge = 10
  case coordinatorNotAvailable = 15
  case invalidTopic = 17
  case invalidRequiredAcks = 21
  case unsupportedVersion = 35
  case topicAlreadyExists = 36
  case invalidPartitions = 37
  case invalidReplicationFactor = 38
  case invalidReplicaAssignment = 39
  case invalidConfig = 40
  case invalidRequest = 42
  case unsupportedForMessageFormat = 43
  case policyViolation = 44
  case outOfOrderSequenceNumber = 45
  case duplicateSequenceNumber = 46
  case invalidProducerEpoch = 47
  case invalidTransactionState = 48
  case storageError = 56
  case fetchSessionIDNotFound = 70
  case unknownLeaderEpoch = 75
  case unsupportedCompressionType = 76
  case invalidRecord = 87
}
