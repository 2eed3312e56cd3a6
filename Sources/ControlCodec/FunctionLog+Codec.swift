import CSchemas
import ControlMessages

extension MessageWriter {
  func functionLog(_ log: FunctionLog) -> UnsafeMutablePointer<Nfvactor__V1__FunctionLog> {
    make(nfvactor__v1__function_log__init) {
      $0.node = log.node.number
      $0.lost = log.lost
      $0.n_entries = log.entries.count
      $0.entries = list(log.entries, entry)
    }
  }

  private func entry(_ entry: FunctionLog.Entry) -> UnsafeMutablePointer<Nfvactor__V1__FunctionLogEntry> {
    make(nfvactor__v1__function_log_entry__init) {
      $0.time = entry.time.milliseconds
      $0.source = text(entry.source)
      $0.source_port = UInt32(entry.sourcePort)
      $0.destination = text(entry.destination)
      $0.destination_port = UInt32(entry.destinationPort)
      $0.protocol = UInt32(entry.protocolNumber)
      switch entry.kind {
      case .alert(let gid, let sid, let revision, let priority, let isDropped):
        $0.kind_case = NFVACTOR__V1__FUNCTION_LOG_ENTRY__KIND_ALERT
        $0.alert = make(nfvactor__v1__function_log_entry__alert__init) {
          $0.gid = gid
          $0.sid = sid
          $0.revision = revision
          $0.priority = UInt32(priority)
          $0.dropped = isDropped ? 1 : 0
        }
      case .ruling(let rule, let isAllowed):
        $0.kind_case = NFVACTOR__V1__FUNCTION_LOG_ENTRY__KIND_RULING
        $0.ruling = make(nfvactor__v1__function_log_entry__ruling__init) {
          $0.rule = rule
          $0.allowed = isAllowed ? 1 : 0
        }
      case .mapping(let event, let vlan):
        $0.kind_case = NFVACTOR__V1__FUNCTION_LOG_ENTRY__KIND_MAPPING
        $0.mapping = make(nfvactor__v1__function_log_entry__mapping__init) {
          $0.event = Nfvactor__V1__FunctionLogEntry__MappingEvent(rawValue: UInt32(event.rawValue))
          $0.vlan = UInt32(vlan)
        }
      }
    }
  }
}

extension MessageReader {
  func functionLog(_ message: Nfvactor__V1__FunctionLog) throws(CodecError) -> FunctionLog {
    FunctionLog(
      node: try node(message.node, "function_log.node"),
      entries: try values(
        message.entries, count: message.n_entries, atMost: FunctionLog.maximumEntries, "function_log.entries", entry),
      lost: message.lost)
  }

  private func entry(_ message: Nfvactor__V1__FunctionLogEntry) throws(CodecError) -> FunctionLog.Entry {
    let field = "function_log.entries"
    guard let sourcePort = UInt16(exactly: message.source_port), let destinationPort = UInt16(exactly: message.destination_port),
      let protocolNumber = UInt8(exactly: message.protocol)
    else { throw .invalid(field: field, reason: "has a port or a protocol out of range") }
    let kind: FunctionLog.Entry.Kind
    switch message.kind_case {
    case NFVACTOR__V1__FUNCTION_LOG_ENTRY__KIND_ALERT:
      let alert = try required(message.alert, field)
      kind = .alert(
        gid: alert.gid, sid: alert.sid, revision: alert.revision, priority: UInt8(clamping: alert.priority),
        isDropped: alert.dropped != 0)
    case NFVACTOR__V1__FUNCTION_LOG_ENTRY__KIND_RULING:
      let ruling = try required(message.ruling, field)
      kind = .ruling(rule: ruling.rule, isAllowed: ruling.allowed != 0)
    case NFVACTOR__V1__FUNCTION_LOG_ENTRY__KIND_MAPPING:
      let mapping = try required(message.mapping, field)
      guard let vlan = UInt16(exactly: mapping.vlan) else { throw .invalid(field: field, reason: "has a VLAN out of range") }
      kind = .mapping(try choice(mapping.event.rawValue, "function_log.entries.mapping"), vlan: vlan)
    default: throw .missing(field: "function_log.entries.kind")
    }
    return FunctionLog.Entry(
      time: Timestamp(milliseconds: message.time), source: try text(message.source, field), sourcePort: sourcePort,
      destination: try text(message.destination, field), destinationPort: destinationPort, protocolNumber: protocolNumber,
      kind: kind)
  }
}
